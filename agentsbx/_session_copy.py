"""Files between host and session: what a job says of its files never leads the host anywhere.

On the host's side everything goes by directory descriptors, and no link is followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

from agentsbx._session_files import MAX_BYTES, MAX_ENTRIES, Files
from agentsbx.errors import ResultError

__all__ = ["download", "upload"]

MAX_DEPTH = 64
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@contextlib.contextmanager
def _place(path: str, roots: Sequence[str]) -> Iterator[tuple[str, int | None]]:
    """Name and folder of a path whose part below a write grant holds no link: the job's to plant.

    `roots` are the write grants. Where the path lies in none it is the caller's own: (path, None).
    """
    marks = set()
    for root in roots:
        with contextlib.suppress(OSError):
            found = os.stat(root)
            marks.add((found.st_dev, found.st_ino))
    *above, name = os.path.abspath(path).split("/")
    at, folder = "/", -1
    try:
        for part in [*above[1:], None] if marks else []:
            if folder < 0:
                here = os.stat(at)
                if (here.st_dev, here.st_ino) in marks:
                    folder = os.open(at, _FOLDER & ~os.O_NOFOLLOW)
            if part is None:
                break
            if folder >= 0:
                inner = os.open(part, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            at = os.path.join(at, part)
        yield (name, folder) if folder >= 0 else (path, None)
    finally:
        if folder >= 0:
            os.close(folder)


def upload(files: Files, source: str, target: str, roots: Sequence[str] = ()) -> None:
    """Copy a file or a directory of the host into the sandbox; links and devices are left out.

    In a write grant (`roots`) the path itself may hold no link either.
    """
    with _place(source, roots) as (name, folder):
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(name, flags | (0 if folder is None else os.O_NOFOLLOW), dir_fd=folder)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            files.mkdir(target, parents=True, mode=mode & 0o777)
            _upload_below(files, fd, target, 0)
        elif stat.S_ISREG(mode):
            _upload_file(files, fd, target, mode)
        else:
            raise OSError(22, "not a regular file or directory", source)
    finally:
        os.close(fd)


def _upload_file(files: Files, fd: int, target: str, mode: int) -> None:
    with open(fd, "rb", closefd=False) as file:
        files.write(target, file.read(MAX_BYTES), mode=mode & 0o777, append=False, new=False)
        while more := file.read(MAX_BYTES):
            files.write(target, more, mode=mode & 0o777, append=True, new=False)


def _upload_below(files: Files, folder: int, target: str, depth: int) -> None:
    if depth == MAX_DEPTH:
        raise OSError(40, f"more than {MAX_DEPTH} directories deep", target)
    for name, fd, mode in _members(folder):
        try:
            place = f"{target}/{name}"
            if stat.S_ISDIR(mode):
                files.mkdir(place, parents=True, mode=mode & 0o777)
                _upload_below(files, fd, place, depth + 1)
            elif stat.S_ISREG(mode):
                _upload_file(files, fd, place, mode)
        finally:
            os.close(fd)


def _members(folder: int) -> Iterator[tuple[str, int, int]]:
    """Name, descriptor and mode of what is no link."""
    for name in sorted(os.listdir(folder)):
        try:
            fd = os.open(name, _OPEN, dir_fd=folder)
        except OSError as e:
            if e.errno in (40, 6):  # ELOOP: a link; ENXIO: a socket
                continue
            raise
        yield name, fd, os.fstat(fd).st_mode


def download(
    files: Files, source: str, target: str, max_bytes: int, roots: Sequence[str] = ()
) -> None:
    """Copy a file or directory of the sandbox to a name of the host that does not exist yet.

    In a write grant (`roots`) that name may lead through no link.
    """
    with _place(target, roots) as (name, folder):
        _download(files, source, name, folder, max_bytes)


def _download(files: Files, source: str, target: str, folder: int | None, max_bytes: int) -> None:
    info = files.stat(source, follow=True)
    room = _Room(max_bytes if max_bytes >= 0 else 1 << 62)
    if info.kind == "file":
        _download_file(files, source, target, folder, info.mode, room)
    elif info.kind == "directory":
        os.mkdir(target, 0o700, dir_fd=folder)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(target, flags, dir_fd=folder)
        try:
            _download_below(files, source, fd, room, 0)
            os.fchmod(fd, (info.mode & 0o777) | 0o700)
        finally:
            os.close(fd)
    else:
        raise OSError(22, "not a regular file or directory", source)


class _Room:
    """What may still come."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes, self.n_names = n_bytes, MAX_ENTRIES

    def take(self, n_bytes: int) -> None:
        self.n_bytes -= n_bytes
        self.n_names -= 1
        if self.n_bytes < 0 or self.n_names < 0:
            raise ResultError(
                f"more than max_bytes= or {MAX_ENTRIES} files would be downloaded; what was copied "
                "until then is there"
            )


def _download_file(
    files: Files, source: str, name: str, folder: int | None, mode: int, room: _Room
) -> None:
    data = files.read(source, min(room.n_bytes, MAX_BYTES))
    room.take(len(data))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, mode & 0o777, dir_fd=folder)
    with open(fd, "wb") as file:
        file.write(data)


def _download_below(files: Files, source: str, folder: int, room: _Room, depth: int) -> None:
    if depth == MAX_DEPTH:
        raise OSError(40, f"more than {MAX_DEPTH} directories deep", source)
    for info in files.list(source):
        place = f"{source}/{info.name}"
        if info.kind == "file":
            _download_file(files, place, info.name, folder, info.mode, room)
        elif info.kind == "directory":
            room.take(0)
            os.mkdir(info.name, 0o700, dir_fd=folder)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(info.name, flags, dir_fd=folder)
            try:
                _download_below(files, place, fd, room, depth + 1)
                os.fchmod(fd, (info.mode & 0o777) | 0o700)
            finally:
                os.close(fd)
