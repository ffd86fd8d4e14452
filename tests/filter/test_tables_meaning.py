"""Compiled filters say what the tables say, on both architectures."""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from filter_bpf import (
    ALLOW,
    ARCH,
    ERRNO,
    I386,
    KILL,
    M32,
    M64,
    NOTIFY,
    Meaning,
    check_program,
    decode,
    depth,
    run,
)

from agentsbx import _filter
from agentsbx.errors import PolicyError

PROFILES = ("python", "strict", "build")
ARCHES = ("x86_64", "aarch64")


def interesting(meaning: Meaning, name: str, most: int = 1500) -> Iterator[tuple[int, ...]]:
    """Yield argument tuples round every number that a rule of this call names.

    All of them, or a choice of `most`.
    """
    per_arg: dict[int, set[int]] = {}
    for case in meaning.args.get(name, {"case": []})["case"]:
        for test in case.get("test", []):
            wanted: Any = test.get("is", test.get("isnt"))
            numbers = list(wanted.values()) if isinstance(wanted, dict) else [wanted]
            mask = test.get("mask", M32)
            values = per_arg.setdefault(test["arg"], {0, 1, M32, M64})
            for number in numbers:
                values |= {number, number ^ 1, (number + 1) & M64, number | (~mask & M32)}
            values |= {1 << bit for bit in range(32)}
    if not per_arg:
        yield (0,) * 6
        yield (M64,) * 6
        return
    order = sorted(per_arg)
    product = list(itertools.product(*(sorted(per_arg[arg]) for arg in order)))
    picker = random.Random(name)
    for chosen in product if len(product) <= most else picker.sample(product, most):
        args = [0] * 6
        for arg, value in zip(order, chosen, strict=True):
            args[arg] = value
        yield tuple(args)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("notify", "seal", "most"), [(True, False, 10**9), (False, False, 1500), (True, True, 1500)]
)
def test_every_number_and_argument_gets_the_verdict_of_the_table(
    arch: str, profile: str, notify: bool, seal: bool, most: int
) -> None:
    """In the family that most machines use, all combinations; in the others a choice."""
    meaning = Meaning(arch)
    program = decode(
        _filter.build_filter(profile, notify=notify, arch=arch, memfd_noexec_seal=seal)
    )
    check_program(program)
    for nr in range(601):
        for args in interesting(meaning, meaning.names.get(nr, ""), most):
            expected = meaning.verdict(profile, nr, args, notify=notify, seal=seal)
            got = run(program, nr, args, ARCH[arch])
            assert got == expected, (meaning.names.get(nr), nr, [hex(a) for a in args])


@pytest.mark.parametrize("arch", ARCHES)
def test_junk_above_32_bits_changes_no_verdict_of_an_int_rule(arch: str) -> None:
    meaning = Meaning(arch)
    program = decode(_filter.build_filter("python", arch=arch))
    for name, rule in meaning.args.items():
        if name not in meaning.numbers:
            continue
        tests = [test for case in rule["case"] for test in case.get("test", [])]
        ints = {test["arg"] for test in tests} - {t["arg"] for t in tests if t.get("long")}
        for args in interesting(meaning, name):
            clean = [value & M32 if arg in ints else value for arg, value in enumerate(args)]
            before = run(program, meaning.numbers[name], clean, ARCH[arch])
            for junk in (1 << 32, 0xFFFFFFFF << 32, 1 << 63):
                dirty = [v | junk if arg in ints else v for arg, v in enumerate(clean)]
                assert run(program, meaning.numbers[name], dirty, ARCH[arch]) == before, name


def test_pointer_rule_looks_at_all_64_bits() -> None:
    meaning = Meaning("x86_64")
    program = decode(_filter.build_filter("python", arch="x86_64"))
    nr = meaning.numbers["prlimit64"]
    assert run(program, nr, [77, 7, 0, 5], ARCH["x86_64"]) == ALLOW
    for pointer in (1, 1 << 31, 1 << 32, 1 << 63, 0x7FFF00000000):
        assert run(program, nr, [77, 7, pointer], ARCH["x86_64"]) == ERRNO | errno.EPERM


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("profile", PROFILES)
def test_foreign_architecture_kills_whatever_the_number(arch: str, profile: str) -> None:
    program = decode(_filter.build_filter(profile, arch=arch))
    others = {I386, 0x40000028, 0xC0000015, 0, *ARCH.values()} - {ARCH[arch]}
    for foreign, nr in itertools.product(others, (0, 1, 39, 4095, M32)):
        assert run(program, nr, [0] * 6, foreign) == KILL


def test_x32_numbers_kill_and_minus_one_does_not() -> None:
    program = decode(_filter.build_filter("python", arch="x86_64"))
    for nr in [*range(601), 4095, 0x3FFFFFFF]:
        assert run(program, nr | 0x40000000, [0] * 6, ARCH["x86_64"]) == KILL
        assert run(program, nr | 0x80000000, [0] * 6, ARCH["x86_64"]) == KILL
    assert run(program, 0x3FFFFFFF, [0] * 6, ARCH["x86_64"]) == ERRNO | errno.ENOSYS
    assert run(program, 0xFFFFFFFE, [0] * 6, ARCH["x86_64"]) == KILL
    assert run(program, M32, [0] * 6, ARCH["x86_64"]) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("profile", PROFILES)
def test_canary_number_answers_edom(arch: str, profile: str) -> None:
    program = decode(_filter.build_filter(profile, arch=arch))
    assert run(program, 4095, [0] * 6, ARCH[arch]) == ERRNO | 33
    for nr in (4094, 4096, 700, 100000):
        assert run(program, nr, [0] * 6, ARCH[arch]) == ERRNO | errno.ENOSYS


def test_extra_adds_and_takes_nothing_away() -> None:
    meaning = Meaning("x86_64")
    plain = decode(_filter.build_filter("python", arch="x86_64"))
    wider = decode(_filter.build_filter("python", extra=("setxattr", "ioctl"), arch="x86_64"))
    changed = {
        meaning.names[nr]
        for nr in meaning.names
        for args in interesting(meaning, meaning.names[nr])
        if run(plain, nr, args, ARCH["x86_64"]) != run(wider, nr, args, ARCH["x86_64"])
    }
    assert changed == {"setxattr"}


def test_extra_call_with_argument_rules_keeps_them() -> None:
    nr = Meaning("x86_64").numbers["socketpair"]
    program = decode(_filter.build_filter("strict", extra=("socketpair",), arch="x86_64"))
    assert run(program, nr, [1, 1, 0], ARCH["x86_64"]) == ALLOW
    assert run(program, nr, [1, 2, 0], ARCH["x86_64"]) == ERRNO | errno.EPROTOTYPE


def test_every_never_call_is_refused_as_extra() -> None:
    meaning = Meaning("x86_64")
    for group in meaning.groups.values():
        for name in group["syscalls"] if group.get("never") else ():
            with pytest.raises(PolicyError, match=name):
                _filter.build_filter("python", extra=(name,))


@pytest.mark.parametrize(
    "name",
    ["mount", "ptrace", "bpf", "keyctl", "unshare", "setns", "io_uring_setup", "userfaultfd",
     "perf_event_open", "clone3", "openat2", "open_by_handle_at", "socket", "connect",
     "pidfd_getfd", "process_vm_readv", "kexec_load", "init_module", "open_tree_attr"],
)  # fmt: skip
def test_the_dangerous_calls_are_on_the_never_list(name: str) -> None:
    meaning = Meaning("x86_64")
    assert meaning.groups[meaning.group_of[name]].get("never")


@pytest.mark.parametrize("name", ["nosuchcall", "", "READ", "read "])
def test_unknown_extra_name_is_a_policy_error(name: str) -> None:
    with pytest.raises(PolicyError):
        _filter.build_filter("python", extra=(name,))


def test_unknown_profile_and_architecture_are_policy_errors() -> None:
    with pytest.raises(PolicyError):
        _filter.build_filter("default")
    with pytest.raises(PolicyError):
        _filter.build_filter("python", arch="riscv64")


def test_memfd_option_demands_the_seal() -> None:
    nr = Meaning("x86_64").numbers["memfd_create"]
    plain = decode(_filter.build_filter("python", arch="x86_64"))
    seal = decode(_filter.build_filter("python", memfd_noexec_seal=True, arch="x86_64"))
    for flags, without, with_seal in (
        (0, True, False), (1, True, False), (8, True, True), (9, True, True),
        (0x10, False, False), (0x18, False, False), (3, True, False), (0xB, True, True),
    ):  # fmt: skip
        for program, is_allowed in ((plain, without), (seal, with_seal)):
            expected = ALLOW if is_allowed else ERRNO | errno.EACCES
            assert run(program, nr, [0, flags], ARCH["x86_64"]) == expected, flags


def test_own_id_may_be_set_and_no_other() -> None:
    numbers = Meaning("x86_64").numbers
    program = decode(_filter.build_filter("python", ids=(1000, 100), arch="x86_64"))
    for name, args, expected in (
        ("setuid", [1000], ALLOW), ("setuid", [0], NOTIFY), ("setuid", [100], NOTIFY),
        ("setgid", [100], ALLOW), ("setgid", [0], NOTIFY), ("setgid", [1000], NOTIFY),
        ("setresuid", [1000, M32, 1000], ALLOW), ("setresuid", [1000, 0, 1000], NOTIFY),
        ("setresgid", [M32, M32, M32], ALLOW), ("setreuid", [M64, 1000], ALLOW),
        ("setfsuid", [1000], ALLOW), ("setfsuid", [M32], NOTIFY), ("setgroups", [0, 0], NOTIFY),
    ):  # fmt: skip
        assert run(program, numbers[name], args, ARCH["x86_64"]) == expected, (name, args)


def test_without_listener_nothing_asks_one() -> None:
    for profile, arch in itertools.product(PROFILES, ARCHES):
        program = decode(_filter.build_filter(profile, notify=False, arch=arch))
        assert all(k != NOTIFY for code, _, _, k in program if code == 0x06)


def test_null_address_sendto_is_never_trapped() -> None:
    meaning = Meaning("x86_64")
    program = decode(_filter.build_filter("python", arch="x86_64"))
    assert run(program, meaning.numbers["sendto"], [3, 4096, 1, 0, 0, 0], ARCH["x86_64"]) == ALLOW


def test_hot_calls_have_no_argument_check() -> None:
    meaning = Meaning("x86_64")
    hot = (
        "read write close fstat poll futex mmap munmap mprotect brk sendto recvfrom sendmsg recvmsg"
        " clock_nanosleep rt_sigprocmask"
    )
    assert not set(hot.split()) & set(meaning.args)


def test_program_is_small_and_shallow() -> None:
    program = decode(_filter.build_filter("python", arch="x86_64"))
    assert len(program) < 700
    assert max(depth(program, nr, ARCH["x86_64"]) for nr in range(470)) < 64


def test_explain_names_call_group_and_reason() -> None:
    numbers = Meaning("x86_64").numbers
    name, group, reason = _filter.explain_syscall(numbers["ptrace"], "x86_64")
    assert (name, group) == ("ptrace", "debug")
    assert reason
    assert _filter.explain_syscall(9999, "x86_64")[1] == "unknown"
    for nr in numbers.values():
        assert all(_filter.explain_syscall(nr, "x86_64"))
