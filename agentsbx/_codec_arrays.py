"""numpy arrays and scalars, and Arrow tables where the annotation asks for them.

The job's side only sees numpy if the value is of it; the host imports numpy when a result holds an
array and numpy is installed. Element types come from a closed list, shapes are multiplied as Python
ints and must match the bytes exactly.
"""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any

from agentsbx._codec_wire import Bad, Ref, Refused, Tag

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsbx._codec_decode import Builder
    from agentsbx._codec_encode import Encoder

__all__ = ["DECODERS", "encoder_for"]

_DTYPE = re.compile(
    r"\|b1|[|<>][iu]1|[<>]([iu][248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU]\d{1,9})|\|S\d{1,9}"
    r"|[<>][mM]8(\[\d{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as|generic)\])?",
    re.ASCII,
)
_KINDS = "biufcmMSU"
_MAX_DIMENSIONS = 32


def encoder_for(kind: type) -> Callable[[Encoder, Any], Any] | None:
    """Return the encoder of a class of numpy, pandas or pyarrow that a result keeps."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if kind is numpy.ndarray:
            return _encode_array
        if issubclass(kind, numpy.generic) and kind.__module__ == "numpy":
            return _encode_scalar
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and kind is getattr(arrow, "Table", None):
        return _encode_arrow
    if sys.modules.get("pandas") is not None:
        from agentsbx import _codec_pandas

        return _codec_pandas.encoder_for(kind)
    return None


def _encode_array(encoder: Encoder, value: Any) -> Ref:
    import numpy as np

    dtype = value.dtype
    if value.ndim > _MAX_DIMENSIONS:
        raise Refused(f"an array of more than {_MAX_DIMENSIONS} dimensions cannot leave")
    if dtype.kind == "O":
        row: list[Any] = [Tag.NDOBJECT, value.ndim, *value.shape]
        ref = encoder.open(value, row)
        encoder.fill(row, value.reshape(-1).tolist(), ".flat[{}]")
        return ref
    if dtype.kind not in _KINDS or not _DTYPE.fullmatch(dtype.str):
        raise Refused(
            f"an array of dtype {dtype!s:.60} cannot leave the sandbox",
            "convert it to a plain dtype, or return its fields as arrays of their own",
        )
    order = "C"
    flat = value
    if not value.flags.c_contiguous:
        if value.flags.f_contiguous:
            order, flat = "F", value.T
        else:
            flat = np.ascontiguousarray(value)
    data = memoryview(flat.reshape(-1).view(np.uint8)) if flat.nbytes else b""
    encoder.keep.append(flat)
    return encoder.open(
        value, [Tag.NDARRAY, dtype.str, order, encoder.blob(data), *map(int, value.shape)]
    )


def _encode_scalar(encoder: Encoder, value: Any) -> Ref:
    dtype = value.dtype
    if dtype.kind not in _KINDS or not dtype.itemsize:
        raise Refused(f"a numpy value of dtype {dtype!s:.60} cannot leave the sandbox")
    return encoder.row([Tag.NPSCALAR, dtype.str, encoder.blob(value.tobytes())])


def _encode_arrow(encoder: Encoder, value: Any) -> Ref:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, value.schema) as writer:
        writer.write_table(value)
    return encoder.open(value, [Tag.ARROW, encoder.blob(memoryview(sink.getvalue()))])


# ---- host side


def _numpy() -> Any:
    try:
        import numpy as np
    except ImportError:
        raise Bad("it holds an array, and numpy is not installed here") from None
    return np


def _dtype(np: Any, text: Any) -> Any:
    if type(text) is not str or not _DTYPE.fullmatch(text):
        raise Bad("an array has an unknown dtype")
    dtype = np.dtype(text)
    if dtype.itemsize == 0 or dtype.kind not in _KINDS:
        raise Bad("an array has an unknown dtype")
    return dtype


def _shape(dims: list[Any]) -> tuple[int, ...]:
    if len(dims) > _MAX_DIMENSIONS or not set(map(type, dims)) <= {int}:
        raise Bad("an array has a malformed shape")
    if any(not 0 <= n < 1 << 62 for n in dims):
        raise Bad("an array has a malformed shape")
    return tuple(dims)


def _build_array(builder: Builder, i: int, row: list[Any]) -> Any:
    np = _numpy()
    if len(row) < 4 or row[2] not in ("C", "F"):
        raise Bad("an array is malformed")
    dtype, shape = _dtype(np, row[1]), _shape(row[4:])
    flat = _frombuffer(np, builder.take(row[3]), dtype, math.prod(shape))
    if flat is None:
        return np.zeros(shape, dtype, row[2])
    return flat.reshape(shape) if row[2] == "C" else flat.reshape(shape[::-1]).T


def _frombuffer(np: Any, data: Any, dtype: Any, count: int) -> Any:
    """Return `data` as a writable flat array of exactly `count` items; None where that is 0."""
    view = memoryview(data)
    if view.nbytes != count * dtype.itemsize:
        raise Bad("an array's shape does not match its bytes")
    if not count:
        return None
    if view.readonly:
        view = memoryview(bytearray(view))
    flat = np.frombuffer(view, dtype)
    # What the C code of numpy trusts: truth values are 0 or 1, characters are characters.
    if dtype.kind == "b" and flat.view(np.uint8).max() > 1:
        raise Bad("an array of bool holds something else")
    if dtype.kind == "U":
        codes = flat.view(dtype.str[0] + "u4")
        if codes.max() > sys.maxunicode:
            raise Bad("an array of str holds something else")
    return flat


def _build_object_array(builder: Builder, i: int, row: list[Any]) -> Any:
    np = _numpy()
    ndim = row[1] if len(row) > 1 else None
    if type(ndim) is not int or not 0 <= ndim <= _MAX_DIMENSIONS:
        raise Bad("an array is malformed")
    shape = _shape(row[2 : 2 + ndim])
    if len(shape) != ndim or math.prod(shape) != len(row) - 2 - ndim:
        raise Bad("an array's shape does not match its items")
    made = builder.put(i, np.empty(shape, object))
    flat = made.reshape(-1)
    for n, item in enumerate(builder.cells(row, 2 + ndim)):
        flat[n] = item
    return made


def _build_scalar(builder: Builder, i: int, row: list[Any]) -> Any:
    np = _numpy()
    if len(row) != 3:
        raise Bad("a numpy value is malformed")
    return _frombuffer(np, builder.take(row[2]), _dtype(np, row[1]), 1)[0]


def _build_arrow(builder: Builder, i: int, row: list[Any]) -> Any:
    from agentsbx._codec_annotation import find_annotated

    named = find_annotated(builder.annotation).classes.get(("pyarrow.lib", "Table"))
    arrow = sys.modules.get("pyarrow")
    if len(row) != 2 or arrow is None or named is not arrow.Table:
        raise Bad(
            "it holds an Arrow table, which is only read where the annotation says so",
            "annotate the function with `-> pyarrow.Table`",
        )
    table = arrow.ipc.open_stream(arrow.py_buffer(builder.take(row[1]))).read_all()
    table.validate(full=True)
    return table


def _pandas(name: str) -> Callable[[Builder, int, list[Any]], Any]:
    def build(builder: Builder, i: int, row: list[Any]) -> Any:
        try:
            from agentsbx import _codec_pandas
        except ImportError:
            raise Bad("it holds a table, and pandas is not installed here") from None
        return getattr(_codec_pandas, name)(builder, i, row)

    return build


DECODERS: dict[int, Callable[[Builder, int, list[Any]], Any]] = {
    Tag.NDARRAY: _build_array,
    Tag.NDOBJECT: _build_object_array,
    Tag.NPSCALAR: _build_scalar,
    Tag.ARROW: _build_arrow,
    Tag.PD_INDEX: _pandas("build_index"),
    Tag.PD_SERIES: _pandas("build_series"),
    Tag.PD_FRAME: _pandas("build_frame"),
    Tag.PD_SCALAR: _pandas("build_scalar"),
    Tag.PD_ARRAY: _pandas("build_array"),
}
