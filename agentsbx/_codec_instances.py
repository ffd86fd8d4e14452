"""Job side of the user's classes: what an instance is made of, as class name and attributes."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

from agentsbx._codec_wire import Ref, Refused, Tag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentsbx._codec_encode import Encoder

__all__ = ["IMMUTABLE", "builtin_base", "encode_instance", "instance_state"]

_BASES: dict[str, type] = {
    kind.__name__: kind
    for kind in (list, dict, set, tuple, frozenset, int, float, complex, str, bytes, bytearray)
}
IMMUTABLE = ("tuple", "frozenset", "int", "float", "complex", "str", "bytes")
_HINTS = (
    ("async_generator", "collect it into a list first"),
    ("coroutine", "await it first"),
    ("dict_keys", "return list(...) instead"),
    ("dict_values", "return list(...) instead"),
    ("dict_items", "return list(...) instead"),
    ("function", "return what it computes"),
    ("method", "return what it computes"),
    ("module", "return a value from it"),
    ("type", "return its name"),
    ("mappingproxy", "return dict(...) instead"),
    ("Pattern", "return its pattern and flags"),
    ("TextIOWrapper", "return what you read from it"),
    ("BufferedReader", "return what you read from it"),
)


def encode_instance(encoder: Encoder, value: Any) -> Ref:
    """Encode an instance of a class that is neither builtin nor of the known libraries."""
    kind = type(value)
    if isinstance(value, BaseException):
        from agentsbx import _codec_errors

        return _codec_errors.encode_as_value(encoder, value)
    enum = sys.modules.get("enum")
    if enum is not None and isinstance(value, enum.Enum):
        return _encode_enum(encoder, value, enum)
    if is_struct(kind):
        names = kind.__struct_fields__
        return _encode_object(encoder, value, dict(zip(names, _values(value, names), strict=True)))
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return _encode_object(encoder, value, _pydantic_state(value))
    base = builtin_base(kind)
    if hasattr(kind, "__del__") and base is not None:
        raise Refused(
            f"a {kind.__module__}.{kind.__qualname__} has a __del__ and cannot leave the sandbox",
            "return plain data made from it",
        )
    if base is None or kind is object:
        hint = dict(_HINTS).get(kind.__name__) or _hint_of(kind)
        raise Refused(f"a {kind.__module__}.{kind.__qualname__} cannot leave the sandbox", hint)
    state = instance_state(value)
    if base is object:
        return _encode_object(encoder, value, state)
    return _encode_subclass(encoder, value, base, state)


def _hint_of(kind: type) -> str:
    if hasattr(kind, "__next__") and hasattr(kind, "__iter__"):
        return "return list(...) instead"
    return "return plain data made from it"


def _values(value: Any, names: Iterable[str]) -> list[Any]:
    return [getattr(value, name) for name in names]


def _shape(encoder: Encoder, kind: type, names: tuple[str, ...]) -> Ref:
    """Return the row that names a class and the attributes its instances bring."""
    known = encoder.shapes.get((kind, names))
    if known is None:
        row = [Tag.CLASS, kind.__module__, kind.__qualname__, *names]
        known = encoder.shapes[kind, names] = encoder.row(row)
    return known


def _encode_object(encoder: Encoder, value: Any, state: dict[str, Any]) -> Ref:
    row: list[Any] = [Tag.OBJECT]
    late = not is_plain_class(type(value))
    ref = encoder.open(value, row, mutable=not late)
    row.append(_shape(encoder, type(value), tuple(state)))
    encoder.named(row, state, state.values())
    return encoder.close(value, ref) if late else ref


def _encode_subclass(encoder: Encoder, value: Any, base: type, state: dict[str, Any]) -> Ref:
    row: list[Any] = [Tag.SUBCLASS]
    late = base.__name__ in IMMUTABLE
    ref = encoder.open(value, row, mutable=not late)
    row += [_shape(encoder, type(value), tuple(state)), base.__name__]
    if base is dict:
        plain: Any = dict(dict.items(value))
    elif base is list:
        plain = list(list.__iter__(value))
    elif base in (str, int, float):
        plain = getattr(base, "__str__" if base is str else f"__{base.__name__}__")(value)
        plain = plain if type(plain) is base else base(plain)
    else:
        plain = base(value)
    row.append(encoder.cell(plain))
    encoder.keep.append(plain)
    encoder.named(row, state, state.values())
    return encoder.close(value, ref) if late else ref


def _encode_enum(encoder: Encoder, value: Any, enum: Any) -> Ref:
    row: list[Any] = [Tag.ENUM]
    ref = encoder.row(row)
    name = value._name_
    if isinstance(value, enum.Flag) and (name is None or name not in type(value).__members__):
        row += [_shape(encoder, type(value), ()), None, encoder.cell(value._value_)]
    else:
        row += [_shape(encoder, type(value), ()), name]
    return ref


def _pydantic_state(value: Any) -> dict[str, Any]:
    """Return the fields of a pydantic model, then what it keeps beside them."""
    state = dict(value.__dict__)
    state["=set"] = sorted(value.__pydantic_fields_set__)
    if value.__pydantic_extra__:
        state["=extra"] = dict(value.__pydantic_extra__)
    private = getattr(value, "__pydantic_private__", None)
    if private:
        state["=private"] = dict(private)
    return state


def is_plain_class(kind: type) -> bool:
    """Whether an instance can be made empty and filled later."""
    return not is_struct(kind) and not hasattr(kind, "__pydantic_fields__")


def is_struct(kind: type) -> bool:
    """Whether a class is a `msgspec.Struct`, of whichever msgspec: a tool may bring its own."""
    return hasattr(kind, "__struct_fields__") and type(kind).__name__ == "StructMeta"


def builtin_base(kind: type) -> type | None:
    """Return the builtin that instances of `kind` are made of; None if C code owns them."""
    for base in kind.__mro__:
        if base is object:
            return object
        if _BASES.get(base.__name__) is base:
            return base
        if not _is_python_class(base):
            return None
    return None


def _is_python_class(kind: type) -> bool:
    heap, immutable = 1 << 9, 1 << 8
    if kind.__module__ in ("typing", "abc", "collections.abc"):
        return True
    return bool(kind.__flags__ & heap) and not kind.__flags__ & immutable


def instance_state(value: Any) -> dict[str, Any]:
    """Return the attributes of an instance, from its slots and its `__dict__`, in that order."""
    state: dict[str, Any] = {}
    for base in reversed(type(value).__mro__):
        for name, slot in vars(base).items():
            if type(slot) is types.MemberDescriptorType and name != "__weakref__":
                try:
                    state[name] = slot.__get__(value)
                except AttributeError:
                    continue  # never set
    state.update(getattr(value, "__dict__", {}))
    for name in state:
        if type(name) is not str:
            raise Refused("an attribute whose name is not a str cannot leave the sandbox")
    return state
