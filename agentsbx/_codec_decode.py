"""Host side of the codec: build a value from bytes that a job wrote.

Everything here treats the bytes as hostile. Sizes, depth and counts are checked before anything is
built; constructors are chosen from fixed tables; whatever goes wrong is a `ResultError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx import _codec_builtins, _codec_types
from agentsbx._codec_wire import (
    DEFAULT,
    PACKED_PER_NODE,
    PLAIN,
    TABLE,
    Bad,
    Body,
    CodecLimits,
    Ref,
    Tag,
    check_keys,
    check_plain,
    hashes_by_identity,
)
from agentsbx.errors import ResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentsbx._codec_table import ClassTable

__all__ = ["Builder", "decode"]


def _no_ext(code: int, data: memoryview) -> Any:
    raise Bad("an extension type")


_UNPACKER = msgspec.msgpack.Decoder(ext_hook=_no_ext)
_TABLE = msgspec.msgpack.Decoder(Body)
_RAW = msgspec.msgpack.Decoder(tuple[msgspec.Raw, msgspec.Raw])
_RAW_LIST = msgspec.msgpack.Decoder(list[msgspec.Raw])
_NEW: Any = type("_New", (), {"__slots__": ()})()
_BUSY: Any = type("_Busy", (), {"__slots__": ()})()


NOT_PLAIN = object()


def decode(
    body: bytes | memoryview,
    buffers: Sequence[memoryview],
    *,
    classes: ClassTable,
    annotation: Any = None,
    limits: CodecLimits = DEFAULT,
) -> Any:
    """Return the value that a job encoded; raises `ResultError` for anything else.

    `buffers` become the memory of the arrays in the result without a copy; where they are writable
    so are the arrays. `classes` names the classes that may be rebuilt. `annotation` is the
    function's return annotation: what is only decoded on request (Arrow tables) must stand there.
    """
    return guarded(lambda: _decode(body, buffers, classes, annotation, limits))


def guarded(build: Callable[[], Any]) -> Any:
    """Run `build`; whatever it raises becomes a `ResultError`."""
    try:
        return build()
    except Bad as bad:
        raise ResultError(f"the result could not be decoded: {bad}", hint=bad.hint) from None
    except ResultError:
        raise
    except MemoryError:
        raise ResultError("the result could not be decoded: out of memory") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error!s:.200}"
        raise ResultError(f"the result could not be decoded: {reason}") from None


def _decode(
    body: bytes | memoryview,
    buffers: Sequence[memoryview],
    classes: ClassTable,
    annotation: Any,
    limits: CodecLimits,
) -> Any:
    if len(body) < 2:
        raise Bad("it is empty")
    if body[0] == PLAIN:
        packed = body[1:]
        if not check_plain(packed, limits.depth):
            raise Bad("a value in plain form is too large for it")
        if buffers:
            raise Bad("it came with buffers that it does not use")
        return _UNPACKER.decode(packed)
    return open_table(body, buffers, classes, annotation, limits).root()


def decode_plain(body: bytes, limits: CodecLimits) -> Any:
    """Return the value of an answer in plain form; NOT_PLAIN for any other, also a bad one."""
    packed = body[1:]
    if len(body) < 2 or body[0] != PLAIN or not check_plain(packed, limits.depth):
        return NOT_PLAIN
    try:
        return _UNPACKER.decode(packed)
    except Exception:
        return NOT_PLAIN  # `decode` says what is wrong with it


def open_table(
    body: bytes | memoryview,
    buffers: Sequence[memoryview],
    classes: ClassTable,
    annotation: Any,
    limits: CodecLimits,
) -> Builder:
    """Check the size of a TABLE body and return a builder over its rows."""
    if len(body) > limits.body_bytes:
        raise Bad(f"it has {len(body)} bytes, more than `result` allows")
    if len(body) < 2 or body[0] != TABLE:
        raise Bad("it is of an unknown form")
    if sum(view.nbytes for view in buffers) > limits.buffer_bytes:
        raise Bad("its buffers are larger than `result` allows")
    packed = memoryview(body)[1:]
    if len(packed) > limits.nodes:  # else each node has a byte of its own
        _count_nodes(packed, limits.nodes)
    table = _TABLE.decode(packed)
    if not table.rows:
        raise Bad("it has no rows")
    return Builder(table, buffers, classes, annotation, limits)


def _count_nodes(packed: memoryview, limit: int) -> None:
    """Raise `Bad` if the body holds more than `limit` nodes, reading only lengths."""
    rows, blobs = _RAW.decode(packed)
    left = limit - _length(rows) - _length(blobs)
    if left < 0:
        raise Bad(f"it holds more than {limit} values")
    for row in _RAW_LIST.decode(rows):
        left -= _length(row)
        if left < 0:
            raise Bad(f"it holds more than {limit} values")


def _length(raw: msgspec.Raw) -> int:
    """Return how many items the msgpack array `raw` says it has."""
    view = memoryview(raw)
    head = view[0]
    if 0x90 <= head <= 0x9F:
        return head & 15
    if head == 0xDC:
        return int.from_bytes(view[1:3], "big")
    if head == 0xDD:
        return int.from_bytes(view[1:5], "big")
    raise Bad("a row is not a row")


class Builder:
    """Builds rows on demand, each once, so that what was shared is shared again."""

    __slots__ = (
        "annotation",
        "blobs",
        "budget",
        "buffers",
        "built",
        "checks",
        "classes",
        "depth",
        "in_key",
        "limits",
        "rows",
    )

    def __init__(
        self,
        table: Body,
        buffers: Sequence[memoryview],
        classes: ClassTable,
        annotation: Any,
        limits: CodecLimits,
    ) -> None:
        self.rows: list[Any] = table.rows
        self.blobs: list[Any] = table.blobs
        self.buffers: list[memoryview | None] = list(buffers)
        self.built: list[Any] = [_NEW] * len(table.rows)
        self.classes = classes
        self.annotation = annotation
        self.limits = limits
        self.checks: list[tuple[Any, Any, str]] = []  # value, annotation, what to say if it is not
        self.depth = 0
        self.in_key = False
        self.budget = limits.nodes * PACKED_PER_NODE

    def root(self) -> Any:
        """Return the whole value, once all that was put off is checked."""
        value = self.get(0)
        if self.checks:
            from agentsbx._codec_annotation import Fit

            fit = Fit()
            for part, hint, told in self.checks:
                if not fit.fits(part, hint):
                    raise Bad(told)
        return value

    def cell(self, cell: Any) -> Any:
        """Return the value of a cell."""
        return self.get(cell.i) if type(cell) is Ref else cell

    def cells(self, row: list[Any], start: int) -> list[Any]:
        """Return the values of the cells of `row` from `start` on."""
        if Ref not in set(map(type, row)):
            return row[start:]
        get = self.get
        return [get(cell.i) if type(cell) is Ref else cell for cell in row[start:]]

    def get(self, i: int) -> Any:
        """Return the value of row `i`, or the bytes of blob `-1 - i`."""
        if i < 0:
            blob = self.blobs[-1 - i]
            if blob is None:
                raise Bad("a blob is used twice")
            return blob
        value = self.built[i]
        if value is _NEW:
            return self._build(i)
        if value is _BUSY:
            raise Bad("an immutable value contains itself")
        if self.in_key and not hashes_by_identity(type(value)):
            raise Bad("a key shares its parts")  # hashing it might take exponential time
        return value

    def _build(self, i: int) -> Any:
        row = self.rows[i]
        tag = row[0] if row else None
        build = _DECODERS.get(tag) if type(tag) is int else None
        if build is None:
            build = _late_decoder(tag)
        if self.depth >= self.limits.depth:
            raise Bad(f"it nests more than {self.limits.depth} levels deep")
        self.depth += 1
        self.built[i] = _BUSY
        value = build(self, i, row)
        self.built[i] = value
        self.depth -= 1
        return value

    def put(self, i: int, value: Any) -> Any:
        """Make `value` known as row `i` before its parts are built."""
        self.built[i] = value
        return value

    def take(self, number: Any) -> Any:
        """Return blob or buffer `number`. Each may be copied once: so a copy cannot multiply."""
        if type(number) is not int:
            raise Bad("a blob has no number")
        store: list[Any] = self.blobs if number >= 0 else self.buffers
        index = number if number >= 0 else -1 - number
        data = store[index]
        if data is None:
            raise Bad("a blob is used twice")
        store[index] = None
        return data

    def take_items(self, number: Any, code: str) -> memoryview:
        """Return blob `number` as items of `code`, whose number is bounded for the whole result."""
        items: memoryview = memoryview(self.take(number)).cast("B").cast(code)  # type: ignore[call-overload]
        self.charge(len(items))
        return items

    def charge(self, cost: int) -> None:
        """Take `cost` from what this result may cost to build; raises `Bad` when that is used up.

        For whatever copies or works through a part that other rows may share, so that many rows
        cannot do so to one large part. One unit is about one item of a list.
        """
        self.budget -= cost
        if self.budget < 0:
            raise Bad("it takes too much work or memory to build")

    def text(self, cell: Any, limit: int) -> str:
        """Return the string in `cell`, of at most `limit` characters."""
        text = self.cell(cell)
        if type(text) is not str or len(text) > limit:
            raise Bad("a text is missing or too long")
        self.charge(len(text))
        return text

    def key(self, cell: Any) -> Any:
        """Return the value of a cell that will be hashed."""
        if type(cell) is not Ref:
            return cell
        saved, self.in_key = self.in_key, True
        value = self.get(cell.i)
        self.in_key = saved
        return value

    def fill_dict(self, made: Any, row: list[Any], start: int) -> Any:
        """Fill `made`, which is a dict or a subclass of it, from keys and values in turn."""
        keys: list[Any] = row[start::2]
        values: list[Any] = row[start + 1 :: 2]
        if len(keys) != len(values):
            raise Bad("a dict lacks a value")
        if Ref in set(map(type, row)):
            saved, self.in_key = self.in_key, False
            for n, (key, value) in enumerate(zip(keys, values, strict=True)):
                keys[n] = self.key(key)
                values[n] = self.get(value.i) if type(value) is Ref else value
            self.in_key = saved
        check_keys(keys)
        dict.update(made, zip(keys, values, strict=True))
        if len(made) != len(keys):
            raise Bad("a dict has a key twice")
        return made


_DECODERS: dict[int, Callable[[Builder, int, list[Any]], Any]] = {
    **_codec_builtins.DECODERS,
    **_codec_types.DECODERS,
}


def _late_decoder(tag: Any) -> Callable[[Builder, int, list[Any]], Any]:
    """Return the decoder of a tag whose module is loaded only when a result holds it."""
    if type(tag) is int:
        if Tag.CLASS <= tag <= Tag.ENUM:
            from agentsbx import _codec_classes

            _DECODERS.update(_codec_classes.DECODERS)
        elif tag == Tag.EXCEPTION:
            from agentsbx import _codec_errors

            _DECODERS.update(_codec_errors.DECODERS)
        elif Tag.NDARRAY <= tag <= Tag.ARROW:
            from agentsbx import _codec_arrays

            _DECODERS.update(_codec_arrays.DECODERS)
        if tag in _DECODERS:
            return _DECODERS[tag]
    raise Bad("a row is of an unknown kind")
