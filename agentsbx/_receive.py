"""The job's half of shipping: rebuild what `_ship` pickled, import project modules from the host.

Everything here runs inside the sandbox and reads bytes of the trusted host only. The zygote imports
this module, so it loads nothing but built-in and frozen modules.
"""

from __future__ import annotations

import _collections  # type: ignore[import-not-found]
import _frozen_importlib
import _pickle
import _thread
import builtins
import io
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Request = Callable[[str], tuple[bytes, list[Any]]]

__all__ = ["HostModule", "Receiver"]

_HEAP_TYPE = 1 << 9
# Dunder names that people do read off modules; all others are probes of tools, answered at once.
_ASKED_DUNDERS = frozenset({"__all__", "__version__", "__author__"})

_receiver: Receiver | None = None


class HostModule(types.ModuleType):
    """A project module that the host has loaded: attributes come at first use, no body runs.

    Functions that were shipped have the dictionary of this very module as their globals.
    """

    __slots__ = ("_absent", "_asks", "_hook")

    _absent: set[str]
    _asks: bool
    _hook: tuple[bool, Any] | None

    def __init__(self, name: str, *, asks: bool = True) -> None:
        super().__init__(name)
        self._absent = set()
        self._asks = asks
        self._hook = None
        self.__dict__["__builtins__"] = builtins

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        module = own.get("__name__", "?")
        dunder = name[:2] == "__" and name not in _ASKED_DUNDERS
        if not dunder and name not in self._absent and self._asks and _receiver is not None:
            child = sys.modules.get(f"{module}.{name}")
            if child is not None:
                return child
            found, value = _receiver.attribute(module, name)
            if found:
                own[name] = value
                return value
            self._absent.add(name)
        if self._asks and not dunder and _receiver is not None:
            # The module's own __getattr__ (PEP 562) is code and runs here, not on the host.
            if self._hook is None:
                self._hook = _receiver.attribute(module, "__getattr__")
            if self._hook[0]:
                return self._hook[1](name)
        why = (
            ""
            if self._asks
            else " here: the host loaded it by hand, and only what code names travels"
        )
        raise AttributeError(f"module {module!r} has no attribute {name!r}{why}")

    def __dir__(self) -> list[str]:
        names = set(self.__dict__)
        if self._asks and _receiver is not None:
            names.update(_receiver.names(self.__dict__["__name__"]))
        return sorted(names)


class _ValueLoader:
    """Loader of modules that the host has loaded: hands out the stand-in, runs nothing."""

    def create_module(self, spec: Any) -> types.ModuleType:
        return host_module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _SourceLoader:
    """Loader of modules that the host has not loaded: runs their source here."""

    def __init__(self, source: bytes, filename: str) -> None:
        self.source = source
        self.filename = filename

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        exec(compile(self.source, self.filename, "exec", dont_inherit=True), module.__dict__)

    def get_source(self, name: str) -> str:
        """Return the text, for tracebacks and `inspect`."""
        return self.source.decode("utf-8", "replace")

    def get_filename(self, name: str) -> str:
        """Return the host's path of the file."""
        return self.filename

    def is_package(self, name: str) -> bool:
        """Whether the module is a package."""
        return hasattr(sys.modules.get(name), "__path__")


class _Finder:
    """Asks the host for project modules.

    It stands twice on `sys.meta_path`: first for the names that the host had loaded (a readable
    directory must not make their bodies run again), last for all others.
    """

    def __init__(self, receiver: Receiver, names: frozenset[str] | None) -> None:
        self.receiver = receiver
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if self.names is not None and name not in self.names:
            return None
        return self.receiver.find_spec(name)


class _Unpickler(_pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == _HERE:
            return globals()[name]
        return super().find_class(module, name)


class Receiver:
    """Reads one snapshot and one call; one per job.

    >>> Receiver().loaded
    False
    """

    def __init__(self) -> None:
        global _receiver
        self._file = io.BytesIO()
        self._queue: Any = _collections.deque()
        self._unpickler = _Unpickler(self._file, buffers=iter(self._queue.popleft, None))
        self._lock = _thread.RLock()
        self._busy = False
        self._broken = False
        # No host listens while a waiting child reads its snapshot.
        self._serving = False
        self._request: Request | None = None
        self._fn: Any = None
        self._project: frozenset[str] = frozenset()
        self._replaced: list[Any] = []
        self.loaded = False
        _receiver = self

    def load_snapshot(self, blob: bytes, buffers: Sequence[Any] = ()) -> None:
        """Rebuild the function and all it captured."""
        self._fn, project, listed = self._load(blob, buffers)
        self._project = frozenset(project)
        if listed is not None:
            listed[0].__globals__.update(listed[1])
        self.loaded = True
        if self._request is not None:
            self._place()

    def load_call(
        self, body: bytes, buffers: Sequence[Any] = ()
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Rebuild the arguments, in the same pickle as the snapshot; return (fn, args, kwargs)."""
        self._serving = True
        args, kwargs = self._load(body, buffers)
        return self._fn, args, kwargs

    def install_importer(self, request: Request) -> None:
        """Let imports ask the host: `request("a.b")` and `request("a.b:attribute")`."""
        self._request = request
        sys.meta_path.append(_Finder(self, None))
        if self.loaded:
            self._place()

    def _place(self) -> None:
        if self._project:
            sys.meta_path.insert(0, _Finder(self, self._project))

    def _load(self, data: bytes, buffers: Sequence[Any]) -> Any:
        with self._lock:
            if self._busy or self._broken:
                raise TypeError(
                    "a project module was asked for while arguments were being rebuilt"
                    if self._busy
                    else "an earlier message of the host could not be rebuilt"
                )
            file = self._file
            file.seek(0)
            file.truncate()
            file.write(data)
            file.seek(0)
            self._queue.extend(buffers)
            self._busy = self._broken = True
            try:
                value = self._unpickler.load()
                self._broken = False
                return value
            finally:
                self._busy = False

    # -- modules ------------------------------------------------------------------------------

    def _ask(self, name: str) -> tuple[bytes, bytes, list[Any]]:
        if self._request is None or not self._serving:
            return b"N", b"", []
        reply, buffers = self._request(name)
        return bytes(reply[:1]), bytes(reply[1:]), buffers

    def find_spec(self, name: str) -> Any:
        """Return the spec of a project module, or None where the host knows none."""
        kind, data, _ = self._ask(name)
        if kind == b"N":
            return None
        if kind == b"E":
            raise ModuleNotFoundError(data.decode(), name=name)
        meta = _pickle.loads(data)
        loader: Any
        if kind == b"V":
            loader = _ValueLoader()
            set_module(host_module(name), meta[:4])
        else:
            loader = _SourceLoader(meta[4], meta[0] or "<host>")
        spec: Any = _frozen_importlib.ModuleSpec(name, loader, origin=meta[0])
        if meta[3] is not None:
            spec.submodule_search_locations = list(meta[3])
        spec.has_location = meta[0] is not None
        spec.cached = None
        return spec

    def attribute(self, module: str, name: str) -> tuple[bool, Any]:
        """Fetch one attribute of a module that the host has loaded.

        Raises `TypeError` naming it where it cannot cross.
        """
        with self._lock:
            if self._busy:
                raise TypeError(
                    f"module attribute {module}.{name} was asked for while arguments were being "
                    "rebuilt"
                )
            kind, data, buffers = self._ask(f"{module}:{name}")
            if kind == b"A":
                return True, self._load(data, buffers)
            if kind == b"E":
                raise TypeError(data.decode())
            return False, None

    def names(self, module: str) -> list[str]:
        """Return the names that the host's module has."""
        kind, data, _ = self._ask(module)
        return list(_pickle.loads(data)[4]) if kind == b"V" else []


# -- what the pickles call: kept short-named and private to the pair _ship/_receive ---------------


def host_module(name: str) -> types.ModuleType:
    """Return the stand-in of a project module, made and registered at first use."""
    module = sys.modules.get(name)
    if type(module) is HostModule:
        return module
    made = _stand_ins.get(name)
    if made is None:
        made = _stand_ins[name] = HostModule(name)
        if name == "__main__" or name not in sys.modules:
            # The old __main__ must outlive us: its dictionary is the globals of running code.
            _kept.append(module)
            sys.modules[name] = made
    return made


def set_module(module: types.ModuleType, meta: tuple[Any, ...]) -> None:
    """Give a stand-in its file, documentation, package and (library part of its) path."""
    own = module.__dict__
    file, own["__doc__"], own["__package__"], path = meta
    if file is not None:
        own["__file__"] = file
    if path is not None:
        own["__path__"] = list(path)
    if own.get("__spec__") is None and own["__name__"] != "__main__":
        loader: Any = _ValueLoader()
        spec: Any = _frozen_importlib.ModuleSpec(own["__name__"], loader, origin=file)
        spec.submodule_search_locations = None if path is None else own["__path__"]
        own["__spec__"] = spec
        own["__loader__"] = loader


def set_names(module: types.ModuleType, names: dict[str, Any]) -> None:
    """Fill a namespace that is no module."""
    module.__dict__.update(names)


def namespace(name: str) -> types.ModuleType:
    """Make the globals of code that belongs to no loaded module (exec, a removed module)."""
    return HostModule(name, asks=False)


def same_namespace(module: types.ModuleType) -> types.ModuleType:
    """Return the module object whose dictionary a namespace is."""
    return module


def import_module(name: str) -> types.ModuleType:
    """Import a library."""
    __import__(name)
    return sys.modules[name]


def library_global(module: str, name: str) -> Any:
    """Return a library's own object by name."""
    return getattr(import_module(module), name)


def make_function(
    code: bytes, home: types.ModuleType, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    """Make a function whose state follows."""
    return types.FunctionType(_loads_code(code), home.__dict__, None, None, closure)


def set_function(fn: Any, state: tuple[Any, ...]) -> None:
    """Complete a function: cells, globals, defaults, names, attributes of modules it uses."""
    (
        fn.__name__,
        fn.__qualname__,
        fn.__module__,
        fn.__doc__,
        fn.__defaults__,
        fn.__kwdefaults__,
        annotations,
        attributes,
        names,
        contents,
        modules,
        imports,
    ) = state
    if annotations:
        fn.__annotations__ = annotations
    if attributes:
        fn.__dict__.update(attributes)
    if contents:
        for cell, value in zip(fn.__closure__, contents, strict=True):
            if value:
                cell.cell_contents = value[0]
    if names:
        fn.__globals__.update(names)
    for module, attrs in modules:
        module.__dict__.update(attrs)
    for name in imports:
        __import__(name)


def _loads_code(data: bytes) -> types.CodeType:
    import marshal

    code: types.CodeType = marshal.loads(data)
    return code


def inlined(fn: Any) -> Any:
    """Mark the function of a sandboxed wrapper: called inside a job, it runs right there."""
    fn.__agentsbx_inline__ = True
    return fn


def empty_cell() -> types.CellType:
    """Make a cell that is filled later."""
    return types.CellType()


def set_cell(cell: types.CellType, value: Any) -> None:
    """Fill a cell."""
    cell.cell_contents = value


@classmethod  # type: ignore[misc]
def _silent(cls: type, /, **keywords: Any) -> None:
    """Stand for `__init_subclass__` while classes are rebuilt: project code must not run again."""


def make_class(
    maker: Any, meta: Any, name: str, bases: tuple[type, ...], ns: dict[str, Any]
) -> Any:
    """Make a class without running its metaclass's or its bases' project code; state follows."""
    muted: list[tuple[type, Any]] = []
    if maker is None:
        maker = meta = type(meta)
    try:
        for base in {b: None for a in bases for b in a.__mro__}:
            hook = base.__dict__.get("__init_subclass__")
            if hook is not None and base.__flags__ & _HEAP_TYPE:
                try:
                    type.__setattr__(base, "__init_subclass__", _silent)
                except TypeError:
                    continue
                muted.append((base, hook))
        return maker.__new__(meta, name, bases, ns)
    finally:
        for base, hook in muted:
            type.__setattr__(base, "__init_subclass__", hook)


def set_class(cls: Any, state: tuple[dict[str, Any], Sequence[type], bool]) -> None:
    """Give a class its attributes and its virtual subclasses."""
    attributes, registered, plain = state
    put: Any = type.__setattr__ if plain else setattr
    for name, value in attributes.items():
        put(cls, name, value)
    for other in registered:
        cls.register(other)


def make_enum(
    meta: Any, name: str, bases: tuple[type, ...], ns: dict[str, Any], members: Any, boundary: Any
) -> Any:
    """Make an enumeration from the values of its members; methods and state follow."""
    body = meta.__prepare__(name, bases)
    for key, value in (*ns.items(), *members):
        body[key] = value
    return (
        meta(name, bases, body) if boundary is None else meta(name, bases, body, boundary=boundary)
    )


def set_enum(cls: Any, state: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> None:
    """Give an enumeration its methods and its members what their `__init__` had set."""
    attributes, states = state
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)
    for name, own in states.items():
        cls._member_map_[name].__dict__.update(own)


def make_struct(
    meta: Any,
    name: str,
    bases: tuple[type, ...],
    ns: dict[str, Any],
    defaults: Sequence[tuple[str, bool, Any]],
    config: dict[str, Any],
) -> Any:
    """Make a `msgspec.Struct` class from its fields; methods follow."""
    import msgspec

    for field, is_factory, value in defaults:
        ns[field] = (
            msgspec.field(default_factory=value) if is_factory else msgspec.field(default=value)
        )
    return meta(name, bases, ns, **config)


def make_exception(cls: Any, args: tuple[Any, ...]) -> Any:
    """Make an exception without `__init__`, whose parameters need not be its `args`."""
    made = cls.__new__(cls, *args)
    made.args = args
    return made


def set_exception(error: Any, state: tuple[dict[str, Any], Any, Any, bool]) -> None:
    """Give an exception its attributes and its chain."""
    attributes, cause, context, suppress = state
    error.__dict__.update(attributes)
    error.__cause__ = cause
    error.__context__ = context
    error.__suppress_context__ = suppress


def make_instance(cls: Any) -> Any:
    """Make an instance whose state follows."""
    return cls.__new__(cls)


def cached_property(function: Any, name: str | None) -> Any:
    """Make a `functools.cached_property` (it holds a lock before Python 3.12)."""
    import functools

    made: Any = functools.cached_property(function)
    made.attrname = name
    return made


def lru_cache(function: Any, maxsize: int | None, typed: bool) -> Any:
    """Make an empty `functools.lru_cache` around a function."""
    import functools

    return functools.lru_cache(maxsize, typed)(function)


def context_var(name: str, value: Sequence[Any]) -> Any:
    """Make a context variable that has the value it had at the call."""
    import contextvars

    return contextvars.ContextVar(name, default=value[0]) if value else contextvars.ContextVar(name)


def with_keywords(kind: Any, keywords: dict[str, Any]) -> Any:
    """Make an object of a library from its settings."""
    return kind(**keywords)


def type_var(kind: Any, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Make a type variable."""
    return kind(name, *args, **keywords)


def weak_map(kind: Any, items: Sequence[tuple[Any, Any]]) -> Any:
    """Make a weak dictionary of what was alive."""
    return kind(items)


_HERE = __name__
_stand_ins: dict[str, HostModule] = {}
_kept: list[Any] = []
