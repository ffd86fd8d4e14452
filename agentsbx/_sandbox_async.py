"""`AsyncSandbox`: a `Sandbox` whose verbs are awaited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack

from agentsbx._load import load
from agentsbx._sandbox import Sandbox
from agentsbx._sandbox_core import Command, Duration, Path, Process
from agentsbx._session_result import ExecResult, FileInfo

if TYPE_CHECKING:
    from agentsbx._python_result import PythonResult
    from agentsbx._types import Keywords
    from agentsbx.policy import Policy

__all__ = ["AsyncProcess", "AsyncSandbox"]

P = ParamSpec("P")
T = TypeVar("T")


class AsyncProcess:
    """A `Process` for asyncio: iterate with `async for`, `await process.wait()`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.id, self.pid = process.id, process.pid

    async def __aiter__(self) -> Any:
        events = iter(self._process)
        while (got := await self._in_thread(lambda: next(events, None))) is not None:
            yield got

    async def wait(self, timeout: Duration | None = None) -> ExecResult:
        """Return how it ended; cancelling the task kills it with its tree."""
        result: ExecResult = await self._in_thread(lambda: self._process.wait(timeout))
        return result

    async def write(self, data: bytes | str) -> None:
        """Write to its standard input."""
        await self._in_thread(lambda: self._process.write(data))

    async def _in_thread(self, do: Callable[[], Any]) -> Any:
        from agentsbx._await import in_thread

        cancel = load("_job").Cancel()
        cancel.arm(self._process.kill)
        return await in_thread(do, cancel)

    def close_stdin(self) -> None:
        """Let it read the end of its standard input."""
        self._process.close_stdin()

    def send_signal(self, number: int) -> bool:
        """Send a signal to its process group."""
        return self._process.send_signal(number)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        self._process.resize(rows, columns)

    def kill(self) -> None:
        """End it with its whole tree."""
        self._process.kill()


class AsyncSandbox:
    """A `Sandbox` for asyncio: the same verbs, awaited. Usable from several loops.

    Cancelling a task that awaits `exec` kills that program with its tree, at once.

    >>> async with AsyncSandbox() as box:  # doctest: +SKIP
    ...     print((await box.exec("echo hi")).text)
    hi
    """

    def __init__(
        self, policy: Policy | Path | None = None, /, *, cwd: Path | None = None,
        ttl: Duration | None = None, idle: Duration | None = None,
        **keywords: Unpack[Keywords],
    ) -> None:  # fmt: skip
        self._box = Sandbox(policy, cwd=cwd, ttl=ttl, idle=idle, **keywords)

    @property
    def id(self) -> str:
        """A name that no other session has."""
        return self._box.id

    @property
    def policy(self) -> Policy:
        """What is enforced."""
        return self._box.policy

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _in_thread(self, do: Callable[[], T], cancel: Any = None) -> T:
        from agentsbx._await import in_thread

        return await in_thread(do, cancel or load("_job").Cancel())

    async def close(self) -> None:
        """End the sandbox with all that runs in it."""
        await self._in_thread(self._box.close)

    kill = close

    async def exec(
        self, command: Command, /, *, stdin: bytes | str | None = None, cwd: Path | None = None,
        env: Mapping[str, str] | None = None, timeout: Duration | None = None,
        user: str | None = None, tty: bool = False, keep_background: bool = False,
    ) -> ExecResult:  # fmt: skip
        """Do what `Sandbox.exec` does; cancelling the task kills the program with its tree."""
        cancel = load("_job").Cancel()
        return await self._in_thread(
            lambda: self._box._core.exec(
                command, stdin=stdin, cwd=cwd, env=env, timeout=timeout, user=user, tty=tty,
                keep=keep_background, cancel=cancel,
            ),
            cancel,
        )  # fmt: skip

    async def start(
        self, command: Command, /, *, stdin: bytes | str | bool | None = None,
        cwd: Path | None = None, env: Mapping[str, str] | None = None,
        timeout: Duration | None = None, user: str | None = None, tty: bool = False,
        background: bool = False,
    ) -> AsyncProcess:  # fmt: skip
        """Do what `Sandbox.start` does."""
        return AsyncProcess(
            await self._in_thread(
                lambda: self._box.start(
                    command, stdin=stdin, cwd=cwd, env=env, timeout=timeout, user=user, tty=tty,
                    background=background,
                )
            )
        )  # fmt: skip

    async def python(self, code: str, /, *, timeout: Duration | None = None) -> PythonResult:
        """Do what `Sandbox.python` does; cancelling the task ends the interpreter."""
        python = await self._in_thread(self._box._core.python)
        with self._box._core.in_use():
            return await python.python_async(code, timeout)  # type: ignore[no-any-return]

    async def call(self, fn: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Do what `Sandbox.call` does; cancelling the task ends the interpreter."""
        __tracebackhide__ = True
        python = await self._in_thread(self._box._core.python)
        with self._box._core.in_use():
            return await python.call_async(fn, args, kwargs)

    async def read(self, path: Path, /, *, max_bytes: int | str = "64MB") -> bytes:
        """Do what `Sandbox.read` does."""
        return await self._in_thread(lambda: self._box.read(path, max_bytes=max_bytes))

    async def write(
        self, path: Path, data: bytes | str, /, *, mode: int = 0o644, append: bool = False,
        new: bool = False,
    ) -> None:  # fmt: skip
        """Do what `Sandbox.write` does."""
        await self._in_thread(
            lambda: self._box.write(path, data, mode=mode, append=append, new=new)
        )

    async def list(self, path: Path = ".", /) -> list[FileInfo]:
        """Do what `Sandbox.list` does."""
        return await self._in_thread(lambda: self._box.list(path))

    async def stat(self, path: Path, /, *, follow: bool = True) -> FileInfo:
        """Do what `Sandbox.stat` does."""
        return await self._in_thread(lambda: self._box.stat(path, follow=follow))

    async def remove(self, path: Path, /, *, recursive: bool = False) -> None:
        """Do what `Sandbox.remove` does."""
        await self._in_thread(lambda: self._box.remove(path, recursive=recursive))

    async def rename(self, path: Path, to: Path, /, *, replace: bool = True) -> None:
        """Do what `Sandbox.rename` does."""
        await self._in_thread(lambda: self._box.rename(path, to, replace=replace))

    async def mkdir(self, path: Path, /, *, parents: bool = False, mode: int = 0o755) -> None:
        """Do what `Sandbox.mkdir` does."""
        await self._in_thread(lambda: self._box.mkdir(path, parents=parents, mode=mode))

    async def upload(self, source: Path, target: Path, /) -> None:
        """Do what `Sandbox.upload` does."""
        await self._in_thread(lambda: self._box.upload(source, target))

    async def download(
        self, source: Path, target: Path, /, *, max_bytes: int | str = "1GB"
    ) -> None:
        """Do what `Sandbox.download` does."""
        await self._in_thread(lambda: self._box.download(source, target, max_bytes=max_bytes))
