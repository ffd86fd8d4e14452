"""What a result keeps on its way from the job to the host."""

from __future__ import annotations

import datetime as dt
import types
import zoneinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _codec_samples import NOTHING, VALUES, round_trip
from agentsbx._codec import ClassTable, CodecLimits, decode, encode
from agentsbx.errors import ResultError, SerializationError


@pytest.mark.parametrize("value", VALUES, ids=lambda v: f"{type(v).__name__}-{str(type(v))[8:11]}")
def test_value_arrives_as_it_left(value: Any) -> None:
    for wrapped in (value, [value, 1j], {"k": (value,)}):
        made = round_trip(wrapped)
        assert type(made) is type(wrapped)
        assert repr(made) == repr(wrapped) or made == wrapped
    assert type(round_trip([value])[0]) is type(value)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers()
    | st.text(st.characters()) | st.binary(max_size=50) | st.decimals() | st.fractions()
    | st.datetimes(timezones=st.none() | st.timezones()) | st.timedeltas() | st.dates() | st.uuids()
)  # fmt: skip
KEYS = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
VALUE = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(KEYS, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(VALUE)
def test_any_nesting_of_known_types_arrives(value: Any) -> None:
    made = round_trip(value)
    assert type(made) is type(value)
    assert _same(made, value)


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return all(map(_same, a, b)) and all(map(_same, a.values(), b.values()))
    if isinstance(a, (set, frozenset)):
        return a == b
    return repr(a) == repr(b) or bool(a == b)


def test_zoneinfo_stays_zoneinfo_and_identical() -> None:
    try:
        zone = zoneinfo.ZoneInfo("Europe/Paris")
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("no time zone data")
    made = round_trip(dt.datetime(2024, 7, 1, 12, tzinfo=zone))
    assert made.tzinfo is zone


def test_sharing_is_kept() -> None:
    part = [1]
    pair = (part, part)
    made = round_trip([part, part, {"k": part}, pair, pair])
    assert made[0] is made[1] is made[2]["k"] is made[3][0]
    assert made[3] is made[4]


def test_long_lists_of_records_arrive() -> None:
    records: list[Any] = [{"id": n, "x": n / 2, "name": str(n), "more": [n]} for n in range(300)]
    assert round_trip(records) == records
    for kind in (tuple, list):
        rows = [kind((n, str(n), {"k": n})) for n in range(300)]
        made = round_trip({"rows": rows})["rows"]
        assert made == rows
        assert type(made[0]) is kind
    assert round_trip([{"\ud800": n} for n in range(300)])[1] == {"\ud800": 1}
    mixed = [{"a": 1} if n % 2 else {"b": 1} for n in range(50)]
    assert round_trip(mixed) == mixed


def test_records_that_are_shared_stay_shared() -> None:
    records: list[Any] = [{"id": n, "all": None} for n in range(50)]
    records[0]["all"] = records
    made = round_trip({"first": records[7], "records": records})
    assert made["first"] is made["records"][7]
    assert made["records"][0]["all"] is made["records"]


def test_path_into_a_list_of_records_is_named() -> None:
    records: list[Any] = [{"id": n, "bad": 1} for n in range(50)]
    records[3]["bad"] = [types.SimpleNamespace(pool=pytest)]
    with pytest.raises(SerializationError) as caught:
        encode(records)
    assert caught.value.where == "return value[3]['bad'][0].pool"


def test_cycle_through_list_and_dict_is_kept() -> None:
    ring: list[Any] = [1]
    ring.append({"ring": ring})
    made = round_trip(ring)
    assert made[1]["ring"] is made


def test_cycle_through_tuple_is_refused_by_name() -> None:
    part: list[Any] = []
    loop = (part,)
    part.append(loop)
    with pytest.raises(SerializationError, match="contains itself"):
        encode(loop)


def test_int_of_many_digits_arrives_and_of_too_many_does_not() -> None:
    assert round_trip([10**5000]) == [10**5000]
    with pytest.raises(SerializationError, match="int of"):
        encode([1 << (9 << 20)])


def test_what_cannot_leave_is_named_with_its_path() -> None:
    value = {"x": [0, 1, 2, types.SimpleNamespace(pool=pytest)]}
    with pytest.raises(SerializationError, match=r"return value\['x'\]\[3\]\.pool") as caught:
        encode(value)
    assert caught.value.where == "return value['x'][3].pool"


@pytest.mark.parametrize(
    "value", [(n for n in ()), encode, open, int, {}.keys(), object(), encode.__code__, zip()]
)
def test_code_and_handles_cannot_leave(value: Any) -> None:
    with pytest.raises(SerializationError):
        encode([value])


def test_too_deep_is_refused_on_both_sides() -> None:
    value: Any = 1j
    for _ in range(60):
        value = [value]
    assert round_trip(value)
    for _ in range(10):
        value = [value]
    with pytest.raises(SerializationError, match="levels deep"):
        encode(value)
    body, buffers = encode(value, limits=CodecLimits(depth=100))
    with pytest.raises(ResultError, match="levels deep"):
        decode(body, buffers, classes=NOTHING)


def test_too_many_nodes_is_refused_on_both_sides() -> None:
    value = [[1j] for _ in range(2000)]
    with pytest.raises(SerializationError, match="more than 1000"):
        encode(value, limits=CodecLimits(nodes=1000))
    body, buffers = encode(value)
    with pytest.raises(ResultError, match="more than 1000"):
        decode(body, buffers, classes=NOTHING, limits=CodecLimits(nodes=1000))


def test_too_large_is_refused_on_both_sides() -> None:
    value = [str(n) + "\ud800" for n in range(2000)]
    with pytest.raises(SerializationError, match="larger than"):
        encode(value, limits=CodecLimits(body_bytes=1000))
    body, buffers = encode(value)
    with pytest.raises(ResultError):
        decode(body, buffers, classes=NOTHING, limits=CodecLimits(body_bytes=1000))
    big = bytes(1 << 20)
    with pytest.raises(SerializationError):
        encode(big, limits=CodecLimits(buffer_bytes=1000))
    body, buffers = encode(big)
    assert len(buffers) == 1
    assert len(body) < 100
    with pytest.raises(ResultError):
        decode(body, buffers, classes=NOTHING, limits=CodecLimits(buffer_bytes=1000))


def test_identity_of_objects_in_keys_is_kept() -> None:
    class Node:
        pass

    a, b = Node(), Node()
    a.next, b.next = b, a  # type: ignore[attr-defined]
    classes = ClassTable.build(args=(a,))
    made = round_trip({"nodes": [a, b], "edges": {(a, b): 1}, "set": {a}}, classes)
    (edge,) = made["edges"]
    assert edge == tuple(made["nodes"])
    assert made["set"] == {made["nodes"][0]}
    assert made["nodes"][0].next is made["nodes"][1]
