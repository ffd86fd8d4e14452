"""Values, classes and helpers that the tests of the codec share."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import math
import pathlib
import types
import uuid
from typing import Annotated, Any, Generic, NamedTuple, NewType, Self, TypedDict, TypeVar

import msgspec

from agentsbx._codec import ClassTable, decode, encode

NOTHING = ClassTable.build()


def round_trip(value: Any, classes: ClassTable = NOTHING, **options: Any) -> Any:
    body, buffers = encode(value)
    copies = [memoryview(bytearray(view)) for view in buffers]
    return decode(body, copies, classes=classes, **options)


VALUES: list[Any] = [
    None, True, False, 0, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**4000,
    1.5, math.inf, -math.inf, -0.0, 1j, complex(-0.0, math.inf),
    "", "a", "\ud800", "x\udfff\U0001f600", "v" * 20_000, b"", b"x", b"y" * 20_000,
    bytearray(b"q"), bytearray(b"q" * 20_000),
    [], [1, "a", None], [[[]]], (), (1, (2, [3])), {}, {"a": [1, {"b": 2}]},
    {(1, (2, "x")): [3], None: 1, 2.5: "z"},
    {frozenset({1}): 1, b"k": 2}, {"z": 1, "a": 2},
    set(), {1, "a", (2, 3)}, frozenset({frozenset({1}), 2}),
    range(5), range(10, 0, -2), range(2**70), slice(1, None, 2), ..., NotImplemented,
    dt.datetime(2020, 1, 2, 3, 4, 5, 6), dt.datetime(2020, 10, 25, 2, 30, fold=1),
    dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30), "NST")),
    dt.date(1, 1, 1), dt.time(23, 59, 59, 999_999), dt.time(1, tzinfo=dt.UTC),
    dt.timedelta(-5, 3, 1), dt.timezone(dt.timedelta(hours=2)),
    decimal.Decimal("1.50"), decimal.Decimal("-0"), decimal.Decimal("1E+400"),
    decimal.Decimal("sNaN12"), decimal.Decimal("-Infinity"),
    fractions.Fraction(-3, 7), uuid.UUID(int=5), pathlib.Path("/a/b"), pathlib.PurePosixPath("x"),
    pathlib.PureWindowsPath("c:/x"),
    ipaddress.ip_address("1.2.3.4"), ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_interface("::1/64"),
    collections.OrderedDict(b=1, a=2), collections.Counter("aab"),
    collections.defaultdict(list, {1: [2]}), collections.defaultdict(None, {1: 2}),
    collections.deque([1, [2]], maxlen=3), array.array("d", [1, 2]), array.array("b", [-1]),
    types.SimpleNamespace(a=1, b=[2]),
    list(range(1000)), [float(n) for n in range(500)], ["é" * n for n in range(300)],
    [2**70, *range(1000)], ["\ud800"] * 300, [[n] for n in range(5000)],
]  # fmt: skip

T = TypeVar("T")
CALLED: list[str] = []


class Evil:
    def __init__(self) -> None:
        CALLED.append("init")

    def __new__(cls) -> Self:
        CALLED.append("new")
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        CALLED.append("setstate")

    def __reduce__(self) -> Any:
        CALLED.append("reduce")
        return (print, ("evil",))

    def __setattr__(self, name: str, value: Any) -> None:
        CALLED.append("setattr")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        CALLED.append("getattr")
        return None

    @property
    def prop(self) -> int:
        return 1

    @prop.setter
    def prop(self, value: int) -> None:
        CALLED.append("property")


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: float = 0.0
    more: list[Point] | None = None

    def __post_init__(self) -> None:
        CALLED.append("post_init")


class Slotted:
    __slots__ = ("a", "b")


class Colour(enum.Enum):
    RED = "r"


class Mode(enum.Flag):
    A = 1
    B = 2


class Level(enum.IntEnum):
    LOW = 1


class Pair(NamedTuple):
    a: int
    b: str


class Row(TypedDict):
    point: Point


class Box(Generic[T]):
    def __init__(self, item: T) -> None:
        self.item = item


class Names(list):  # type: ignore[type-arg]
    def append(self, item: Any) -> None:
        CALLED.append("append")

    extend = append  # type: ignore[assignment]


class Table(dict):  # type: ignore[type-arg]
    def __setitem__(self, key: Any, value: Any) -> None:
        CALLED.append("setitem")


class Packed(msgspec.Struct, frozen=True):
    a: int
    b: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        CALLED.append("post_init")


class Closing:
    path = "x"

    def __del__(self) -> None:
        CALLED.append("del")


UserId = NewType("UserId", Point)


def make(kind: type, **state: Any) -> Any:
    made = object.__new__(kind)
    for name, value in state.items():
        object.__setattr__(made, name, value)
    return made


class Flaky(ValueError):
    def __init__(self, code: int, *, retry: bool) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.retry = retry


class Disk(OSError):
    def __init__(self, device: str) -> None:
        super().__init__(5, "broken", "/dev/x")
        self.device = device


def catch(code: str) -> BaseException:
    try:
        exec(code, {})
    except BaseException as caught:
        return caught
    raise AssertionError("nothing was raised")
