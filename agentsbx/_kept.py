"""Files that a job left in its private places: listed where they are gone, held where kept.

Values of `Result.discarded` and `Result.files`. Names were written by the job and are checked by
`_leftovers` before they come here; contents are the job's and stay untouched.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from agentsbx._units import format_bytes

__all__ = ["PLACES", "Discarded", "Files", "KeptFile", "LeftFile"]

Kind = Literal["file", "link", "other"]

# Private places as a job names them -> how our words call them. `enum sbx_place`, in order.
PLACES = {
    "/sandbox/home": "$HOME",
    "/sandbox/tmp": "$TMPDIR",
    "/tmp": "/tmp",
    "/dev/shm": "/dev/shm",
}


class LeftFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file that was left in a private place and is gone.

    `name` is its path as the job saw it, odd characters shown as escapes; `size` in bytes; `kind`
    is `"file"`, `"link"` (a symbolic link, never followed) or `"other"` (a pipe, a socket). `why`
    says why it was not kept where `keep=` named it, else it is empty.

    >>> LeftFile(name="/sandbox/tmp/report.png", size=2000).shown
    '$TMPDIR/report.png'
    """

    name: str
    size: int
    kind: Kind = "file"
    why: str = ""

    @property
    def shown(self) -> str:
        """The name with its place as users write it."""
        for path, word in PLACES.items():
            if self.name.startswith(path + "/"):
                return word + self.name[len(path) :]
        return self.name


class Discarded(tuple[LeftFile, ...]):
    """What was left in private places and is gone: a tuple of `LeftFile`, with what it leaves out.

    At most a thousand are listed; `n_more` counts those beyond, `more_bytes` adds up their sizes.
    `is_complete` is False where not everything was looked at (more than 20,000 files, folders 24
    deep, a folder closed even to its owner): then there may be more than `n_more`.

    >>> found = Discarded([LeftFile(name="/tmp/x", size=5)], n_more=2, more_bytes=10)
    >>> len(found), found.n_more, found.n_bytes, bool(Discarded())
    (1, 2, 15, False)
    """

    n_more: int
    more_bytes: int
    is_complete: bool

    def __new__(
        cls,
        files: Iterable[LeftFile] = (),
        n_more: int = 0,
        more_bytes: int = 0,
        is_complete: bool = True,
    ) -> Self:
        """Make a tuple of `files` that knows what it leaves out."""
        self = super().__new__(cls, files)
        self.n_more = n_more
        self.more_bytes = more_bytes
        self.is_complete = is_complete
        return self

    def __bool__(self) -> bool:
        return bool(len(self) or self.n_more or not self.is_complete)

    @property
    def n_bytes(self) -> int:
        """Sizes of all that was seen, added up."""
        return sum(file.size for file in self) + self.more_bytes

    def summary(self, limit: int = 5) -> str:
        """Say it in one line: the first names, and how many more.

        >>> Discarded([LeftFile(name="/tmp/x", size=5)], n_more=1).summary()
        '/tmp/x (5 bytes) and 1 more'
        """
        words = [
            f"{f.shown} ({_size(f.size)}{f', {f.why}' if f.why else ''})" for f in self[:limit]
        ]
        more = len(self) - len(words) + self.n_more
        text = ", ".join(words)
        if not self.is_complete:
            text += f"{' and ' if text else ''}at least {more} more" if more else " and others"
        elif more:
            text += f"{' and ' if text else ''}{more} more"
        return text.strip()


def _size(n: int) -> str:
    return f"{n} bytes" if n < 1000 else format_bytes(n)


class KeptFile:
    """One file that `keep=` brought back.

    `name` is its path below the private place that it lay in (`out/a.png`): never absolute, no
    `..`, no control characters. `path` is where the job saw it. The contents are whatever the job
    wrote.

    >>> file = KeptFile("a.txt", "/sandbox/home/a.txt", b"text")
    >>> file.size, file.read_bytes(), file.read_text()
    (4, b'text', 'text')
    """

    __slots__ = ("name", "path", "view")

    def __init__(self, name: str, path: str, data: bytes | memoryview) -> None:
        self.name = name
        self.path = path
        self.view = memoryview(data).toreadonly()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.view.nbytes

    def read_bytes(self) -> bytes:
        """Return a copy of the contents; `view` is the same without one."""
        return bytes(self.view)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the contents as text."""
        return str(self.view, encoding, errors)

    def open(self) -> io.BytesIO:
        """Return a file object, for what takes one (`pandas.read_csv(file.open())`)."""
        return io.BytesIO(self.view)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to `path` and return that; into it, under its own name, if it is a folder.

        What stands there is replaced as a whole, a link too: it is not followed. A new file is
        never executable. Raises `ResultError` where its own name would make the host run code
        (`x.pth`, `.envrc`): write the name out to do that all the same.
        """
        target = os.fspath(path)
        if os.path.isdir(target):
            leaf = self.name.rpartition("/")[2]
            _refuse_protected(leaf)
            target = os.path.join(target, leaf)
        with _folder(os.path.dirname(target) or ".") as parent:
            _replace(parent, os.path.basename(target), self.view)
        return Path(target)

    def __bytes__(self) -> bytes:
        return self.read_bytes()

    def __buffer__(self, flags: int, /) -> memoryview:
        return self.view

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptFile, (self.name, self.path, self.read_bytes())

    def __repr__(self) -> str:
        return f"<KeptFile {self.name!r} {_size(self.size)}>"


class Files(Mapping[str, KeptFile]):
    """What `keep=` brought back: name -> `KeptFile`, in the order in which they were found.

    The name is the path below the private place (`$HOME`, `$TMPDIR`, `/tmp`, `/dev/shm`); where two
    places have the same one, the later is named by its whole path without the leading slash.

    >>> files = Files([KeptFile("a.txt", "/tmp/a.txt", b"text")])
    >>> files["a.txt"].read_text(), list(files)
    ('text', ['a.txt'])
    """

    __slots__ = ("_files",)

    def __init__(self, files: Iterable[KeptFile] = ()) -> None:
        self._files = {file.name: file for file in files}

    def __getitem__(self, name: str) -> KeptFile:
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write all below `folder`, which is made if need be; returns the paths.

        Nothing is ever written outside: no part of a name is followed where it is a link. Raises
        `ResultError` before anything is written if one of the names would make the host run code
        (`.git/hooks/...`, `.envrc`, `x.pth`); `OSError` for the rest.
        """
        for name in self._files:
            _refuse_protected(name)
        where = os.fspath(folder)
        os.makedirs(where, exist_ok=True)
        with _folder(where) as root:
            for file in self._files.values():
                _save_below(root, file.name, file.view)
        return [Path(where, name) for name in self._files]

    def __reduce__(self) -> tuple[Any, ...]:
        return Files, (list(self._files.values()),)

    def __repr__(self) -> str:
        return f"<Files {', '.join(f'{f.name!r} {_size(f.size)}' for f in self._files.values())}>"


# -- writing -----------------------------------------------------------------------------------


def _refuse_protected(name: str) -> None:
    from agentsbx._protected_names import fold, is_protected
    from agentsbx.errors import ResultError

    for part in name.split("/"):
        if is_protected(part) or fold(part) == ".git":
            raise ResultError(
                f"{name!r} came out of a sandbox and would make this machine run code",
                hint="look at it, then save it by itself under a name that you write out",
            )


@contextlib.contextmanager
def _folder(path: str, at: int | None = None) -> Iterator[int]:
    """Descriptor of a folder; below `at` no link is followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(path, flags | (os.O_NOFOLLOW if at is not None else 0), dir_fd=at)
    try:
        yield fd
    finally:
        os.close(fd)


def _save_below(root: int, name: str, data: memoryview) -> None:
    first, slash, rest = name.partition("/")
    if not slash:
        _replace(root, name, data)
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(first, dir_fd=root)
    with _folder(first, root) as inner:
        _save_below(inner, rest, data)


def _replace(folder: int, name: str, data: memoryview) -> None:
    """Write a new file beside it and rename: whatever stands there is neither followed nor cut."""
    new = f".agentsbx-{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(new, flags, 0o666, dir_fd=folder)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise
