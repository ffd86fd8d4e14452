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

from agentsbx import _receive_make

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Request = Callable[[str], tuple[bytes, list[Any]]]

__all__ = ["HostModule", "Receiver"]

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

    def forget_absent(self) -> None:
        """Session's interpreter: ask again for what the host did not have, or did not serve."""
        self._absent.clear()
        if self._hook is not None and not self._hook[0]:
            self._hook = None

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
        if module == _MAKE:
            return getattr(_receive_make, name)
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
        self.lock = _thread.RLock()  # of the pickle, and of who waits for an answer of the host
        self.talk: Any = None  # worker: (send a host call, read an answer)
        self.heard: Any = None  # takes an answer that somebody else has read
        self.pid = 0
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

    def load_more(self, body: bytes, buffers: Sequence[Any] = ()) -> Any:
        """Rebuild one more object of that pickle: what a generator is sent."""
        return self._load(body, buffers)

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
        with self.lock:
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
        with self.lock:
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
        with self.lock:
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


# -- what the pickles call to find modules; `_receive_make` has the rest ---------------------------


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


_HERE = __name__
_MAKE = _receive_make.__name__
_stand_ins: dict[str, HostModule] = {}
_kept: list[Any] = []
