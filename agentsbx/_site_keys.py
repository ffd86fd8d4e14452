"""The keywords of a call site (`captures=`, `raises=`, `seed=`, `name=`): one table of checks.

They say how a function is called, not what it may do: no policy holds them. What is wrong raises
`PolicyError` at the decoration, before any sandbox is used for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentsbx.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OUTPUT_WORDS", "SITE_KEYWORDS"]

OUTPUT_WORDS = frozenset({"forward", "stderr", "capture", "discard"})


def _names(key: str, value: Any) -> list[str]:
    if isinstance(value, str) or not _is_list(value) or not all(type(v) is str for v in value):
        raise _wrong(key, value, 'a list of names: captures=["LIMIT", "config"]')
    return list(value)


def _exceptions(key: str, value: Any) -> list[type]:
    classes = list(value) if _is_list(value) else [value]
    if not all(isinstance(c, type) and issubclass(c, BaseException) for c in classes):
        raise _wrong(key, value, "exception classes: raises=[QuotaError]")
    return classes


def _seed(key: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise _wrong(key, value, "a whole number from 0 to 2**64 - 1")
    return value


def _name(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(key, value, "a text")
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _wrong(key: str, value: Any, takes: str) -> PolicyError:
    text = repr(value)
    shown = text if len(text) <= 60 else text[:57] + "..."
    return PolicyError(f"{key}={shown} is not {takes}", path=key)


SITE_KEYWORDS: dict[str, Callable[[str, Any], Any]] = {
    "captures": _names,
    "raises": _exceptions,
    "seed": _seed,
    "name": _name,
}
