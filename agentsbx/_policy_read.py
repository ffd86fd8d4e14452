"""Reading and writing policies: keywords, mappings, TOML and JSON files.

The keys and their parsers are in `_policy_keys`; here is how they come together and where in a file
something is wrong.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx import _policy_rules
from agentsbx._policy_keys import (
    FIELDS,
    INSTEAD,
    LIMITS,
    check_keyword,
    items,
    short,
    suggestion,
)
from agentsbx._policy_load import Reading, load_file, table_of
from agentsbx._policy_toml import find_line, item_names
from agentsbx._site_keys import SITE_KEYWORDS
from agentsbx.errors import PolicyError
from agentsbx.policy import FunctionSection, Limits, Policy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Reading",
    "apply_keywords",
    "files_read",
    "load_file",
    "read_file",
    "read_mapping",
    "read_over",
]

_MAX_EXTENDS = 8
_LISTS = ("env", "net", "syscalls", "preload", "packages")

# Every policy file of this process, and where links to it lead: no job may write there (rule 4.7).
files_read: set[str] = set()


# -- building -----------------------------------------------------------------------------------


def apply_keywords(start: Policy, keywords: Mapping[str, Any], folder: str | None) -> Policy:
    """Return `start` with keywords changed; lists replace, None keeps."""
    changes: dict[str, Any] = {}
    limits: dict[str, float] = {}
    for key, value in keywords.items():
        check_keyword(key)
        if value is None:
            continue
        if key in LIMITS:
            limits[key] = LIMITS[key](key, value)
        else:
            changes["strict_limits" if key == "strict" else key] = FIELDS[key](key, value, folder)
    if limits:
        changes["limits"] = msgspec.structs.replace(start.limits, **limits)
    if not changes:
        return start
    new = msgspec.structs.replace(start, **changes)
    _policy_rules.check(new)
    return new


def read_mapping(
    data: Mapping[str, Any], base: str | None = None, reading: Reading | None = None
) -> Policy:
    """Build a policy from data in the shape of a policy file; code may widen it."""
    policy = _overlay(Policy(), data, base, reading or Reading())
    return msgspec.structs.replace(policy, widen=("*",))


def read_file(path: str, base: str | None = None) -> Policy:
    """Read one policy file and those that it extends."""
    return read_over(Policy(widen=()), os.path.abspath(path), Reading(), base)


def read_over(start: Policy, path: str, reading: Reading, base: str | None = None) -> Policy:
    """Return `start` with what the file at `path` (absolute) says on top; its errors have lines."""
    text, data = reading.load(path)
    if not reading.is_found:
        files_read.update((path, os.path.realpath(path)))
    chain, before = reading.chain, reading.enter(path, text if path.endswith(".toml") else "")
    reading.chain = (*chain, path)
    try:
        policy = _overlay(start, data, base or os.path.dirname(path), reading)
    except PolicyError as error:
        if error.file is not None:
            raise
        where = table_of(path) + (error.path or "")
        line = find_line(text, where) if path.endswith(".toml") else None
        raise PolicyError(
            str(error),
            file=path,
            line=line,
            path=error.path,
            hint=error.hint,
            notes=getattr(error, "__notes__", ()),
        ) from None
    finally:
        reading.chain = chain
        reading.leave(before)
    return msgspec.structs.replace(policy, origin=path)


def _overlay(
    start: Policy, data: Mapping[str, Any], folder: str | None, reading: Reading
) -> Policy:
    """Return `start`, then what `data` extends, then what `data` says itself."""
    extends = data.get("extends")
    names = _extended(extends)
    for name in names:
        start = _start(start, name, folder, reading)
    own = {k: v for k, v in data.items() if k not in ("extends", "function", "$schema")}
    policy = _apply(start, own, folder, reading)
    shown = names[0] if len(names) == 1 else tuple(names)
    policy = msgspec.structs.replace(policy, extends=shown or None)
    return _with_functions(policy, own, data.get("function"), folder, reading)


def _apply(
    start: Policy,
    data: Mapping[str, Any],
    folder: str | None,
    reading: Reading,
    section: str = "",
) -> Policy:
    """Lists add, single values replace."""
    changes: dict[str, Any] = {}
    for key, value in data.items():
        if key == "limits":
            changes["limits"] = _build_limits(start.limits, value)
            for name in value:
                reading.said(section, f"limits.{name}", [""])
        elif key == "widen":
            changes["widen"] = _widen(value)
        elif key in FIELDS:
            parsed = FIELDS[key](key, value, folder)
            reading.said(section, key, item_names(key, parsed))
            if key in _LISTS:
                parsed = _merge_words(key, getattr(start, key), parsed)
            changes["strict_limits" if key == "strict" else key] = parsed
        else:
            _unknown_key(key)
    _merge_grants(start, changes)
    policy = msgspec.structs.replace(start, **changes)
    _policy_rules.check(policy)
    return policy


def _with_functions(
    policy: Policy,
    own: Mapping[str, Any],
    sections: object,
    folder: str | None,
    reading: Reading,
) -> Policy:
    """Add the sections `[function."module:qualname"]`: each is the whole policy of one function.

    Sections of what the file extends stay, with the file's own top level on top of them.
    """
    found = {section.name: section.policy for section in policy.functions}
    plain = {key: value for key, value in own.items() if key != "widen"}
    for name, extended in found.items():
        found[name] = msgspec.structs.replace(
            _apply(extended, plain, folder, reading, name),
            widen=policy.widen,
            extends=policy.extends,
        )
    top = msgspec.structs.replace(policy, functions=())
    for name, data in _tables("function", sections).items():
        where = f"function.{name}"
        if not re.fullmatch(r"[\w.]+:[\w.<>]+", name):
            raise PolicyError(
                f"function {short(name)} is not a module and a function",
                path=where,
                hint='write [function."module:function"] or [function."module:Class.method"]',
            )
        try:
            for word in ("extends", "widen", "function"):
                if word in data:
                    raise PolicyError(f"{word} stands above all sections", path=word)
            found[name] = _apply(found.get(name, top), data, folder, reading, name)
        except PolicyError as error:
            error.path = f"{where}.{error.path}" if error.path else where
            raise
    made = tuple(FunctionSection(name, found[name]) for name in sorted(found))
    return msgspec.structs.replace(policy, functions=made) if made else policy


def _tables(key: str, value: object) -> dict[str, dict[str, Any]]:
    if value is None:
        return {}
    if isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()):
        return value
    raise PolicyError(
        f"{key} is a table of tables", path=key, hint=f'write [{key}."module:function"]'
    )


def _merge_grants(start: Policy, changes: dict[str, Any]) -> None:
    # What a file says about a path beats what the policy it extends said about it.
    named = {g.path for key in ("read", "write") for g in changes.get(key, ())}
    for key in ("read", "write"):
        kept = [g for g in getattr(start, key) if g.path not in named]
        added = [*kept, *changes.get(key, ())]
        changes[key] = tuple(sorted(added, key=lambda grant: grant.path))


def _extended(extends: object) -> list[str]:
    names = [extends] if isinstance(extends, str) else extends
    if names is None:
        return []
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise PolicyError(
            f"extends={short(extends)}: not a name or a file",
            path="extends",
            hint='write extends = "build", or a list: ["build", "./base.toml"]',
        )
    return list(names)


def _start(start: Policy, name: str, folder: str | None, reading: Reading) -> Policy:
    """Put one preset or file on top of `start`."""
    if "/" not in name and not name.endswith((".toml", ".json")):
        from agentsbx import presets

        try:
            path = presets.path(name)
        except PolicyError as error:
            error.path = "extends"
            raise
        _, data = load_file(path)  # our own data, checked by tests: no place for a user to mend
        before = reading.enter(f"preset {name}", "")
        policy = _apply(start, data, None, reading)
        reading.leave(before)
        return policy
    path = os.path.normpath(os.path.join(folder or os.getcwd(), os.path.expanduser(name)))
    if path in reading.chain:
        way = " -> ".join(map(os.path.basename, (*reading.chain, path)))
        raise PolicyError(
            f"extends leads back to itself: {way}", path="extends", hint="drop one of them"
        )
    if len(reading.chain) >= _MAX_EXTENDS:
        raise PolicyError(
            f"extends is more than {_MAX_EXTENDS} files deep",
            path="extends",
            hint="let files extend the last one directly",
        )
    if not os.path.exists(path):
        raise PolicyError(
            f"extends {short(name)}: there is no file {path!r}",
            path="extends",
            hint="a file counts from the folder of the file that extends it",
        )
    return read_over(start, path, reading)


def _build_limits(start: Limits, value: object) -> Limits:
    if not isinstance(value, dict):
        raise PolicyError(
            "limits is a table", path="limits", hint='write [limits], memory = "512MB"'
        )
    found: dict[str, Any] = {}
    for key, amount in value.items():
        if key not in LIMITS:
            close = suggestion(key, LIMITS)
            if key in INSTEAD:
                close = f"; write {INSTEAD[key]}"
            raise PolicyError(
                f"unknown limit {key!r}{close}",
                path=f"limits.{key}",
                hint=None if close else f"limits: {', '.join(LIMITS)}",
            )
        try:
            found[key] = LIMITS[key](key, amount)
        except PolicyError as error:
            error.path = f"limits.{key}"
            raise
    return msgspec.structs.replace(start, **found)


def _merge_words(key: str, old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    if key == "packages":  # in the order of searching: what a file adds is found first
        return tuple(dict.fromkeys((*new, *old)))
    if key != "env":
        return tuple(sorted({*old, *new}))
    entries = {entry.partition("=")[0]: entry for entry in (*old, *new)}
    return tuple(entries[name] for name in sorted(entries))


def _widen(value: object) -> tuple[str, ...]:
    known = [*FIELDS, *LIMITS, "*"]
    for item in items("widen", value):
        if item not in known:
            raise PolicyError(
                f"widen: {short(item)} is not a keyword{suggestion(item, known)}", path="widen"
            )
    return tuple(sorted({str(item) for item in items("widen", value)}))


def _unknown_key(key: str) -> None:
    if key in LIMITS:
        raise PolicyError(
            f"{key} is a limit", path=key, hint=f"write it below [limits], or limits.{key} = ..."
        )
    if key in SITE_KEYWORDS:
        raise PolicyError(f"{key} is an option of the call, not of a policy", path=key)
    known = [*FIELDS, "limits", "extends", "widen", "function"]
    close = f"; write {INSTEAD[key]}" if key in INSTEAD else suggestion(key, [*known, *LIMITS])
    raise PolicyError(
        f"unknown key {key!r}{close}", path=key, hint=None if close else f"keys: {', '.join(known)}"
    )
