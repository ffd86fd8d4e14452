"""Policy files that nobody named: `agentsbx.toml`, `[tool.agentsbx]` of a `pyproject.toml`.

Found in the working directory or above, at the first call of a function; never at import and never
in a job. A job with a write grant could have planted one, so it can only narrow what the code says,
until its user has recorded that he knows it (`_policy_trust`). Whatever is wrong with it stops the
call: a policy that someone wrote down is not left out silently.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from typing import Any

import msgspec

from agentsbx import _policy_rules, _policy_trust
from agentsbx._policy_load import Reading, has_table, parse_file
from agentsbx._policy_narrow import beyond, narrow, replaced
from agentsbx._policy_read import read_over
from agentsbx.errors import PolicyError
from agentsbx.policy import Policy

__all__ = ["Applied", "apply", "digest_of", "search"]

NAMES = ("agentsbx.toml", "pyproject.toml")
_MAX = 2**20
_tables: dict[str, tuple[tuple[int, ...], bool]] = {}  # which pyproject.toml has our table
_told: dict[Any, Any] = {}  # the registry of our warnings: each text once, by the usual filters


class Applied(msgspec.Struct, frozen=True):
    """What became of a policy: with the found file `path`, "" where there is none."""

    policy: Policy
    path: str = ""
    is_trusted: bool = False
    ignored: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if not self.path:
            return ""
        if self.is_trusted:
            return f"The trusted policy file {self.path} was found and holds."
        words = "; ".join(text for _, text in self.ignored)
        more = f" Ignored, as it is not trusted: {words}." if words else ""
        return f"The policy file {self.path} was found and narrows this.{more}"


def apply(policy: Policy, function: str = "", *, folder: str | None = None) -> Applied:
    """Return `policy` as the file found above `folder` (default: the working directory) lets it be.

    `function` is the "module:qualname" whose section counts. Raises `PolicyError` for a file that
    is wrong or refused; warns once of what an untrusted file asks in vain.
    """
    if folder is None:
        try:
            folder = os.getcwd()
        except OSError:  # it was removed: nothing is above it
            return Applied(policy)
    path = search(folder)
    if not path or path == policy.origin:
        return Applied(policy)
    said, keys, digest = _read(path, function)
    wanted = replaced(policy, said, keys)
    known = _policy_trust.trusted().get(path)
    if known == digest:
        try:
            _policy_rules.check(wanted)
        except PolicyError as error:
            raise PolicyError(str(error), file=path, path=error.path, hint=error.hint) from None
        return Applied(wanted, path, is_trusted=True)
    ignored = tuple(beyond(policy, wanted))
    _warn(path, ignored, was_known=known is not None)
    return Applied(narrow(policy, wanted), path, ignored=ignored)


def digest_of(path: str) -> str:
    """Return the SHA-256 over a found file and all that it extends; raises `PolicyError`."""
    return _read(path, "")[2]


# -- finding --------------------------------------------------------------------------------------


def search(folder: str) -> str:
    """Return the nearest policy file in `folder` or above, "" if there is none.

    The search ends at the home directory, the root, and before a folder that belongs to somebody
    else or that others may write in. Raises `PolicyError` where one folder holds both forms.
    """
    home = os.path.realpath(os.path.expanduser("~"))
    at = folder
    while _is_ours(at):
        found = [path for path in (os.path.join(at, name) for name in NAMES) if _counts(path)]
        if len(found) > 1:
            raise PolicyError(
                f"both {found[0]!r} and [tool.agentsbx] in {found[1]!r} are policies",
                file=found[0],
                hint="keep one of them",
            )
        if found:
            return found[0]
        if at in (home, "/"):
            break
        at = os.path.dirname(at)
    return ""


def _is_ours(folder: str) -> bool:
    try:
        found = os.stat(folder)
    except OSError:
        return False
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & stat.S_IWOTH


def _counts(path: str) -> bool:
    """Whether there is a policy: any `agentsbx.toml`, a `pyproject.toml` with our table."""
    if not os.path.lexists(path):
        return False
    if os.path.basename(path) == NAMES[0]:
        return True
    try:
        with open(_open(path), "rb") as file:
            found = os.fstat(file.fileno())
            identity = (
                found.st_dev,
                found.st_ino,
                found.st_size,
                found.st_mtime_ns,
                found.st_ctime_ns,
            )
            known = _tables.get(path)
            if known is None or known[0] != identity:
                known = _tables[path] = identity, _has_table(file.read(_MAX + 1))
    except OSError:
        return False  # not ours to judge
    return known[1]


def _has_table(raw: bytes) -> bool:
    if b"agentsbx" not in raw or len(raw) > _MAX:
        return False
    try:
        return has_table(raw.decode())
    except (ValueError, RecursionError):
        return False  # other tools say so


# -- reading --------------------------------------------------------------------------------------


def _open(path: str) -> int:
    """Open without following a link or waiting for a pipe."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _load(path: str) -> tuple[bytes, str, dict[str, Any]]:
    try:
        number = _open(path)
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise _refused(path, str(why)) from None
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, "it is no regular file")
        if found.st_uid not in (0, os.geteuid()):
            raise _refused(path, f"it belongs to user {found.st_uid}")
        if found.st_mode & stat.S_IWOTH:
            raise _refused(path, f"all may write it (mode {stat.S_IMODE(found.st_mode):04o})")
        with open(number, "rb", closefd=False) as file:
            raw = file.read(_MAX + 1)
    finally:
        os.close(number)
    return raw, *parse_file(path, raw)


def _refused(path: str, why: str) -> PolicyError:
    return PolicyError(
        f"the found policy file is refused: {why}",
        file=path,
        hint="make it a file of your own that others cannot write, or remove it",
    )


def _read(path: str, function: str) -> tuple[Policy, set[str], str]:
    """Return what a file says, the keys that it names, and its digest."""
    import hashlib  # only where a file was found
    import json

    parts: list[list[str]] = []

    def load(name: str) -> tuple[str, dict[str, Any]]:
        raw, text, data = _load(name)
        if os.path.basename(name) == NAMES[1]:  # the rest of it is no policy
            raw = json.dumps(data, sort_keys=True, default=str).encode()
        parts.append([name, hashlib.sha256(raw).hexdigest()])
        return text, data

    reading = Reading(load, traces=True, is_found=True)
    said = read_over(Policy(widen=()), path, reading)
    sections = {"", function}
    keys = {key for section, key, _ in reading.origins if section in sections}
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return said.for_function(function), keys, digest


# -- telling --------------------------------------------------------------------------------------


def _warn(path: str, ignored: tuple[tuple[str, str], ...], *, was_known: bool) -> None:
    if not (ignored or was_known):
        return
    trust = f"`agentsbx policy trust {path}`"
    changed = "it changed since it was trusted; " if was_known else ""
    if not ignored:
        text = f"{path}: {changed}look at it and run {trust} again"
    else:
        keys = ", ".join(sorted({key for key, _ in ignored}))
        words = "; ".join(words for _, words in ignored)
        text = (
            f"{path}: {changed}a found policy file only narrows: {keys} ignored ({words}); "
            f"if you know the file, run {trust}"
        )
    warnings.warn_explicit(text, RuntimeWarning, path, 1, registry=_told)
