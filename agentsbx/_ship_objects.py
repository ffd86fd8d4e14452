"""How instances are reduced that pickle would refuse, copy wrongly or make read-only."""

from __future__ import annotations

import contextvars
import enum
import io
import pickle
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

from agentsbx import _receive_make
from agentsbx._ship_modules import is_by_reference, is_library_module
from agentsbx._ship_pickle import MISSING, OUT_OF_BAND, PROTOCOL, CannotShip, ShipPickler

if TYPE_CHECKING:
    from agentsbx._ship_pickle import Handler, Reduced

# -- instances ------------------------------------------------------------------------------------


def library_instance(pickler: ShipPickler, obj: Any) -> Reduced:
    """Reduce an instance of a library's class: by name where the library names it."""
    name = pickler.context.library_name(obj)
    if name is not None:
        return _receive_make.library_global, (type(obj).__module__, name)
    if not pickler.context.library_objects[type(obj).__module__]:
        # Nothing of this module is to be found by name: spare its instances the question.
        pickler.context.types[type(obj)] = None
    return NotImplemented


def project_instance(pickler: ShipPickler, obj: Any) -> Reduced:
    """Reduce an instance of a project class."""
    kind: Any = type(obj)
    if kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__:
        return NotImplemented
    reduced = obj.__reduce_ex__(PROTOCOL)
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
        return _receive_make.make_instance, (kind,), dict(state) if state else None
    return reduced


def exception(pickler: ShipPickler, error: BaseException) -> Reduced:
    """Reduce an exception without calling its `__init__`."""
    kind = type(error)
    if is_by_reference(kind) or kind.__reduce__ is not BaseException.__reduce__:
        return NotImplemented
    state = (
        dict(error.__dict__),
        error.__cause__,
        error.__context__,
        error.__suppress_context__,
    )
    return (
        _receive_make.make_exception,
        (kind, error.args),
        state,
        None,
        None,
        _receive_make.set_exception,
    )


def enum_member(pickler: ShipPickler, member: enum.Enum) -> Reduced:
    """Reduce a member of a project's enumeration."""
    kind = type(member)
    if is_by_reference(kind) or member._name_ not in kind._member_map_:
        return NotImplemented
    return getattr, (kind, member._name_)


def context_var(pickler: ShipPickler, var: contextvars.ContextVar[Any]) -> Reduced:
    """Reduce a context variable to its present value."""
    value = var.get(MISSING)
    return _receive_make.context_var, (var.name, () if value is MISSING else (value,))


def type_var(pickler: ShipPickler, var: Any) -> Reduced:
    """Reduce a type variable."""
    home, name = var.__module__, var.__name__
    module: Any = sys.modules.get(home or "")
    if (
        isinstance(module, types.ModuleType)
        and is_library_module(module)
        and getattr(module, name, None) is var
    ):
        return _receive_make.library_global, (home, name)
    keywords = {
        "covariant": getattr(var, "__covariant__", False),
        "contravariant": getattr(var, "__contravariant__", False),
    }
    if getattr(var, "__bound__", None) is not None:
        keywords["bound"] = var.__bound__
    if isinstance(var, typing.TypeVarTuple):
        keywords = {}
    args = tuple(getattr(var, "__constraints__", ()))
    return _receive_make.type_var, (type(var), name, args, keywords)


def memory_view(pickler: ShipPickler, view: memoryview) -> Reduced:
    """Reduce a memoryview to a writable one."""
    if view.readonly or not view.contiguous:
        return memoryview, (bytes(view) if view.readonly else bytearray(view),)
    return memoryview, (pickle.PickleBuffer(view),)


def mapping_proxy(pickler: ShipPickler, proxy: types.MappingProxyType[Any, Any]) -> Reduced:
    """Reduce a mapping proxy."""
    return types.MappingProxyType, (dict(proxy),)


def weak_map(pickler: ShipPickler, mapping: Any) -> Reduced:
    """Reduce a weak dictionary to what is alive."""
    return _receive_make.weak_map, (type(mapping), list(mapping.items()))


def array(pickler: ShipPickler, array: Any) -> Reduced:
    """Let arrays arrive writable (rule 2.2) and big ones out of band, whatever their layout."""
    if array.dtype.hasobject:
        return NotImplemented
    if not array.flags.writeable or (array.nbytes >= OUT_OF_BAND and not array.flags.forc):
        return array.copy(order="K").__reduce_ex__(PROTOCOL)
    return NotImplemented


_STANDARD_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


def file(pickler: ShipPickler, stream: Any) -> Reduced:
    """Refuse open files, but for the standard streams."""
    for name in _STANDARD_STREAMS:
        if getattr(sys, name, None) is stream:
            return _receive_make.library_global, ("sys", name)
    if isinstance(stream, (io.BytesIO, io.StringIO)):
        return NotImplemented
    raise CannotShip(
        f"an open file ({getattr(stream, 'name', type(stream).__name__)!r}) cannot cross",
        "open it inside the function and grant the path with read=[...] or write=[...]",
    )


def refused(what: str, hint: str) -> Handler:
    """Return a reducer that refuses."""

    def refuse(pickler: ShipPickler, obj: Any) -> Reduced:
        raise CannotShip(f"{what} cannot cross", hint)

    return refuse


def function_proxy(pickler: ShipPickler, obj: Any) -> Reduced:
    """Reduce what `wrapt` puts round functions, which pickle refuses.

    A library's own is found by name, a bound one through its object; another is made anew round
    its function.
    """
    if is_by_reference(obj):
        return str(obj.__qualname__)
    bound = getattr(obj, "_self_instance", None)
    if bound is not None:
        return getattr, (bound, obj.__name__)
    if type(obj) is not getattr(sys.modules.get("wrapt"), "FunctionWrapper", None):
        raise CannotShip("a wrapt proxy cannot cross", "pass the function inside it")
    return _receive_make.function_proxy, (obj.__wrapped__, obj._self_wrapper)


def validator(pickler: ShipPickler, obj: Any) -> Reduced:
    """Reduce pydantic's validator for plug-ins (logfire brings one) to the validator inside.

    Unpickled as it is it calls itself for ever; and a plug-in's records would die with the job.
    """
    return obj._schema_validator.__reduce__()


_CODER_SETTINGS = [
    "type",
    "strict",
    "enc_hook",
    "dec_hook",
    "ext_hook",
    "float_hook",
    "decimal_format",
    "uuid_format",
    "order",
]


def coder(pickler: ShipPickler, obj: Any) -> Reduced:
    """Reduce a `msgspec` encoder or decoder, which pickle refuses, to its settings."""
    keywords = {name: getattr(obj, name) for name in _CODER_SETTINGS if hasattr(obj, name)}
    return _receive_make.with_keywords, (type(obj), keywords)
