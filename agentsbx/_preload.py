"""Which installed libraries a zygote imports ahead, and which template serves which call.

What a function refers to is read off its pickle and code: names of library modules that the host
has loaded. Only installed packages decide over the template, so that tools which differ in a stdlib
import share one zygote. With granted variables nothing but the stdlib and `preload=` is imported
ahead, in a template that no other package was imported into: a library may read its key when it is
imported (semantics 4.8). Of the stdlib those few that do so are never imported ahead.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable

_MAX_SCAN = 4 * 2**20
_SHORT_BINUNICODE = 0x8C  # opcode, length byte, UTF-8 (pickletools)
_NEVER = frozenset({"__main__", "builtins", "agentsbx", "sys"})


# What of the stdlib reads variables at its import, itself or by what it imports (3.11 to 3.13).
_READ_VARIABLES = frozenset(
    {"_aix_support", "_zoneinfo", "cgitb", "ensurepip", "optparse", "pydoc", "sysconfig", "trace",
     "venv", "zoneinfo"}
)  # fmt: skip


class Wanted(tuple[tuple[str, ...], tuple[str, ...], bool]):
    """(installed packages' modules, stdlib modules, whether no other packages may be there)."""

    __slots__ = ()

    @property
    def packages(self) -> frozenset[str]:
        """Top-level names that a template must have."""
        return frozenset(map(_top, self[0]))

    def is_served_by(self, packages: frozenset[str]) -> bool:
        """Whether a template with these packages will do."""
        return packages == self.packages if self[2] else packages >= self.packages

    @property
    def names(self) -> tuple[str, ...]:
        """All modules to import."""
        return self[0] + self[1]


NOTHING = Wanted(((), (), False))


def wanted(
    fn: object,
    blobs: Iterable[bytes],
    explicit: Iterable[str],
    *,
    has_env: bool,
    folders: tuple[str, ...] | None = None,
) -> Wanted:
    """What to import ahead for a function and the pickles of its first call.

    `folders`: where a tool with libraries of its own finds them. Of those only what the host has
    loaded from the very same file is imported ahead: a zygote stands outside the walls of a job.
    """
    found: set[str] = set(_code_names(fn))
    for blob in blobs:
        if len(blob) <= _MAX_SCAN:
            found |= _short_strings(blob)
    installed, stdlib = _libraries(found)
    if folders is not None:
        installed = {name for name in installed if _is_same_there(_top(name), folders)}
    packages = set(explicit) | (set() if has_env else installed)
    return Wanted((tuple(sorted(packages)), tuple(sorted(stdlib - packages)), has_env))


def _short_strings(blob: bytes) -> set[str]:
    """What may be a short string of a pickle: too many are harmless, they name no loaded module."""
    out: set[str] = set()
    at = blob.find(_SHORT_BINUNICODE)
    while at >= 0:
        raw = blob[at + 2 : at + 2 + blob[at + 1]] if at + 1 < len(blob) else b""
        if raw.isascii():
            out.add(raw.decode())
        at = blob.find(_SHORT_BINUNICODE, at + 1)
    return out


def _libraries(found: Iterable[object]) -> tuple[set[str], set[str]]:
    """Installed and stdlib modules among the names found; what else was found is left out."""
    names = {n for n in found if isinstance(n, str) and _top(n) not in _NEVER and _is_library(n)}
    stdlib = {n for n in names if _top(n) in sys.stdlib_module_names}
    return names - stdlib, {n for n in stdlib if _top(n) not in _READ_VARIABLES}


def _is_same_there(name: str, folders: tuple[str, ...]) -> bool:
    """Whether a top-level module comes from the host's own file there too; runs nothing."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec(name, folders)
    here = getattr(sys.modules.get(name), "__file__", None)
    return spec is not None and isinstance(here, str) and spec.origin == here


def _top(name: str) -> str:
    return name.partition(".")[0]


def _is_library(name: str) -> bool:
    from agentsbx._ship_modules import is_library_module

    module = sys.modules.get(name)
    return isinstance(module, types.ModuleType) and is_library_module(module)


def _code_names(fn: object) -> Iterable[str]:
    """Names that the code uses: imports inside the body are among them."""
    code = getattr(fn, "__code__", None) or getattr(
        getattr(fn, "__func__", getattr(fn, "func", None)), "__code__", None
    )
    todo = [code] if isinstance(code, types.CodeType) else []
    while todo:
        code = todo.pop()
        yield from code.co_names
        todo += [c for c in code.co_consts if isinstance(c, types.CodeType)]


def guess(fn: object) -> Wanted:
    """The same from the function's names alone, before anything is pickled.

    Good enough to start a zygote while the host still imports what pickling needs.
    """
    names = getattr(fn, "__globals__", {})
    found: set[object] = set()
    for name in _code_names(fn):
        value = names.get(name)
        module = value.__name__ if isinstance(value, types.ModuleType) else None
        found.add(module or getattr(value, "__module__", None) or name)
    installed, stdlib = _libraries(found)
    return Wanted((tuple(sorted(installed)), tuple(sorted(stdlib)), False))
