"""Instances of the user's classes: how they are rebuilt, without calling their code.

Which classes, `_codec_table` says.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx import _codec_types
from agentsbx._codec_instances import IMMUTABLE, builtin_base
from agentsbx._codec_wire import Bad, Ref, Tag, clean_name, hashes_by_identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsbx._codec_decode import Builder

__all__ = ["DECODERS", "set_state"]


class _Shape:
    """A class found in the table and the attribute names that a row brings for it."""

    __slots__ = ("checked", "kind", "names")

    def __init__(self, kind: type, names: list[str], checked: bool) -> None:
        self.kind = kind
        self.names = names
        self.checked = checked


def _build_class(builder: Builder, i: int, row: list[Any]) -> Any:
    if len(row) < 3 or set(map(type, row[1:])) != {str}:
        raise Bad("a class is malformed")
    module, qualname, *names = row[1:]
    kind = builder.classes.lookup(module, qualname)
    if kind is None:
        name = f"{module}.{qualname}"[:200]
        raise Bad(
            f"it holds a {name!a}, which neither the return annotation nor an argument names",
            builder.classes.how_to_name(qualname[:80]),
        )
    if hasattr(kind, "__del__"):
        raise Bad(f"a {kind.__qualname__} has a __del__, which would run on what the job wrote")
    if len(set(names)) != len(names):
        raise Bad("an attribute is named twice")
    for name in names:
        clean_name(name)
    return _Shape(kind, names, builder.classes.is_annotated(kind))


def _shape_of(builder: Builder, row: list[Any]) -> _Shape:
    if len(row) < 2 or type(row[1]) is not Ref or row[1].i < 0:
        raise Bad("an object has no class")
    saved, builder.in_key = builder.in_key, False
    shape = builder.get(row[1].i)
    builder.in_key = saved
    if type(shape) is not _Shape:
        raise Bad("an object has no class")
    return shape


def _state(builder: Builder, shape: _Shape, row: list[Any], start: int) -> dict[str, Any]:
    if len(row) - start != len(shape.names):
        raise Bad("an object's attributes do not match its class")
    return dict(zip(shape.names, builder.cells(row, start), strict=True))


def _build_object(builder: Builder, i: int, row: list[Any]) -> Any:
    shape = _shape_of(builder, row)
    kind = shape.kind
    saved = builder.in_key
    builder.in_key = saved and not hashes_by_identity(kind)
    if issubclass(kind, msgspec.Struct):
        made = _make_struct(builder, shape, _state(builder, shape, row, 2))
    elif _is_pydantic(kind):
        state = _state(builder, shape, row, 2)
        if shape.checked:
            builder.charge(_expanded(state, builder.limits.nodes))
        made = _make_pydantic(kind, state, shape.checked)
    else:
        if not _is_fillable(kind):
            raise Bad(f"a {kind.__qualname__} cannot be rebuilt from attributes")
        made = object.__new__(kind)
        if not builder.in_key:
            builder.put(i, made)
        state = _state(builder, shape, row, 2)
        if shape.checked:
            _check_dataclass(builder, kind, state)
        set_state(made, state)
    builder.in_key = saved
    return made


def _is_fillable(kind: type) -> bool:
    """Whether an instance of `kind` may be made of any attributes: not where C or a tag owns it."""
    import enum

    if issubclass(kind, (BaseException, type, enum.Enum)):
        return False
    return builtin_base(kind) is object and _codec_types.encoder_for(kind) is None


def set_state(made: Any, state: dict[str, Any]) -> None:
    """Set attributes in slots and `__dict__` directly: no property, no `__setattr__` runs."""
    if not state:
        return
    slots: dict[str, Any] = {}
    for base in type(made).__mro__:
        for name, slot in vars(base).items():
            if type(slot) is types.MemberDescriptorType:
                slots.setdefault(name, slot)
    space = None
    for name, value in state.items():
        if name in slots:
            slots[name].__set__(made, value)
            continue
        if space is None:
            try:
                space = object.__getattribute__(made, "__dict__")
            except AttributeError:
                space = None
            if type(space) is not dict:
                raise Bad(f"a {type(made).__qualname__} has no attribute {name[:64]!a}")
        space[name] = value


def _check_dataclass(builder: Builder, kind: type, state: dict[str, Any]) -> None:
    """Have the fields of an annotated dataclass checked against their annotations."""
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is None:
        return
    hints = field_hints(kind)
    for name, field in fields.items():
        if field._field_type.name != "_FIELD":
            continue
        if name in state:
            _check_field(builder, kind, name, state[name], hints, field.default)
        elif field.init and getattr(kind, name, kind) is not field.default:
            raise Bad(f"a {kind.__qualname__} lacks its field {name!r}")


def _check_field(
    builder: Builder, kind: type, name: str, value: Any, hints: dict[str, Any], default: Any
) -> None:
    """Have a field checked once the whole result is there: its parts may still be missing."""
    if value is default or name not in hints:
        return
    told = (
        f"field {name!r} of {kind.__qualname__} is a {type(value).__name__}, "
        "which its annotation does not allow"
    )
    builder.checks.append((value, hints[name], told))


def field_hints(kind: type) -> dict[str, Any]:
    """Return the evaluated annotations of a class, or nothing where they cannot be evaluated."""
    import typing

    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # a name that only type checkers know
        return {}


_QUIET: dict[type, Any] = {}


def _make_struct(builder: Builder, shape: _Shape, state: dict[str, Any]) -> Any:
    """Make a `msgspec.Struct` without its `__post_init__`, checked where it is annotated."""
    kind: Any = shape.kind
    names = kind.__struct_fields__
    if not state.keys() <= set(names):
        raise Bad(f"a {kind.__qualname__} has an unknown field")
    if shape.checked:
        hints = field_hints(kind)
        known = kind.__struct_defaults__
        defaults = dict(zip(names[len(names) - len(known) :], known, strict=True))
        for name, value in state.items():
            _check_field(builder, kind, name, value, hints, defaults.get(name, _Shape))
    if not hasattr(kind, "__post_init__"):
        return kind(**state)
    quiet = _QUIET.get(kind)
    if quiet is None:
        body = {"__post_init__": lambda self: None, "__module__": __name__}
        quiet = _QUIET[kind] = type(kind)(kind.__name__, (kind,), body)
    made = quiet(**state)
    msgspec.structs.force_setattr(made, "__class__", kind)
    return made


def _is_pydantic(kind: type) -> bool:
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def _make_pydantic(kind: Any, state: dict[str, Any], checked: bool) -> Any:
    """Validate an annotated model; fill any other without running a validator."""
    fields_set = state.pop("=set", [])
    extra = state.pop("=extra", None)
    private = state.pop("=private", None)
    if type(fields_set) is not list or not set(map(type, fields_set)) <= {str}:
        raise Bad("a model is malformed")
    for part in (extra, private):
        if part is not None and (type(part) is not dict or not all(map(clean_name, part))):
            raise Bad("a model is malformed")
    names = set(kind.model_fields)
    if not set(fields_set) <= names | set(extra or ()):
        raise Bad(f"a {kind.__qualname__} has an unknown field")
    if checked:
        made = _validate_pydantic(kind, {n: v for n, v in state.items() if n in names}, extra)
        if private and private.keys() <= kind.__private_attributes__.keys():
            made.__pydantic_private__.update(private)
        return made
    made = object.__new__(kind)
    object.__setattr__(made, "__dict__", state)
    object.__setattr__(made, "__pydantic_fields_set__", set(fields_set))
    object.__setattr__(made, "__pydantic_extra__", extra)
    object.__setattr__(made, "__pydantic_private__", private)
    return made


def _expanded(value: Any, limit: int) -> int:
    """Return how many parts `value` has, written out without sharing; raises `Bad` beyond `limit`.

    Validation copies: a list of a thousand references to one list, thrice, would be 10**9 items.
    """
    sizes: dict[int, int] = {}

    def size(part: Any) -> int:
        if not isinstance(part, (list, tuple, dict, set, frozenset)):
            return 1
        known = sizes.get(id(part))
        if known is None:
            sizes[id(part)] = 1  # a cycle: validation notices it by itself
            items = part.values() if isinstance(part, dict) else part
            known = sizes[id(part)] = 1 + sum(map(size, items))
            if known > limit:
                raise Bad(f"a model expands to more than {limit} values")
        return known

    return size(value)


def _validate_pydantic(kind: Any, state: dict[str, Any], extra: dict[str, Any] | None) -> Any:
    import pydantic

    data = {**(extra or {}), **state}
    try:
        try:
            return kind.model_validate(data, by_alias=False, by_name=True)
        except TypeError:  # pydantic before 2.11
            for name, field in kind.model_fields.items():
                alias = field.validation_alias or field.alias
                if isinstance(alias, str) and name in data:
                    data[alias] = data.pop(name)
            return kind.model_validate(data)
    except pydantic.ValidationError as error:
        raise Bad(f"it is not a valid {kind.__qualname__}: {error!s:.200}") from None


def _build_subclass(builder: Builder, i: int, row: list[Any]) -> Any:
    shape = _shape_of(builder, row)
    import enum

    base: Any = builtin_base(shape.kind)

    if issubclass(shape.kind, enum.Enum):
        raise Bad(f"a {shape.kind.__qualname__} is rebuilt by name")
    if base is None or len(row) < 4 or row[2] != base.__name__ or base is object:
        raise Bad(f"a {shape.kind.__qualname__} is not made of a {row[2:3]!a:.40}")
    if base.__name__ in IMMUTABLE:
        made = base.__new__(shape.kind, _payload(builder, row[3], base))
    else:
        made = builder.put(i, base.__new__(shape.kind))
        payload = _payload(builder, row[3], base)
        (base.extend if base in (list, bytearray) else base.update)(made, payload)
    if base is tuple and hasattr(shape.kind, "_fields") and shape.checked:
        _check_namedtuple(builder, shape.kind, made)
    state = _state(builder, shape, row, 4)
    set_state(made, state)
    return made


def _payload(builder: Builder, cell: Any, base: type) -> Any:
    payload = builder.cell(cell)
    if type(payload) is not base:
        raise Bad(f"a subclass of {base.__name__} is not made of one")
    weight = 8 if base in (dict, set, frozenset) else 1
    builder.charge(weight * len(payload) if hasattr(payload, "__len__") else sys.getsizeof(payload))
    return payload


def _check_namedtuple(builder: Builder, kind: Any, made: tuple[Any, ...]) -> None:
    hints = field_hints(kind)
    if len(made) != len(kind._fields):
        raise Bad(f"a {kind.__qualname__} has {len(made)} items")
    for name, value in zip(kind._fields, made, strict=True):
        _check_field(builder, kind, name, value, hints, kind._field_defaults.get(name, kind))


def _build_enum(builder: Builder, i: int, row: list[Any]) -> Any:
    import enum

    shape = _shape_of(builder, row)
    kind: Any = shape.kind
    if not issubclass(kind, enum.Enum):
        raise Bad(f"{kind.__qualname__} is not an Enum")
    if len(row) == 3 and type(row[2]) is str:
        found = kind._member_map_.get(row[2])
        if found is None:
            raise Bad(f"{kind.__qualname__} has no member {row[2][:64]!a}")
        return found
    if len(row) != 4 or not issubclass(kind, enum.Flag):
        raise Bad("an Enum is malformed")
    value = builder.cell(row[3])
    known = 0
    for member in kind._member_map_.values():
        known |= member._value_
    if type(value) is not int or value & ~known or value < 0:
        raise Bad(f"{kind.__qualname__} has no such flags")
    return kind(value)


DECODERS: dict[int, Callable[[Builder, int, list[Any]], Any]] = {
    Tag.CLASS: _build_class,
    Tag.OBJECT: _build_object,
    Tag.SUBCLASS: _build_subclass,
    Tag.ENUM: _build_enum,
}
