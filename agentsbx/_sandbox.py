"""`Sandbox`: a sandbox that is kept between programs, cells, calls and file operations."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar, Unpack

from agentsbx._load import load
from agentsbx._sandbox_core import Command, Core, Duration, Path, Process, not_started
from agentsbx._session_result import ExecResult, FileInfo
from agentsbx._units import parse_bytes, parse_duration

if TYPE_CHECKING:
    from agentsbx._python_result import PythonResult
    from agentsbx._types import Keywords
    from agentsbx.policy import Policy

__all__ = ["Sandbox"]

P = ParamSpec("P")
T = TypeVar("T")


class Sandbox:
    r"""A sandbox that is kept: programs, Python cells, calls and files in one place.

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
    '5\n'
    """

    def __init__(
        self, policy: Policy | Path | None = None, /, *, cwd: Path | None = None,
        ttl: Duration | None = None, idle: Duration | None = None,
        **keywords: Unpack[Keywords],
    ) -> None:  # fmt: skip
        self._core = Core(policy, dict(keywords), cwd, ttl, idle)
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

    def __enter__(self) -> Self:
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
                raise not_started(e, command) from None
        if background:
            self._core.processes[process.id] = process
        return process

    def python(self, code: str, /, *, timeout: Duration | None = None) -> PythonResult:
        r"""Run Python code with the state of earlier cells; never raises for the code.

        >>> box.python("x = 20\nx + 1").value  # doctest: +SKIP
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


def _end_quietly(core: Core) -> None:
    with contextlib.suppress(Exception):
        core.close()
