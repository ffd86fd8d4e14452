"""The sentences of `_explain*`: quoting what a job chose, joining what happened and its remedy."""

from __future__ import annotations

from agentsbx._units import exact_bytes, format_duration
from agentsbx.errors import MAX_MESSAGE
from agentsbx.result import Violation

__all__ = ["limit_violation", "more", "path_rule", "quote", "say", "violation"]


def quote(text: str, width: int = 100) -> str:
    """Quote what a job may have chosen: no control characters, the middle cut out where long."""
    shown = ascii(text) if any(not c.isprintable() for c in text) else repr(text)
    if len(shown) > width:
        half = (width - 3) // 2
        shown = f"{shown[:half]}...{shown[-half:]}"
    return shown


def path_rule(key: str, path: str) -> str:
    """Write a keyword with one path."""
    return f"{key}=[{path!r}]"


def say(what: str, todo: str | None) -> str:
    """Join a sentence and its remedy within the bound; the remedy is kept whole where it can be."""
    if not todo:
        return what if len(what) <= MAX_MESSAGE else what[: MAX_MESSAGE - 4] + " ..."
    message = f"{what}; {todo}"
    if len(message) <= MAX_MESSAGE:
        return message
    room = MAX_MESSAGE - len(todo) - len(" ...; ")
    if room >= 60:
        return f"{what[:room]} ...; {todo}"
    return say(what, "the rule that allows it is in `violation.rule`")


def violation(
    operation: str,
    target: str,
    denied_by: str,
    what: str,
    *,
    rule: str | None = None,
    todo: str | None = None,
    syscall: str | None = None,
    count: int = 1,
) -> Violation:
    """Make a `Violation`; without `todo` the remedy is to allow `rule`."""
    if todo is None and rule is not None:
        todo = f"allow it with {rule}"
    return Violation(
        operation=operation,
        target=target,
        denied_by=denied_by,
        rule=rule,
        syscall=syscall,
        count=count,
        message=say(what, todo),
    )


def more(name: str, asked: float | None) -> str:
    """Write the keyword with twice the amount."""
    if asked is None or asked < 0:
        return f"{name}=..."
    if name in ("timeout", "cpu_time"):
        return f'{name}="{format_duration(asked * 2)}"'
    if name in ("memory", "file_size", "disk", "output", "result", "buffers"):
        return f'{name}="{exact_bytes(int(asked) * 2)}"'
    return f"{name}={asked * 2:g}"


def limit_violation(operation: str, target: str, what: str, rule: str) -> Violation:
    """Make a `Violation` whose remedy is a larger limit."""
    return violation(operation, target, "limit", what, rule=rule, todo=f"allow more with {rule}")
