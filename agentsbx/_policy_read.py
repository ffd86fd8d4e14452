"""Reading policies: keywords, mappings, TOML and JSON files, into the normal form of `Policy`.

One table (`LIMITS`, `FIELDS`) holds every key with its parser; keywords and files share it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx import _policy_rules, _units
from agentsbx.errors import PolicyError
from agentsbx.policy import Grant, Limits, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "FIELDS",
    "LIMITS",
    "OUTPUT_WORDS",
    "SITE_KEYWORDS",
    "apply_keywords",
    "check_keyword",
    "read_file",
    "read_mapping",
    "suggestion",
    "write_toml",
]

SITE_KEYWORDS = frozenset({"captures", "raises", "seed", "name"})
OUTPUT_WORDS = frozenset({"forward", "stderr", "capture", "discard"})
_MAX_FILE = 2**20
_MAX_EXTENDS = 8
_MIB = 2**20


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
    "memory": _bytes(_MIB),
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


def _items(key: str, value: object) -> list[object]:
    """Return a list; a bare text or path is a list of one."""
    if isinstance(value, (str, bytes, os.PathLike, Grant)):
        return [value]
    if isinstance(value, dict) and "path" in value:
        return [value]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    raise PolicyError(
        f"{key}={_short(value)}: not a list",
        path=key,
        hint=f'write {key}=["..."], or [] for nothing',
    )


def _short(value: object) -> str:
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
        value, follow, code = value.path, value.follow, value.code
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise PolicyError(f"{key}: {_short(value)} is not a path", path=key)
    text = os.fsdecode(value)
    where = f"{key}={_short(text)}"
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
    return Grant(path, follow=follow, code=code)


def _grants(key: str, value: object, folder: str | None) -> tuple[Grant, ...]:
    if value is False:
        return ()
    found: dict[str, Grant] = {}
    for item in _items(key, value):
        grant = _grant(key, item, folder)
        if grant.code and key == "read":
            raise PolicyError("code=True is a word of write=", path=key, hint="drop it in read=")
        old = found.get(grant.path, grant)
        found[grant.path] = Grant(
            grant.path, follow=old.follow or grant.follow, code=old.code or grant.code
        )
    return tuple(found[path] for path in sorted(found))


_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def _env(key: str, value: object, _folder: str | None) -> tuple[str, ...]:
    pairs: list[tuple[object, object]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    else:
        for item in _items(key, value):
            name, equals, text = item.partition("=") if isinstance(item, str) else (item, "", "")
            pairs.append((name, text if equals else None))
    found: dict[str, str] = {}
    for name, text in pairs:
        if not isinstance(name, str) or not _ENV_NAME.match(name):
            raise PolicyError(
                f"env: {_short(name)} is not the name of a variable",
                path=key,
                hint='write env=["LANG"] to grant, env={"MODE": "x"} to set',
            )
        if text is not None and not isinstance(text, str):
            raise PolicyError(
                f"env: {name} is set to {_short(text)}, which is not text",
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
    items = [value] if value is True else _items(key, value)
    return tuple(sorted({_units.parse_endpoint(key, item) for item in items}))


def _words(pattern: str, what: str, example: str) -> Callable[[str, object, str | None], Any]:
    shape = re.compile(pattern)

    def parser(key: str, value: object, _folder: str | None) -> tuple[str, ...]:
        found = set()
        for item in _items(key, value):
            if not isinstance(item, str) or not shape.fullmatch(item):
                raise PolicyError(
                    f"{key}: {_short(item)} is not {what}",
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
                f"{key}={_short(value)}{suggestion(value, words)}",
                path=key,
                hint=f"one of {', '.join(map(repr, words))}",
            )
        return value

    return parser


def _flag(key: str, value: object, _folder: str | None) -> bool:
    if not isinstance(value, bool):
        raise PolicyError(f"{key}={_short(value)}: neither true nor false", path=key)
    return value


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
    "reveal": _flag,
    "fresh": _flag,
}
_LISTS = ("env", "net", "syscalls", "preload")


# -- names --------------------------------------------------------------------------------------

_INSTEAD = {
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
    if key in _INSTEAD:
        raise PolicyError(f"unknown keyword {key}=; write {_INSTEAD[key]}", path=key)
    known = [*FIELDS, *LIMITS, *SITE_KEYWORDS]
    close = suggestion(key, known, "{}=")
    hint = None if close else "keywords: " + ", ".join([*FIELDS, *LIMITS])
    raise PolicyError(f"unknown keyword {key}={close}", path=key, hint=hint)


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
        except msgspec.DecodeError as error:
            raise PolicyError(f"no valid JSON: {error}", file=path) from None
        if not isinstance(data, dict):
            raise PolicyError("a policy is an object: {...}", file=path, line=1)
        return text, data
    import tomllib  # only policy files pay for it

    try:
        return text, tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message, line, column = str(error) or "nested too deeply", None, None
        place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
        if place:
            line, column = int(place[1]), int(place[2])
            message = message[: place.start()]
        raise PolicyError(
            f"no valid TOML: {message}", file=path, line=line, column=column
        ) from None


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
    for key, other in (("read", "write"), ("write", "read")):
        if key in changes and extends is not None:
            # What this file says about a path beats what the extended policy said about it.
            named = {g.path for g in (*changes.get("read", ()), *changes.get("write", ()))}
            kept = [g for g in getattr(start, key) if g.path not in named]
            added = tuple(sorted((*kept, *changes[key]), key=lambda g: g.path))
            changes.setdefault(f"_{key}", added)
            if other not in changes:
                rest = tuple(g for g in getattr(start, other) if g.path not in named)
                changes[f"_{other}"] = rest
    for key in ("read", "write"):
        if f"_{key}" in changes:
            changes[key] = changes.pop(f"_{key}")
    policy = msgspec.structs.replace(start, **changes)
    _policy_rules.check(policy)
    return policy


def _start(extends: object, folder: str | None, seen: tuple[str, ...]) -> Policy:
    if not isinstance(extends, str):
        raise PolicyError(f"extends={_short(extends)}: not a name or a file", path="extends")
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
            if key in _INSTEAD:
                close = f"; write {_INSTEAD[key]}"
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
    if key != "env":
        return tuple(sorted({*old, *new}))
    entries = {entry.partition("=")[0]: entry for entry in (*old, *new)}
    return tuple(entries[name] for name in sorted(entries))


def _widen(value: object) -> tuple[str, ...]:
    known = [*FIELDS, *LIMITS, "*"]
    for item in _items("widen", value):
        if item not in known:
            raise PolicyError(
                f"widen: {_short(item)} is not a keyword{suggestion(item, known)}", path="widen"
            )
    return tuple(sorted({str(item) for item in _items("widen", value)}))


def _unknown_key(key: str) -> None:
    if key in LIMITS:
        raise PolicyError(
            f"{key} is a limit", path=key, hint=f"write it below [limits], or limits.{key} = ..."
        )
    if key in SITE_KEYWORDS:
        raise PolicyError(f"{key} is an option of the call, not of a policy", path=key)
    known = [*FIELDS, "limits", "extends", "widen"]
    close = f"; write {_INSTEAD[key]}" if key in _INSTEAD else suggestion(key, [*known, *LIMITS])
    raise PolicyError(
        f"unknown key {key!r}{close}", path=key, hint=None if close else f"keys: {', '.join(known)}"
    )


# -- places and text ----------------------------------------------------------------------------


def find_line(text: str, path: str) -> int | None:
    """Return the line (from 1) on which a TOML text sets the key `path` (`limits.memory`).

    >>> find_line('read = []\\n[limits]\\nmemory = "x"\\n', "limits.memory")
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
