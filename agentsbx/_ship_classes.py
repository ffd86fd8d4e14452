"""How project classes are reduced: plain ones, enumerations, `msgspec.Struct`s, pydantic models.

A class is rebuilt from its dictionary: neither the class body nor a project's metaclass,
`__init_subclass__` or `__set_name__` runs again.
"""

from __future__ import annotations

import _collections_abc
import abc
import enum
import types
from typing import TYPE_CHECKING, Any

from agentsbx import _receive_make
from agentsbx._ship_modules import is_by_reference
from agentsbx._ship_pickle import HEAP_TYPE, MISSING, ShipPickler

if TYPE_CHECKING:
    from agentsbx._ship_pickle import Reduced

__all__ = ["annotations_of", "reduce_class"]


def annotations_of(obj: Any) -> dict[str, Any]:
    """Return the annotations of a class or function, none where they cannot be evaluated."""
    try:
        return dict(obj.__annotations__ or {})
    except Exception:  # lazily evaluated since 3.14: names under TYPE_CHECKING are not there
        return {}


# -- classes --------------------------------------------------------------------------------------

_CLASS_SKIPPED = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__slots__",
        "__module__",
        "__qualname__",
        "__class__",
        "_abc_impl",
        "__slotnames__",
        "__annotate_func__",
        "__annotations_cache__",
        "__pydantic_parent_namespace__",
        "__pydantic_setattr_handlers__",
    }
)
_TYPES_BY_NAME = {value: name for name, value in vars(types).items() if isinstance(value, type)}
_ABC_TYPES = {
    value: name
    for name, value in vars(_collections_abc).items()
    if isinstance(value, type) and value.__module__ == "builtins"
}
_SPECIAL_TYPES = (type(None), type(...), type(NotImplemented))


def reduce_class(pickler: ShipPickler, cls: Any) -> Reduced:
    """Reduce a class."""
    if cls in _SPECIAL_TYPES or is_by_reference(cls):
        return NotImplemented
    if cls in _TYPES_BY_NAME:
        return _receive_make.library_global, ("types", _TYPES_BY_NAME[cls])
    if cls in _ABC_TYPES:
        return _receive_make.library_global, ("_collections_abc", _ABC_TYPES[cls])
    if not cls.__flags__ & HEAP_TYPE:
        return NotImplemented
    if pickler.recorder is not None:
        pickler.recorder.klass(cls)
    if issubclass(cls, enum.Enum):
        return _enum_class(cls)
    if type(cls).__name__ == "StructMeta" and type(cls).__module__.startswith("msgspec"):
        return _struct_class(cls)
    return _plain_class(cls)


def _class_names(cls: type) -> dict[str, Any]:
    return {key: value for key, value in vars(cls).items() if key in ("__module__", "__class__")}


def _maker(meta: type) -> Any:
    """Return the class whose `__new__` makes the class: never a project's, nor pydantic's."""
    for base in meta.__mro__:
        if base is type or base is abc.ABCMeta:
            return base
        made = vars(base).get("__new__")
        if isinstance(made, types.BuiltinFunctionType):
            return base
    return type


def _plain_class(cls: type) -> Reduced:
    names = _class_names(cls)
    names["__qualname__"] = cls.__qualname__
    own = vars(cls)
    slots = own.get("__slots__", MISSING)
    dropped = set(_CLASS_SKIPPED)
    if slots is not MISSING:
        listed = (slots,) if isinstance(slots, str) else tuple(slots)
        names["__slots__"] = slots if isinstance(slots, (str, dict)) else listed
        dropped.update(listed)
    maker = _maker(type(cls))
    attributes = {
        key: value
        for key, value in own.items()
        if key not in dropped
        and not isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType))
        and type(value).__name__ != "CField"
    }
    if "__pydantic_setattr_handlers__" in own:
        attributes["__pydantic_setattr_handlers__"] = {}
        attributes["__pydantic_parent_namespace__"] = None
    if "__name__" in attributes:  # of its instances; on a class it can only be set to a text
        names["__name__"] = _receive_make.LateName()
    registered: list[type] = []
    if isinstance(cls, abc.ABCMeta):
        dump: Any = abc._get_dump(cls)  # type: ignore[attr-defined]
        registered = [other for ref in dump[0] if (other := ref()) is not None]
    plain = maker is type or maker is abc.ABCMeta
    meta: Any = type(cls)
    if meta.__flags__ & HEAP_TYPE == 0 and not is_by_reference(meta):
        # ctypes: the metaclass has no name to import it by, but the library's own base has it.
        maker = None
        meta = next(base for base in cls.__mro__ if type(base) is meta and is_by_reference(base))
    args = (maker, meta, cls.__name__, cls.__bases__, names)
    state = (attributes, registered, plain)
    return _receive_make.make_class, args, state, None, None, _receive_make.set_class


def _enum_class(cls: Any) -> Reduced:
    members = [(name, member._value_) for name, member in cls.__members__.items()]
    states = {}
    skipped = {"_value_", "_name_", "__objclass__", "_sort_order_"}
    for name, member in cls.__members__.items():
        own = {k: v for k, v in vars(member).items() if k not in skipped}
        if own and member._name_ == name:
            states[name] = own
    names = {**_class_names(cls), "__qualname__": cls.__qualname__}
    attributes = {}
    for key, value in vars(cls).items():
        if key in _CLASS_SKIPPED or key in cls.__members__ or key in ("__new__", "__new_member__"):
            continue
        code = isinstance(value, (types.FunctionType, staticmethod, classmethod))
        if key[:1] == key[-1:] == "_" and key[:2] != "__" and not (code and key != "_new_member_"):
            continue
        attributes[key] = value
    boundary = getattr(cls, "_boundary_", None)
    args = (type(cls), cls.__name__, cls.__bases__, names, members, boundary)
    return _receive_make.make_enum, args, (attributes, states), None, None, _receive_make.set_enum


_STRUCT_FLAGS = tuple(
    "frozen eq order array_like gc repr_omit_defaults omit_defaults forbid_unknown_fields "  # noqa: SIM905
    "weakref dict cache_hash tag tag_field".split()
)


def _struct_class(cls: Any) -> Reduced:
    annotations = annotations_of(cls)
    fields = cls.__struct_fields__
    values = dict(zip(reversed(fields), reversed(cls.__struct_defaults__), strict=False))
    own = [name for name in fields if name in annotations]
    defaults = []
    for name in own:
        value = values.get(name, MISSING)
        if value is MISSING or type(value).__name__ == "NoDefaultType":
            continue
        is_factory = type(value).__name__ == "Factory"
        defaults.append((name, is_factory, value.factory if is_factory else value))
    config = {
        flag: getattr(cls.__struct_config__, flag)
        for flag in _STRUCT_FLAGS
        if hasattr(cls.__struct_config__, flag)
    }
    renamed = dict(zip(fields, cls.__struct_encode_fields__, strict=True))
    config["rename"] = {name: to for name, to in renamed.items() if name in own}
    config["kw_only"] = _is_keyword_only(cls, own)
    names = {**_class_names(cls), "__qualname__": cls.__qualname__}
    # Only the names matter here; the annotations themselves (they may name this class) follow.
    names["__annotations__"] = dict.fromkeys(own, object)
    skipped = {*_CLASS_SKIPPED, *fields, "__match_args__"}
    attributes = {
        key: value
        for key, value in vars(cls).items()
        if key not in skipped
        and not isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType))
        and not (key.startswith("__struct_"))
    }
    args = (type(cls), cls.__name__, cls.__bases__, names, defaults, config)
    state = (attributes, (), True)
    return _receive_make.make_struct, args, state, None, None, _receive_make.set_class


def _is_keyword_only(cls: Any, own: list[str]) -> bool:
    import inspect

    parameters = inspect.signature(cls).parameters
    kinds = [parameters[name].kind for name in own if name in parameters]
    return bool(kinds) and all(kind is inspect.Parameter.KEYWORD_ONLY for kind in kinds)
