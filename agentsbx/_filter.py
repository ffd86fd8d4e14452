"""Seccomp filters from the tables: names and profiles to BPF bytes (in the host, no processes).

`build_filter` turns a profile into the rule array that ``csrc/plan/filter.h`` describes and lets
the C core compile it. Everything goes by number, so calls that no library can name are covered.
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

from agentsbx import _tables
from agentsbx.errors import PolicyError

RET_KILL_PROCESS = 0x8000_0000
RET_ERRNO = 0x0005_0000
RET_USER_NOTIF = 0x7FC0_0000
RET_ALLOW = 0x7FFF_0000
AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
DEFAULT_ACTION = RET_ERRNO | errno.ENOSYS

_RULE_ARCH = -2
_EQ, _NE = 0, 1
_HEAD = struct.Struct("=iIII")
_CMP = struct.Struct("=IIQQ")
_RULE_SIZE = _HEAD.size + _tables.MAX_TESTS * _CMP.size
_PLAIN = struct.Struct(f"=iIII{_tables.MAX_TESTS * _CMP.size}x")

Cmp = tuple[int, int, int, int]  # arg, op, mask, value

# Calls that set ids, and how many each takes: to set the id that the job already has is allowed.
_SET_UID = {"setuid": 1, "setfsuid": 1, "setreuid": 2, "setresuid": 3}
_SET_GID = {"setgid": 1, "setfsgid": 1, "setregid": 2, "setresgid": 3}

# What trace.c calls; its second filter denies both to the command.
_TRACER = frozenset({"ptrace", "process_vm_readv"})


def native_arch() -> str:
    """Return the table's name for this machine, or raise `PolicyError`."""
    machine = os.uname().machine
    if machine not in AUDIT_ARCH:
        raise PolicyError(f"no system call table for architecture {machine!r}")
    return machine


def build_filter(
    profile: str,
    *,
    extra: Sequence[str] = (),
    notify: bool = True,
    arch: str | None = None,
    memfd_noexec_seal: bool = False,
    ids: tuple[int, int] | None = None,
    traces: bool = False,
    terminal: bool = False,
    is_pinned: bool = False,
) -> bytes:
    """Compile the seccomp filter of a profile to raw BPF, an array of 8-byte ``sock_filter``.

    Args:
        profile: ``"python"``, ``"strict"`` or ``"build"``.
        extra: System calls allowed on top. They never replace what the profile allows, and argument
            rules of a call stay in force.
        notify: Dangerous calls ask the listener (so that the denial is recorded) instead of failing
            in the kernel. The supervisor must hold the listener.
        arch: ``"x86_64"`` or ``"aarch64"``; default: this machine.
        memfd_noexec_seal: Demand ``MFD_NOEXEC_SEAL`` of every ``memfd_create`` (Linux >= 6.3), for
            where ``vm.memfd_noexec`` cannot be written.
        ids: The job's user and group id as it sees them: setting these very ids is allowed.
        traces: Pid 1 may trace its command (``csrc/reaper/trace.h``), which is itself denied that
            again by a second filter.
        terminal: Settings of terminals may be changed: whatever the job holds, none is the host's.
        is_pinned: Choosing CPUs is denied (`cpu_set=`), whatever profile and `extra` say.

    Raises:
        PolicyError: Unknown profile or system call, or one that no policy can allow.

    Enforced by: seccomp (Linux >= 5.14).

    """
    arch = arch or native_arch()
    return _build(
        profile, tuple(extra), notify, arch, memfd_noexec_seal, ids, traces, terminal, is_pinned
    )


@lru_cache(maxsize=64)
def _build(
    profile: str,
    extra: tuple[str, ...],
    notify: bool,
    arch: str,
    seal: bool,
    ids: tuple[int, int] | None,
    traces: bool,
    terminal: bool,
    is_pinned: bool,
) -> bytes:
    rules = rule_bytes(
        profile, extra, notify=notify, arch=arch, seal=seal, ids=ids, traces=traces,
        terminal=terminal, is_pinned=is_pinned,
    )  # fmt: skip
    return _compile(rules, DEFAULT_ACTION)


_COARSE = ("io-uring", "fault-handling", "fanotify", "new-calls", "gone")


@cache
def coarse_filter() -> bytes:
    """Return the filter of a zygote: what neither it nor any job ever needs, and foreign ABIs.

    Only calls whose denial nobody records: an errno here would win over the job's own listener.
    """
    tables, arch = _tables.load(), native_arch()
    numbers = tables.numbers[arch]
    names = [n for g in _COARSE for n in tables.group[g].syscalls if n in numbers]
    rows = [_PLAIN.pack(nr, DEFAULT_ACTION, 0, 0) for nr in sorted(numbers[n] for n in names)]
    head = _PLAIN.pack(_RULE_ARCH, AUDIT_ARCH[arch], 0, 0)
    return _compile(head + b"".join(rows), RET_ALLOW)


def _compile(rules: bytes, default_action: int) -> bytes:
    # Imported late: the tables are usable (docs, explain) where the extension is not built.
    from agentsbx import _core

    return _core.compile_filter(rules, default_action)


def rule_bytes(
    profile: str,
    extra: Sequence[str] = (),
    *,
    notify: bool,
    arch: str,
    seal: bool = False,
    ids: tuple[int, int] | None = None,
    traces: bool = False,
    terminal: bool = False,
    is_pinned: bool = False,
) -> bytes:
    """Return the rule array for the C core: one architecture rule, then rules sorted by number."""
    tables = _tables.load()
    if arch not in AUDIT_ARCH:
        raise PolicyError(f"no system call table for architecture {arch!r}")
    if profile not in tables.profile:
        known = ", ".join(sorted(tables.profile))
        raise PolicyError(f"unknown profile {profile!r}: there are {known}")
    added = _check_extra(extra, tables) | (_TRACER if traces else frozenset())
    allowed_groups = set(tables.profile[profile].allow)
    options = {"memfd_noexec_seal": seal, "terminal": terminal}
    rows: list[tuple[int, bytes]] = []
    for group_name, group in tables.group.items():
        otherwise = _action(group.errno, group.notify and notify)
        for name in group.syscalls:
            nr = tables.numbers[arch].get(name)
            if nr is None:
                continue
            if is_pinned and name == "sched_setaffinity":
                rows.append((nr, _PLAIN.pack(nr, RET_ERRNO | errno.EPERM, 0, 0)))
            elif group_name in allowed_groups or name in added:
                rule = tables.args.get(name)
                if rule is None:
                    rows.append((nr, _PLAIN.pack(nr, RET_ALLOW, 0, 0)))
                else:
                    rows.append((nr, _cases(nr, rule, profile, notify, options)))
            else:
                chain = b"".join(_pack(nr, RET_ALLOW, cmps) for cmps in _same_id(name, ids))
                if chain or otherwise != DEFAULT_ACTION:
                    rows.append((nr, chain + _PLAIN.pack(nr, otherwise, 0, 0)))
    rows.sort()
    head = _PLAIN.pack(_RULE_ARCH, AUDIT_ARCH[arch], 0, 0)
    return head + b"".join(row for _, row in rows)


def _check_extra(extra: Sequence[str], tables: _tables.Tables) -> frozenset[str]:
    group_of = _group_of()
    for name in extra:
        if name not in group_of:
            raise PolicyError(f"syscalls: unknown system call {name!r}")
        group = tables.group[group_of[name]]
        if group.never:
            raise PolicyError(f"syscalls: {name!r} can never be allowed: {group.reason}")
    return frozenset(extra)


@cache
def _group_of() -> dict[str, str]:
    groups = _tables.load().group.items()
    return {name: group_name for group_name, group in groups for name in group.syscalls}


def _action(then: str, notify: bool) -> int:
    if then == "allow":
        return RET_ALLOW
    number: int = getattr(errno, then)
    return RET_USER_NOTIF if notify else RET_ERRNO | number


def _cases(
    nr: int, rule: _tables.ArgRule, profile: str, notify: bool, options: dict[str, bool]
) -> bytes:
    chain = []
    for case in rule.case:
        if case.profiles and profile not in case.profiles:
            continue
        if case.option is not None and not options[case.option]:
            continue
        if case.only_notify and not notify:
            continue
        action = _action(case.then, case.notify and notify)
        chain += [_pack(nr, action, cmps) for cmps in _expand(case)]
    return b"".join(chain)


def _expand(case: _tables.Case) -> Iterator[tuple[Cmp, ...]]:
    """A test with several numbers becomes several rules."""
    choices = [
        [
            (test.arg, _EQ if test.isnt is None else _NE, test.bits(), value)
            for value in test.values()
        ]
        for test in case.test
    ]
    return itertools.product(*choices)


def _same_id(name: str, ids: tuple[int, int] | None) -> Iterator[tuple[Cmp, ...]]:
    if ids is None or not (name in _SET_UID or name in _SET_GID):
        return iter(())
    count = _SET_UID.get(name) or _SET_GID[name]
    own = ids[0] if name in _SET_UID else ids[1]
    values = (own,) if count == 1 else (own, _tables.INT_MASK)  # -1: leave as it is
    return itertools.product(
        *([(arg, _EQ, _tables.INT_MASK, value) for value in values] for arg in range(count))
    )


def _pack(nr: int, action: int, cmps: Sequence[Cmp]) -> bytes:
    head = _HEAD.pack(nr, action, len(cmps), 0)
    return (head + b"".join(_CMP.pack(*cmp) for cmp in cmps)).ljust(_RULE_SIZE, b"\0")


@cache
def _names(arch: str) -> dict[int, str]:
    return {nr: name for name, nr in _tables.load().numbers[arch].items()}


def explain_syscall(nr: int, arch: str | None = None) -> tuple[str, str, str]:
    """Return name, group and the table's reason for a system call number of this machine.

    A number that the tables do not know gives ``("syscall 9999", "unknown", ...)``.
    """
    name = _names(arch or native_arch()).get(nr)
    if name is None:
        return (f"syscall {nr}", "unknown", "newer than the tables: answered with ENOSYS")
    tables = _tables.load()
    group = _group_of()[name]
    rule = tables.args.get(name)
    return (name, group, rule.reason if rule else tables.group[group].reason)
