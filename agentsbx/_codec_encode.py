"""Job side of the codec: turn a value into rows, blobs and buffers.

Runs in the sandbox. It imports nothing that the value does not already use: a type outside those of
`_codec_builtins` is found by its module's and its own name.
"""

from __future__ import annotations

import sys
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx import _codec_builtins
from agentsbx._codec_wire import (
    DEFAULT,
    OUT_OF_BAND,
    PLAIN,
    SCALARS,
    STR_ONLY,
    TABLE,
    Body,
    CodecLimits,
    Ref,
    Refused,
    Tag,
    check_plain,
    hashes_by_identity,
    short_name,
    too_many,
)
from agentsbx.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Encoder", "encode", "encode_table", "is_plain_data"]

_PACKER = msgspec.msgpack.Encoder()
_BUSY = Ref(-(1 << 62))  # in the memo: an immutable value whose parts are being encoded
_PLAIN_HEAD = bytes((PLAIN,))
_PLAIN_TYPES = SCALARS | {list, dict}
_ENCODERS = dict(_codec_builtins.ENCODERS)  # with those that were found since


def is_plain_data(value: Any) -> bool:
    """Whether msgpack alone keeps `value`: exact builtin types, str keys, nothing shared."""
    if type(value) not in _PLAIN_TYPES:
        return False
    todo = [value]
    for item in todo:
        kind = type(item)
        if kind is dict:
            if item and set(map(type, item)) != STR_ONLY:
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


def encode(
    value: Any, *, limits: CodecLimits = DEFAULT, what: str = "return value"
) -> tuple[bytes, list[memoryview]]:
    """Return the body and the buffers that carry `value` to the host.

    Bytes and arrays of 16 KiB and more become buffers: views of the value's own memory, so they
    must be sent before the value changes. Raises `SerializationError`, which names the part of the
    value that cannot leave the sandbox and what to return instead.
    """
    if is_plain_data(value):
        try:
            packed = _PACKER.encode(value)
        except (OverflowError, UnicodeEncodeError, RecursionError):
            pass  # a huge int or a lone surrogate: the table has tags for them
        else:
            if check_plain(packed, limits.depth):
                return _PLAIN_HEAD + packed, []
    return encode_table(lambda encoder: encoder.cell(value), limits, what)


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
            raise too_many(self.limits)
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
        encoder = _ENCODERS.get(kind) or find_encoder(kind)
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
            raise too_many(self.limits)
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
            refused.steps.append(f"{{key {short_name(value)}}}")
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
                refused.steps.append(f"[{short_name(key)}]")
                raise
        self.in_key = saved


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
        _ENCODERS[kind] = found
    return found
