"""pandas objects as columns of arrays. Imports pandas: loaded only for values that need it."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from agentsbx._codec_wire import Bad, Ref, Refused, Tag

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsbx._codec_decode import Builder
    from agentsbx._codec_encode import Encoder

__all__ = [
    "build_array",
    "build_frame",
    "build_index",
    "build_scalar",
    "build_series",
    "encoder_for",
]

_FREQ = re.compile(r"-?\d{0,9}[A-Za-z]{1,4}(-[A-Za-z]{3})?", re.ASCII)
_COST = 200  # of a small object of pandas, in items of a list
_UNITS = ("s", "ms", "us", "ns")
_MASKED = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32",
           "Float64", "boolean")  # fmt: skip
_PLAIN_INDEXES = (pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex, pd.CategoricalIndex)


def encoder_for(kind: type) -> Callable[[Encoder, Any], Ref] | None:
    """Return the encoder of a class of pandas that a result keeps."""
    if kind is pd.DataFrame:
        return _encode_frame
    if kind is pd.Series:
        return _encode_series
    if kind in _PLAIN_INDEXES or kind in (pd.RangeIndex, pd.MultiIndex):
        return _encode_index
    if kind in (pd.Timestamp, pd.Timedelta, type(pd.NaT), type(pd.NA)):
        return _encode_scalar
    if issubclass(kind, pd.api.extensions.ExtensionArray):
        return _encode_array
    return None


def _encode_frame(encoder: Encoder, value: Any) -> Ref:
    row: list[Any] = [Tag.PD_FRAME]
    ref = encoder.open(value, row, mutable=False)
    encoder.named(row, ("columns", "index"), (value.columns, value.index))
    for n in range(value.shape[1]):
        try:
            row.append(_column(encoder, value.iloc[:, n]))
        except Refused as refused:
            refused.steps.append(f"[{value.columns[n]!r:.60}]")
            raise
    return encoder.close(value, ref)


def _encode_series(encoder: Encoder, value: Any) -> Ref:
    row: list[Any] = [Tag.PD_SERIES]
    ref = encoder.open(value, row, mutable=False)
    row.append(_column(encoder, value))
    encoder.named(row, ("index", "name"), (value.index, value.name))
    return encoder.close(value, ref)


def _encode_index(encoder: Encoder, value: Any) -> Ref:
    row: list[Any] = [Tag.PD_INDEX]
    ref = encoder.open(value, row, mutable=False)
    if type(value) is pd.RangeIndex:
        row += ["range", encoder.cell(value.name), value.start, value.stop, value.step]
    elif type(value) is pd.MultiIndex:
        row += ["multi", encoder.cell(list(value.names))]
        for level, codes in zip(value.levels, value.codes, strict=True):
            row += [encoder.cell(level), encoder.cell(np.asarray(codes))]
    else:
        freq = getattr(value, "freqstr", None)
        row += ["plain", encoder.cell(value.name), _column(encoder, value)]
        row.append(freq if freq is not None and _FREQ.fullmatch(freq) else None)
    encoder.keep += [value]
    return encoder.close(value, ref)


def _column(encoder: Encoder, value: Any) -> Any:
    """Return the cell of the array behind a Series or an Index."""
    plain = isinstance(value.dtype, np.dtype)
    array = value.to_numpy() if plain else value.array
    if plain and array.dtype.kind == "O":
        array = array.copy()
    encoder.keep.append(array)
    if plain and array.ndim == 1 and not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
        encoder.keep.append(array)
    return encoder.cell(array)


def _encode_array(encoder: Encoder, value: Any) -> Ref:
    dtype = value.dtype
    row: list[Any] = [Tag.PD_ARRAY]
    ref = encoder.open(value, row, mutable=False)
    parts: tuple[Any, ...]
    if isinstance(dtype, pd.CategoricalDtype):
        row.append("category")
        parts = (np.asarray(value.codes), value.categories, bool(value.ordered))
    elif isinstance(dtype, pd.DatetimeTZDtype):
        row.append("tz")
        parts = (value.tz_convert("UTC").tz_localize(None).to_numpy(), dtype.unit, dtype.tz)
    elif isinstance(dtype, pd.StringDtype):
        row.append("string")
        items = [
            None if missing else str(item)
            for item, missing in zip(value, value.isna(), strict=True)
        ]
        parts = (items, dtype.storage, dtype.na_value is pd.NA)
    elif dtype.name in _MASKED:
        row.append("masked")
        parts = (dtype.name, value._data, value._mask)
    elif isinstance(dtype, np.dtype):
        return encoder.close(value, encoder.cell(value.to_numpy()))
    else:
        raise Refused(
            f"a column of dtype {dtype!s:.60} cannot leave the sandbox", "convert it with astype()"
        )
    encoder.keep.append(parts)
    row += [encoder.cell(part) for part in parts]
    return encoder.close(value, ref)


def _encode_scalar(encoder: Encoder, value: Any) -> Ref:
    row: list[Any] = [Tag.PD_SCALAR]
    ref = encoder.row(row)
    if value is pd.NaT or value is pd.NA:
        row.append("NaT" if value is pd.NaT else "NA")
    elif isinstance(value, pd.Timestamp):
        utc = value if value.tz is None else value.tz_convert("UTC").tz_localize(None)
        row += ["stamp", int(utc.asm8.view("i8")), value.unit, encoder.cell(value.tz)]
    else:
        row += ["delta", int(value.asm8.view("i8")), value.unit]
    return ref


# ---- host side


def _made(builder: Builder, cell: Any, kinds: Any) -> Any:
    made: Any = builder.cell(cell)
    if not isinstance(made, kinds):
        raise Bad("a part of a table is of the wrong kind")
    builder.charge(_COST + (0 if isinstance(made, (pd.RangeIndex, datetime.tzinfo)) else len(made)))
    return made


_ARRAYS = (np.ndarray, pd.api.extensions.ExtensionArray)


def _array(builder: Builder, cell: Any) -> Any:
    made = _made(builder, cell, _ARRAYS)
    if made.ndim != 1:
        raise Bad("a column is not flat")
    return made


def build_frame(builder: Builder, i: int, row: list[Any]) -> Any:
    """Build a DataFrame from its columns."""
    if len(row) < 3:
        raise Bad("a table is malformed")
    columns = _made(builder, row[1], (pd.Index,))
    index = _made(builder, row[2], (pd.Index,))
    arrays = [_array(builder, cell) for cell in row[3:]]
    if len(arrays) != len(columns) or any(len(array) != len(index) for array in arrays):
        raise Bad("a table's columns do not match its labels")
    made = pd.DataFrame(dict(enumerate(map(_series, arrays))), copy=False)
    if not arrays:
        return pd.DataFrame(index=index, columns=columns)
    made.index = index
    made.columns = columns
    return made


def _series(array: Any) -> Any:
    """Return a Series over `array` that keeps its dtype, whatever pandas would infer."""
    return pd.Series(array, dtype=array.dtype, copy=False)


def build_series(builder: Builder, i: int, row: list[Any]) -> Any:
    """Build a Series."""
    if len(row) != 4:
        raise Bad("a series is malformed")
    array = _array(builder, row[1])
    index = _made(builder, row[2], (pd.Index,))
    if len(index) != len(array):
        raise Bad("a series does not match its labels")
    made = _series(array)
    made.index = index
    made.name = builder.key(row[3])
    return made


def build_index(builder: Builder, i: int, row: list[Any]) -> Any:
    """Build an Index of any of the kinds that a result keeps."""
    if len(row) < 3:
        raise Bad("an index is malformed")
    builder.charge(_COST)
    kind = row[1]
    if kind == "range" and len(row) == 6 and set(map(type, row[3:])) == {int}:
        return pd.RangeIndex(*row[3:], name=builder.key(row[2]))
    if kind == "plain" and len(row) == 5:
        array = _array(builder, row[3])
        freq = row[4]
        if freq is None:
            return pd.Index(array, dtype=array.dtype, name=builder.key(row[2]), copy=False)
        if type(freq) is not str or not _FREQ.fullmatch(freq):
            raise Bad("an index has a malformed frequency")
        make = pd.TimedeltaIndex if array.dtype.kind == "m" else pd.DatetimeIndex
        return make(array, freq=freq, name=builder.key(row[2]))
    if kind == "multi" and len(row) % 2:
        names = builder.cell(row[2])
        levels = [_made(builder, cell, (pd.Index,)) for cell in row[3::2]]
        codes = [_array(builder, cell) for cell in row[4::2]]
        if type(names) is list and len(names) == len(levels) and _are_ints(codes):
            return pd.MultiIndex(levels, codes, names=names, verify_integrity=True)
    raise Bad("an index is malformed")


def _are_ints(arrays: list[Any]) -> bool:
    return all(isinstance(a, np.ndarray) and a.dtype.kind == "i" for a in arrays)


def build_array(builder: Builder, i: int, row: list[Any]) -> Any:
    """Build an array of one of pandas' own types."""
    if len(row) != 5:
        raise Bad("a column is malformed")
    kind = row[1]
    if kind == "category":
        codes = _made(builder, row[2], (np.ndarray,))
        categories = _made(builder, row[3], (pd.Index,))
        if codes.ndim != 1 or codes.dtype.kind != "i" or type(row[4]) is not bool:
            raise Bad("a categorical column is malformed")
        return pd.Categorical.from_codes(codes, categories, row[4])
    if kind == "tz":
        stamps = _made(builder, row[2], (np.ndarray,))
        zone = _made(builder, row[4], (datetime.tzinfo,))
        if stamps.ndim != 1 or stamps.dtype.kind != "M" or row[3] not in _UNITS:
            raise Bad("a column of times is malformed")
        return pd.DatetimeIndex(stamps).tz_localize("UTC").tz_convert(zone).array
    if kind == "string":
        items = builder.cell(row[2])
        builder.charge(_COST + len(items))
        storage = row[3] if row[3] == "python" else None
        if type(items) is not list or not set(map(type, items)) <= {str, type(None)}:
            raise Bad("a column of strings is malformed")
        dtype = pd.StringDtype(storage, pd.NA if row[4] is True else np.nan)
        return pd.array(items, dtype=dtype)
    if kind == "masked" and row[2] in _MASKED:
        data = _made(builder, row[3], (np.ndarray,))
        mask = _made(builder, row[4], (np.ndarray,))
        if data.ndim != 1 or data.shape != mask.shape or mask.dtype.kind != "b":
            raise Bad("a column with missing values is malformed")
        made = pd.array(data, dtype=row[2])
        made[mask] = pd.NA
        return made
    raise Bad("a column is of an unknown kind")


def build_scalar(builder: Builder, i: int, row: list[Any]) -> Any:
    """Build a Timestamp, a Timedelta, NaT or NA."""
    builder.charge(_COST // 4)
    if row[1:] == ["NaT"]:
        return pd.NaT
    if row[1:] == ["NA"]:
        return pd.NA
    if len(row) < 4 or type(row[2]) is not int or row[3] not in _UNITS:
        raise Bad("a time is malformed")
    if row[1] == "delta":
        return pd.Timedelta(np.timedelta64(row[2], row[3]))
    made = pd.Timestamp(np.datetime64(row[2], row[3]))
    zone = builder.cell(row[4]) if len(row) == 5 else None
    if zone is None:
        return made
    if not isinstance(zone, datetime.tzinfo):
        raise Bad("a time zone is not one")
    return made.tz_localize("UTC").tz_convert(zone)
