"""What the verbs of a session give back: `ExecResult`, `FileInfo`. Plain frozen data."""

from __future__ import annotations

import stat as _stat
from typing import Literal

import msgspec

from agentsbx._units import format_bytes
from agentsbx.result import Usage, Violation

__all__ = ["ExecResult", "FileInfo"]

Kind = Literal["file", "directory", "link", "other"]


class ExecResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    r"""How one program of a session ended; `Sandbox.exec(...)` returns it.

    `exit_code` is the program's own, 128+n for a signal, 127 where there is no such program, 126
    where it cannot be executed. `stdout` and `stderr` are exact and bounded by the policy's
    `output=`, also after a kill; of a program with a terminal all is in `stdout`. `timed_out`: it
    was killed with all its tree since its time was over. `truncated`: it was killed since it wrote
    more than `output=`. `usage` counts the program and what it waited for.

    >>> ExecResult(exit_code=0, stdout=b"hi\n").text
    'hi\n'
    >>> ExecResult(exit_code=137, timed_out=True).ok
    False
    """

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False
    truncated: bool = False
    usage: Usage = msgspec.field(default_factory=Usage)
    violations: tuple[Violation, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with code 0."""
        return self.exit_code == 0 and not self.timed_out and not self.truncated

    @property
    def text(self) -> str:
        """`stdout` as text; what is no UTF-8 as backslash escapes."""
        return self.stdout.decode("utf-8", "backslashreplace")

    def __repr__(self) -> str:
        parts = [f"exit_code={self.exit_code}"]
        parts += [f"{n}={format_bytes(len(d))}" for n, d in (("stdout", self.stdout),
                  ("stderr", self.stderr)) if d]  # fmt: skip
        parts += [name for name in ("timed_out", "truncated") if getattr(self, name)]
        return f"<ExecResult {' '.join(parts)}>"


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One name in a session's files: `size` in bytes, `mtime` in seconds since 1970, `mode` bits.

    >>> FileInfo(name="a.txt", kind="file", size=3, mode=0o644, mtime=0.0).kind
    'file'
    """

    name: str
    kind: Kind
    size: int
    mode: int
    mtime: float

    @classmethod
    def of(cls, name: str, st_mode: int, size: int, mtime_ns: int) -> FileInfo:
        """Return what a job says of one of its files."""
        kinds: dict[int, Kind] = {
            _stat.S_IFREG: "file",
            _stat.S_IFDIR: "directory",
            _stat.S_IFLNK: "link",
        }
        kind: Kind = kinds.get(_stat.S_IFMT(st_mode), "other")
        return cls(
            name=name, kind=kind, size=size, mode=_stat.S_IMODE(st_mode), mtime=mtime_ns / 1e9
        )
