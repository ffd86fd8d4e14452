"""Reading and writing policies: keywords, mappings, TOML and JSON files.

The keys and their parsers are in `_policy_keys`; here is how they come together and where in a file
something is wrong.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx import _policy_rules, _units
from agentsbx._policy_keys import (
    FIELDS,
    INSTEAD,
    LIMITS,
    check_keyword,
    items,
    short,
    suggestion,
)
from agentsbx._site_keys import SITE_KEYWORDS
from agentsbx.errors import PolicyError
from agentsbx.policy import Grant, Limits, Policy

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "apply_keywords",
    "files_read",
    "find_line",
    "read_file",
    "read_mapping",
    "write_toml",
]

_MAX_FILE = 2**20
_MAX_EXTENDS = 8
_MAX_DEPTH = 8
_MAX_NUMBER = 2**63
_MAX_PARTS = 32
_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(
    rf"""(?<![A-Za-z0-9_"'-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{_MAX_PARTS}}}"""
)
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


def read_mapping(data: Mapping[str, Any], base: str | None = None) -> Policy:
    """Build a policy from data in the shape of a policy file; code may widen it."""
    return msgspec.structs.replace(_build(data, base, ()), widen=("*",))


def read_file(path: str, base: str | None = None, seen: tuple[str, ...] = ()) -> Policy:
    """Read one policy file and those that it extends."""
    path = os.path.abspath(path)
    if path in seen or len(seen) >= _MAX_EXTENDS:
        raise PolicyError("extends leads back to itself", file=path, path="extends")
    text, data = _load(path)
    files_read.update((path, os.path.realpath(path)))
    try:
        policy = _build(data, base if base is not None else os.path.dirname(path), (*seen, path))
    except PolicyError as error:
        if error.file is not None:
            raise
        line = find_line(text, error.path or "") if path.endswith(".toml") else None
        raise PolicyError(
            str(error),
            file=path,
            line=line,
            path=error.path,
            hint=error.hint,
            notes=getattr(error, "__notes__", ()),
        ) from None
    return msgspec.structs.replace(policy, origin=path)


def _load(path: str) -> tuple[str, dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise PolicyError(
            f"cannot read the policy file: {error.strerror}",
            file=path,
            hint="a preset has no / or .",
        ) from None
    if len(raw) > _MAX_FILE:
        raise PolicyError("the policy file is larger than 1 MiB", file=path)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PolicyError("the policy file is not UTF-8", file=path, line=line) from None
    if path.endswith(".json"):
        try:
            data = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise PolicyError(f"no valid JSON: {error}", file=path) from None
        if not isinstance(data, dict):
            raise PolicyError("a policy is an object: {...}", file=path, line=1)
        _refuse_depth(data, path)
        return text, data
    import tomllib  # only policy files pay for it

    if _LONG_KEY.search(text):  # it would take the square of them in time
        raise PolicyError(f"a key of more than {_MAX_PARTS} parts", file=path)
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits
        message = str(error) or "nested too deeply"
        place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
        raise PolicyError(
            f"no valid TOML: {message[: place.start()] if place else message}",
            file=path,
            line=int(place[1]) if place else text.count("\n") + 1,
            column=int(place[2]) if place else None,
        ) from None
    _refuse_depth(data, path)
    return text, data


def _refuse_depth(data: object, path: str) -> None:
    """No policy is deep: messages show what is wrong in it, and that would be endless."""
    level = [data]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if any(isinstance(v, int) and abs(v) > _MAX_NUMBER for v in level):
            raise PolicyError("a number out of range", file=path)
        if not level:
            return
    raise PolicyError("nested too deeply", file=path)


def _build(data: Mapping[str, Any], folder: str | None, seen: tuple[str, ...]) -> Policy:
    start = Policy()
    extends = data.get("extends")
    if extends is not None:
        start = _start(extends, folder, seen)
    changes: dict[str, Any] = {"extends": extends, "widen": start.widen if extends else ()}
    if "*" in changes["widen"]:
        changes["widen"] = ()
    for key, value in data.items():
        if key == "extends":
            continue
        if key == "limits":
            changes["limits"] = _build_limits(start.limits, value)
        elif key == "widen":
            changes["widen"] = _widen(value)
        elif key in FIELDS:
            parsed = FIELDS[key](key, value, folder)
            if key in _LISTS:
                parsed = _merge_words(key, getattr(start, key), parsed)
            changes["strict_limits" if key == "strict" else key] = parsed
        else:
            _unknown_key(key)
    _merge_grants(start, changes)
    policy = msgspec.structs.replace(start, **changes)
    _policy_rules.check(policy)
    return policy


def _merge_grants(start: Policy, changes: dict[str, Any]) -> None:
    # What a file says about a path beats what the policy it extends said about it.
    named = {g.path for key in ("read", "write") for g in changes.get(key, ())}
    for key in ("read", "write"):
        kept = [g for g in getattr(start, key) if g.path not in named]
        added = [*kept, *changes.get(key, ())]
        changes[key] = tuple(sorted(added, key=lambda grant: grant.path))


def _start(extends: object, folder: str | None, seen: tuple[str, ...]) -> Policy:
    if not isinstance(extends, str):
        raise PolicyError(f"extends={short(extends)}: not a name or a file", path="extends")
    if "/" in extends or extends.endswith((".toml", ".json")):
        path = os.path.join(folder or os.getcwd(), os.path.expanduser(extends))
        return read_file(path, None, seen)
    from agentsbx import presets

    try:
        return presets.preset(extends)
    except PolicyError as error:
        error.path = "extends"
        raise


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
    known = [*FIELDS, "limits", "extends", "widen"]
    close = f"; write {INSTEAD[key]}" if key in INSTEAD else suggestion(key, [*known, *LIMITS])
    raise PolicyError(
        f"unknown key {key!r}{close}", path=key, hint=None if close else f"keys: {', '.join(known)}"
    )


# -- places and text ----------------------------------------------------------------------------


def find_line(text: str, path: str) -> int | None:
    r"""Return the line (from 1) on which a TOML text sets the key `path` (`limits.memory`).

    >>> find_line('read = []\n[limits]\nmemory = "x"\n', "limits.memory")
    3
    """
    if not path:
        return None
    table = ""
    best = None
    for number, line in enumerate(text.splitlines(), 1):
        # No part of these may match in two ways: the text is somebody else's.
        header = re.match(r"\s*+\[\[?+([^\]]++)\]", line)
        if header:
            table = _plain_key(header[1])
            if table == path:
                best = best or number
            continue
        key = re.match(r"""((?:[A-Za-z0-9_.\s-]|"[^"]*+"|'[^']*+')++)=""", line)
        if not key:
            continue
        full = f"{table}.{_plain_key(key[1])}" if table else _plain_key(key[1])
        if full == path:
            return number
        if path.startswith(full + ".") and re.search(
            rf"\b{re.escape(path[len(full) + 1 :])}\b", line
        ):
            best = number
    return best


def _plain_key(text: str) -> str:
    return re.sub(r"""["'\s]""", "", text)


def _quote(text: str) -> str:
    # A JSON string is a TOML basic string, but for the escape of U+007F, which TOML demands.
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def _grant_toml(grant: Grant) -> str:
    if not grant.follow and not grant.code:
        return _quote(grant.path)
    words = "".join(f", {w} = true" for w in ("follow", "code") if getattr(grant, w))
    return f"{{ path = {_quote(grant.path)}{words} }}"


def write_toml(policy: Policy) -> str:
    """Write a policy as TOML that `read_file` resolves to the same policy."""
    lines: list[str] = []
    plain = Policy()
    for key in FIELDS:
        field = "strict_limits" if key == "strict" else key
        value = getattr(policy, field)
        if value == getattr(plain, field) and key != "profile":
            continue
        if key in ("read", "write"):
            shown = f"[{', '.join(_grant_toml(grant) for grant in value)}]"
        elif isinstance(value, tuple):
            shown = f"[{', '.join(map(_quote, value))}]"
        elif isinstance(value, bool):
            shown = "true" if value else "false"
        else:
            shown = _quote(value)
        lines.append(f"{key} = {shown}")
    lines += ["", "[limits]"]
    for key in LIMITS:
        amount = getattr(policy.limits, key)
        if amount < 0:
            shown = '"unlimited"'
        elif key in ("memory", "file_size", "disk", "output", "result", "buffers"):
            shown = f'"{_units.exact_bytes(int(amount))}"'
        else:
            shown = repr(amount)
        lines.append(f"{key} = {shown}")
    return "\n".join(lines) + "\n"
