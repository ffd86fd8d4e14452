"""Which denials harm no program: the list of `data/benign.toml`, asked by operation and target."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from agentsbx import _tables

if TYPE_CHECKING:
    from agentsbx.result import Violation

__all__ = ["is_benign"]


def is_benign(violation: Violation) -> bool:
    """Whether libc, terminals, interpreters or common libraries probe for this at their start.

    >>> from agentsbx.result import Violation
    >>> is_benign(Violation(operation="read", target="/etc/inputrc", denied_by="mount", message=""))
    True
    >>> is_benign(Violation(operation="read", target="/etc/shadow", denied_by="mount", message=""))
    False
    """
    pattern = _patterns().get(violation.operation)
    return pattern is not None and pattern.fullmatch(violation.target) is not None


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    targets: dict[str, list[str]] = {}
    for row in _tables.load().benign:
        targets.setdefault(row.operation, []).extend(map(_regex, row.targets))
    return {operation: re.compile("|".join(found)) for operation, found in targets.items()}


def _regex(target: str) -> str:
    """`*` within one name, `**` anything; a name never holds a newline."""
    return re.escape(target).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
