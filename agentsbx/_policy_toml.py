"""A policy as TOML text: written so that it reads back, and where a text sets a key."""

from __future__ import annotations

import re

import msgspec

from agentsbx import _units
from agentsbx._policy_keys import FIELDS, LIMITS
from agentsbx.policy import Grant, Policy

__all__ = ["find_line", "write_toml"]


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
        header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)
        if header:
            table = _plain_key(header[1])
            if table == path:
                best = best or number
            continue
        key = re.match(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'|\s*\.\s*)+?)\s*=""", line)
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
