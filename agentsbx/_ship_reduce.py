"""How functions, methods and modules are reduced, and the tables of who reduces what."""

from __future__ import annotations

import _socket
import contextvars
import enum
import functools
import io
import marshal
import pickle
import sys
import threading
import types
import typing
import weakref
from typing import TYPE_CHECKING, Any

from agentsbx import _receive, _receive_make
from agentsbx import _ship_objects as objects
from agentsbx._ship_classes import annotations_of, reduce_class
from agentsbx._ship_modules import (
    Chain,
    closure_references,
    is_by_reference,
    is_library_module,
    module_of_globals,
    references,
    stand_in_meta,
    submodules_named,
)
from agentsbx._ship_pickle import HEAP_TYPE, MISSING, CannotShip, Namespace, ShipPickler

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agentsbx._ship_pickle import Handler, Reduced

__all__ = ["is_data", "is_wrapper", "resolve"]

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
        return _receive_make.inlined, (typing.cast("Any", fn).__wrapped__,)
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
            value = found.get(name)
            if isinstance(value, types.ModuleType):
                _follow(pickler, code, value, chain, modules, imports)
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
        chains = closure_references(code)
        for name, content in zip(code.co_freevars, contents, strict=True):
            if content and isinstance(content[0], types.ModuleType):
                _follow(pickler, code, content[0], chains.get(name, {}), modules, imports)
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
        annotations_of(fn),
        attributes,
        found,
        contents,
        modules,
        imports,
    )
    home = pickler.namespace(fn.__globals__) if owner is None else owner
    args = (marshal.dumps(code), home, cells)
    return _receive_make.make_function, args, state, None, None, _receive_make.set_function


def _refuse_constants(pickler: ShipPickler, code: types.CodeType, fn: types.FunctionType) -> None:
    secrets = pickler.context.secrets
    if not secrets:
        return
    for constant in _constants(code):
        text = constant.decode("utf-8", "replace") if isinstance(constant, bytes) else constant
        if text in secrets:
            raise CannotShip(
                f"a constant in {fn.__qualname__}() is the value of the environment variable "
                f"{secrets[text]}, which the policy does not grant",
                f"grant it with env=[{secrets[text]!r}]",
            )


def _constants(value: Any) -> Iterator[str | bytes]:
    """Yield the strings among the constants of code."""
    if isinstance(value, (str, bytes)):
        yield value
    elif isinstance(value, (tuple, frozenset)):
        for item in value:
            yield from _constants(item)
    elif isinstance(value, types.CodeType):
        yield from _constants(value.co_consts)


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
    code: types.CodeType,
    module: types.ModuleType,
    chain: Chain,
    modules: list[tuple[Any, dict[str, Any]]],
    imports: list[str],
) -> None:
    """Collect what code reads off a module: attributes of a project's, submodules of a library."""
    if is_library_module(module):
        imports += submodules_named(module, code)
        return
    own = vars(module)
    found = {name: own[name] for name in chain if name in own}
    for name, value in found.items():
        if isinstance(value, types.ModuleType):
            _follow(pickler, code, value, chain[name], modules, imports)
    if found:
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
        return _receive_make.empty_cell, ()
    return _receive_make.empty_cell, (), content[0], None, None, _receive_make.set_cell


def _method(pickler: ShipPickler, method: types.MethodType) -> Reduced:
    return types.MethodType, (method.__func__, method.__self__)


def _wrapping(pickler: ShipPickler, obj: Any) -> Reduced:
    return type(obj), (obj.__func__,)


def _property(pickler: ShipPickler, obj: property) -> Reduced:
    return type(obj), (obj.fget, obj.fset, obj.fdel, obj.__doc__)


def _cached_property(pickler: ShipPickler, obj: Any) -> Reduced:
    return _receive_make.cached_property, (obj.func, obj.attrname)


def _lru_cache(pickler: ShipPickler, obj: Any) -> Reduced:
    if is_by_reference(obj):
        return NotImplemented
    how = obj.cache_parameters()
    return _receive_make.lru_cache, (obj.__wrapped__, how["maxsize"], how["typed"])


# -- modules --------------------------------------------------------------------------------------


def _module(pickler: ShipPickler, module: types.ModuleType) -> Reduced:
    name = module.__name__
    if is_library_module(module):
        return _receive_make.import_module, (name,)
    if sys.modules.get(name) is not module:
        # Loaded by hand, not importable by name: what code names of it travels, no more.
        return _receive.same_namespace, (pickler.namespace(vars(module)),)
    meta = stand_in_meta(module)
    return _receive.host_module, (name,), meta, None, None, _receive.set_module


def _namespace(pickler: ShipPickler, obj: Namespace) -> Reduced:
    name = obj.names.get("__name__")
    return _receive.namespace, (name if isinstance(name, str) else "?",)


# -- tables ---

_INSIDE = "make it inside the function"
_LOCK = objects.refused("a lock", _INSIDE)

_EXACT: dict[type, Handler | None] = {
    types.FunctionType: _function,
    types.ModuleType: _module,
    types.MethodType: _method,
    types.CellType: _cell,
    types.BuiltinFunctionType: None,
    types.MappingProxyType: objects.mapping_proxy,
    staticmethod: _wrapping,
    classmethod: _wrapping,
    property: _property,
    functools.cached_property: _cached_property,
    functools._lru_cache_wrapper: _lru_cache,
    contextvars.ContextVar: objects.context_var,
    memoryview: objects.memory_view,
    pickle.PickleBuffer: None,
    Namespace: _namespace,
    type(threading.Lock()): _LOCK,
    type(threading.RLock()): _LOCK,
    types.GeneratorType: objects.refused("a running generator", "pass a list of its values"),
    types.CoroutineType: objects.refused("a coroutine", "await it first and pass its value"),
}
_BY_BASE: tuple[tuple[Any, Handler | None], ...] = (
    (type, reduce_class),
    (types.ModuleType, _module),
    (enum.Enum, objects.enum_member),
    (BaseException, objects.exception),
    (io.IOBase, objects.file),
    (property, _property),
    (_socket.socket, objects.refused("a socket", _INSIDE)),
    (threading.Thread, objects.refused("a thread", _INSIDE)),
    (weakref.WeakKeyDictionary, objects.weak_map),
    (weakref.WeakValueDictionary, objects.weak_map),
    (typing.TypeVar, objects.type_var),
    (typing.ParamSpec, objects.type_var),
    (typing.TypeVarTuple, objects.type_var),
)


def resolve(kind: type) -> Handler | None:
    """Return what reduces objects of a type; None for pickle's own way."""
    exact = _EXACT.get(kind, MISSING)
    if exact is not MISSING:
        return typing.cast("Handler | None", exact)
    for base, handler in _BY_BASE:
        if issubclass(kind, base):
            return handler
    if (kind.__module__, kind.__name__) == ("numpy", "ndarray"):
        return objects.array
    if kind.__module__.startswith("msgspec.") and kind.__name__ in ("Encoder", "Decoder"):
        return objects.coder
    if kind.__module__.startswith("pydantic.") and kind.__name__ == "PluggableSchemaValidator":
        return objects.validator
    if any(b.__name__ == "_FunctionWrapperBase" for b in kind.__mro__):
        return objects.function_proxy
    if is_by_reference(kind):
        return objects.library_instance
    return objects.project_instance if kind.__flags__ & HEAP_TYPE else None
