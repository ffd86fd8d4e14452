"""`fn.explain()`: what crosses with a function, and what its calls may do, in words."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from agentsbx._explain_policy import explain_policy
from agentsbx._units import format_bytes
from agentsbx.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsbx.policy import Policy

__all__ = ["describe_function"]

_NO_END = 2**62


class _Text(str):
    """A text of several lines, which a notebook shows as lines."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))


def describe_function(fn: Any, policy: Policy, options: dict[str, Any], found: str = "") -> str:
    """Say what crosses with `fn` (name, type, size) and what its calls may do.

    `found`: what to say of a policy file that was found.
    """
    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = inspect.unwrap(inner)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return _Text(
        "\n".join(
            [
                f"{name}: each call runs in a fresh, single-use sandbox.",
                "",
                explain_policy(policy),
                *([found] if found else []),
                "",
                *_kept(options.get("keep", ())),
                *_host(options),
                *_captures(fn, options),
            ]
        )
    )


def _kept(patterns: Sequence[str]) -> list[str]:
    if not patterns:
        return []
    return [f"run() brings back what lies in private places as {', '.join(patterns)}.", ""]


def _host(options: dict[str, Any]) -> list[str]:
    lines = []
    if options.get("host"):
        lines.append(f"It may call on the host: {', '.join(options['host'])}.")
    for name, some in options.get("host_args", {}).items():
        shown = f"of it the job may use {', '.join(some)}" if some else "the job may use none of it"
        lines.append(f"The argument {name} stays on the host; {shown}.")
    return [*lines, ""] if lines else []


def _captures(fn: Any, options: dict[str, Any]) -> list[str]:
    from agentsbx import _nested, _ship
    from agentsbx._bridge_offers import offers_of
    from agentsbx._signature import evaluated_signature

    try:
        snapshot = _ship.take_snapshot(
            fn,
            captures=options.get("captures"),
            wrapper_reducer=_nested.reduce,
            offers=offers_of(fn, options, evaluated_signature),
            warn_bytes=_NO_END,
            max_bytes=_NO_END,
        )
    except SerializationError as error:
        return [f"A call will fail: {error}"]
    captures = [c for c in snapshot.captures if c.name not in options.get("host", {})]
    if not captures:
        return ["Nothing crosses with it but its code and the arguments."]
    rows = [(c.kind, c.name, c.type, format_bytes(c.size)) for c in captures]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "With its code and the arguments cross:",
        *(
            "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ),
    ]
