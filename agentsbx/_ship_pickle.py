"""The pickler of shipping: project functions, classes and modules by value, libraries by name.

Each reducer gives what `_receive` calls to rebuild the object. Whoever adds one must keep the memo
honest: a memo entry on this side is an entry on the job's side, because arguments and module
attributes go on in the pickle that the snapshot began.
"""

from __future__ import annotations

import _collections_abc
import abc
import contextvars
import enum
import functools
import io
import marshal
import pickle
import random
import socket
import sys
import threading
import types
import typing
import weakref
from typing import TYPE_CHECKING, Any

import cloudpickle

from agentsbx import _receive
from agentsbx._ship_modules import (
    Chain,
    is_by_reference,
    is_library_module,
    library_object_names,
    module_of_globals,
    references,
    stand_in_meta,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Reduced = Any
    Handler = Callable[["ShipPickler", Any], Reduced]

__all__ = ["OUT_OF_BAND", "CannotShip", "Context", "Recorder", "ShipPickler", "is_wrapper"]

OUT_OF_BAND = 16 * 1024
_MISSING = object()
_PROTOCOL = 5
_HEAP_TYPE = 1 << 9


class CannotShip(Exception):
    """An object that must not or cannot cross; `reason` and `hint` go into the final error."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class Recorder:
    """What a snapshot notes while it is pickled: for `is_current`, for `explain`, for warnings."""

    def function(self, fn: types.FunctionType) -> None:
        """Note a function that travels by value."""

    def names(
        self, fn: types.FunctionType, found: Mapping[str, Any], absent: Iterable[str]
    ) -> None:
        """Note the globals that `fn` reads, and those that are not there (builtins)."""

    def attributes(self, module: types.ModuleType, found: Mapping[str, Any]) -> None:
        """Note the attributes of a project module that code reads."""

    def cells(self, fn: types.FunctionType) -> None:
        """Note the closure of a function."""

    def klass(self, cls: type) -> None:
        """Note a class that travels by value."""

    def dictionary(self, names: dict[str, Any], kind: str = "attribute") -> None:
        """Note a dictionary of attributes, by identity of its values."""


class Namespace:
    """Stands for globals that no loaded module owns; one object for each dictionary."""

    __slots__ = ("names",)

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names


class Context:
    """What the picklers of one snapshot and its calls share."""

    def __init__(
        self,
        *,
        wrapper_reducer: Callable[[Any], Any] | None = None,
        allowed: frozenset[str] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.wrapper_reducer = wrapper_reducer
        self.allowed = allowed
        # value -> name of the variable
        self.secrets = {value: name for name, value in (secrets or {}).items()}
        self.types: dict[type, Handler | None] = {}
        self.library_objects: dict[str, dict[int, str]] = {}
        self.namespaces: dict[int, Namespace] = {}


class ShipPickler(pickle.Pickler):
    """A C pickler with our reducers. Set `context`; `recorder` only while a snapshot is taken."""

    context: Context
    recorder: Recorder | None = None
    own_namespaces: dict[int, Namespace] | None = None
    dispatch_table = cloudpickle.Pickler.dispatch_table

    def reducer_override(self, obj: Any) -> Any:
        """Return how to rebuild `obj`, or NotImplemented for pickle's own way."""
        kind = type(obj)
        handlers = self.context.types
        try:
            handler = handlers[kind]
        except KeyError:
            handler = handlers[kind] = _resolve(kind)
        return NotImplemented if handler is None else handler(self, obj)

    def namespace(self, names: dict[str, Any]) -> Any:
        """Return what stands for globals: their module, or a `Namespace`."""
        module = module_of_globals(names)
        if module is not None:
            return module
        known = self.context.namespaces.get(id(names))
        if known is not None:
            return known
        # Globals first met in a call belong to that call: kept on the snapshot they would leak.
        own = self.own_namespaces
        if own is None:
            own = self.own_namespaces = {}
        if self.recorder is not None:
            own = self.context.namespaces
        return own.setdefault(id(names), Namespace(names))


def _resolve(kind: type) -> Handler | None:
    exact = _EXACT.get(kind, _MISSING)
    if exact is not _MISSING:
        return typing.cast("Handler | None", exact)
    for base, handler in _BY_BASE:
        if issubclass(kind, base):
            return handler
    if (kind.__module__, kind.__name__) == ("numpy", "ndarray"):
        return _array
    if is_by_reference(kind):
        return _library_instance
    return _project_instance if kind.__flags__ & _HEAP_TYPE else None


# -- functions ------------------------------------------------------------------------------------


def is_wrapper(obj: Any) -> bool:
    """Whether a function is one that `sandbox` made (other decorators copy its `__dict__`)."""
    decorator = sys.modules.get("agentsbx._decorator")
    check = getattr(decorator, "is_wrapper", None)
    return check is None or bool(check(obj))


def _function(pickler: ShipPickler, fn: types.FunctionType) -> Reduced:
    if "__agentsbx_site__" in fn.__dict__ and is_wrapper(fn):
        if pickler.recorder is not None:
            pickler.recorder.dictionary(fn.__dict__)
        if pickler.context.wrapper_reducer is not None:
            return pickler.context.wrapper_reducer(fn)
        return _receive.inlined, (typing.cast("Any", fn).__wrapped__,)
    if is_by_reference(fn):
        return NotImplemented
    code = fn.__code__
    _refuse_constants(pickler, code, fn)
    names = references(code)
    owner = module_of_globals(fn.__globals__)
    found: dict[str, Any] = {}
    modules: list[tuple[Any, dict[str, Any]]] = []
    imports: list[str] = []
    if owner is None or not is_library_module(owner):
        found = _globals_of(pickler, fn, names)
        for name, chain in names.items():
            if chain and isinstance(found.get(name), types.ModuleType):
                _follow(pickler, found[name], chain, modules, imports)
    recorder = pickler.recorder
    if recorder is not None:
        recorder.function(fn)
        if fn.__closure__:
            recorder.cells(fn)
    closure = fn.__closure__
    cells: tuple[types.CellType, ...] | None = None
    contents: tuple[Any, ...] = ()
    if closure:
        _check_cells(pickler, fn)
        cells = tuple(_CellRef.of(pickler, cell) for cell in closure)
        contents = tuple(_content(cell) for cell in closure)
    attributes = {k: v for k, v in fn.__dict__.items() if k != "__agentsbx_site__"}
    if attributes and recorder is not None:
        recorder.dictionary(fn.__dict__)
    state = (
        fn.__name__,
        fn.__qualname__,
        fn.__module__,
        fn.__doc__,
        fn.__defaults__,
        fn.__kwdefaults__,
        _annotations(fn),
        attributes,
        found,
        contents,
        modules,
        imports,
    )
    home = pickler.namespace(fn.__globals__) if owner is None else owner
    args = (marshal.dumps(code), home, cells)
    return _receive.make_function, args, state, None, None, _receive.set_function


def _refuse_constants(pickler: ShipPickler, code: types.CodeType, fn: types.FunctionType) -> None:
    secrets = pickler.context.secrets
    if not secrets:
        return
    for constant in code.co_consts:
        if isinstance(constant, str) and constant in secrets:
            raise CannotShip(
                f"a constant in {fn.__qualname__}() is the value of the environment variable "
                f"{secrets[constant]}, which the policy does not grant",
                f"grant it with env=[{secrets[constant]!r}]",
            )
        if isinstance(constant, types.CodeType):
            _refuse_constants(pickler, constant, fn)


def _globals_of(
    pickler: ShipPickler, fn: types.FunctionType, names: Iterable[str]
) -> dict[str, Any]:
    own = fn.__globals__
    found = {name: own[name] for name in names if name in own and name != "__builtins__"}
    allowed = pickler.context.allowed
    if allowed is not None:
        for name, value in found.items():
            if name not in allowed and is_data(value):
                raise CannotShip(
                    f"{fn.__qualname__}() uses the global {name!r}, which captures= does not list",
                    f"add {name!r} to captures=[...], or pass it as an argument",
                )
    if pickler.recorder is not None:
        pickler.recorder.names(fn, found, [name for name in names if name not in own])
    return found


def is_data(value: Any) -> bool:
    """Whether a captured value is data rather than code (function, class, module)."""
    return not isinstance(
        value, (types.FunctionType, types.BuiltinFunctionType, type, types.ModuleType)
    )


def _check_cells(pickler: ShipPickler, fn: types.FunctionType) -> None:
    allowed = pickler.context.allowed
    if allowed is None:
        return
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        content = _content(cell)
        if content and name not in allowed and is_data(content[0]):
            raise CannotShip(
                f"{fn.__qualname__}() uses the closure variable {name!r}, which captures= does "
                "not list",
                f"add {name!r} to captures=[...], or pass it as an argument",
            )


def _follow(
    pickler: ShipPickler,
    module: types.ModuleType,
    chain: Chain,
    modules: list[tuple[Any, dict[str, Any]]],
    imports: list[str],
) -> None:
    """Collect what code reads off a module: attributes of project modules, imports of libraries."""
    own = vars(module)
    found = {name: own[name] for name in chain if name in own}
    library = is_library_module(module)
    for name, value in found.items():
        if not isinstance(value, types.ModuleType):
            continue
        if library and is_library_module(value):
            imports.append(value.__name__)
        if chain[name]:
            _follow(pickler, value, chain[name], modules, imports)
    if not library and found:
        modules.append((module, found))
        if pickler.recorder is not None:
            pickler.recorder.attributes(module, found)


def _content(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


class _CellRef:
    """Marks a cell whose content its function's state fills, so that recursion ends."""

    @staticmethod
    def of(pickler: ShipPickler, cell: types.CellType) -> types.CellType:
        cells = pickler.__dict__.setdefault("_cells", {})
        cells[id(cell)] = cell
        return cell


def _cell(pickler: ShipPickler, cell: types.CellType) -> Reduced:
    content = _content(cell)
    if not content or id(cell) in pickler.__dict__.get("_cells", ()):
        return _receive.empty_cell, ()
    return _receive.empty_cell, (), content[0], None, None, _receive.set_cell


def _annotations(obj: Any) -> dict[str, Any]:
    try:
        return dict(obj.__annotations__ or {})
    except Exception:  # lazily evaluated since 3.14: names under TYPE_CHECKING are not there
        return {}


def _method(pickler: ShipPickler, method: types.MethodType) -> Reduced:
    return types.MethodType, (method.__func__, method.__self__)


def _wrapping(pickler: ShipPickler, obj: Any) -> Reduced:
    return type(obj), (obj.__func__,)


def _property(pickler: ShipPickler, obj: property) -> Reduced:
    return type(obj), (obj.fget, obj.fset, obj.fdel, obj.__doc__)


def _cached_property(pickler: ShipPickler, obj: Any) -> Reduced:
    return _receive.cached_property, (obj.func, obj.attrname)


def _lru_cache(pickler: ShipPickler, obj: Any) -> Reduced:
    if is_by_reference(obj):
        return NotImplemented
    how = obj.cache_parameters()
    return _receive.lru_cache, (obj.__wrapped__, how["maxsize"], how["typed"])


# -- modules --------------------------------------------------------------------------------------


def _module(pickler: ShipPickler, module: types.ModuleType) -> Reduced:
    name = module.__name__
    if is_library_module(module):
        return _receive.import_module, (name,)
    if sys.modules.get(name) is not module:
        raise CannotShip(f"the module {name!r} is not the one in sys.modules")
    meta = stand_in_meta(module)
    return _receive.host_module, (name,), meta, None, None, _receive.set_module


def _namespace(pickler: ShipPickler, obj: Namespace) -> Reduced:
    name = obj.names.get("__name__")
    return _receive.namespace, (name if isinstance(name, str) else "?",)


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


def _class(pickler: ShipPickler, cls: Any) -> Reduced:
    if cls in _SPECIAL_TYPES or is_by_reference(cls):
        return NotImplemented
    if cls in _TYPES_BY_NAME:
        return _receive.library_global, ("types", _TYPES_BY_NAME[cls])
    if cls in _ABC_TYPES:
        return _receive.library_global, ("_collections_abc", _ABC_TYPES[cls])
    if not cls.__flags__ & _HEAP_TYPE:
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
    slots = own.get("__slots__", _MISSING)
    dropped = set(_CLASS_SKIPPED)
    if slots is not _MISSING:
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
    registered: list[type] = []
    if isinstance(cls, abc.ABCMeta):
        dump: Any = abc._get_dump(cls)  # type: ignore[attr-defined]
        registered = [other for ref in dump[0] if (other := ref()) is not None]
    plain = maker is type or maker is abc.ABCMeta
    args = (maker, type(cls), cls.__name__, cls.__bases__, names)
    state = (attributes, registered, plain)
    return _receive.make_class, args, state, None, None, _receive.set_class


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
    return _receive.make_enum, args, (attributes, states), None, None, _receive.set_enum


_STRUCT_FLAGS = tuple(
    "frozen eq order array_like gc repr_omit_defaults omit_defaults forbid_unknown_fields "  # noqa: SIM905
    "weakref dict cache_hash tag tag_field".split()
)


def _struct_class(cls: Any) -> Reduced:
    annotations = _annotations(cls)
    fields = cls.__struct_fields__
    values = dict(zip(reversed(fields), reversed(cls.__struct_defaults__), strict=False))
    own = [name for name in fields if name in annotations]
    defaults = []
    for name in own:
        value = values.get(name, _MISSING)
        if value is _MISSING or type(value).__name__ == "NoDefaultType":
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
    return _receive.make_struct, args, state, None, None, _receive.set_class


def _is_keyword_only(cls: Any, own: list[str]) -> bool:
    import inspect

    parameters = inspect.signature(cls).parameters
    kinds = [parameters[name].kind for name in own if name in parameters]
    return bool(kinds) and all(kind is inspect.Parameter.KEYWORD_ONLY for kind in kinds)


# -- instances ------------------------------------------------------------------------------------


def _library_instance(pickler: ShipPickler, obj: Any) -> Reduced:
    module = type(obj).__module__
    known = pickler.context.library_objects.get(module)
    if known is None:
        known = pickler.context.library_objects[module] = library_object_names(module)
        if not known:
            # Nothing of this module is to be found by name: spare its instances the question.
            pickler.context.types[type(obj)] = None
    name = known.get(id(obj))
    if name is not None:
        return _receive.library_global, (module, name)
    return NotImplemented


def _project_instance(pickler: ShipPickler, obj: Any) -> Reduced:
    kind: Any = type(obj)
    if kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__:
        return NotImplemented
    reduced = obj.__reduce_ex__(_PROTOCOL)
    if isinstance(reduced, str):
        if is_by_reference(obj):
            return NotImplemented
        if callable(obj) and hasattr(obj, "__qualname__"):
            raise CannotShip(
                f"{obj.__qualname__}() is compiled code outside of site-packages",
                "install its module, or import it inside the function",
            )
        # "A global of that name": by value, and one object within the pickle.
        state = getattr(obj, "__dict__", None)
        return _receive.make_instance, (kind,), dict(state) if state else None
    return reduced


def _exception(pickler: ShipPickler, error: BaseException) -> Reduced:
    kind = type(error)
    if is_by_reference(kind) or kind.__reduce__ is not BaseException.__reduce__:
        return NotImplemented
    state = (
        dict(error.__dict__),
        error.__cause__,
        error.__context__,
        error.__suppress_context__,
    )
    return _receive.make_exception, (kind, error.args), state, None, None, _receive.set_exception


def _enum_member(pickler: ShipPickler, member: enum.Enum) -> Reduced:
    kind = type(member)
    if is_by_reference(kind) or member._name_ not in kind._member_map_:
        return NotImplemented
    return getattr, (kind, member._name_)


def _context_var(pickler: ShipPickler, var: contextvars.ContextVar[Any]) -> Reduced:
    value = var.get(_MISSING)
    return _receive.context_var, (var.name, () if value is _MISSING else (value,))


def _type_var(pickler: ShipPickler, var: Any) -> Reduced:
    module = sys.modules.get(var.__module__ or "")
    if (
        isinstance(module, types.ModuleType)
        and is_library_module(module)
        and getattr(module, var.__name__, None) is var
    ):
        return _receive.library_global, (module.__name__, var.__name__)
    keywords = {
        "covariant": getattr(var, "__covariant__", False),
        "contravariant": getattr(var, "__contravariant__", False),
    }
    if getattr(var, "__bound__", None) is not None:
        keywords["bound"] = var.__bound__
    if isinstance(var, typing.TypeVarTuple):
        keywords = {}
    args = tuple(getattr(var, "__constraints__", ()))
    return _receive.type_var, (type(var), var.__name__, args, keywords)


def _memoryview(pickler: ShipPickler, view: memoryview) -> Reduced:
    if view.readonly or not view.contiguous:
        return memoryview, (bytes(view) if view.readonly else bytearray(view),)
    return memoryview, (pickle.PickleBuffer(view),)


def _mapping_proxy(pickler: ShipPickler, proxy: types.MappingProxyType[Any, Any]) -> Reduced:
    return types.MappingProxyType, (dict(proxy),)


def _weak_map(pickler: ShipPickler, mapping: Any) -> Reduced:
    return _receive.weak_map, (type(mapping), list(mapping.items()))


def _array(pickler: ShipPickler, array: Any) -> Reduced:
    """Let arrays arrive writable (rule 2.2) and big ones out of band, whatever their layout."""
    if array.dtype.hasobject:
        return NotImplemented
    if not array.flags.writeable or (array.nbytes >= OUT_OF_BAND and not array.flags.forc):
        return array.copy(order="K").__reduce_ex__(_PROTOCOL)
    return NotImplemented


_STANDARD_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


def _file(pickler: ShipPickler, file: Any) -> Reduced:
    for name in _STANDARD_STREAMS:
        if getattr(sys, name, None) is file:
            return _receive.library_global, ("sys", name)
    if isinstance(file, (io.BytesIO, io.StringIO)):
        return NotImplemented
    raise CannotShip(
        f"an open file ({getattr(file, 'name', type(file).__name__)!r}) cannot cross",
        "open it inside the function and grant the path with read=[...] or write=[...]",
    )


def _refused(what: str, hint: str) -> Handler:
    def refuse(pickler: ShipPickler, obj: Any) -> Reduced:
        raise CannotShip(f"{what} cannot cross", hint)

    return refuse


_INSIDE = "make it inside the function"
_LOCK = _refused("a lock", _INSIDE)

_EXACT: dict[type, Handler | None] = {
    types.FunctionType: _function,
    types.ModuleType: _module,
    types.MethodType: _method,
    types.CellType: _cell,
    types.BuiltinFunctionType: None,
    types.MappingProxyType: _mapping_proxy,
    staticmethod: _wrapping,
    classmethod: _wrapping,
    property: _property,
    functools.cached_property: _cached_property,
    functools._lru_cache_wrapper: _lru_cache,
    contextvars.ContextVar: _context_var,
    memoryview: _memoryview,
    pickle.PickleBuffer: None,
    Namespace: _namespace,
    type(threading.Lock()): _LOCK,
    type(threading.RLock()): _LOCK,
    types.GeneratorType: _refused("a running generator", "pass a list of its values"),
    types.CoroutineType: _refused("a coroutine", "await it first and pass its value"),
}
_BY_BASE: tuple[tuple[Any, Handler | None], ...] = (
    (type, _class),
    (types.ModuleType, _module),
    (enum.Enum, _enum_member),
    (BaseException, _exception),
    (io.IOBase, _file),
    (property, _property),
    (socket.socket, _refused("a socket", _INSIDE)),
    (threading.Thread, _refused("a thread", _INSIDE)),
    (weakref.WeakKeyDictionary, _weak_map),
    (weakref.WeakValueDictionary, _weak_map),
    (typing.TypeVar, _type_var),
    (typing.ParamSpec, _type_var),
    (typing.TypeVarTuple, _type_var),
)
RANDOM_TYPES: tuple[type, ...] = (random.Random,)
