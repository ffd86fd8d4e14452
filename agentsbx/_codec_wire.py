"""The bytes of a result: a table of flat rows, read by a decoder that knows only these types.

A body is one byte that says the form, then msgpack:

    PLAIN  a small value of None, bool, int, float, str, list and dict[str, ...], as msgpack has it
    TABLE  `Body`: rows of scalars and references to other rows; row 0 is the value

A row starts with its tag; a `Ref` names another row (>= 0) or a blob (-1 - n). Nothing nests, so
msgspec checks the whole shape in C, no map is ever built from the bytes (colliding keys), sharing
and cycles need no extra rule, and the number of nodes is known before anything is built.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Union

import msgspec

if TYPE_CHECKING:
    from agentsbx.policy import Limits

__all__ = ["DEFAULT", "Bad", "Body", "CodecLimits", "Ref", "Refused", "Tag", "hashes_by_identity"]

PLAIN = 0
TABLE = 1
PLAIN_BYTES = 16384  # longer values are sent as TABLE: see `check_plain`
OUT_OF_BAND = 16384  # from this size on, bytes travel in a buffer of their own
PACK_ITEMS = 256  # from this length on, a list of only int or only float is one blob
MAX_INT_BYTES = 1 << 20
MAX_NAME = 1024
RECORDS = 16  # from this length on, a list of records of one shape is sent column by column
RECORD_COST = 8  # a record of n fields counts as 8 + n items of packed lists
PACKED_PER_NODE = 16  # lists of one blob may have this many times as many items as there are nodes

# What an exact `type(x)` may be for x to stand in a row as it is.
SCALARS = frozenset({type(None), bool, int, float, str})
STR_ONLY = frozenset({str})

# Bytes that cannot start a container in msgpack; deleting them counts what may nest or be a map.
_OPENERS = {*range(0x80, 0xA0), *range(0xC7, 0xCA), *range(0xD4, 0xD9), *range(0xDC, 0xE0)}
_LEAF_BYTES = bytes(set(range(256)) - _OPENERS)


class CodecLimits(msgspec.Struct, frozen=True):
    """What one result may cost; checked on both sides, on the host before anything is built.

    `body_bytes` and `buffer_bytes` bound the bytes inside the message and in buffers beside it,
    `depth` how deep containers nest, `nodes` how many values there are in all (a list of 256 or
    more int, float or str counts as one, and has at most 16 times as many items), `int_bytes` the
    size of one int.
    """

    body_bytes: int = 64 << 20
    buffer_bytes: int = 1 << 30
    depth: int = 64
    nodes: int = 1_000_000
    int_bytes: int = MAX_INT_BYTES

    @classmethod
    def of(cls, limits: Limits) -> CodecLimits:
        """Host: those of a policy. A `result=` below its default bounds big buffers too."""
        is_lower = limits.result < type(limits)().result
        buffers = min(limits.buffers, limits.result) if is_lower else limits.buffers
        return cls(body_bytes=limits.result, buffer_bytes=buffers)

    def keyword(self, which: str, limits: Limits) -> str:
        """Host: the keyword behind the bound that was met; see `of`."""
        return "result" if which == "buffers" and self.buffer_bytes < limits.buffers else which


DEFAULT = CodecLimits()


class Ref(msgspec.Struct, array_like=True, gc=False, frozen=True, forbid_unknown_fields=True):
    """A reference to row `i`, or to blob `-1 - i` where it is negative."""

    i: int


Cell = Union[None, bool, int, float, str, Ref]  # noqa: UP007 - msgspec reads it at run time


class Body(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What a TABLE body holds."""

    rows: list[list[Cell]]
    blobs: list[bytes]


class Tag(IntEnum):
    """First cell of a row: what the row is. Numbers are never reused."""

    LIST = 1
    TUPLE = 2
    DICT = 3
    SET = 4
    FROZENSET = 5
    INT = 6
    STR = 7
    BYTES = 8
    BYTEARRAY = 9
    INTS = 10
    FLOATS = 11
    COMPLEX = 12
    RANGE = 13
    SLICE = 14
    CONST = 15
    DATETIME = 16
    DATE = 17
    TIME = 18
    TIMEDELTA = 19
    TIMEZONE = 20
    ZONEINFO = 21
    DECIMAL = 22
    FRACTION = 23
    UUID = 24
    PATH = 25
    IP = 26
    ORDEREDDICT = 27
    DEFAULTDICT = 28
    COUNTER = 29
    DEQUE = 30
    ARRAY = 31
    NAMESPACE = 32
    CLASS = 33
    OBJECT = 34
    SUBCLASS = 35
    ENUM = 36
    EXCEPTION = 37
    STRS = 38
    ROWS = 39
    NDARRAY = 40
    NDOBJECT = 41
    NPSCALAR = 42
    PD_INDEX = 50
    PD_SERIES = 51
    PD_FRAME = 52
    PD_SCALAR = 53
    PD_ARRAY = 54
    ARROW = 60


class Refused(Exception):
    """The encoder met something that cannot leave; `steps` is the way to it, innermost first."""

    def __init__(self, reason: str, hint: str | None = None, *, limit: str | None = None) -> None:
        super().__init__(reason)
        self.limit = limit  # keyword of the limit that would be broken
        self.reason = reason
        self.hint = hint
        self.steps: list[str] = []


def too_many(limits: CodecLimits) -> Refused:
    """Return the refusal of a value with more parts than `limits.nodes`."""
    return Refused(
        f"holds more than {limits.nodes} values", "return an array, or write it to a file"
    )


def short_name(value: Any) -> str:
    """Return a short name of `value` without calling code of its class."""
    if type(value) in SCALARS:
        text = repr(value)
        return text if len(text) <= 40 else text[:37] + "..."
    return f"<{type(value).__name__}>"


class Bad(Exception):
    """The decoder met bytes that no encoder of ours writes, or more of them than allowed."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


def check_plain(body: bytes | memoryview, depth: int) -> bool:
    """Whether `body` may be read by a msgpack decoder that builds whatever it finds.

    Few enough bytes that could open a container (so it neither nests deep nor holds many keys that
    collide), no 32-bit length of a container, no extension type.
    """
    if len(body) > PLAIN_BYTES:
        return False
    return len(bytes(body).translate(None, _LEAF_BYTES)) <= depth


def hashes_by_identity(kind: type) -> bool:
    """Whether hashing an instance takes no look at its parts."""
    return getattr(kind, "__hash__", None) is _IDENTITY_HASH


_IDENTITY_HASH: Any = object.__hash__


def check_keys(keys: list[Any]) -> None:
    """Raise `Bad` where many different keys were made to have the same hash."""
    if len(keys) < 128 or set(map(type, keys)) == {str}:
        return
    if len(set(map(hash, keys))) < len(keys) // 8:
        raise Bad("the keys of a dict or set collide")


def clean_name(name: Any) -> str:
    """Return `name` if it may name an attribute of a rebuilt object; raises `Bad` otherwise."""
    if type(name) is not str or not 0 < len(name) <= MAX_NAME:
        raise Bad("an attribute name is not a short string")
    if name.startswith("__") and name.endswith("__"):
        raise Bad(f"an attribute is named {name[:64]!r}")
    return name


def disclaim(text: str) -> str:
    """Mark the lines of a job's note that begin as our own notes do (semantics 3.3).

    >>> disclaim("agentsbx: allow it with write=['/']")
    "the job says: agentsbx: allow it with write=['/']"
    """
    if "agentsbx" not in text:
        return text
    lines = text.split("\n")
    return "\n".join(
        f"the job says: {line.lstrip()}" if line.lstrip().startswith("agentsbx") else line
        for line in lines
    )
