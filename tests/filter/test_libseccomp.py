"""A second compiler: libseccomp (where it is installed) agrees on what is allowed.

It cannot express the whole table: a call whose arguments match no rule gets the filter's one
default action, and several comparisons of one argument in a rule are refused. So only "allowed or
not" is compared for calls with argument rules, and the full answer for all others.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import os
from typing import Any

import pytest
from filter_bpf import ALLOW, ARCH, ERRNO, M32, M64, Meaning, decode, run
from test_tables_meaning import interesting

from agentsbx import _filter

NE, EQ, MASKED_EQ = 1, 4, 7
OPTIMIZE = 8  # SCMP_FLTATR_CTL_OPTIMIZE
ENOSYS_ACTION = ERRNO | 38
NAME = ctypes.util.find_library("seccomp")


class Compare(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def _compare(test: dict[str, Any], value: int) -> Compare:
    if "isnt" in test:
        return Compare(test["arg"], NE, value, 0)
    if test.get("long"):
        return Compare(test["arg"], EQ, value, 0)
    return Compare(test["arg"], MASKED_EQ, test.get("mask", M32), value)


def _rules(meaning: Meaning, profile: str, name: str) -> list[tuple[int, list[Compare]]]:
    """Return (action, comparisons) for libseccomp; only the cases that allow."""
    verdict = meaning.verdict(profile, meaning.numbers[name], [0] * 6)
    group = meaning.group_of[name]
    if name not in meaning.args or group not in meaning.profiles[profile]["allow"]:
        return [] if verdict == ENOSYS_ACTION else [(verdict, [])]
    rules = []
    for case in meaning.args[name]["case"]:
        if case["then"] != "allow" or "option" in case:
            continue
        if profile not in case.get("profiles", [profile]) or not case.get("test"):
            continue
        choices = []
        for test in case["test"]:
            wanted = test.get("is", test.get("isnt"))
            numbers = wanted.values() if isinstance(wanted, dict) else [wanted]
            choices.append([_compare(test, number) for number in numbers])
        rules += [(ALLOW, list(chosen)) for chosen in itertools.product(*choices)]
    return rules


def libseccomp_filter(meaning: Meaning, profile: str) -> tuple[bytes, set[int]]:
    """Compile with libseccomp; also return the numbers that it refused."""
    library = ctypes.CDLL(NAME)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(ENOSYS_ACTION)))
    library.seccomp_attr_set(context, OPTIMIZE, 2)
    refused = set()
    for name, nr in meaning.numbers.items():
        for action, compares in _rules(meaning, profile, name):
            array = (Compare * max(1, len(compares)))(*compares)
            if library.seccomp_rule_add_array(
                context, ctypes.c_uint32(action), nr, len(compares), array
            ):
                refused.add(nr)
    fd = os.memfd_create("filter")
    try:
        assert library.seccomp_export_bpf(context, fd) == 0
        return os.pread(fd, os.fstat(fd).st_size, 0), refused
    finally:
        os.close(fd)
        library.seccomp_release(context)


@pytest.mark.skipif(NAME is None, reason="machine lacks: libseccomp")
@pytest.mark.parametrize("profile", ["python", "strict", "build"])
def test_libseccomp_allows_the_same_calls(profile: str) -> None:
    arch = _filter.native_arch()
    meaning = Meaning(arch)
    bpf, refused = libseccomp_filter(meaning, profile)
    theirs = decode(bpf)
    ours = decode(_filter.build_filter(profile, arch=arch))
    assert len(refused) < 5
    for name, nr in meaning.numbers.items():
        if nr in refused:
            continue
        tests = [t for c in meaning.args.get(name, {"case": []})["case"] for t in c.get("test", [])]
        for args in interesting(meaning, name):
            if any("isnt" in test for test in tests):
                args = tuple(value & M32 for value in args)  # its NE looks at 64 bits
            a = run(ours, nr, [v & M64 for v in args], ARCH[arch])
            b = run(theirs, nr, [v & M64 for v in args], ARCH[arch])
            if tests:
                assert (a == ALLOW) == (b == ALLOW), (name, args)
            else:
                assert a == b, name
