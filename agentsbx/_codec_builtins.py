"""Builtin types that a result keeps: one encoder and one decoder each.

Small values of the plainest of them never come here: `_codec_encode.encode` sends them as msgpack.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from agentsbx._codec_wire import (
    MAX_INT_BYTES,
    OUT_OF_BAND,
    PACK_ITEMS,
    PACKED_PER_NODE,
    RECORD_COST,
    RECORDS,
    SCALARS,
    STR_ONLY,
    Bad,
    Ref,
    Refused,
    Tag,
    check_keys,
    short_name,
    too_many,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsbx._codec_decode import Builder
    from agentsbx._codec_encode import Encoder

__all__ = ["DECODERS", "ENCODERS"]

_RECORD_TYPES = frozenset({dict, tuple, list})
_ALONE = max(map(sys.getrefcount, [object()]))  # of an item that only one list holds


# ---- encoders


def _list(encoder: Encoder, value: list[Any]) -> Ref:
    kinds = set(map(type, value))
    if len(value) > encoder.limits.nodes * PACKED_PER_NODE:
        raise too_many(encoder.limits)
    if len(value) >= PACK_ITEMS and len(kinds) == 1 and (int in kinds or float in kinds):
        import array

        is_int = int in kinds
        try:
            packed = array.array("q" if is_int else "d", value)
        except OverflowError:
            pass
        else:
            return encoder.open(
                value, [Tag.INTS if is_int else Tag.FLOATS, encoder.blob(memoryview(packed))]
            )
    if len(value) >= PACK_ITEMS and kinds == STR_ONLY and not encoder.careful:
        import array

        text = "".join(value).encode()
        sizes = encoder.blob(memoryview(array.array("I", map(len, value))))
        return encoder.open(value, [Tag.STRS, sizes, encoder.blob(text)])
    if len(value) >= RECORDS and len(kinds) == 1 and not kinds.isdisjoint(_RECORD_TYPES):
        columns = _columns(value, next(iter(kinds)))
        if columns is not None:
            return _records(encoder, value, *columns)
    row: list[Any] = [Tag.LIST]
    ref = encoder.open(value, row)
    if kinds <= SCALARS and not encoder.careful:
        row += value
    else:
        encoder.fill(row, value)
    return ref


def _columns(value: list[Any], kind: type) -> tuple[list[Any], list[Any]] | None:
    """Return the keys and columns of a list of dicts, tuples or lists of one shape, or None.

    None also where anything else holds one of the records: it might be shared within the result.
    """
    if max(map(sys.getrefcount, value)) > _ALONE:  # before a name below holds one of them
        return None
    first = value[0]
    if not first:
        return None
    if kind is dict:
        keys = list(first)
        if set(map(type, keys)) != STR_ONLY or any(list(item) != keys for item in value):
            return None
        return keys, [list(column) for column in zip(*map(dict.values, value), strict=True)]
    if set(map(len, value)) != {len(first)}:
        return None
    return [kind is tuple] * len(first), [list(column) for column in zip(*value, strict=True)]


def _records(encoder: Encoder, value: list[Any], keys: list[Any], columns: list[Any]) -> Ref:
    row: list[Any] = [Tag.ROWS, len(keys)]
    ref = encoder.open(value, row)
    row += [encoder.cell(key) for key in keys] if encoder.careful else keys
    if len(value) * (RECORD_COST + len(keys)) > encoder.limits.nodes * PACKED_PER_NODE:
        raise too_many(encoder.limits)
    for n, (key, column) in enumerate(zip(keys, columns, strict=True)):
        try:
            row.append(encoder.cell(column))
        except Refused as refused:
            step = f"[{short_name(key) if type(key) is str else n}]"
            refused.steps.insert(max(len(refused.steps) - 1, 0), step)
            raise
    return ref


def _tuple(encoder: Encoder, value: tuple[Any, ...]) -> Ref:
    row: list[Any] = [Tag.TUPLE]
    ref = encoder.open(value, row, mutable=False)
    encoder.fill(row, value)
    return encoder.close(value, ref)


def _dict(encoder: Encoder, value: dict[Any, Any]) -> Ref:
    row: list[Any] = [Tag.DICT]
    ref = encoder.open(value, row)
    encoder.pairs(row, value)
    return ref


def _set(encoder: Encoder, value: set[Any]) -> Ref:
    row: list[Any] = [Tag.SET]
    ref = encoder.open(value, row)
    for item in value:
        encoder.key(row, item)
    return ref


def _frozenset(encoder: Encoder, value: frozenset[Any]) -> Ref:
    row: list[Any] = [Tag.FROZENSET]
    ref = encoder.open(value, row, mutable=False)
    for item in value:
        encoder.key(row, item)
    return encoder.close(value, ref)


def _bytes(encoder: Encoder, value: bytes) -> Ref:
    if len(value) < OUT_OF_BAND and encoder.rows:
        ref = Ref(-1 - encoder.blob(value))
        if not encoder.in_key:
            encoder.memo[id(value)] = ref
            encoder.keep.append(value)
        return ref
    return encoder.open(value, [Tag.BYTES, encoder.blob(value)])


def _bytearray(encoder: Encoder, value: bytearray) -> Ref:
    return encoder.open(value, [Tag.BYTEARRAY, encoder.blob(value)])


def _memoryview(encoder: Encoder, value: memoryview) -> Ref:
    data = value if value.c_contiguous else value.tobytes()
    return encoder.open(value, [Tag.BYTES, encoder.blob(data)])


def _complex(encoder: Encoder, value: complex) -> Ref:
    return encoder.row([Tag.COMPLEX, value.real, value.imag])


def _range(encoder: Encoder, value: range) -> Ref:
    row: list[Any] = [Tag.RANGE]
    ref = encoder.row(row)
    encoder.fill(row, (value.start, value.stop, value.step))
    return ref


def _slice(encoder: Encoder, value: slice) -> Ref:
    row: list[Any] = [Tag.SLICE]
    ref = encoder.row(row)
    encoder.named(row, ("start", "stop", "step"), (value.start, value.stop, value.step))
    return ref


def _ellipsis(encoder: Encoder, value: Any) -> Ref:
    return encoder.row([Tag.CONST, "...", 1 if value is ... else 2])


ENCODERS: dict[type, Callable[[Encoder, Any], Any]] = {
    list: _list,
    tuple: _tuple,
    dict: _dict,
    set: _set,
    frozenset: _frozenset,
    bytes: _bytes,
    bytearray: _bytearray,
    memoryview: _memoryview,
    complex: _complex,
    range: _range,
    slice: _slice,
    type(...): _ellipsis,
    type(NotImplemented): _ellipsis,
}


# ---- decoders


def _build_list(builder: Builder, i: int, row: list[Any]) -> Any:
    made: list[Any] = builder.put(i, [])
    made += builder.cells(row, 1)
    return made


def _build_tuple(builder: Builder, i: int, row: list[Any]) -> Any:
    return tuple(builder.cells(row, 1))


def _build_dict(builder: Builder, i: int, row: list[Any]) -> Any:
    return builder.fill_dict(builder.put(i, {}), row, 1)


def _items(builder: Builder, row: list[Any]) -> list[Any]:
    items = [builder.key(cell) for cell in row[1:]]
    check_keys(items)
    return items


def _build_set(builder: Builder, i: int, row: list[Any]) -> Any:
    made: set[Any] = builder.put(i, set())
    made.update(_items(builder, row))
    return _full(made, row)


def _build_frozenset(builder: Builder, i: int, row: list[Any]) -> Any:
    return _full(frozenset(_items(builder, row)), row)


def _full(made: Any, row: list[Any]) -> Any:
    if len(made) != len(row) - 1:
        raise Bad("a set has an item twice")
    return made


def _build_int(builder: Builder, i: int, row: list[Any]) -> Any:
    data = builder.take(row[1])
    if len(data) > min(builder.limits.int_bytes, MAX_INT_BYTES):
        raise Bad("an int is too large")
    return int.from_bytes(data, "little", signed=True)


def _build_str(builder: Builder, i: int, row: list[Any]) -> Any:
    return str(builder.take(row[1]), "utf-8", "surrogatepass")


def _build_bytes(builder: Builder, i: int, row: list[Any]) -> Any:
    return bytes(builder.take(row[1]))


def _build_bytearray(builder: Builder, i: int, row: list[Any]) -> Any:
    return bytearray(builder.take(row[1]))


def _build_packed(code: str) -> Callable[[Builder, int, list[Any]], Any]:
    def build(builder: Builder, i: int, row: list[Any]) -> Any:
        items = builder.take_items(row[1], code)
        made: list[Any] = builder.put(i, [])
        made += items
        return made

    return build


def _build_rows(builder: Builder, i: int, row: list[Any]) -> Any:
    count = row[1] if len(row) > 1 else None
    if type(count) is not int or count < 1 or len(row) != 2 + 2 * count:
        raise Bad("a list of records is malformed")
    made: list[Any] = builder.put(i, [])
    keys = builder.cells(row[: 2 + count], 2)
    columns = [builder.cell(cell) for cell in row[2 + count :]]
    if set(map(type, columns)) != {list} or len(set(map(len, columns))) != 1:
        raise Bad("the columns of a list of records are malformed")
    builder.charge(len(columns[0]) * (RECORD_COST + count))
    if set(keys) == {True} and type(keys[0]) is bool:
        made += zip(*columns, strict=True)
    elif set(keys) == {False} and type(keys[0]) is bool:
        made += map(list, zip(*columns, strict=True))
    elif set(map(type, keys)) == {str} and len(set(keys)) == count:
        made += [dict(zip(keys, record, strict=True)) for record in zip(*columns, strict=True)]
    else:
        raise Bad("a list of records is malformed")
    return made


def _build_strs(builder: Builder, i: int, row: list[Any]) -> Any:
    sizes = builder.take_items(row[1], "I")
    text = str(builder.take(row[2]), "utf-8")
    made: list[Any] = builder.put(i, [])
    start = 0
    for size in sizes:
        made.append(text[start : start + size])
        start += size
    if start != len(text):
        raise Bad("a list of strings does not match its text")
    return made


def _numbers(row: list[Any], count: int, kind: type) -> list[Any]:
    if len(row) != count + 1 or any(type(cell) is not kind for cell in row[1:]):
        raise Bad("a row of numbers is malformed")
    return row[1:]


def _build_complex(builder: Builder, i: int, row: list[Any]) -> Any:
    return complex(*_numbers(row, 2, float))


def _build_range(builder: Builder, i: int, row: list[Any]) -> Any:
    row = [None, *builder.cells(row, 1)]
    return range(*_numbers(row, 3, int))


def _build_slice(builder: Builder, i: int, row: list[Any]) -> Any:
    if len(row) != 4:
        raise Bad("a slice is malformed")
    return slice(*builder.cells(row, 1))


def _build_const(builder: Builder, i: int, row: list[Any]) -> Any:
    if len(row) == 2 and type(row[1]) is not Ref:
        return row[1]
    if row[1:] == ["...", 1]:
        return ...
    if row[1:] == ["...", 2]:
        return NotImplemented
    raise Bad("a constant is unknown")


DECODERS: dict[int, Callable[[Builder, int, list[Any]], Any]] = {
    Tag.LIST: _build_list,
    Tag.TUPLE: _build_tuple,
    Tag.DICT: _build_dict,
    Tag.SET: _build_set,
    Tag.FROZENSET: _build_frozenset,
    Tag.INT: _build_int,
    Tag.STR: _build_str,
    Tag.BYTES: _build_bytes,
    Tag.BYTEARRAY: _build_bytearray,
    Tag.INTS: _build_packed("q"),
    Tag.FLOATS: _build_packed("d"),
    Tag.STRS: _build_strs,
    Tag.ROWS: _build_rows,
    Tag.COMPLEX: _build_complex,
    Tag.RANGE: _build_range,
    Tag.SLICE: _build_slice,
    Tag.CONST: _build_const,
}
