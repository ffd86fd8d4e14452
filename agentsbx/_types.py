"""Types of the decorator for type checkers: keywords, and what a decorated function offers.

Nothing here runs: at run time a decorated function is a plain `types.FunctionType` with the
attributes that these protocols name.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future
from os import PathLike
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

if TYPE_CHECKING:
    from agentsbx.policy import Grant, Policy
    from agentsbx.result import Result

__all__ = ["AsyncSandboxed", "AsyncStreamSandboxed", "Keywords", "Sandboxed", "StreamSandboxed"]

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)
Y_co = TypeVar("Y_co", covariant=True)
Z = TypeVar("Z")
T = TypeVar("T")
S_contra = TypeVar("S_contra", contravariant=True)

StrPath = str | PathLike[str]
Size = int | str | None
Time = int | float | str | None
Count = int | str | None
OutputMode = Literal["forward", "stderr", "capture", "discard"]


class Keywords(TypedDict, total=False):
    """What `sandbox(...)`, `fn.options(...)` and `agentsbx.run(...)` take (semantics section 7).

    A bare string or path is a list of one; `None` is the default, `"unlimited"` is none; sizes are
    bytes or `"512MB"` (10^6) and `"512MiB"` (2^20), times are seconds or `"30s"`.
    """

    read: StrPath | Grant | Sequence[StrPath | Grant] | None
    write: StrPath | Grant | Sequence[StrPath | Grant] | None
    env: str | Sequence[str] | Mapping[str, str | None] | None
    net: str | Sequence[str] | Literal[False] | None
    memory: Size
    cpu_time: Time
    cpus: float | str | None
    cpu_set: str | int | Sequence[int] | None
    timeout: Time
    processes: Count
    open_files: Count
    file_size: Size
    disk: Size
    inodes: Count
    output: Size | OutputMode
    result: Size
    buffers: Size
    profile: Literal["python", "strict", "build"] | None
    syscalls: str | Sequence[str] | None
    preload: str | Sequence[str] | None
    strict: bool
    on_missing: Literal["error", "weaken"] | None
    on_violation: Literal["raise", "record"] | None
    strict_violations: bool
    reveal: bool
    fresh: bool
    python: StrPath | None
    packages: StrPath | Sequence[StrPath] | None
    captures: Sequence[str] | None
    raises: type[BaseException] | Sequence[type[BaseException]] | None
    keep: StrPath | Sequence[StrPath] | None
    host: (
        Callable[..., Any] | Sequence[Callable[..., Any]] | Mapping[str, Callable[..., Any]] | None
    )
    host_args: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None
    host_calls: int | None
    host_bytes: int | str | None
    host_rate: float | None
    on_output: Callable[[str, str], object] | None
    name: str | None
    seed: int | None


class Run(Protocol[P, R_co]):
    """`fn.run`: the call as a `Result` that never raises for the body."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result[R_co]:
        """Run in a fresh sandbox and wait."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result[R_co]]:
        """Run in a fresh sandbox; cancelling the task kills it."""


class AsyncRun(Protocol[P, R_co]):
    """`fn.run` of an `async def` function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result[R_co]]:
        """Run in a fresh sandbox; cancelling the task kills it."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result[R_co]]:
        """Run in a fresh sandbox; cancelling the task kills it."""


class _Common(Protocol[P, R_co]):
    __name__: str
    __qualname__: str
    __doc__: str | None

    @property
    def __wrapped__(self) -> Callable[P, Any]:
        """The user's function; what stands here at the call is what runs."""

    @property
    def policy(self) -> Policy:
        """The policy that each call gets."""

    def explain(self) -> str:
        """Say in words what a call may do and what crosses into it."""


class _Method(Protocol[S_contra, Q]):
    """Anything that takes the object (or class) that it is a method of first.

    The `self` of `__get__` below. With `Sandboxed[Concatenate[S, Q], ...]` there mypy would bind
    the first argument of a static method to any object.
    """

    def __call__(self, first: S_contra, /, *args: Q.args, **kwargs: Q.kwargs) -> Any:
        """Call it unbound."""


class Sandboxed(_Common[P, R_co], Protocol[P, R_co]):
    """A sandboxed function: called as before, each call in a fresh sandbox."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call in a fresh sandbox."""

    @overload  # a class method, reached through its class or an object
    def __get__(
        self: _Method[type[S], Q], instance: object, owner: type[S], /
    ) -> BoundSandboxed[Q, P, R_co]: ...
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Sandboxed[P, R_co]: ...
    @overload
    def __get__(
        self: _Method[S, Q], instance: S, owner: type | None = None, /
    ) -> BoundSandboxed[Q, P, R_co]: ...
    @overload  # a static method reached through an object: nothing is bound
    def __get__(self, instance: object, owner: type | None = None, /) -> Sandboxed[P, R_co]: ...

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox without blocking the event loop."""

    def submit(self: Sandboxed[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call in a fresh sandbox, in the background; cancelling the future kills it."""

    def map(
        self,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        progress: bool | str = False,
    ) -> Iterator[R_co]:
        """Call for each, several at once; values in order."""

    @property
    def run(self) -> Run[P, R_co]:
        """The call as a `Result`."""

    @property
    def local(self) -> Callable[P, R_co]:
        """The undecorated function: runs here, without any sandbox."""

    def options(self, **keywords: Unpack[Keywords]) -> Sandboxed[P, R_co]:
        """Return the same function under another policy."""


class BoundSandboxed(_Common[P, R_co], Protocol[Q, P, R_co]):
    """A sandboxed method of one object. The verbs still take the object first: `K.m.run(k, 2)`."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
        """Call in a fresh sandbox; the object is shipped along."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox without blocking the event loop."""

    @property
    def run(self) -> Run[P, R_co]:
        """The call as a `Result`."""

    @property
    def local(self) -> Callable[P, R_co]:
        """The undecorated function: runs here, without any sandbox."""

    def options(self, **keywords: Unpack[Keywords]) -> Sandboxed[P, R_co]:
        """Return the function, not bound to the object, under another policy."""


class AsyncSandboxed(_Common[P, R_co], Protocol[P, R_co]):
    """A sandboxed `async def` function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox."""

    @overload  # a class method, reached through its class or an object
    def __get__(
        self: _Method[type[S], Q], instance: object, owner: type[S], /
    ) -> BoundAsyncSandboxed[Q, P, R_co]: ...
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> AsyncSandboxed[P, R_co]: ...
    @overload
    def __get__(
        self: _Method[S, Q], instance: S, owner: type | None = None, /
    ) -> BoundAsyncSandboxed[Q, P, R_co]: ...
    @overload  # a static method reached through an object: nothing is bound
    def __get__(
        self, instance: object, owner: type | None = None, /
    ) -> AsyncSandboxed[P, R_co]: ...

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox without blocking the event loop."""

    def submit(self: AsyncSandboxed[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call in a fresh sandbox, in the background; cancelling the future kills it."""

    def map(
        self,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        progress: bool | str = False,
    ) -> AsyncIterator[R_co]:
        """Call for each, several at once; values in order."""

    @property
    def run(self) -> AsyncRun[P, R_co]:
        """The call as a `Result`."""

    @property
    def local(self) -> Callable[P, Coroutine[Any, Any, R_co]]:
        """The undecorated function: runs here, without any sandbox."""

    def options(self, **keywords: Unpack[Keywords]) -> AsyncSandboxed[P, R_co]:
        """Return the same function under another policy."""


class BoundAsyncSandboxed(_Common[P, R_co], Protocol[Q, P, R_co]):
    """A sandboxed async method of one object. The verbs take the object first."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox; the object is shipped along."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox without blocking the event loop."""

    @property
    def run(self) -> AsyncRun[P, R_co]:
        """The call as a `Result`."""

    @property
    def local(self) -> Callable[P, Coroutine[Any, Any, R_co]]:
        """The undecorated function: runs here, without any sandbox."""

    def options(self, **keywords: Unpack[Keywords]) -> AsyncSandboxed[P, R_co]:
        """Return the function, not bound to the object, under another policy."""


class StreamSandboxed(_Common[P, R_co], Protocol[P, R_co, Y_co]):
    """A sandboxed generator function: `R_co` is the generator, `Y_co` one item."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Stream from one fresh sandbox."""

    @overload
    def __get__(
        self, instance: None, owner: type | None = None, /
    ) -> StreamSandboxed[P, R_co, Y_co]: ...
    @overload
    def __get__(
        self: StreamSandboxed[Concatenate[S, Q], R_co, Y_co],
        instance: S,
        owner: type | None = None,
        /,
    ) -> BoundStreamSandboxed[Q, P, R_co, Y_co]: ...
    @overload  # a static method reached through an object: nothing is bound
    def __get__(
        self, instance: object, owner: type | None = None, /
    ) -> StreamSandboxed[P, R_co, Y_co]: ...

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Y_co]:
        """Stream without blocking the event loop."""

    @property
    def run(self) -> Run[P, Sequence[Y_co]]:
        """All items as the list in a `Result`."""

    @property
    def local(self) -> Callable[P, R_co]:
        """The undecorated function: runs here, without any sandbox."""

    def options(self, **keywords: Unpack[Keywords]) -> StreamSandboxed[P, R_co, Y_co]:
        """Return the same function under another policy."""


class BoundStreamSandboxed(Protocol[Q, P, R_co, Y_co]):
    """A sandboxed generator method of one object. The verbs take the object first."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
        """Stream from one fresh sandbox; the object is shipped along."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Y_co]:
        """Stream without blocking the event loop."""

    @property
    def run(self) -> Run[P, Sequence[Y_co]]:
        """All items as the list in a `Result`."""


class AsyncStreamSandboxed(_Common[P, R_co], Protocol[P, R_co, Y_co]):
    """A sandboxed async generator function: `R_co` is the generator, `Y_co` one item."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Stream from one fresh sandbox."""

    @overload
    def __get__(
        self, instance: None, owner: type | None = None, /
    ) -> AsyncStreamSandboxed[P, R_co, Y_co]: ...
    @overload
    def __get__(
        self: AsyncStreamSandboxed[Concatenate[S, Q], R_co, Y_co],
        instance: S,
        owner: type | None = None,
        /,
    ) -> BoundAsyncStreamSandboxed[Q, P, R_co, Y_co]: ...
    @overload  # a static method reached through an object: nothing is bound
    def __get__(
        self, instance: object, owner: type | None = None, /
    ) -> AsyncStreamSandboxed[P, R_co, Y_co]: ...

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Y_co]:
        """Stream without blocking the event loop."""

    @property
    def run(self) -> AsyncRun[P, Sequence[Y_co]]:
        """All items as the list in a `Result`."""

    @property
    def local(self) -> Callable[P, R_co]:
        """The undecorated function: runs here, without any sandbox."""

    def options(self, **keywords: Unpack[Keywords]) -> AsyncStreamSandboxed[P, R_co, Y_co]:
        """Return the same function under another policy."""


class BoundAsyncStreamSandboxed(Protocol[Q, P, R_co, Y_co]):
    """A sandboxed async generator method of one object. The verbs take the object first."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
        """Stream from one fresh sandbox; the object is shipped along."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Y_co]:
        """Stream without blocking the event loop."""

    @property
    def run(self) -> AsyncRun[P, Sequence[Y_co]]:
        """All items as the list in a `Result`."""


class Decorator(Protocol):
    """What `sandbox(policy)` and `sandbox(read=...)` return."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the narrower ones are first on purpose
        self, fn: Callable[P, Coroutine[Any, Any, R_co]], /
    ) -> AsyncSandboxed[P, R_co]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[P, AsyncGenerator[Y_co, Z]], /
    ) -> AsyncStreamSandboxed[P, AsyncGenerator[Y_co, Z], Y_co]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[P, AsyncIterator[Y_co]], /
    ) -> AsyncStreamSandboxed[P, AsyncIterator[Y_co], Y_co]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[P, Generator[Y_co, Z, R_co]], /
    ) -> StreamSandboxed[P, Generator[Y_co, Z, R_co], Y_co]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[P, Iterator[Y_co]], /
    ) -> StreamSandboxed[P, Iterator[Y_co], Y_co]: ...
    @overload
    def __call__(self, fn: Callable[P, R_co], /) -> Sandboxed[P, R_co]: ...
