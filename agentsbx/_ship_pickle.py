"""The pickler of shipping: project functions, classes and modules by value, libraries by name.

Each reducer gives what `_receive` calls to rebuild the object. Whoever adds one must keep the memo
honest: a memo entry on this side is an entry on the job's side, because arguments and module
attributes go on in the pickle that the snapshot began.
"""

from __future__ import annotations

import copyreg
import pickle
import types
from typing import TYPE_CHECKING, Any

import cloudpickle

from agentsbx._ship_modules import library_object_names, module_of_globals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Reduced = Any
    Handler = Callable[["ShipPickler", Any], Reduced]

__all__ = [
    "HEAP_TYPE",
    "MISSING",
    "OUT_OF_BAND",
    "PROTOCOL",
    "CannotShip",
    "Context",
    "Namespace",
    "Recorder",
    "ShipPickler",
]

OUT_OF_BAND = 16 * 1024
PROTOCOL = 5
MISSING = object()
HEAP_TYPE = 1 << 9


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
        self.library_objects: dict[str, dict[int, tuple[str, Any]]] = {}
        self.namespaces: dict[int, Namespace] = {}

    def library_name(self, obj: Any) -> str | None:
        """Return the name of a library's own object in the module of its type."""
        module = type(obj).__module__
        known = self.library_objects.get(module)
        if known is None:
            known = self.library_objects[module] = library_object_names(module)
        found = known.get(id(obj))
        return None if found is None else found[0]


class ShipPickler(pickle.Pickler):
    """A C pickler with our reducers. Set `context`; `recorder` only while a snapshot is taken."""

    context: Context
    recorder: Recorder | None = None
    own_namespaces: dict[int, Namespace] | None = None

    def reducer_override(self, obj: Any) -> Any:
        """Return how to rebuild `obj`, or NotImplemented for pickle's own way."""
        kind = type(obj)
        handlers = self.context.types
        try:
            handler = handlers[kind]
        except KeyError:
            from agentsbx._ship_reduce import resolve

            handler = handlers[kind] = resolve(kind)
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


_table: dict[type, Any] = {}
_table_size = -1


def dispatch_table() -> dict[type, Any]:
    """Return copyreg's reducers and cloudpickle's in one plain dictionary (a ChainMap is slow)."""
    global _table, _table_size
    if _table_size != len(copyreg.dispatch_table):
        _table = {**cloudpickle.Pickler._dispatch_table, **copyreg.dispatch_table}
        _table_size = len(copyreg.dispatch_table)
    return _table
