"""Which found policy files the user has looked at: `agentsbx policy trust`.

The record lies in the user's own directory, which no write grant may cover (`_policy_code`), and is
believed only where nobody else could have written it. No environment switch adds to it.
"""

from __future__ import annotations

import contextlib
import os
import stat

from agentsbx._policy_load import load_file
from agentsbx._policy_toml import quote_toml
from agentsbx.errors import PolicyError

__all__ = ["forget", "record", "store_path", "trusted"]

_HEAD = "# Written by `agentsbx policy trust`; found policy files that may widen.\n"


def store_path() -> str:
    """Return the file of the record, whether it exists or not."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.config")
    return os.path.join(base, "agentsbx", "trusted.toml")


def trusted() -> dict[str, str]:
    """Return path -> SHA-256 of what is trusted; {} where nothing is recorded.

    Raises `PolicyError` for a record that is not believed: of another owner, or one that others may
    read or write, or in a folder that others may write in.
    """
    path = store_path()
    try:
        _check(os.lstat(os.path.dirname(path)), os.path.dirname(path), stat.S_ISDIR, 0o022)
        _check(os.lstat(path), path, stat.S_ISREG, 0o077)
    except OSError:
        return {}
    rows = load_file(path)[1].get("trusted", [])
    if not isinstance(rows, list):
        rows = [None]
    found = {}
    for row in rows:
        if not isinstance(row, dict) or not all(
            isinstance(row.get(key), str) for key in ("path", "sha256")
        ):
            raise PolicyError(
                "the record of trusted policy files is damaged", file=path, hint="remove it"
            )
        found[row["path"]] = row["sha256"]
    return found


def _check(found: os.stat_result, path: str, is_kind: object, others: int) -> None:
    assert callable(is_kind)
    why = ""
    if not is_kind(found.st_mode):
        why = "is not what it should be"
    elif found.st_uid != os.geteuid():
        why = f"belongs to user {found.st_uid}"
    elif found.st_mode & others:
        why = f"has mode {stat.S_IMODE(found.st_mode):04o}"
    if why:
        raise PolicyError(
            f"the record of trusted policy files is not believed: {path} {why}",
            hint="make it yours alone: chmod 700 its folder, chmod 600 the file; or remove it",
        )


def record(path: str, digest: str) -> None:
    """Trust the file at `path` as long as it has this digest; raises `PolicyError`, `OSError`."""
    _change(path, digest)


def forget(path: str) -> bool:
    """Trust a file no more; whether it was trusted."""
    return _change(path, None)


def _change(path: str, digest: str | None) -> bool:
    import fcntl  # only `agentsbx policy trust` and `untrust` pay for it

    store = store_path()
    folder = os.path.dirname(store)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = trusted()
        was = known.pop(path, None) is not None
        if digest is not None:
            known[path] = digest
        _write(store, known)
    finally:
        os.close(lock)
    return was


def _write(store: str, known: dict[str, str]) -> None:
    import tempfile

    rows = [
        f"\n[[trusted]]\npath = {quote_toml(path)}\nsha256 = {quote_toml(known[path])}\n"
        for path in sorted(known)
    ]
    number, name = tempfile.mkstemp(dir=os.path.dirname(store))  # of mode 0600
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(_HEAD + "".join(rows))
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, store)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
