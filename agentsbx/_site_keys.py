"""The keywords of a call site (`captures=`, `raises=`, `keep=` ...): one table of checks.

They say how a function is called, not what it may do: no policy holds them. What is wrong raises
`PolicyError` at the decoration, before any sandbox is used for it.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

from agentsbx._kept import PLACES
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


MAX_PATTERNS = 64
_SHORT = {"~": "/sandbox/home"} | {w: path for path, w in PLACES.items() if w[0] == "$"}


def _patterns(key: str, value: Any) -> tuple[str, ...]:
    """Check the patterns of files that are kept (`csrc/base/glob.h`); short places are written out.

    >>> _patterns("keep", ["*.png", "~/out/**"])
    ('*.png', '/sandbox/home/out/**')
    """
    found = [value] if isinstance(value, (str, os.PathLike)) else value
    if not _is_list(found) or len(found) > MAX_PATTERNS:
        raise _wrong(key, value, f'a list of at most {MAX_PATTERNS} patterns: keep=["*.png"]')
    return tuple(dict.fromkeys(_pattern(key, one) for one in found))


def _pattern(key: str, value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text or "\0" in text or len(os.fsencode(text)) > 1024:
        raise _wrong(key, value, 'a pattern: keep=["*.png", "out/**"]')
    if "[" in text or "{" in text:
        raise _wrong(key, value, "made of *, ? and ** alone: write one pattern for each kind")
    first, slash, rest = text.removeprefix("./").partition("/")
    text = f"{_SHORT.get(first, first)}{slash}{rest}"
    if any(part in ("", ".", "..") for part in text.removeprefix("/").split("/")):
        raise _wrong(key, value, "the name of files, without . or .. or an empty part (out/**)")
    if text[0] == "/" and not any(text.startswith(place + "/") for place in PLACES):
        raise _wrong(
            key, value, "below $HOME, $TMPDIR, /tmp or /dev/shm; files elsewhere need write="
        )
    return text


def _callback(key: str, value: Any) -> Any:
    if not callable(value) or isinstance(value, type):
        raise _wrong(key, value, "a function of two arguments: on_output=lambda stream, text: ...")
    if inspect.iscoroutinefunction(value):
        raise _wrong(
            key, value, "a plain function: it is called in the call's thread. In asyncio hand the "
            "text over with loop.call_soon_threadsafe"
        )  # fmt: skip
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
    "keep": _patterns,
    "on_output": _callback,
}
