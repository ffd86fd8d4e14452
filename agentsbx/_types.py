"""Types of the decorator for type checkers: keywords, and what a decorated function offers.

Nothing here runs: at run time a decorated function is a plain `types.FunctionType` with the
attributes that these protocols name.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
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
    overload,
)

if TYPE_CHECKING:
    from agentsbx.policy import Grant, Policy
    from agentsbx.result import Result

__all__ = ["AsyncSandboxed", "Keywords", "Sandboxed"]

P = ParamSpec("P")
Q = ParamSpec("Q")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)

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
    captures: Sequence[str] | None
    raises: type[BaseException] | Sequence[type[BaseException]] | None
    name: str | None
    seed: int | None


class Run(Protocol[P]):
    """`fn.run`: the call as a `Result` that never raises for the body."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result:
        """Run in a fresh sandbox and wait."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result]:
        """Run in a fresh sandbox; cancelling the task kills it."""


class AsyncRun(Protocol[P]):
    """`fn.run` of an `async def` function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result]:
        """Run in a fresh sandbox; cancelling the task kills it."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result]:
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


class Sandboxed(_Common[P, R_co], Protocol[P, R_co]):
    """A sandboxed function: called as before, each call in a fresh sandbox."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call in a fresh sandbox."""

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Sandboxed[P, R_co]: ...
    @overload
    def __get__(
        self: Sandboxed[Concatenate[S, Q], R_co], instance: S, owner: type | None = None, /
    ) -> BoundSandboxed[Q, P, R_co]: ...
    @overload  # a static method reached through an object: nothing is bound
    def __get__(self, instance: object, owner: type | None = None, /) -> Sandboxed[P, R_co]: ...

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox without blocking the event loop."""

    @property
    def run(self) -> Run[P]:
        """The call as a `Result`."""

    @property
    def local(self) -> Callable[P, R_co]:
        """The undecorated function: runs here, without any sandbox."""

    def options(self, **keywords: Any) -> Sandboxed[P, R_co]:
        """Return the same function under another policy."""


class BoundSandboxed(Protocol[Q, P, R_co]):
    """A sandboxed method of one object. The verbs still take the object first: `K.m.run(k, 2)`."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
        """Call in a fresh sandbox; the object is shipped along."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox without blocking the event loop."""

    @property
    def run(self) -> Run[P]:
        """The call as a `Result`."""


class AsyncSandboxed(_Common[P, R_co], Protocol[P, R_co]):
    """A sandboxed `async def` function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox."""

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> AsyncSandboxed[P, R_co]: ...
    @overload
    def __get__(
        self: AsyncSandboxed[Concatenate[S, Q], R_co], instance: S, owner: type | None = None, /
    ) -> BoundAsyncSandboxed[Q, P, R_co]: ...
    @overload  # a static method reached through an object: nothing is bound
    def __get__(
        self, instance: object, owner: type | None = None, /
    ) -> AsyncSandboxed[P, R_co]: ...

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox without blocking the event loop."""

    @property
    def run(self) -> AsyncRun[P]:
        """The call as a `Result`."""

    @property
    def local(self) -> Callable[P, Coroutine[Any, Any, R_co]]:
        """The undecorated function: runs here, without any sandbox."""

    def options(self, **keywords: Any) -> AsyncSandboxed[P, R_co]:
        """Return the same function under another policy."""


class BoundAsyncSandboxed(Protocol[Q, P, R_co]):
    """A sandboxed async method of one object. The verbs take the object first."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox; the object is shipped along."""

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Call in a fresh sandbox without blocking the event loop."""

    @property
    def run(self) -> AsyncRun[P]:
        """The call as a `Result`."""


class Decorator(Protocol):
    """What `sandbox(policy)` and `sandbox(read=...)` return."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the narrower one is first on purpose
        self, fn: Callable[P, Coroutine[Any, Any, R_co]], /
    ) -> AsyncSandboxed[P, R_co]: ...
    @overload
    def __call__(self, fn: Callable[P, R_co], /) -> Sandboxed[P, R_co]: ...
