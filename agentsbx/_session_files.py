"""File operations of a session: asked here, done in the sandbox with its programs' rights.

What a job says of its files is hostile: sizes are bounded before a byte is read, names are looked
at before they are used on the host.
"""

from __future__ import annotations

import os
from typing import Any

from agentsbx import _core, _transfer
from agentsbx._session import Session, hear
from agentsbx._session_result import FileInfo
from agentsbx._wire import ENTRY, FILE, FILE_REPLY, Event, Frame
from agentsbx.errors import ResultError, SandboxTimeout

__all__ = ["MAX_BYTES", "MAX_ENTRIES", "Files"]

MAX_BYTES = 1 << 30
MAX_ENTRIES = 100_000
_MAX_LIST = 32 << 20
TIMEOUT_S = 60
_STAT, _READ, _WRITE, _LIST, _REMOVE, _RENAME, _MKDIR = range(1, 8)
_RECURSIVE, _APPEND, _NEW, _FOLLOW = 1, 2, 4, 8


class _Reply:
    """The answer to one operation."""

    def __init__(self, body: bytes) -> None:
        (self.err, self.mode, self.size, self.mtime_ns, self.n_bytes, self.n_entries,
         self.is_cut) = FILE_REPLY.unpack(body)  # fmt: skip


class Files:
    """The files of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _do(
        self, op: int, path: Any, second: Any = "", *, flags: int = 0, mode: int = 0,
        max_bytes: int = 0, fd: int = -1,
    ) -> _Reply:  # fmt: skip
        session = self._session
        names = [os.fsencode(path), os.fsencode(second), os.fsencode(session.cwd)]
        for name in names:
            if b"\0" in name:
                raise ValueError("a path has no NUL character")
        head = FILE.pack(op, flags, mode, TIMEOUT_S, max_bytes)
        body = head + b"\0".join([*names, b""])
        reply = session.request(Frame.FILE, body, (fd,) if fd >= 0 else ())
        try:
            event, kind, raw = hear(reply, (TIMEOUT_S + 2) * 1000)
        finally:
            _core.close_all(reply)
        if event == Event.CLOSED and session.is_dead(200):
            raise session.died()
        if event in (Event.CLOSED, Event.TIMEOUT):
            raise SandboxTimeout(
                f"an operation on {os.fspath(path)!r} took longer than {TIMEOUT_S} s, or a program "
                "of the session killed it"
            )
        if event != Event.FRAME or kind != Frame.FILE_REPLY or len(raw) != FILE_REPLY.size:
            raise ResultError("the session's answer on a file was refused: it is malformed")
        answer = _Reply(raw)
        if answer.err:
            names_said = [os.fspath(path)] if not second else [os.fspath(path), os.fspath(second)]
            raise _error(answer.err, names_said)
        session.look()
        return answer

    def _with_memfd(self, op: int, path: Any, max_bytes: int) -> tuple[_Reply, bytes]:
        fd = _transfer.new_memfd("file")
        try:
            answer = self._do(op, path, max_bytes=max_bytes, fd=fd)
            n = min(answer.n_bytes, max_bytes, os.fstat(fd).st_size)
            return answer, _read_all(fd, n)
        finally:
            os.close(fd)

    def read(self, path: Any, max_bytes: int) -> bytes:
        """Return the bytes of a regular file; `ResultError` where there are more."""
        answer, data = self._with_memfd(_READ, path, max_bytes)
        if answer.is_cut or len(data) != answer.n_bytes:
            raise ResultError(
                f"{os.fspath(path)!r} has more than {max_bytes} bytes: say max_bytes=, or read a "
                "part of it with exec"
            )
        return data

    def write(self, path: Any, data: bytes, *, mode: int, append: bool, new: bool) -> None:
        """Write a regular file."""
        fd = _transfer.new_memfd("file")
        try:
            _transfer.pwrite_all(fd, memoryview(data), 0)
            flags = (_APPEND if append else 0) | (_NEW if new else 0)
            answer = self._do(_WRITE, path, flags=flags, mode=mode, fd=fd)
        finally:
            os.close(fd)
        if answer.n_bytes != len(data):
            raise OSError(
                28, f"only {answer.n_bytes} of {len(data)} bytes were written", os.fspath(path)
            )

    def stat(self, path: Any, *, follow: bool) -> FileInfo:
        """Look at one name."""
        answer = self._do(_STAT, path, flags=_FOLLOW if follow else 0)
        name = os.path.basename(os.fspath(path)) or os.fspath(path)
        return FileInfo.of(name, answer.mode, answer.size, answer.mtime_ns)

    def list(self, path: Any) -> list[FileInfo]:
        """Return what lies in a directory, by name."""
        answer, raw = self._with_memfd(_LIST, path, _MAX_LIST)
        found: list[FileInfo] = []
        at = 0
        while at + ENTRY.size <= len(raw) and len(found) < MAX_ENTRIES:
            size, mtime_ns, mode, n_name = ENTRY.unpack_from(raw, at)
            at += ENTRY.size
            name = raw[at : at + n_name]
            at += n_name
            if len(name) != n_name or not name or b"/" in name or name in (b".", b".."):
                raise ResultError("the session's list of files was refused: it is malformed")
            found.append(FileInfo.of(os.fsdecode(name), mode, size, mtime_ns))
        if answer.is_cut or at < len(raw):
            raise ResultError(f"{os.fspath(path)!r} holds more than {MAX_ENTRIES} names")
        return sorted(found, key=lambda f: f.name)

    def remove(self, path: Any, *, recursive: bool) -> None:
        """Remove a file, a link or a directory."""
        self._do(_REMOVE, path, flags=_RECURSIVE if recursive else 0)

    def rename(self, path: Any, to: Any, *, replace: bool) -> None:
        """Rename within the sandbox."""
        self._do(_RENAME, path, to, flags=0 if replace else _NEW)

    def mkdir(self, path: Any, *, parents: bool, mode: int) -> None:
        """Make a directory; with `parents` those above it, and it may be there."""
        self._do(_MKDIR, path, flags=_RECURSIVE if parents else 0, mode=mode)


def _error(number: int, names: list[str]) -> OSError:
    words = os.strerror(number)
    if len(names) == 2:
        return OSError(number, words, names[0], None, names[1])
    return OSError(number, words, names[0])


def _read_all(fd: int, n: int) -> bytes:
    data = os.pread(fd, n, 0)
    if len(data) == n:
        return data
    parts = [data]  # a single read gives at most 2 GiB
    at = len(data)
    while at < n and (part := os.pread(fd, n - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
