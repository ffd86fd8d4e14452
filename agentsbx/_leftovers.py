"""Files that a job says it left: its FILES frames as hostile bytes, checked and bounded.

Host process. The job's side is `csrc/job/leftovers.c`. Contents are mapped only when their memfd is
sealed; names that could steer a terminal or leave a folder never become names of kept files.
"""

from __future__ import annotations

import enum
import unicodedata

from agentsbx import _core, _transfer
from agentsbx._kept import PLACES, Discarded, Files, KeptFile, Kind, LeftFile
from agentsbx._wire import FILES, FILES_INLINE, LEFT_FILE, MAX_KEPT, MAX_LISTED, MAX_NAME

__all__ = ["Collector", "Flag", "LeftKind", "Place", "Why"]


class Flag(enum.IntFlag):
    """``enum sbx_files_flags``."""

    KEPT = 1
    LAST = 2
    PARTIAL = 4


class Place(enum.IntEnum):
    """``enum sbx_place``."""

    HOME = 0
    TMPDIR = 1
    TMP = 2
    SHM = 3


class LeftKind(enum.IntEnum):
    """``enum sbx_left_kind``."""

    FILE = 0
    LINK = 1
    OTHER = 2


class Why(enum.IntEnum):
    """``enum sbx_left_why``."""

    NOT_NAMED = 0
    KIND = 1
    BYTES = 2
    COUNT = 3
    UNREADABLE = 4


_PLACES = tuple(PLACES)
_KINDS: tuple[Kind, ...] = ("file", "link", "other")
_WHY = {
    Why.NOT_NAMED: "",
    Why.KIND: "no regular file",
    Why.BYTES: "more than buffers= in all",
    Why.COUNT: f"more than {MAX_KEPT} files",
    Why.UNREADABLE: "it could not be read",
}
# A mapping holds a descriptor of this process (before 3.13): few, and for what is worth it.
MAP_MIN = 1 << 20
MAX_MAPPED = 32
_ODD_NAME = "its name has characters that are not printable, or is not UTF-8"
_TWICE = "two files of that name"


class Collector:
    """What came in FILES frames of one job. Each method takes hostile bytes."""

    def __init__(self, patterns: bytes, max_bytes: int) -> None:
        self._patterns = patterns.split(b"\0")[:-1]
        self._left_bytes = max_bytes
        self._n_kept = self._n_mapped = 0
        self._files: dict[str, KeptFile] = {}
        self._listed: list[LeftFile] = []
        self._n_records = 0
        self._total: tuple[int, int, bool] | None = None  # of the last frame

    def add(self, body: bytes, memfd: int, n_memfd: int) -> None:
        """Take one frame. ValueError if it is malformed or beyond a bound; `memfd` stays open."""
        if len(body) < FILES.size:
            raise ValueError("short")
        n_records, flags, n_more, more_bytes = FILES.unpack_from(body)
        if flags & ~7 or self._total is not None:
            raise ValueError("unknown flags, or frames after the last")
        if flags & Flag.KEPT:
            if flags != Flag.KEPT or n_records != 1:
                raise ValueError("a kept file comes alone")
            self._keep(body, memfd, n_memfd)
            return
        if memfd >= 0:
            raise ValueError("a list with a descriptor")
        if not n_records and not flags & Flag.LAST:
            raise ValueError("an empty list")
        at = FILES.size
        for _ in range(n_records):
            if self._n_records == MAX_LISTED:
                raise ValueError("more records than may be")
            self._n_records += 1
            size, place, raw, kind, why, at = _record(body, at)
            self._listed.append(_left(place, raw, size, kind, _WHY[Why(why)]))
        if at != len(body):
            raise ValueError("bytes behind the list")
        if flags & Flag.LAST:
            self._total = n_more, more_bytes, bool(flags & Flag.PARTIAL)

    def _keep(self, body: bytes, memfd: int, n_memfd: int) -> None:
        size, place, raw, kind, why, at = _record(body, FILES.size)
        whole = _PLACES[place].encode() + b"/" + raw
        if kind != LeftKind.FILE or why != Why.NOT_NAMED:
            raise ValueError("kept, and not kept")
        if not any(_core.glob_match(p, whole if p[:1] == b"/" else raw) for p in self._patterns):
            raise ValueError("a file that keep= does not name")
        if self._n_kept == MAX_KEPT or size > self._left_bytes:
            raise ValueError("more than may be kept")
        if memfd >= 0:
            if at != len(body) or size != n_memfd:
                raise ValueError("a wrong size")
            data: bytes | memoryview = _transfer.map_hostile(memfd, size, self._left_bytes)
            if size < MAP_MIN or self._n_mapped == MAX_MAPPED:
                data = bytes(data)
            else:
                self._n_mapped += 1
        else:
            data = body[at:]
            if len(data) != size or size > FILES_INLINE:
                raise ValueError("a wrong size")
        self._n_kept += 1
        self._left_bytes -= size
        name = _fit_name(raw)
        if name is None:
            self._listed.append(_left(place, raw, size, kind, _ODD_NAME))
            return
        path = f"{_PLACES[place]}/{name}"
        for key in (name, path[1:]):
            if key not in self._files:
                self._files[key] = KeptFile(key, path, data)
                return
        self._listed.append(_left(place, raw, size, kind, _TWICE))

    @property
    def files(self) -> Files:
        """What is kept."""
        return Files(self._files.values())

    @property
    def discarded(self) -> Discarded | None:
        """What is not; None where the job did not come to the end of it."""
        if self._total is None:
            return None
        n_more, more_bytes, is_partial = self._total
        return Discarded(self._listed, n_more, more_bytes, is_complete=not is_partial)


def _record(body: bytes, at: int) -> tuple[int, int, bytes, int, int, int]:
    """Size, place, name, kind, why, and where the next one begins."""
    end = at + LEFT_FILE.size
    if end > len(body):
        raise ValueError("short")
    size, n_name, place, kind, why = LEFT_FILE.unpack_from(body, at)
    raw = body[end : end + n_name]
    if place >= len(Place) or kind >= len(LeftKind) or why >= len(Why):
        raise ValueError("an unknown place, kind or reason")
    if len(raw) != n_name or n_name >= MAX_NAME or b"\0" in raw:
        raise ValueError("a malformed name")
    if any(part in (b"", b".", b"..") for part in raw.split(b"/")):
        raise ValueError("a name that no file has")
    return size, place, raw, kind, why, end + n_name


def _left(place: int, raw: bytes, size: int, kind: int, why: str) -> LeftFile:
    name = f"{_PLACES[place]}/{_shown(raw)}"
    return LeftFile(name=name, size=size, kind=_KINDS[kind], why=why)


def _is_plain(c: str) -> bool:
    return c.isprintable() or unicodedata.category(c) == "Zs"


def _shown(raw: bytes) -> str:
    r"""A name for people: what is not printable, or not UTF-8, as escapes.

    >>> print(_shown(b"a\x1b[2J\xff.txt"))
    a\x1b[2J\xff.txt
    """
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(
        c if _is_plain(c) else c.encode("ascii", "backslashreplace").decode() if ord(c) > 255
        else f"\\x{ord(c):02x}"
        for c in text
    )  # fmt: skip


def _fit_name(raw: bytes) -> str | None:
    r"""The name of a kept file, if it is one that can be shown and saved.

    >>> _fit_name("out/\u00e9.png".encode()), _fit_name(b"a\nb"), _fit_name(b"\xff")
    ('out/é.png', None, None)
    """
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return name if all(map(_is_plain, name)) else None
