"""Job side of the codec: turn a value into rows, blobs and buffers.

Runs in the sandbox. It imports nothing that the value does not already use: a type outside the
builtins is found by its module's and its own name in `_codec_types.ENCODERS`.
"""

from __future__ import annotations

import sys
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx._codec_wire import (
    DEFAULT,
    OUT_OF_BAND,
    PACK_ITEMS,
    PACKED_PER_NODE,
    PLAIN,
    RECORD_COST,
    RECORDS,
    SCALARS,
    TABLE,
    Body,
    CodecLimits,
    Ref,
    Refused,
    Tag,
    check_plain,
    hashes_by_identity,
)
from agentsbx.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Encoder", "encode"]

_PACKER = msgspec.msgpack.Encoder()
_BUSY = Ref(-(1 << 62))  # in the memo: an immutable value whose parts are being encoded
_PLAIN_HEAD = bytes((PLAIN,))
_PLAIN_TYPES = SCALARS | {list, dict}
_STR_ONLY = frozenset({str})
_RECORD_TYPES = frozenset({dict, tuple, list})
_ALONE = max(map(sys.getrefcount, [object()]))  # of an item that only one list holds


def _is_plain(value: Any) -> bool:
    """Whether msgpack alone keeps `value`: exact builtin types, str keys, nothing shared."""
    if type(value) not in _PLAIN_TYPES:
        return False
    todo = [value]
    for item in todo:
        kind = type(item)
        if kind is dict:
            if item and set(map(type, item)) != _STR_ONLY:
                return False
            item = item.values()
        elif kind is not list:
            continue
        types = set(map(type, item))
        if not types <= _PLAIN_TYPES or len(item) > 4096:
            return False
        if not types <= SCALARS:
            todo += [part for part in item if type(part) is list or type(part) is dict]
            if len(todo) > 64:  # also what ends a cycle; such a value is sent as a table
                return False
    return len(set(map(id, todo))) == len(todo)


def encode(value: Any, *, limits: CodecLimits = DEFAULT) -> tuple[bytes, list[memoryview]]:
    """Return the body and the buffers that carry `value` to the host.

    Bytes and arrays of 16 KiB and more become buffers: views of the value's own memory, so they
    must be sent before the value changes. Raises `SerializationError`, which names the part of the
    value that cannot leave the sandbox and what to return instead.
    """
    if _is_plain(value):
        try:
            packed = _PACKER.encode(value)
        except (OverflowError, UnicodeEncodeError, RecursionError):
            pass  # a huge int or a lone surrogate: the table has tags for them
        else:
            if check_plain(packed, limits.depth):
                return _PLAIN_HEAD + packed, []
    return encode_table(lambda encoder: encoder.cell(value), limits)


def encode_table(
    fill: Callable[[Encoder], Any], limits: CodecLimits, what: str = "return value"
) -> tuple[bytes, list[memoryview]]:
    """Run `fill` on a new encoder and pack its rows; again, cell by cell, if a scalar is odd."""
    for careful in (False, True):
        encoder = Encoder(limits, careful)
        try:
            root = fill(encoder)
            return encoder.finish(root), encoder.buffers
        except Refused as refused:
            where = what + "".join(reversed(refused.steps))
            error = SerializationError(f"{where}: {refused.reason}", where=where, hint=refused.hint)
            error.limit = refused.limit
            raise error from None
        except (OverflowError, UnicodeEncodeError):
            if careful:
                raise
        except RecursionError:
            raise SerializationError(
                f"{what} nests too deeply", where=what, hint="return a flatter value"
            ) from None
    raise AssertionError("unreachable")


class Encoder:
    """Collects rows. `cell` returns what stands for a value inside a row."""

    __slots__ = ("blobs", "buffers", "careful", "depth", "in_key", "keep", "limits", "memo", "rows",
                 "shapes", "size")  # fmt: skip

    def __init__(self, limits: CodecLimits, careful: bool) -> None:
        self.limits = limits
        self.careful = careful  # look at each int and str: one of them does not fit msgpack
        self.rows: list[list[Any]] = []
        self.blobs: list[bytes] = []
        self.buffers: list[memoryview] = []
        self.memo: dict[int, Ref] = {}
        self.keep: list[Any] = []  # keeps ids in `memo` valid
        self.shapes: dict[Any, Ref] = {}
        self.depth = 0
        self.in_key = 0
        self.size = 0

    def finish(self, root: Any) -> bytes:
        """Return the body. A scalar root gets a row of its own."""
        rows = self.rows
        if type(root) is not Ref or root.i != 0:
            raise AssertionError("the first row is the value")
        if sum(map(len, rows)) > self.limits.nodes:
            raise Refused(*_too_many(self.limits))
        body = bytes((TABLE,)) + _PACKER.encode(Body(rows, self.blobs))
        if len(body) > self.limits.body_bytes:
            raise Refused(
                f"is larger than the limit of {self.limits.body_bytes} bytes",
                "raise `result=`, or write it to a file",
                limit="result",
            )
        return body

    def cell(self, value: Any) -> Any:
        """Return the cell for `value`: itself, or a reference to a row made now or before."""
        kind = type(value)
        if kind in SCALARS:
            if self.careful or not self.rows:
                return self._odd_scalar(value, kind)
            return value
        if self.in_key and hashes_by_identity(kind):  # its parts are not hashed
            saved, self.in_key = self.in_key, 0
            cell = self.cell(value)
            self.in_key = saved
            return cell
        known = self.memo.get(id(value))
        if known is not None and not self.in_key:
            if known is _BUSY:
                raise Refused(
                    f"a {kind.__name__} that contains itself cannot leave the sandbox",
                    "use a list or a dict for it",
                )
            return known
        encoder = _BUILTINS.get(kind) or find_encoder(kind)
        if self.depth >= self.limits.depth:
            raise Refused(
                f"nests more than {self.limits.depth} levels deep", "return a flatter value"
            )
        self.depth += 1
        cell = encoder(self, value)
        self.depth -= 1
        return cell

    def _odd_scalar(self, value: Any, kind: type) -> Any:
        """Return a cell for a scalar that may not fit msgpack, or that is the whole value."""
        if kind is int and not -(1 << 63) <= value < 1 << 63:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            if len(data) > self.limits.int_bytes:
                raise Refused(f"an int of {len(data)} bytes is larger than a result may hold")
            return self.row([Tag.INT, self.blob(data)])
        if kind is str:
            try:
                value.encode()
            except UnicodeEncodeError:
                return self.row([Tag.STR, self.blob(value.encode("utf-8", "surrogatepass"))])
            if len(value) > OUT_OF_BAND and not self.rows:
                return self.row([Tag.STR, self.blob(value.encode())])
        return value if self.rows else self.row([Tag.CONST, value])

    def row(self, row: list[Any]) -> Ref:
        """Add a finished row that nothing else refers to."""
        self.rows.append(row)
        return Ref(len(self.rows) - 1)

    def open(self, value: Any, row: list[Any], *, mutable: bool = True) -> Ref:
        """Add a row for `value` before its parts, so that they may refer back to it.

        A value that the host can only build once its parts are there (`mutable=False`) must not
        contain itself; `close` makes it known.
        """
        if len(self.rows) >= self.limits.nodes:
            raise Refused(*_too_many(self.limits))
        ref = Ref(len(self.rows))
        self.rows.append(row)
        if not self.in_key:
            self.memo[id(value)] = ref if mutable else _BUSY
            self.keep.append(value)
        return ref

    def close(self, value: Any, ref: Ref) -> Ref:
        """Let later parts of the result refer to `value`, opened with `mutable=False`."""
        if not self.in_key:
            self.memo[id(value)] = ref
        return ref

    def blob(self, data: Any) -> int:
        """Store bytes and return their number: >= 0 inside the body, -1 - n for buffer n."""
        size = data.nbytes if type(data) is memoryview else len(data)
        self.size += size
        if self.size > self.limits.buffer_bytes:
            raise Refused(
                f"holds more than {self.limits.buffer_bytes} bytes of data",
                "raise `result=`, or write it to a file",
                limit="buffers",
            )
        if size >= OUT_OF_BAND:
            self.buffers.append(memoryview(data).cast("B"))
            return -len(self.buffers)
        self.blobs.append(data if type(data) is bytes else bytes(data))
        return len(self.blobs) - 1

    def fill(self, row: list[Any], items: Iterable[Any], step: str = "[{}]") -> None:
        """Append a cell for each of `items`; `step` says how the n-th is named in an error."""
        cell = self.cell
        n = 0
        try:
            for n, item in enumerate(items):  # noqa: B007 - n names the failing item
                row.append(cell(item))
        except Refused as refused:
            refused.steps.append(step.format(n))
            raise

    def named(self, row: list[Any], names: Iterable[str], values: Iterable[Any]) -> None:
        """Append a cell for each of `values`, which are attributes called `names`."""
        for name, value in zip(names, values, strict=True):
            try:
                row.append(self.cell(value))
            except Refused as refused:
                refused.steps.append(f".{name}")
                raise

    def key(self, row: list[Any], value: Any) -> None:
        """Append a cell for something that will be hashed.

        Inside, nothing is shared: hashing a tuple of shared tuples takes exponential time.
        """
        if type(value) in SCALARS and not self.careful:
            row.append(value)
            return
        saved, self.in_key = self.in_key, 1
        try:
            row.append(self.cell(value))
        except Refused as refused:
            refused.steps.append(f"{{key {_short(value)}}}")
            raise
        self.in_key = saved

    def pairs(self, row: list[Any], mapping: dict[Any, Any]) -> None:
        """Append keys and values of `mapping` in turn."""
        if (
            not self.careful
            and set(map(type, mapping)) <= SCALARS
            and set(map(type, mapping.values())) <= SCALARS
        ):
            row.extend(chain.from_iterable(mapping.items()))
            return
        saved, self.in_key = self.in_key, 0
        key: Any = None
        for key, value in mapping.items():
            self.key(row, key)
            try:
                row.append(self.cell(value))
            except Refused as refused:
                refused.steps.append(f"[{_short(key)}]")
                raise
        self.in_key = saved


def _short(value: Any) -> str:
    """Return a short name of `value` without calling code of its class."""
    if type(value) in SCALARS:
        text = repr(value)
        return text if len(text) <= 40 else text[:37] + "..."
    return f"<{type(value).__name__}>"


def _too_many(limits: CodecLimits) -> tuple[str, str]:
    return f"holds more than {limits.nodes} values", "return an array, or write it to a file"


def _list(encoder: Encoder, value: list[Any]) -> Ref:
    kinds = set(map(type, value))
    if len(value) > encoder.limits.nodes * PACKED_PER_NODE:
        raise Refused(*_too_many(encoder.limits))
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
    if len(value) >= PACK_ITEMS and kinds == _STR_ONLY and not encoder.careful:
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
        if set(map(type, keys)) != _STR_ONLY or any(list(item) != keys for item in value):
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
        raise Refused(*_too_many(encoder.limits))
    for n, (key, column) in enumerate(zip(keys, columns, strict=True)):
        try:
            row.append(encoder.cell(column))
        except Refused as refused:
            step = f"[{_short(key) if type(key) is str else n}]"
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


_BUILTINS: dict[type, Callable[[Encoder, Any], Any]] = {
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


def find_encoder(kind: type) -> Callable[[Encoder, Any], Any]:
    """Return the encoder of a type outside the builtins, and remember it."""
    from agentsbx import _codec_types

    found = _codec_types.encoder_for(kind)
    if found is None:
        if kind.__module__.partition(".")[0] in ("numpy", "pandas", "pyarrow"):
            from agentsbx import _codec_arrays

            found = _codec_arrays.encoder_for(kind)
        if found is None:
            from agentsbx import _codec_instances

            found = _codec_instances.encode_instance
    if sys.modules.get(kind.__module__) is not None:
        _BUILTINS[kind] = found
    return found
