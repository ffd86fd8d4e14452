"""Arrays and tables in results."""

from __future__ import annotations

from typing import Any

import pytest

from _codec_samples import round_trip
from agentsbx._codec import ClassTable
from agentsbx.errors import ResultError, SerializationError

np = pytest.importorskip("numpy")

ARRAYS = [
    np.arange(5), np.arange(10_000.0), np.arange(12).reshape(3, 4).T, np.array(3), np.zeros((0, 3)),
    np.arange(24).reshape(2, 3, 4)[:, ::2], np.array(["a", "bcd"]), np.array([b"x"]),
    np.array(["2020-01-01", "NaT"], "M8[D]"), np.array([1], "m8[ns]"), np.array([True, False]),
    np.array([1 + 2j], "c8"), np.arange(3, dtype=">i2"), np.float16([1]), np.longdouble([1]),
    np.array([None, "x", [1]], dtype=object), np.arange(4, dtype="u1"),
]  # fmt: skip


@pytest.mark.parametrize("value", ARRAYS, ids=lambda a: f"{a.dtype}-{a.shape}")
def test_array_arrives_writable(value: Any) -> None:
    made = round_trip(value)
    assert type(made) is np.ndarray
    assert made.dtype == value.dtype
    assert made.shape == value.shape
    assert made.flags.writeable
    assert repr(made) == repr(value)
    assert round_trip([value, value])[0].dtype == value.dtype


def test_large_array_uses_the_buffer_without_a_copy() -> None:
    from agentsbx._codec import decode, encode

    body, buffers = encode(np.arange(100_000))
    assert len(buffers) == 1
    memory = bytearray(buffers[0])
    made = decode(body, [memoryview(memory)], classes=ClassTable.build())
    made[0] = 77
    assert memory[0] == 77


@pytest.mark.parametrize(
    "value",
    [np.float64(1.5), np.int8(3), np.str_("x"), np.bool_(1), np.datetime64("2020-01-01")],
)
def test_numpy_scalar_stays_one(value: Any) -> None:
    made = round_trip({value: [value]})
    assert made == {value: [value]}
    assert type(next(iter(made))) is type(value)


def test_structured_array_is_refused_with_advice() -> None:
    with pytest.raises(SerializationError, match="dtype"):
        round_trip(np.zeros(2, [("a", int)]))
    with pytest.raises(SerializationError):
        round_trip(np.ma.array([1, 2]))


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [
        ("<i8", [2], b"x" * 8), ("<i8", [2**61, 8], b""), ("<i8", [-1], b"x" * 8),
        ("O", [1], b"x" * 8),
        ("|V8", [1], b"x" * 8), ("<U0", [2**40], b""), ("<U1", [1], b"\xff\xff\xff\xff"),
        ("|b1", [1], b"\x02"), ("<i8", [True], b"x" * 8), ("<i8", [1] * 40, b"x" * 8),
        ("<i8,<i8", [1], b"x" * 16), ("<i8", [1.0], b"x" * 8), ("<M8[evil]", [1], b"x" * 8),
    ],
)  # fmt: skip
def test_hostile_array_is_refused(dtype: str, shape: list[Any], data: bytes) -> None:
    from agentsbx._codec import decode
    from agentsbx._codec_encode import _PACKER
    from agentsbx._codec_wire import Body, Tag

    body = b"\x01" + _PACKER.encode(Body([[int(Tag.NDARRAY), dtype, "C", 0, *shape]], [data]))
    with pytest.raises(ResultError):
        decode(body, [], classes=ClassTable.build())


def frames() -> list[Any]:
    pd = pytest.importorskip("pandas")
    plain = pd.DataFrame(
        {
            "a": [1, 2, 3],
            "b": [1.5, None, 3],
            "c": ["x", "y", None],
            "d": pd.Categorical(["u", "v", "u"]),
            "e": pd.date_range("2020", periods=3, tz="UTC"),
            "f": pd.array([1, None, 3], dtype="Int64"),
            "g": [True, False, True],
            "h": pd.to_timedelta([1, 2, 3], unit="s"),
            "i": pd.Series([[1], None, "x"], dtype=object),
            "j": pd.array([True, None, False], dtype="boolean"),
        }
    )
    long = pd.DataFrame(
        {"x": np.arange(3000.0)}, index=pd.date_range("2020", periods=3000, freq="h")
    )
    return [
        plain,
        plain.set_index(["a", "c"]),
        long,
        pd.DataFrame(),
        pd.DataFrame(np.arange(6).reshape(3, 2), columns=["x", "x"]),
        pd.DataFrame({"k": []}),
    ]


def test_frames_series_and_indexes_arrive() -> None:
    pd = pytest.importorskip("pandas")
    for frame in frames():
        made = round_trip(frame)
        pd.testing.assert_frame_equal(made, frame, check_freq=True)
        if len(frame):
            made.iloc[0, 0] = frame.iloc[-1, 0]
            pd.testing.assert_series_equal(round_trip(frame.iloc[:, 0]), frame.iloc[:, 0])
        pd.testing.assert_index_equal(round_trip(frame.index), frame.index)


def test_pandas_scalars_arrive() -> None:
    pd = pytest.importorskip("pandas")
    stamp = pd.Timestamp("2020-01-01 10:00", tz="UTC")
    for value in (stamp, pd.Timestamp("2021-02-03"), pd.Timedelta("1s")):
        made = round_trip(value)
        assert made == value
        assert type(made) is type(value)
        assert made.unit == value.unit
    assert round_trip(pd.NaT) is pd.NaT
    assert round_trip(pd.NA) is pd.NA


def test_arrow_is_read_only_where_annotated() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": [1, 2]})
    with pytest.raises(ResultError, match="annotat"):
        round_trip(table)
    assert round_trip(table, annotation=pa.Table) == table
