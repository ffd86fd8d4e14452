"""What is a library and what is project code; which names code refers to; where modules lie.

Rule 1.2: a library is what lies in the standard library or in site-packages and travels by
reference. All else is project code and travels by value, editable installs too.
"""

from __future__ import annotations

import dis
import functools
import os
import site
import stat
import sys
import sysconfig
import types
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "Chain",
    "Found",
    "closure_references",
    "find_module",
    "is_by_reference",
    "is_library_file",
    "is_library_module",
    "is_module_name",
    "library_object_names",
    "loaded_project_modules",
    "module_of_globals",
    "references",
    "stand_in_meta",
    "submodules_named",
]

# Attribute chains that hang on a global name: `a.b.c` and `a.d` give {"b": {"c": {}}, "d": {}}.
Chain = dict[str, Any]

_MAX_NAME = 255
_MAX_DEPTH = 16
_PACKAGE_DIRS = ("site-packages", "dist-packages")
_OWN = __name__.partition(".")[0]


@functools.cache
def _fixed_dirs() -> frozenset[str]:
    paths = sysconfig.get_paths()
    found = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += site.getsitepackages()
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    return frozenset(_both_forms(found))


def _both_forms(paths: Iterable[str]) -> set[str]:
    return {form for path in paths for form in (os.path.abspath(path), os.path.realpath(path))}


@functools.lru_cache(4096)
def _dir_is_library(directory: str, extra: frozenset[str]) -> bool:
    for form in (os.path.abspath(directory), os.path.realpath(directory)):
        for library in (*_fixed_dirs(), *extra):
            if form == library or form.startswith(library + os.sep):
                return True
    return False


def _is_library_path(path: str) -> bool:
    extra = frozenset(
        entry
        for entry in sys.path
        if isinstance(entry, str) and os.path.basename(entry.rstrip(os.sep)) in _PACKAGE_DIRS
    )
    return _dir_is_library(os.path.dirname(path), extra)


_known: weakref.WeakKeyDictionary[types.ModuleType, bool] = weakref.WeakKeyDictionary()


def is_library_file(path: str) -> bool:
    """Whether a file lies in the standard library or in site-packages, by its plain name."""
    return path == os.path.abspath(path) and _is_library_path(path)


def is_library_module(module: types.ModuleType) -> bool:
    """Whether a loaded module travels by reference.

    >>> import json, types
    >>> is_library_module(json), is_library_module(types.ModuleType("notebook"))
    (True, False)
    """
    known = _known.get(module)
    if known is None:
        known = _known[module] = _classify(module)
    return known


def _classify(module: types.ModuleType) -> bool:
    names = vars(module)
    name = str(names.get("__name__") or "")
    top = name.partition(".")[0]
    if top == _OWN or name in sys.builtin_module_names:
        return True
    spec = names.get("__spec__")
    origin = names.get("__file__") or getattr(spec, "origin", None)
    if isinstance(origin, str):
        if origin in ("built-in", "frozen"):
            return True
        return _is_library_path(origin)
    path = list(names.get("__path__") or ())
    if path:
        return all(_is_library_path(os.path.join(str(entry), "")) for entry in path)
    # Modules that a library makes itself (`six.moves`) follow the package they belong to.
    parent = sys.modules.get(top)
    if top != name and isinstance(parent, types.ModuleType):
        return is_library_module(parent)
    return False


def loaded_project_modules() -> tuple[str, ...]:
    """Return the names of the project modules that this process has loaded, in order of loading."""
    return tuple(
        name
        for name, module in list(sys.modules.items())
        if isinstance(module, types.ModuleType)
        and name != "__main__"
        and not is_library_module(module)
    )


def module_of_globals(names: dict[str, Any]) -> types.ModuleType | None:
    """Return the loaded module whose namespace `names` is."""
    module = sys.modules.get(names.get("__name__", ""))
    if isinstance(module, types.ModuleType) and vars(module) is names:
        return module
    return None


def is_by_reference(obj: Any) -> bool:
    """Whether a class or function is a library's and found there by its name."""
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    if not isinstance(name, str) or not isinstance(module, types.ModuleType):
        return False
    if not is_library_module(module):
        return False
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            return False
    return found is obj


_ATOMS = (int, str, float, bytes, bool, type(None), tuple, frozenset, complex)
_CALLED = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


def library_object_names(module_name: str) -> dict[int, tuple[str, Any]]:
    """Return the objects of a library module that are to be found by name: id to name and object.

    Sentinels (`dataclasses.MISSING`) must stay one object; `os.environ` and the state of `random`
    must be the job's own and not a copy of the host's.
    """
    module = sys.modules.get(module_name)
    if not isinstance(module, types.ModuleType) or not is_library_module(module):
        return {}
    return {
        id(value): (name, value)
        for name, value in list(vars(module).items())
        if getattr(type(value), "__module__", None) == module_name
        and not isinstance(value, _CALLED)
        and not isinstance(value, _ATOMS)
    }


# -- names in code --------------------------------------------------------------------------------

_OP = dis.opmap
_READ = {_OP[name] for name in ("LOAD_GLOBAL", "LOAD_NAME") if name in _OP}
_LOAD_GLOBAL = _OP["LOAD_GLOBAL"]
_LOAD_ATTR = _OP["LOAD_ATTR"]
_LOAD_METHOD = _OP.get("LOAD_METHOD", -1)
_STORE_NAME = _OP["STORE_NAME"]
_EXTENDED = _OP["EXTENDED_ARG"]
_CACHE = _OP.get("CACHE", -1)
# Since 3.11 the lowest bit of LOAD_GLOBAL says "push NULL"; since 3.12 that of LOAD_ATTR "method".
_ATTR_SHIFT = 1 if sys.version_info >= (3, 12) else 0

_LOAD_DEREF = _OP["LOAD_DEREF"]


class _Names(NamedTuple):
    """What code refers to: globals and closure variables with chains; all names of attributes."""

    read: dict[str, Chain]
    free: dict[str, Chain]
    attributes: set[str]


# By identity: code objects compare by content. An entry goes when its code goes.
_names: dict[int, tuple[weakref.ref[types.CodeType], _Names]] = {}


def references(code: types.CodeType) -> dict[str, Chain]:
    """Return the global names that code (and code in it) reads, with the attributes read off them.

    >>> references((lambda: os.path.join(x.y, "a")).__code__)
    {'os': {'path': {'join': {}}}, 'x': {'y': {}}}
    """
    return _names_of(code).read


def closure_references(code: types.CodeType) -> dict[str, Chain]:
    """Return the closure variables that code reads, with the attributes read off them."""
    return _names_of(code).free


def submodules_named(module: types.ModuleType, code: types.CodeType) -> list[str]:
    """Return the loaded submodules of a library that the attribute names in code may mean.

    `import xml.etree.ElementTree` binds `xml` only; the job must import what hangs below it. This
    sees more than the chains do: an intermediate variable breaks a chain.
    """
    found = []
    names = _names_of(code).attributes
    waiting = [module]
    for parent in waiting:
        for name in names & vars(parent).keys():
            child = vars(parent)[name]
            if (
                isinstance(child, types.ModuleType)
                and child.__name__ == f"{parent.__name__}.{name}"
                and is_library_module(child)
            ):
                found.append(child.__name__)
                waiting.append(child)
    return sorted(found)


def _names_of(code: types.CodeType) -> _Names:
    key = id(code)
    cached = _names.get(key)
    if cached is not None and cached[0]() is code:
        return cached[1]
    names = _Names({}, {}, set())
    _collect(code, names)

    def forget(ref: weakref.ref[types.CodeType]) -> None:
        entry = _names.get(key)
        if entry is not None and entry[0] is ref:
            del _names[key]

    _names[key] = (weakref.ref(code, forget), names)
    return names


def _collect(code: types.CodeType, into: _Names) -> None:
    raw = code.co_code
    names = code.co_names
    local: set[str] = set()
    chain: Chain | None = None
    high = 0
    for at in range(0, len(raw), 2):
        op, arg = raw[at], raw[at + 1] | high
        if op == _CACHE:
            continue
        if op == _EXTENDED:
            high = arg << 8
            continue
        high = 0
        if op in _READ:
            name = names[arg >> 1 if op == _LOAD_GLOBAL else arg]
            chain = None if name in local else into.read.setdefault(name, {})
        elif op == _LOAD_DEREF:
            name = code._varname_from_oparg(arg)  # type: ignore[attr-defined]
            chain = into.free.setdefault(name, {}) if name in code.co_freevars else None
        elif op in (_LOAD_ATTR, _LOAD_METHOD):
            name = names[arg >> (_ATTR_SHIFT if op == _LOAD_ATTR else 0)]
            into.attributes.add(name)
            chain = None if chain is None else chain.setdefault(name, {})
        else:
            chain = None
            if op == _STORE_NAME:
                local.add(names[arg])
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _collect(constant, into)


# -- modules that the host has not loaded ---------------------------------------------------------


class Found(NamedTuple):
    """Where a module lies: `kind` is "source", "package" (no body), "library", "other" or ""."""

    kind: str
    file: str | None = None
    path: tuple[str, ...] | None = None
    source: bytes = b""


def is_module_name(name: str) -> bool:
    """Whether `name` (sent by a job) is a plain dotted name of bounded length."""
    return (
        0 < len(name) <= _MAX_NAME
        and name.count(".") < _MAX_DEPTH
        and all(part.isidentifier() for part in name.split("."))
    )


def _spec_of(name: str) -> Any:
    """Find a module by the host's own finders without running any module's body."""
    parent, _, _ = name.rpartition(".")
    path: list[str] | None = None
    if parent:
        loaded = sys.modules.get(parent)
        if loaded is not None:
            found = getattr(loaded, "__path__", None)
        else:
            spec = _spec_of(parent)
            found = None if spec is None else spec.submodule_search_locations
        if found is None:
            return None
        path = list(found)
    for finder in list(sys.meta_path):
        look = getattr(finder, "find_spec", None)
        spec = look(name, path, None) if look is not None else None
        if spec is not None:
            return spec
    return None


def find_module(name: str, *, max_bytes: int) -> Found:
    """Return source and place of a project module that the host has not loaded."""
    try:
        spec = _spec_of(name)
    except (ImportError, AttributeError, TypeError, ValueError, OSError):
        return Found("")
    if spec is None:
        return Found("")
    path = spec.submodule_search_locations
    origin: Any = spec.origin
    inner = (
        None if path is None else tuple(p for p in path if _is_library_path(os.path.join(p, "")))
    )
    if spec.loader is None or not getattr(spec, "has_location", False):
        if path is None or origin in ("built-in", "frozen"):
            return Found("library" if origin in ("built-in", "frozen") else "other")
        if len(inner or ()) == len(list(path)):
            return Found("library")
        return Found("package", None, inner)
    if not isinstance(origin, str) or name.partition(".")[0] == _OWN or _is_library_path(origin):
        return Found("library")
    if not origin.endswith(".py"):
        return Found("other", origin)
    return _read_source(name, origin, inner, max_bytes)


def _read_source(name: str, origin: str, inner: tuple[str, ...] | None, max_bytes: int) -> Found:
    """Read a module's file, but nothing that lies elsewhere.

    A job may be allowed to write into the project: a symbolic link that it put there must not make
    us read what it cannot. So the open file's real path must be the container of the top package
    with the rest of the path as it was found.
    """
    container, rest = _split_container(name, origin, package=inner is not None)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(origin, flags)
    except OSError:
        return Found("link", origin)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        real = os.readlink(f"/proc/self/fd/{fd}")
        if not stat.S_ISREG(status.st_mode) or real != os.path.join(
            os.path.realpath(container), rest
        ):
            return Found("link", origin)
        if status.st_size > max_bytes:
            return Found("large", origin)
        return Found("source", origin, inner, file.read(max_bytes))


def _split_container(name: str, origin: str, *, package: bool) -> tuple[str, str]:
    """Split a module's file into the directory that holds its top package, and the rest."""
    parts = name.split(".")
    tail = [*parts, "__init__.py"] if package else [*parts[:-1], f"{parts[-1]}.py"]
    rest = os.path.join(*tail)
    if origin.endswith(os.sep + rest):
        return origin[: -len(rest) - 1] or os.sep, rest
    return os.path.split(origin)


def stand_in_meta(module: types.ModuleType) -> tuple[Any, ...]:
    """Return what a stand-in shows of itself: file, documentation, package, path.

    Of the path only library directories stay: project directories would let the job's own finder
    run bodies again that the host has run.
    """
    names: Mapping[str, Any] = vars(module)
    path: tuple[str, ...] | None = None
    if "__path__" in names:
        path = tuple(
            str(p) for p in names["__path__"] if _is_library_path(os.path.join(str(p), ""))
        )
    return names.get("__file__"), names.get("__doc__"), names.get("__package__"), path
