"""Sessions, blocking: what `Sandbox` and `AsyncSandbox` both do, and `Process`."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from agentsbx._load import load
from agentsbx._session_result import ExecResult
from agentsbx._units import parse_duration
from agentsbx.errors import SandboxUnavailable

if TYPE_CHECKING:
    from agentsbx.policy import Policy

__all__ = ["Command", "Core", "Duration", "Path", "Process", "not_started"]

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


class Core:
    """What both kinds of sessions do, blocking."""

    def __init__(
        self, policy: Any, keywords: dict[str, Any], cwd: Path | None, ttl: Duration | None,
        idle: Duration | None,
    ) -> None:  # fmt: skip
        from agentsbx._decorator import resolve
        from agentsbx._policy_found import apply

        rules, options = resolve(policy, keywords)
        if options:
            raise TypeError(
                f"{next(iter(options))!r} is for decorated functions, not for a session"
            )
        rules = apply(rules.for_function("")).policy  # sections are for functions
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
                    missing=["session"],
                    hint="make another Sandbox, or a longer idle=",
                )
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
                os.set_inheritable(master, False)  # noqa: FBT003
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
                cwd=self.session.in_here(cwd), fds=fds, flags=flags, timeout_s=timeout_s,
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
            load("_session_copy").upload(
                self.files, os.fspath(source), os.fspath(target), self._write_roots()
            )

    def download(self, source: Path, target: Path, max_bytes: int) -> None:
        """Copy a file or directory of the sandbox to the host."""
        with self.in_use():
            load("_session_copy").download(
                self.files, os.fspath(source), os.fspath(target), max_bytes, self._write_roots()
            )

    def _write_roots(self) -> list[str]:
        return [grant.path for grant in self.policy.write]


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


def not_started(error: Exception, command: Command) -> OSError:
    code: int = error.code  # type: ignore[attr-defined]
    number = 2 if code == 127 else 13
    name = _words(command)[0]
    return OSError(number, os.strerror(number), name)
