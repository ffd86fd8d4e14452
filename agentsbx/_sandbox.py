"""Sessions: a sandbox that is kept between programs, cells, calls and file operations.

`Sandbox` blocks, `AsyncSandbox` is awaited; both are thin over the same `_Core`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack

from agentsbx._load import load
from agentsbx._session_result import ExecResult, FileInfo
from agentsbx._units import parse_bytes, parse_duration
from agentsbx.errors import SandboxUnavailable

if TYPE_CHECKING:
    from agentsbx._python_result import PythonResult
    from agentsbx._types import Keywords
    from agentsbx.policy import Policy

__all__ = ["AsyncProcess", "AsyncSandbox", "Process", "Sandbox"]

P = ParamSpec("P")
T = TypeVar("T")
Command = str | Sequence[str | os.PathLike[str]]
Path = str | os.PathLike[str]
Duration = float | int | str
_SHELL = "/bin/sh"
_DEFAULT_SIZE = 24, 80


def _words(command: Command) -> list[str]:
    """Return the words to execute: a text is a line for the shell."""
    if isinstance(command, str):
        return [_SHELL, "-c", command]
    if isinstance(command, (bytes, os.PathLike)):
        raise TypeError(f"a command is a shell line or a list of words, not {command!r}")
    words = [os.fspath(word) for word in command]
    if not words:
        raise ValueError("a command needs at least the name of a program")
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"a word of a command is text, not {type(word).__name__}")
        if "\0" in word:
            raise ValueError("a word of a command has no NUL character")
    return words


class Process:
    """A program that runs in a session; `Sandbox.start` returns it.

    Iterate over it for its output as it comes: pairs of `"stdout"` or `"stderr"` and bytes. When
    the last reference is gone the program ends with its tree, unless the session holds it
    (`background=True`).
    """

    def __init__(self, running: Any, stdin: int, terminal: int, timeout_s: float) -> None:
        self.id = f"p{running.pid}"
        self.pid: int = running.pid
        self._running = running
        self._stdin = stdin
        self._terminal = terminal
        self._timeout_s = timeout_s

    def __iter__(self) -> Iterator[tuple[Literal["stdout", "stderr"], bytes]]:
        """Give what it prints as it comes, until it ends."""
        yield from self._running.events(self._timeout_s)

    def wait(self, timeout: Duration | None = None) -> ExecResult:
        """Return how it ended; when `timeout` is over it is killed, and `timed_out` says so."""
        self.close_stdin()
        seconds = self._timeout_s if timeout is None else parse_duration("timeout", timeout)
        try:
            result: ExecResult = self._running.finish(seconds)
        finally:
            self._close_terminal()
        return result

    def poll(self) -> ExecResult | None:
        """Return how it ended, None while it runs. Output that waits is taken."""
        self._running.take_waiting()
        result: ExecResult | None = self._running.result
        return result

    def write(self, data: bytes | str) -> None:
        """Write to its standard input (`stdin=True`, or a terminal). Blocks while that is full."""
        fd = self._terminal if self._terminal >= 0 else self._stdin
        if fd < 0:
            raise ValueError("this program has no input to write to: start it with stdin=True")
        view = memoryview(data.encode() if isinstance(data, str) else data)
        while view:
            view = view[os.write(fd, view) :]

    def close_stdin(self) -> None:
        """Let it read the end of its standard input."""
        fd, self._stdin = self._stdin, -1
        if fd >= 0:
            os.close(fd)

    def send_signal(self, number: int) -> bool:
        """Send a signal to its process group; False when it has ended."""
        sent: bool = self._running.signal(number)
        return sent

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal; the program gets SIGWINCH."""
        if self._terminal < 0:
            raise ValueError("this program has no terminal: start it with tty=True")
        _set_size(self._terminal, rows, columns)

    def kill(self) -> None:
        """End it with its whole tree."""
        self._running.kill()

    def _close_terminal(self) -> None:
        self._terminal = -1  # the descriptor is the output's too, which closes it

    def __del__(self) -> None:
        self.close_stdin()

    def __repr__(self) -> str:
        state = self._running.result or "running"
        return f"<Process {self.id} {state}>"


def _set_size(fd: int, rows: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class _Core:
    """What both kinds of sessions do, blocking."""

    def __init__(
        self, policy: Any, keywords: dict[str, Any], cwd: Path | None, ttl: Duration | None,
        idle: Duration | None,
    ) -> None:  # fmt: skip
        from agentsbx._decorator import resolve

        rules, options = resolve(policy, keywords)
        if options:
            raise TypeError(f"{next(iter(options))!r} is for decorated functions, not for a session")
        self.policy: Policy = rules
        place = os.fspath(cwd) if cwd is not None else None
        if place is not None and not os.path.isabs(place):
            raise ValueError(f"cwd={place!r}: name an absolute path of the sandbox")
        ttl_s = -1.0 if ttl is None else parse_duration("ttl", ttl)
        self.idle_s = -1.0 if idle is None else parse_duration("idle", idle)
        self.session = load("_session").Session(rules, place, ttl_s)
        self.files = load("_session_files").Files(self.session)
        self.processes: dict[str, Process] = {}
        self._python: Any = None
        self._lock = threading.Lock()
        self._busy = 0
        self._timer: threading.Timer | None = None

    # -- life -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While this lasts the session is not idle."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self.session.last_use = time.monotonic()
                if self.idle_s >= 0 and self._timer is None:
                    self._watch(self.idle_s)

    def _watch(self, seconds: float) -> None:
        reference = weakref.ref(self)

        def look() -> None:
            core = reference()
            if core is not None:
                core._look()

        self._timer = threading.Timer(seconds, look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        """End the session where nothing has used it for `idle=`."""
        with self._lock:
            self._timer = None
            left = self.session.last_use + self.idle_s - time.monotonic()
            running = self._busy or any(p.poll() is None for p in self.processes.values())
            if running or left > 0:
                self._watch(max(left, 0.05) if not running else self.idle_s)
                return
        with contextlib.suppress(Exception):
            self.close(
                SandboxUnavailable(
                    f"this session ended: unused for idle={self.idle_s:g} s",
                    missing=["session"], hint="make another Sandbox, or a longer idle=",
                )  # fmt: skip
            )

    def close(self, over: BaseException | None = None) -> None:
        """End it with all that runs in it."""
        with self._lock:
            timer, self._timer = self._timer, None
            python, self._python = self._python, None
        if timer is not None:
            timer.cancel()
        self.session.close(over)
        if python is not None:
            python.close()
        self.processes.clear()

    # -- programs ---------------------------------------------------------------------------------

    def start(
        self, command: Command, *, stdin: Any, cwd: Path | None, env: Mapping[str, str] | None,
        timeout_s: float, user: Any, tty: bool, keep: bool,
    ) -> Process:  # fmt: skip
        """Start a program."""
        _refuse_user(user)
        words = _words(command)
        program = load("_session_program")
        opened: list[int] = []  # ours until the program has them
        kept: list[int] = []
        try:
            if tty:
                import pty

                master, slave = pty.openpty()
                os.set_inheritable(master, False)
                kept.append(master)
                opened.append(slave)
                _set_size(master, *_DEFAULT_SIZE)
                fds, out, err, feed = (slave, slave, slave), master, -1, -1
            else:
                given, feed = _input(stdin, opened, kept)
                out, out_end = os.pipe2(os.O_CLOEXEC)
                kept.append(out)
                opened.append(out_end)
                err, err_end = os.pipe2(os.O_CLOEXEC)
                kept.append(err)
                opened.append(err_end)
                fds = given, out_end, err_end
            flags = (program.TTY if tty else 0) | (program.KEEP if keep else 0)
            reply, pid = program.start(
                self.session, words, env=dict(env) if env else None,
                cwd=self.session.in_here(cwd), fds=fds, flags=flags,
            )  # fmt: skip
        except BaseException:
            for fd in kept:
                os.close(fd)
            raise
        finally:
            for fd in opened:
                os.close(fd)
        limit = self.policy.limits.output
        running = program.Running(self.session, reply, pid, out, err, limit)
        return Process(running, feed, master if tty else -1, timeout_s)

    def exec(
        self, command: Command, *, stdin: Any, cwd: Path | None, env: Mapping[str, str] | None,
        timeout: Duration | None, user: Any, tty: bool, keep: bool, cancel: Any,
    ) -> ExecResult:  # fmt: skip
        """Run a program to its end."""
        if tty and stdin is not None:
            raise ValueError("with tty=True input is typed: start() the program and write() to it")
        limits = self.policy.limits
        seconds = limits.timeout if timeout is None else parse_duration("timeout", timeout)
        program = load("_session_program")
        with self.in_use():
            try:
                process = self.start(
                    command, stdin=stdin, cwd=cwd, env=env, timeout_s=seconds, user=user, tty=tty,
                    keep=keep,
                )  # fmt: skip
            except program.NotStarted as e:
                return ExecResult(exit_code=e.code, stderr=str(e).encode())
            cancel.arm(process.kill)
            try:
                return process.wait(seconds)
            finally:
                cancel.arm(None)

    # -- Python -----------------------------------------------------------------------------------

    def python(self) -> Any:
        """Return the interpreter's verbs."""
        with self._lock:
            if self._python is None:
                from agentsbx._sandbox_python import SessionPython

                self.session.open()
                self._python = SessionPython(load("_session_python").Home(self.session))
            return self._python

    # -- files ------------------------------------------------------------------------------------

    def upload(self, source: Path, target: Path) -> None:
        """Copy a file or directory of the host into the sandbox."""
        with self.in_use():
            load("_session_copy").upload(self.files, os.fspath(source), os.fspath(target))

    def download(self, source: Path, target: Path, max_bytes: int) -> None:
        """Copy a file or directory of the sandbox to the host."""
        with self.in_use():
            load("_session_copy").download(
                self.files, os.fspath(source), os.fspath(target), max_bytes
            )


def _input(stdin: Any, opened: list[int], kept: list[int]) -> tuple[int, int]:
    """Return what the program reads, and our end where we write to it."""
    if stdin is True:
        given, feed = os.pipe2(os.O_CLOEXEC)
        opened.append(given)
        kept.append(feed)
        return given, feed
    if stdin is None or stdin is False:
        given = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    elif isinstance(stdin, (bytes, bytearray, memoryview, str)):
        from agentsbx import _transfer

        data = stdin.encode() if isinstance(stdin, str) else stdin
        given = _transfer.new_memfd("stdin")
        opened.append(given)
        _transfer.pwrite_all(given, memoryview(data), 0)
        return given, -1
    else:
        raise TypeError(f"stdin is bytes, text or True, not {type(stdin).__name__}")
    opened.append(given)
    return given, -1


def _refuse_user(user: Any) -> None:
    if user is not None:
        raise SandboxUnavailable(
            f"user={user!r}: programs of a session run as its one user",
            missing=["several users in one sandbox"], hint="leave user= out",
        )  # fmt: skip


class Sandbox:
    """A sandbox that is kept: programs, Python cells, calls and files in one place.

    `policy` and `keywords` are those of `sandbox`: a `Policy`, a preset's name, a TOML file, or
    keywords. `cwd` is the directory that relative paths start from (default: the private `$HOME`).
    The sandbox is made by the first use, by one thread if several come at once, and ends with
    `close`, with the `with` block, with the last reference, or with this process. `ttl` ends it
    that long after its start, `idle` that long after its last use (seconds, or `"10min"`).

    The policy's `timeout` holds for each program and cell, its other limits for all of them
    together. What one program leaves in the sandbox the next one finds.

    Raises `SandboxUnavailable` where the policy cannot be enforced, `PolicyError`.
    Enforced by: what `sandbox` is, and pid 1 of the sandbox (csrc/reaper/session.h).

    >>> with Sandbox(memory="256MB") as box:  # doctest: +SKIP
    ...     box.write("a.txt", "hello")
    ...     box.exec("wc -c < a.txt").text
    '5\\n'
    """

    def __init__(
        self, policy: Policy | Path | None = None, /, *, cwd: Path | None = None,
        ttl: Duration | None = None, idle: Duration | None = None,
        **keywords: Unpack[Keywords],
    ) -> None:  # fmt: skip
        self._core = _Core(policy, dict(keywords), cwd, ttl, idle)
        self._end = weakref.finalize(self, _end_quietly, self._core)

    @property
    def id(self) -> str:
        """A name that no other session has."""
        name: str = self._core.session.id
        return name

    @property
    def policy(self) -> Policy:
        """What is enforced."""
        return self._core.policy

    @property
    def processes(self) -> dict[str, Process]:
        """The programs that were started with `background=True`, by id."""
        return dict(self._core.processes)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the sandbox with all that runs in it. Idempotent."""
        self._end.detach()
        self._core.close()

    kill = close

    def exec(
        self, command: Command, /, *, stdin: bytes | str | None = None, cwd: Path | None = None,
        env: Mapping[str, str] | None = None, timeout: Duration | None = None,
        user: str | None = None, tty: bool = False, keep_background: bool = False,
    ) -> ExecResult:  # fmt: skip
        r"""Run a program (a list of words) or a shell line (text), wait, and say how it ended.

        `stdin` is what it reads (default: nothing). `env` adds variables, `cwd` is relative to the
        session's. `timeout` (seconds, `"10s"`; default: the policy's) kills it with its whole tree;
        what it had printed is in the result. What it leaves running ends with it, unless
        `keep_background`. `tty=True` gives it a terminal of its own.

        Raises `FileNotFoundError` for `cwd`, a typed error where the sandbox ended in it (memory).

        >>> box.exec(["echo", "a b"]).stdout  # doctest: +SKIP
        b'a b\n'
        """
        cancel = load("_job").Cancel()
        return self._core.exec(
            command, stdin=stdin, cwd=cwd, env=env, timeout=timeout, user=user, tty=tty,
            keep=keep_background, cancel=cancel,
        )  # fmt: skip

    def start(
        self, command: Command, /, *, stdin: bytes | str | bool | None = None,
        cwd: Path | None = None, env: Mapping[str, str] | None = None,
        timeout: Duration | None = None, user: str | None = None, tty: bool = False,
        background: bool = False,
    ) -> Process:  # fmt: skip
        """Start a program and return at once: output as it comes, input, signals, a terminal.

        `stdin=True` opens a pipe to write to. `timeout` counts from when its output is read or
        waited for (default: none). With `background=True` the session holds it (`processes`) until
        it is killed or the session ends.

        Raises `FileNotFoundError` or `PermissionError` where it cannot be executed.
        """
        seconds = -1.0 if timeout is None else parse_duration("timeout", timeout)
        with self._core.in_use():
            try:
                process = self._core.start(
                    command, stdin=stdin, cwd=cwd, env=env, timeout_s=seconds, user=user, tty=tty,
                    keep=False,
                )  # fmt: skip
            except load("_session_program").NotStarted as e:
                raise _not_started(e, command) from None
        if background:
            self._core.processes[process.id] = process
        return process

    def python(self, code: str, /, *, timeout: Duration | None = None) -> PythonResult:
        """Run Python code with the state of earlier cells; never raises for the code.

        >>> box.python("x = 20\\nx + 1").value  # doctest: +SKIP
        21
        """
        with self._core.in_use():
            return self._core.python().python(code, timeout)  # type: ignore[no-any-return]

    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of this process in the session and return its value.

        It crosses as a sandboxed function does; modules that it imports stay loaded.
        """
        __tracebackhide__ = True
        with self._core.in_use():
            return self._core.python().call(fn, args, kwargs)  # type: ignore[no-any-return]

    def read(self, path: Path, /, *, max_bytes: int | str = "64MB") -> bytes:
        """Return the bytes of a file; `ResultError` where there are more than `max_bytes`."""
        with self._core.in_use():
            return self._core.files.read(path, parse_bytes("max_bytes", max_bytes))  # type: ignore[no-any-return]

    def write(
        self, path: Path, data: bytes | str, /, *, mode: int = 0o644, append: bool = False,
        new: bool = False,
    ) -> None:  # fmt: skip
        """Write a file: all of it, at its end (`append`), or only if there is none (`new`)."""
        raw = data.encode() if isinstance(data, str) else data
        with self._core.in_use():
            self._core.files.write(path, raw, mode=mode, append=append, new=new)

    def list(self, path: Path = ".", /) -> list[FileInfo]:
        """Return what lies in a directory, sorted by name; links are not followed."""
        with self._core.in_use():
            return self._core.files.list(path)  # type: ignore[no-any-return]

    def stat(self, path: Path, /, *, follow: bool = True) -> FileInfo:
        """Return size, kind, mode and time of a name."""
        with self._core.in_use():
            return self._core.files.stat(path, follow=follow)  # type: ignore[no-any-return]

    def remove(self, path: Path, /, *, recursive: bool = False) -> None:
        """Remove a file, a link, an empty directory, or with `recursive` a whole one."""
        with self._core.in_use():
            self._core.files.remove(path, recursive=recursive)

    def rename(self, path: Path, to: Path, /, *, replace: bool = True) -> None:
        """Rename a file or directory within the sandbox."""
        with self._core.in_use():
            self._core.files.rename(path, to, replace=replace)

    def mkdir(self, path: Path, /, *, parents: bool = False, mode: int = 0o755) -> None:
        """Make a directory; with `parents` also those above it, and it may exist."""
        with self._core.in_use():
            self._core.files.mkdir(path, parents=parents, mode=mode)

    def upload(self, source: Path, target: Path, /) -> None:
        """Copy a file or directory of the host into the sandbox; links in it are left out."""
        self._core.upload(source, target)

    def download(self, source: Path, target: Path, /, *, max_bytes: int | str = "1GB") -> None:
        """Copy a file or directory of the sandbox to the host, which must not exist there.

        Regular files and directories only, modes `0o777` at most, `max_bytes` in all.
        """
        self._core.download(source, target, parse_bytes("max_bytes", max_bytes))

    def __repr__(self) -> str:
        state = "open" if self._core.session.is_open else "not open"
        return f"<Sandbox {self.id} {state}>"


def _not_started(error: Exception, command: Command) -> OSError:
    code: int = error.code  # type: ignore[attr-defined]
    number = 2 if code == 127 else 13
    name = _words(command)[0]
    return OSError(number, os.strerror(number), name)


def _end_quietly(core: _Core) -> None:
    with contextlib.suppress(Exception):
        core.close()


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

    async def __aenter__(self) -> AsyncSandbox:
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
