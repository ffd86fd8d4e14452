"""Bytes that no encoder of ours writes: each is a ResultError, soon and in little memory."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import msgspec
import pytest

from _codec_samples import Names, Table
from agentsbx._codec import ClassTable, decode, encode
from agentsbx._codec_wire import Ref, Tag
from agentsbx.errors import ResultError

NOTHING = ClassTable.build()
pack = msgspec.msgpack.encode


def table(rows: list[list[Any]], blobs: Any = ()) -> bytes:
    return b"\x01" + pack([rows, list(blobs)])


def refuse(body: bytes, buffers: Any = (), *, classes: ClassTable = NOTHING) -> None:
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(ResultError):
            decode(body, list(buffers), classes=classes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 10
    assert peak < 200 << 20


def nested_tuples(count: int) -> list[list[Any]]:
    rows: list[list[Any]] = [[Tag.SET, Ref(1)]]
    rows += [[Tag.TUPLE, Ref(n + 1), Ref(n + 1)] for n in range(1, count)]
    return [*rows, [Tag.TUPLE, 1]]


def colliding_ints(count: int) -> tuple[list[list[Any]], list[bytes]]:
    modulus = (1 << 61) - 1
    blobs = [(modulus * (n + 1)).to_bytes(16, "little") for n in range(count)]
    rows: list[list[Any]] = [[Tag.SET, *(Ref(n + 1) for n in range(count))]]
    return rows + [[Tag.INT, n] for n in range(count)], blobs


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\x00", b"\x01", b"\x02\xc0", b"\x00\xc1", b"\x00" + b"\x91" * 100_000,
        b"\x00" + b"\x91" * 1000 + b"\xc0", b"\x00\xdd\xff\xff\xff\xff",
        b"\x00\xdf\xff\xff\xff\xff",
        b"\x00\xd4\x01\x00", b"\x00" + pack("x" * 20_000), b"\x00" + pack(1) + b"\x00",
        b"\x01\x92\xdd\xff\xff\xff\xff", b"\x01\x92\x91\xdd\x0f\xff\xff\xff\x00",
        b"\x01" + pack([[], []]), b"\x01" + pack([[[]], []]), b"\x01" + pack({"rows": 1}),
        b"\x01\x92\xdd\x01\x00\x00\x00" + b"\x90" * (1 << 24) + b"\x90",
        b"\x01\x92\xdd\x04\x00\x00\x00" + b"\x90" * 1000,
    ],
    ids=lambda body: f"{body[:8].hex()}-{len(body)}",
)  # fmt: skip
def test_malformed_bodies(body: bytes) -> None:
    refuse(body)


@pytest.mark.parametrize(
    "rows",
    [
        [[True]], [[0]], [[-1]], [[10**6]], [["x"]], [[None]], [[Ref(0)]], [[1.0]],
        [[Tag.LIST, Ref(9)]], [[Tag.LIST, Ref(-9)]], [[Tag.LIST, Ref(1 << 63)]],
        [[Tag.TUPLE, Ref(0)]], [[Tag.FROZENSET, Ref(0)]], [[Tag.DICT, 1]], [[Tag.DICT, 1, 2, 1, 3]],
        [[Tag.SET, 1, True]], [[Tag.DICT, Ref(1), 1], [Tag.LIST]], [[Tag.SET, Ref(0)]],
        [[Tag.DATETIME, 1]], [[Tag.DATETIME, 99999, 1, 1, 1, 1, 1, 1, 0, None]],
        [[Tag.DATETIME, 1, 1, 1, 1, 1, 1, 1, 0, Ref(0)]], [[Tag.DATE, 1, 1, "1"]],
        [[Tag.TIMEDELTA, 1 << 62, 0, 0]], [[Tag.TIMEZONE, 9, 9, 9]],
        [[Tag.ZONEINFO, "../../etc/passwd"]], [[Tag.ZONEINFO, "/etc/localtime"]],
        [[Tag.ZONEINFO, "Europe"]], [[Tag.ZONEINFO, "No/Where"]], [[Tag.ZONEINFO, "a.b/c"]],
        [[Tag.DECIMAL, "Decimal", "x"]], [[Tag.DECIMAL, "Decimal", "1" * 300_000]],
        [[Tag.FRACTION, 1, 0]], [[Tag.FRACTION, 1.5, 2]], [[Tag.UUID, 0]],
        [[Tag.PATH, "os", "x"]], [[Tag.IP, "x", "1.2.3.4"]], [[Tag.IP, "IPv4Address", "1.2.3"]],
        [[Tag.DEFAULTDICT, "eval"]], [[Tag.DEQUE, -1]], [[Tag.DEQUE, "x"]], [[Tag.ARRAY, "O", 0]],
        [[Tag.NAMESPACE, 1, "__class__", 1]], [[Tag.NAMESPACE, -1]], [[Tag.NAMESPACE, 5, "a"]],
        [[Tag.CLASS, "builtins", "object"]], [[Tag.CLASS, "os", "system"]],
        [[Tag.OBJECT, Ref(1)], [Tag.CLASS, "subprocess", "Popen"]], [[Tag.OBJECT, 1]],
        [[Tag.OBJECT, Ref(0)]], [[Tag.ENUM, Ref(1), "x"], [Tag.LIST]],
        [[Tag.SUBCLASS, Ref(1), "int", 1], [Tag.CLASS, "builtins", "bool"]],
        [[Tag.RANGE, 1, 2, 0]], [[Tag.RANGE, 1.0, 2, 1]], [[Tag.SLICE, 1]], [[Tag.CONST, "...", 3]],
        [[Tag.COMPLEX, 1, 2]], [[Tag.INT, 0]], [[Tag.STR, True]], [[Tag.BYTES, -1]],
        [[Tag.EXCEPTION, "builtins", "ValueError"]], [[Tag.PD_FRAME]], [[Tag.PD_INDEX, "range"]],
        [[Tag.PD_SERIES, 1, 2, 3]], [[Tag.PD_ARRAY, "category", 1, 2, 3]], [[Tag.ARROW, 0]],
        [[Tag.NPSCALAR, "O", 0]], [[Tag.NDOBJECT, 1, 5]], [[Tag.NDOBJECT, 1, -1]],
        [[Tag.LIST, Ref(1), Ref(2)], [Tag.BYTES, 0], [Tag.BYTES, 0]],
    ],
    ids=str,
)  # fmt: skip
def test_malformed_rows(rows: list[list[Any]]) -> None:
    refuse(table(rows))


def test_blob_cannot_be_copied_twice() -> None:
    copies = [[Tag.BYTEARRAY, 0] for _ in range(1000)]
    refuse(table([[Tag.LIST, *(Ref(n + 1) for n in range(1000))], *copies], [bytes(1 << 20)]))
    buffers = [memoryview(bytearray(1 << 20))]
    copies = [[Tag.BYTES, -1] for _ in range(1000)]
    refuse(table([[Tag.LIST, *(Ref(n + 1) for n in range(1000))], *copies]), buffers)


def test_shared_parts_cannot_be_copied_many_times() -> None:
    many = [Ref(n + 2) for n in range(5000)]
    for kind, payload, blob in (
        ("Names", [Tag.INTS, 0], bytes(8 << 20)),
        ("Table", [Tag.DICT, *range(200_000)], b""),
    ):
        rows = [[Tag.SUBCLASS, Ref(5002), {"Names": "list", "Table": "dict"}[kind], Ref(1)]] * 5000
        body = table(
            [[Tag.LIST, *many], payload, *rows, [Tag.CLASS, Names.__module__, kind]], [blob]
        )
        refuse(body, classes=ClassTable.build(annotation=Names | Table))
    paths = [[Tag.PATH, "PurePosixPath", Ref(1)]] * 5000
    refuse(table([[Tag.LIST, *many], [Tag.STR, 0], *paths], [b"a/" * 500_000]))
    fractions = [[Tag.FRACTION, Ref(1), Ref(1)]] * 100_000
    many = [Ref(n + 2) for n in range(100_000)]
    refuse(table([[Tag.LIST, *many], [Tag.INT, 0], *fractions], [b"\x55" * 4096]))


def test_keys_cannot_make_hashing_exponential() -> None:
    refuse(table(nested_tuples(60)))


def test_keys_cannot_collide_in_numbers() -> None:
    refuse(table(*colliding_ints(100_000)))


def test_maps_in_the_bytes_are_never_built() -> None:
    colliding = b"".join(pack([n, n]) + b"\xc0" for n in range(5000))
    refuse(b"\x00\xde" + (5000).to_bytes(2, "big") + colliding)
    refuse(b"\x01\x92\x91\xde" + (5000).to_bytes(2, "big") + colliding + b"\x90")


def test_strings_and_lists_of_one_blob_are_checked() -> None:
    refuse(table([[Tag.STRS, 0, 1]], [b"\x02\0\0\0", b"abc"]))
    refuse(table([[Tag.STRS, 0, 1]], [b"\x02\0\0", b"ab"]))
    refuse(table([[Tag.STRS, 0, 1]], [b"\x01\0\0\0", b"\xff"]))
    refuse(table([[Tag.INTS, 0]], [b"123"]))
    refuse(table([[Tag.INTS, 0]], [bytes(8 * 17_000_000)]))
    column = [Tag.INTS, 0]
    refuse(table([[Tag.ROWS, 1, "a", Ref(1)], column], [bytes(8 * 3_000_000)]))
    refuse(table([[Tag.ROWS, 2, "a", "a", Ref(1), Ref(1)], column], [bytes(80)]))
    refuse(table([[Tag.ROWS, 2, "a", True, Ref(1), Ref(1)], column], [bytes(80)]))
    refuse(table([[Tag.ROWS, 1, Ref(1), Ref(1)], column], [bytes(80)]))
    refuse(table([[Tag.ROWS, 1, "a"]]))
    refuse(table([[Tag.ROWS, -1]]))


def test_unused_buffers_are_no_way_around_the_limit() -> None:
    body, _ = encode(1)
    refuse(body, [memoryview(b"x")])
