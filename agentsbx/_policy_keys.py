"""The keys of a policy: one table with every keyword and its parser, shared by code and files.

Parsers are pure functions (key, value[, folder]) -> normal form; what is wrong raises `PolicyError`
with the key in `path`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx import _policy_rules, _units
from agentsbx._site_keys import SITE_KEYWORDS
from agentsbx.errors import PolicyError
from agentsbx.policy import Grant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "FIELDS",
    "INSTEAD",
    "LIMITS",
    "check_keyword",
    "items",
    "short",
    "suggestion",
]


def _bounded(parse: Callable[[str, object], int], why: str) -> Callable[[str, object], int]:
    def parser(key: str, value: object) -> int:
        amount = parse(key, value)
        if amount < 0:
            raise PolicyError(f'{key}="unlimited": {why}', path=key, hint="write a size")
        return amount

    return parser


def _bytes(minimum: int) -> Callable[[str, object], int]:
    return lambda key, value: _units.parse_bytes(key, value, minimum=minimum)


def _count(minimum: int) -> Callable[[str, object], int]:
    return lambda key, value: _units.parse_count(key, value, minimum=minimum)


_HELD = "the host holds it in memory, so it needs a bound"
_PRIVATE = "private storage is memory, so it needs a bound"

LIMITS: dict[str, Callable[[str, object], float]] = {
    "memory": _bytes(10**6),
    "cpu_time": _units.parse_duration,
    "cpus": _units.parse_share,
    "timeout": _units.parse_duration,
    "processes": _count(1),
    "open_files": _count(16),
    "file_size": _bytes(1),
    "disk": _bounded(_bytes(4096), _PRIVATE),
    "inodes": _bounded(_count(16), _PRIVATE),
    "output": _bounded(_bytes(1), _HELD),
    "result": _bounded(_bytes(1024), _HELD),
    "buffers": _bounded(_bytes(1), _HELD),
}


# -- single values ------------------------------------------------------------------------------


def items(key: str, value: object) -> list[object]:
    """Return a list; a bare text or path is a list of one."""
    if isinstance(value, (str, bytes, os.PathLike, Grant)):
        return [value]
    if isinstance(value, dict) and "path" in value:
        return [value]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    raise PolicyError(
        f"{key}={short(value)}: not a list",
        path=key,
        hint=f'write {key}=["..."], or [] for nothing',
    )


def short(value: object) -> str:
    """Return the repr, clipped to 80 characters."""
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


_SPECIAL = ("/proc", "/sys", "/dev")


def _grant(key: str, value: object, folder: str | None) -> Grant:
    follow = code = False
    if isinstance(value, dict):
        try:
            value = msgspec.convert(value, Grant)
        except msgspec.ValidationError as error:
            raise PolicyError(
                f"{key}: {error}", path=key, hint='write { path = "...", follow = true }'
            ) from None
    if isinstance(value, Grant):
        follow, code = value.follow, value.code
        value = value.path
    return Grant(_path(key, value, folder), follow=follow, code=code)


def _path(key: str, value: object, folder: str | None) -> str:
    """Return the absolute form of a path that can be shown to a job."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise PolicyError(f"{key}: {short(value)} is not a path", path=key)
    text = os.fsdecode(value)
    where = f"{key}={short(text)}"
    if not text or "\0" in text:
        raise PolicyError(f"{where}: not a path", path=key, hint='"." is the working directory')
    if text.startswith("$") or "*" in text:
        what = "variables" if text.startswith("$") else "patterns"
        raise PolicyError(
            f"{where}: {what} are not expanded", path=key, hint="name the file or folder itself"
        )
    if text.startswith("~"):
        expanded = os.path.expanduser(text)
        if expanded.startswith("~"):
            raise PolicyError(f"{where}: this home directory is not known", path=key)
        text = expanded
    if not os.path.isabs(text):
        text = os.path.join(folder if folder is not None else os.getcwd(), text)
    path = os.path.normpath(text)
    path = "/" + path.lstrip("/") if path.startswith("//") else path
    if path == "/":
        raise PolicyError(
            f"{where}: the whole file system cannot be granted", path=key, hint="name the folders"
        )
    if any(_policy_rules.is_below(path, special) for special in _SPECIAL):
        raise PolicyError(
            f"{where}: {path} cannot be granted: a sandbox has its own /proc, /sys and /dev",
            path=key,
            hint="drop it",
        )
    return path


def _paths(key: str, value: object, folder: str | None) -> tuple[str, ...]:
    """Return absolute paths in the order given, which is the order of searching."""
    if value is False:
        return ()
    return tuple(dict.fromkeys(_path(key, item, folder) for item in items(key, value)))


def _grants(key: str, value: object, folder: str | None) -> tuple[Grant, ...]:
    if value is False:
        return ()
    found: dict[str, Grant] = {}
    for item in items(key, value):
        grant = _grant(key, item, folder)
        if grant.code and key == "read":
            raise PolicyError("code=True is a word of write=", path=key, hint="drop it in read=")
        old = found.get(grant.path, grant)
        found[grant.path] = Grant(
            grant.path, follow=old.follow or grant.follow, code=old.code or grant.code
        )
    return tuple(found[path] for path in sorted(found))


_ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]*"


def _env(key: str, value: object, _folder: str | None) -> tuple[str, ...]:
    pairs: list[tuple[object, object]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    else:
        for item in items(key, value):
            if isinstance(item, str) and "=" in item:
                pairs.append((item[: item.index("=")], item[item.index("=") + 1 :]))
            else:
                pairs.append((item, None))
    found: dict[str, str] = {}
    for name, text in pairs:
        if not isinstance(name, str) or not re.fullmatch(_ENV_NAME, name):
            raise PolicyError(
                f"env: {short(name)} is not the name of a variable",
                path=key,
                hint='write env=["LANG"] to grant, env={"MODE": "x"} to set',
            )
        if text is not None and not isinstance(text, str):
            raise PolicyError(
                f"env: {name} is set to {short(text)}, which is not text",
                path=key,
                hint=f'write "{name}": "{text}"',
            )
        if text is not None and "\0" in text:
            raise PolicyError(f"env: the value of {name} has a NUL byte", path=key)
        entry = name if text is None else f"{name}={text}"
        if found.setdefault(name, entry) != entry:
            raise PolicyError(f"env: {name} is given twice, with different values", path=key)
    return tuple(found[name] for name in sorted(found))


def _net(key: str, value: object, _folder: str | None) -> tuple[str, ...]:
    if value is False:
        return ()
    rules = [value] if value is True else items(key, value)
    return tuple(sorted({_units.parse_endpoint(key, rule) for rule in rules}))


def _words(pattern: str, what: str, example: str) -> Callable[[str, object, str | None], Any]:
    def parser(key: str, value: object, _folder: str | None) -> tuple[str, ...]:
        found = set()
        for item in items(key, value):
            if not isinstance(item, str) or not re.fullmatch(pattern, item):
                raise PolicyError(
                    f"{key}: {short(item)} is not {what}",
                    path=key,
                    hint=f'write {key}=["{example}"]',
                )
            found.add(item)
        return tuple(sorted(found))

    return parser


def _choice(*words: str) -> Callable[[str, object, str | None], str]:
    def parser(key: str, value: object, _folder: str | None) -> str:
        if not isinstance(value, str) or value not in words:
            raise PolicyError(
                f"{key}={short(value)}{suggestion(value, words)}",
                path=key,
                hint=f"one of {', '.join(map(repr, words))}",
            )
        return value

    return parser


def _flag(key: str, value: object, _folder: str | None) -> bool:
    if not isinstance(value, bool):
        raise PolicyError(f"{key}={short(value)}: neither true nor false", path=key)
    return value


def _cpu_set(key: str, value: object, _folder: str | None) -> tuple[int, ...]:
    return _units.parse_cpu_set(key, value)


FIELDS: dict[str, Callable[[str, object, str | None], Any]] = {
    "read": _grants,
    "write": _grants,
    "env": _env,
    "net": _net,
    "profile": _choice("python", "strict", "build"),
    "syscalls": _words(r"[a-z_][a-z0-9_]*", "the name of a system call", "mlock"),
    "preload": _words(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "the name of a module", "numpy"),
    "strict": _flag,
    "on_missing": _choice("error", "weaken"),
    "on_violation": _choice("raise", "record"),
    "strict_violations": _flag,
    "reveal": _flag,
    "fresh": _flag,
    "python": _path,
    "packages": _paths,
    "cpu_set": _cpu_set,
}


# -- names --------------------------------------------------------------------------------------

INSTEAD = {
    "cpu": "cpus= (how many at once, 1.0) or cpu_time= (how long, '10s')",
    "mem": "memory=",
    "ram": "memory=",
    "network": "net=['host:port']",
    "allow_net": "net=['host:port']",
    "environ": "env=",
    "environment": "env=",
    "time": "timeout= (wall clock) or cpu_time=",
    "wall": "timeout=",
    "wall_time": "timeout=",
    "interpreter": "python=",
    "venv": "python= (the environment's folder)",
    "site_packages": "packages=",
    "affinity": "cpu_set=",
    "cpuset": "cpu_set=",
    "threads": "processes=, which counts threads too",
    "pids": "processes=",
    "nproc": "processes=",
    "files": "read=, write= or open_files=",
    "paths": "read= or write=",
    "fds": "open_files=",
    "allow": "read=, write=, env= or net=",
    "deny": "nothing: what is not granted is denied",
    "preset": 'the name itself: sandbox("strict")',
    "policy": 'the policy itself: sandbox("policy.toml")',
}


def suggestion(word: object, known: Iterable[str], form: str = "{!r}") -> str:
    """Return `; did you mean ...?` for a word close to a known one, else nothing."""
    import difflib  # only wrong words pay for it

    close = difflib.get_close_matches(str(word).lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {form.format(close[0])}?" if close else ""


def check_keyword(key: str) -> None:
    """Raise `PolicyError` with a suggestion unless `key` is a keyword of policies."""
    if key in FIELDS or key in LIMITS:
        return
    if key in INSTEAD:
        raise PolicyError(f"unknown keyword {key}=; write {INSTEAD[key]}", path=key)
    known = [*FIELDS, *LIMITS, *SITE_KEYWORDS]
    close = suggestion(key, known, "{}=")
    hint = None if close else "keywords: " + ", ".join([*FIELDS, *LIMITS])
    raise PolicyError(f"unknown keyword {key}={close}", path=key, hint=hint)
