"""The system call tables: groups, profiles, argument rules and numbers, as checked data.

The sources are ``data/syscalls.toml``, ``data/args.toml``, ``data/benign.toml`` (which denials harm
nobody) and ``data/numbers.csv``. Parsing them costs milliseconds, so ``data/tables.json`` is made
from them beforehand (``python -m agentsbx._tables``) and is what `load` reads; a test compares the
two by hash and content. Nothing is read at import.
"""

from __future__ import annotations

import errno
import os
import sys
from functools import cache
from typing import Any

import msgspec

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
SOURCES = ("syscalls.toml", "args.toml", "benign.toml", "numbers.csv")
ARCHES = ("x86_64", "aarch64")
MAX_TESTS = 4  # SBX_MAX_CMPS
INT_MASK = 0xFFFF_FFFF
LONG_MASK = 0xFFFF_FFFF_FFFF_FFFF


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """System calls that are allowed together, and how they are answered otherwise."""

    syscalls: tuple[str, ...]
    reason: str
    reference: str
    errno: str = "ENOSYS"
    notify: bool = False
    never: bool = False


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named list of allowed groups."""

    reason: str
    allow: tuple[str, ...]


class Test(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One comparison: ``(argument & mask)`` is one of the numbers, or is not the number."""

    arg: int
    mask: int = INT_MASK
    long: bool = False
    is_: int | dict[str, int] | None = msgspec.field(default=None, name="is")
    isnt: int | None = None

    def bits(self) -> int:
        """Return the mask that is compared under."""
        return LONG_MASK if self.long else self.mask

    def values(self) -> tuple[int, ...]:
        """Return the numbers of ``is``, or the one of ``isnt``."""
        if self.isnt is not None:
            return (self.isnt,)
        if isinstance(self.is_, dict):
            return tuple(self.is_.values())
        return () if self.is_ is None else (self.is_,)


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens when all tests hold; conditions say in which filters the case exists."""

    then: str
    test: tuple[Test, ...] = ()
    notify: bool = False
    profiles: tuple[str, ...] = ()
    option: str | None = None
    only_notify: bool = False


class ArgRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cases of one system call, tried in order."""

    reason: str
    reference: str
    case: tuple[Case, ...]


class Benign(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Denials that harm no program: an operation, on targets with ``*`` and ``**``."""

    operation: str
    targets: tuple[str, ...]
    who: str
    reason: str


class Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything; ``source`` is the SHA-256 of the files it was made from."""

    source: str
    group: dict[str, Group]
    profile: dict[str, Profile]
    args: dict[str, ArgRule]
    numbers: dict[str, dict[str, int]]  # architecture -> name -> number
    benign: tuple[Benign, ...]


def _check_case(where: str, case: Case, profiles: dict[str, Profile]) -> None:
    if case.then != "allow" and not hasattr(errno, case.then):
        raise ValueError(f"{where}: unknown answer {case.then!r}")
    if case.then == "allow" and case.notify:
        raise ValueError(f"{where}: an allowed call is not notified")
    if len(case.test) > MAX_TESTS or not set(case.profiles) <= set(profiles):
        raise ValueError(f"{where}: too many tests, or an unknown profile")
    for test in case.test:
        if not 0 <= test.arg <= 5 or (test.is_ is None) == (test.isnt is None):
            raise ValueError(f"{where}: argument out of range, or not one of is/isnt")
        if not test.values() or not 0 < test.mask <= INT_MASK:
            raise ValueError(f"{where}: no value, or a mask beyond 32 bits")
        if any(value & ~test.bits() for value in test.values()):
            raise ValueError(f"{where}: a value has bits outside its mask")


def check(tables: Tables) -> None:
    """Raise `ValueError` where the tables contradict themselves."""
    known = set().union(*(tables.numbers[arch] for arch in ARCHES))
    listed = [name for group in tables.group.values() for name in group.syscalls]
    if len(listed) != len(set(listed)) or set(listed) != known:
        odd = sorted(set(listed) ^ known) or sorted({n for n in listed if listed.count(n) > 1})
        raise ValueError(f"each system call is in exactly one group: {odd}")
    for name, group in tables.group.items():
        if not hasattr(errno, group.errno) or not group.reason or not group.reference:
            raise ValueError(f"group {name}: errno, reason and reference are required")
    for name, profile in tables.profile.items():
        if not set(profile.allow) <= set(tables.group):
            raise ValueError(f"profile {name}: unknown group")
        if any(tables.group[group].never for group in profile.allow):
            raise ValueError(f"profile {name}: allows a group that is never allowed")
    for name, rule in tables.args.items():
        if name not in known:
            raise ValueError(f"args: unknown system call {name}")
        if (
            not rule.case
            or rule.case[-1].test
            or rule.case[-1] != Case(then=rule.case[-1].then, notify=rule.case[-1].notify)
        ):
            raise ValueError(f"args {name}: the last case has no tests and no conditions")
        for index, case in enumerate(rule.case):
            _check_case(f"args {name} case {index}", case, tables.profile)
    for row in tables.benign:
        if not row.targets or not row.who or not row.reason:
            raise ValueError(f"benign {row.operation}: targets, who and reason are required")
        if any(target.startswith("*") for target in row.targets):
            raise ValueError(f"benign {row.operation}: a target begins with a plain character")


def _read(name: str) -> bytes:
    with open(os.path.join(DATA, name), "rb") as file:
        return file.read()


def source_hash() -> str:
    """Return the SHA-256 over the source files, in a fixed order."""
    import hashlib  # late, like tomllib: a host that only loads tables.json needs neither

    digest = hashlib.sha256()
    for name in SOURCES:
        data = _read(name)
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def read_sources() -> Tables:
    """Parse and check the source files (milliseconds; for tests and for making ``tables.json``)."""
    import tomllib

    numbers: dict[str, dict[str, int]] = {arch: {} for arch in ARCHES}
    for line in _read("numbers.csv").decode().splitlines():
        if line.startswith("#"):
            continue
        name, *columns = line.split(",")
        for arch, column in zip(ARCHES, columns, strict=True):
            if column:
                numbers[arch][name] = int(column)
    syscalls: dict[str, Any] = tomllib.loads(_read("syscalls.toml").decode())
    raw = {
        "source": source_hash(),
        "group": syscalls.pop("group"),
        "profile": syscalls.pop("profile"),
        "args": tomllib.loads(_read("args.toml").decode()),
        "benign": tomllib.loads(_read("benign.toml").decode())["benign"],
        "numbers": numbers,
        **syscalls,
    }
    tables = msgspec.convert(raw, Tables)
    check(tables)
    return tables


@cache
def load() -> Tables:
    """Return the tables from ``tables.json``; read once per process."""
    return msgspec.json.decode(_read("tables.json"), type=Tables)


def main() -> int:
    """Write ``tables.json`` from the sources."""
    encoded = msgspec.json.format(msgspec.json.encode(read_sources()), indent=1)
    with open(os.path.join(DATA, "tables.json"), "wb") as file:
        file.write(encoded + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
