"""Policies that ship with the package, by name.

They are TOML files in `data/presets/`, read when first asked for. `default` (also called
`python`) equals `Policy()`; a test holds the two together, so the usual case reads no file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agentsbx.errors import PolicyError

if TYPE_CHECKING:
    from agentsbx.policy import Policy

__all__ = ["ALIASES", "names", "path", "preset"]

ALIASES = {"python": "default"}
_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "presets")
_loaded: dict[str, Policy] = {}


def names() -> list[str]:
    """Return the names of all presets, without aliases, sorted.

    >>> names()
    ['build', 'data-science', 'default', 'node', 'shell', 'strict']
    """
    return sorted(e.removesuffix(".toml") for e in os.listdir(_FOLDER) if e.endswith(".toml"))


def path(name: str) -> str:
    """Return the file of a preset; raises `PolicyError` with a suggestion for an unknown name."""
    known = names()
    name = ALIASES.get(name, name)
    if name not in known:
        from agentsbx._policy_keys import suggestion

        raise PolicyError(
            f"no preset is called {name!r}{suggestion(name, [*known, *ALIASES])}",
            hint=f"presets: {', '.join(known)}; a file is written with / or .toml",
        )
    return os.path.join(_FOLDER, f"{name}.toml")


def preset(name: str) -> Policy:
    """Return the preset `name`; code may widen it.

    >>> preset("strict").profile
    'strict'
    """
    from agentsbx.policy import Policy

    name = ALIASES.get(name, name)
    if name == "default":
        return Policy()
    found = _loaded.get(name)
    if found is None:
        import msgspec

        found = Policy.from_file(path(name))
        found = msgspec.structs.replace(found, extends=name, origin="", widen=("*",))
        _loaded[name] = found
    return found
