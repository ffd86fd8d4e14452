"""Write grants that would let a job change what runs outside: refused without the explicit word.

Host process. Unlike `_policy_rules` this looks at the process and at the file system: where code
is imported from, and where policy files lie. Answers are kept as long as nothing of it changes.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agentsbx._policy_read import files_read
from agentsbx._policy_rules import is_below
from agentsbx._policy_trust import store_path
from agentsbx.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentsbx.policy import Policy

__all__ = ["holds_code", "refuse_code_writes"]

_LIBRARIES = ("site-packages", "dist-packages")
_SYSTEM = ("", "/", "/usr")
_OWN = os.path.dirname(os.path.abspath(__file__))


def refuse_code_writes(
    policy: Policy,
    search_path: Sequence[object] | None = None,
    prefixes: Sequence[str] | None = None,
    *,
    real: Mapping[str, str] | None = None,
) -> None:
    """Raise `PolicyError` where a write grant covers code that the host itself would run.

    That is an entry of `search_path` (default `sys.path`) or a module that is loaded, a place
    inside `prefixes` (default: the Python installation, the virtual environment, installed
    packages), this package, what `python=` and `packages=` name, and every policy file that this
    process has read. `real`: where granted
    names lead. `Grant(path, code=True)` is the explicit word. Called in the host before each call,
    not at import: `sys.path` may change until then.
    """
    for grant in policy.write:
        if grant.code:
            continue
        names = {grant.path, (real or {}).get(grant.path, grant.path)}
        why = _why(names, policy, sys.path if search_path is None else search_path, prefixes)
        if why:
            raise PolicyError(
                f"write={grant.path!r}: {why}; what a job leaves there could run outside",
                path="write",
                hint="grant another folder, or say it: Grant(path, code=True), in a file "
                "{ path = ..., code = true }",
            )


def holds_code(path: str) -> bool:
    """Whether a write grant over `path` needs the explicit word."""
    from agentsbx.policy import Policy

    return bool(_why({path}, Policy(), sys.path, None))


def _why(
    names: set[str], policy: Policy, search_path: Sequence[object], prefixes: Sequence[str] | None
) -> str:
    entries = tuple(os.path.abspath(e or ".") for e in search_path if isinstance(e, str))
    tools = tuple(p for p in (*policy.packages, _tool(policy.python)) if p not in _SYSTEM)
    for place in _with_targets((*entries, _OWN, *tools)):
        if any(is_below(place, name) for name in names):
            return f"this program imports its code from {place!r}"
    closed = _environment(entries) if prefixes is None else tuple(prefixes)
    for place in _with_targets((*closed, *tools)):
        if any(is_below(name, place) for name in names):
            return f"it lies in the Python environment {place!r}"
    for place in (*files_read, *([policy.origin] if policy.origin else ())):
        if any(is_below(place, name) for name in names):
            return f"it holds the policy file {place!r}"
    store = store_path()
    for place in _with_targets((store, os.path.dirname(store))):
        if any(is_below(place, name) or is_below(name, os.path.dirname(store)) for name in names):
            return f"it holds the record of trusted policy files {place!r}"
    if search_path is sys.path:
        for place in _loaded(len(sys.modules)):
            if any(is_below(place, name) for name in names):
                return f"this program has loaded {place!r}"
    return ""


def _tool(python: str) -> str:
    """Return the folder that `python=` means, by name alone."""
    folder, name = os.path.split(python)
    return os.path.dirname(folder) if os.path.basename(folder) == "bin" and name else python


@functools.lru_cache(maxsize=16)
def _with_targets(places: tuple[str, ...]) -> tuple[str, ...]:
    """The places, and where links lead to."""
    return tuple(dict.fromkeys(p for place in places for p in (place, os.path.realpath(place))))


def _environment(entries: Iterable[str]) -> tuple[str, ...]:
    roots = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    return (
        *(p for p in dict.fromkeys(roots) if p not in ("/", "/usr", "/usr/local")),
        os.path.dirname(os.path.abspath(os.__file__)),
        *(e for e in entries if os.path.basename(e) in _LIBRARIES),
    )


@functools.lru_cache(maxsize=1)
def _loaded(_count: int) -> tuple[str, ...]:
    """Files of the loaded modules that lie outside of the Python environment.

    They need not lie below `sys.path`: editable installs have finders of their own.
    """
    library = _with_targets(_environment(e for e in sys.path if isinstance(e, str)))
    found: dict[str, None] = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not any(is_below(file, place) for place in library):
            found[os.path.abspath(file)] = None
    return _with_targets(tuple(found))
