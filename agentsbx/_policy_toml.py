"""A policy as TOML text: written so that it reads back, and where a text sets a key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from agentsbx import _units
from agentsbx._policy_keys import FIELDS, LIMITS
from agentsbx.policy import Grant, Policy

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["find_line", "item_names", "quote_toml", "show_toml", "write_toml"]


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


def quote_toml(text: str) -> str:
    """Write a text as a TOML string."""
    # A JSON string is a TOML basic string, but for the escape of U+007F, which TOML demands.
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def _grant_toml(grant: Grant) -> str:
    if not grant.follow and not grant.code:
        return quote_toml(grant.path)
    words = "".join(f", {w} = true" for w in ("follow", "code") if getattr(grant, w))
    return f"{{ path = {quote_toml(grant.path)}{words} }}"


def item_names(key: str, value: object) -> list[str]:
    """Name what a value holds, for its origin: paths, words, names of variables; else [""]."""
    if not isinstance(value, tuple):
        return [""]
    names = [item.path if isinstance(item, Grant) else str(item) for item in value]
    return [name.partition("=")[0] for name in names] if key == "env" else names


def write_toml(policy: Policy) -> str:
    """Write a policy as TOML that `read_file` resolves to the same policy."""
    lines: list[str] = []
    plain = Policy()
    for key in FIELDS:
        field = _field(key)
        value = getattr(policy, field)
        if value == getattr(plain, field) and key != "profile":
            continue
        items = _items(value)
        lines.append(f"{key} = " + (items if isinstance(items, str) else f"[{', '.join(items)}]"))
    lines += ["", "[limits]"]
    lines += [f"{key} = {_limit(policy, key)}" for key in LIMITS]
    return "\n".join(lines) + "\n"


def show_toml(
    policy: Policy, origin: Callable[[str, str, str], str], *, everything: bool = False
) -> str:
    """Write a policy with the origin of each value behind it, as a comment.

    `origin(section, key, item)` says it. Sections follow, with what differs in them; `everything`:
    also what has its default. What is written reads back as the same policy.
    """
    lines = _table_lines(policy, Policy(), "", origin, everything=everything)
    if policy.widen and "*" not in policy.widen:
        lines.insert(0, f"widen = [{', '.join(map(quote_toml, policy.widen))}]")
    for section in policy.functions:
        more = _table_lines(section.policy, policy, section.name, origin, everything=False)
        lines += ["", f"[function.{quote_toml(section.name)}]", *more]
    return "\n".join(lines).strip("\n") + "\n"


def _table_lines(
    policy: Policy,
    plain: Policy,
    section: str,
    origin: Callable[[str, str, str], str],
    *,
    everything: bool,
) -> list[str]:
    lines: list[str] = []
    grants = any(getattr(policy, key) != getattr(plain, key) for key in ("read", "write"))
    for key in FIELDS:
        value, usual = getattr(policy, _field(key)), getattr(plain, _field(key))
        is_moved = section and grants and key in ("read", "write")
        if value == usual and not is_moved and not (everything and key != "python"):
            continue
        items = _items(value)
        if isinstance(items, str):
            lines.append(_commented(f"{key} = {items}", origin(section, key, "")))
        elif not items:
            lines.append(f"{key} = []")
        else:
            lines.append(f"{key} = [")
            for item, name in zip(items, item_names(key, value), strict=True):
                lines.append(_commented(f"    {item},", origin(section, key, name)))
            lines.append("]")
    limits = [
        _commented(f"{key} = {_limit(policy, key)}", origin(section, f"limits.{key}", ""))
        for key in LIMITS
        if everything or getattr(policy.limits, key) != getattr(plain.limits, key)
    ]
    head = f"[function.{quote_toml(section)}.limits]" if section else "[limits]"
    return [*lines, *(["", head, *limits] if limits else [])]


def _commented(line: str, words: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in words)
    return f"{line:<32}  # {shown}" if shown else line


def _field(key: str) -> str:
    return "strict_limits" if key == "strict" else key


def _items(value: object) -> str | list[str]:
    """Return a value of a field as TOML, a list as the TOML of its items."""
    if isinstance(value, tuple):
        return [_grant_toml(i) if isinstance(i, Grant) else quote_toml(i) for i in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote_toml(str(value))


def _limit(policy: Policy, key: str) -> str:
    amount = getattr(policy.limits, key)
    if amount < 0:
        return '"unlimited"'
    if key in ("memory", "file_size", "disk", "output", "result", "buffers"):
        return f'"{_units.exact_bytes(int(amount))}"'
    return repr(amount)
