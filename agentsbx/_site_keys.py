"""The keywords of a call site (`captures=`, `raises=`, `keep=` ...): one table of checks.

They say how a function is called, not what it may do: no policy holds them. What is wrong raises
`PolicyError` at the decoration, before any sandbox is used for it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
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


class HostFunctions(dict[str, Any]):
    """Host functions by name; `is_named`: the names are the caller's, globals in the job."""

    is_named = False


def _host(key: str, value: Any) -> HostFunctions:
    """Check host functions.

    >>> list(_host("host", [len, max])), list(_host("host", {"size": len}))
    (['len', 'max'], ['size'])
    """
    takes = 'functions of the host: host=[search], or host={"search": client.search}'
    made = HostFunctions()
    if isinstance(value, Mapping):
        made.update(value)
        made.is_named = True
        if not all(type(name) is str and name.isidentifier() for name in made):
            raise _wrong(key, value, takes)
    else:
        for fn in value if _is_list(value) else (value,):
            name = getattr(fn, "__name__", type(fn).__name__)
            if name in made and made[name] is not fn:
                raise PolicyError(
                    f"{key} has two functions called {name}", path=key,
                    hint=f'name them: host={{"{name}": ..., "{name}_2": ...}}',
                )  # fmt: skip
            made[name] = fn
    if not all(map(callable, made.values())):
        raise _wrong(key, value, takes)
    return made


def _host_args(key: str, value: Any) -> dict[str, tuple[str, ...]]:
    """Check parameters whose arguments stay on the host, and what of each a job may use.

    >>> _host_args("host_args", ("ctx",)), _host_args("host_args", {"ctx": ["user_id"]})
    ({'ctx': ()}, {'ctx': ('user_id',)})
    """
    takes = 'parameters: host_args=("ctx",), or host_args={"ctx": ("user_id", "search")}'
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        if not _is_list(found):
            raise _wrong(key, value, takes)
        found = dict.fromkeys(found, ())
    made: dict[str, tuple[str, ...]] = {}
    for name, shown in found.items():
        some = [shown] if isinstance(shown, str) else shown
        if type(name) is not str or not name.isidentifier() or not _is_list(some):
            raise _wrong(key, value, takes)
        if not all(type(each) is str and each.isidentifier() for each in some):
            raise _wrong(key, value, takes)
        if any(each.startswith("_") for each in some):
            raise _wrong(key, value, "of public names: one with a leading underscore never crosses")
        made[name] = tuple(dict.fromkeys(some))
    return made


def _number(key: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 1_000_000:
        raise _wrong(key, value, "a whole number from 1 to 1,000,000")
    return value


def _size(key: str, value: Any) -> int:
    from agentsbx._units import parse_bytes

    size = parse_bytes(key, value)
    if not 1 <= size <= 1 << 30:
        raise _wrong(key, value, 'a size up to 1 GiB: host_bytes="4MB"')
    return size


def _rate(key: str, value: Any) -> float:
    if type(value) not in (int, float) or not 1 <= value <= 1e9:
        raise _wrong(key, value, "a number of calls a second, at least 1")
    return float(value)


SITE_KEYWORDS: dict[str, Callable[[str, Any], Any]] = {
    "captures": _names,
    "raises": _exceptions,
    "seed": _seed,
    "name": _name,
    "keep": _patterns,
    "host": _host,
    "host_args": _host_args,
    "host_calls": _number,
    "host_bytes": _size,
    "host_rate": _rate,
    "on_output": _callback,
}
