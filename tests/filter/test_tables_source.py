"""The tables themselves: checked, complete, and the made file is the one of the sources."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import msgspec
import pytest

from agentsbx import _tables


def test_tables_json_is_made_from_the_sources() -> None:
    """If this fails: python -m agentsbx._tables"""
    assert _tables.load().source == _tables.source_hash()
    assert _tables.load() == _tables.read_sources()


def test_numbers_reach_470_and_have_no_double() -> None:
    for arch in _tables.ARCHES:
        numbers = list(_tables.load().numbers[arch].values())
        assert len(numbers) == len(set(numbers))
        assert max(numbers) == 470
        assert set(range(424, 471)) <= set(numbers)


@pytest.mark.parametrize("arch", _tables.ARCHES)
def test_numbers_agree_with_libseccomp_where_it_knows_them(arch: str) -> None:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        pytest.skip("machine lacks: libseccomp")
    resolve = ctypes.CDLL(name).seccomp_syscall_resolve_name_arch
    token = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[arch]
    known = 0
    for call, nr in _tables.load().numbers[arch].items():
        theirs = resolve(ctypes.c_uint32(token), call.encode())
        if theirs >= 0:
            known += 1
            assert theirs == nr, call
    assert known > 300


def test_every_rule_and_group_has_reason_and_reference() -> None:
    tables = _tables.load()
    assert all(group.reason for group in tables.group.values())
    assert all(group.reference for group in tables.group.values())
    assert all(rule.reason for rule in tables.args.values())
    assert all(rule.reference for rule in tables.args.values())
    assert all(profile.reason for profile in tables.profile.values())


LAST: dict[str, Any] = {"then": "EPERM"}


def _case(**test: int) -> list[dict[str, Any]]:
    return [{"then": "allow", "test": [test]}, LAST]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("group socket errno", "ENOSUCH"),
        ("group socket syscalls", []),
        ("group io syscalls", ["read", "nosuchcall"]),
        ("group io reason", ""),
        ("profile python allow", ["io", "mount"]),
        ("profile python allow", ["no-such-group"]),
        ("args ioctl case", []),
        ("args ioctl case", _case(arg=1, **{"is": 1})[:1]),
        ("args ioctl case", [{"then": "allow", "notify": True}]),
        ("args ioctl case", [{"then": "EPERM", "profiles": ["python"]}]),
        ("args ioctl case", _case(arg=6, **{"is": 1})),
        ("args ioctl case", _case(arg=1)),
        ("args ioctl case", _case(arg=1, mask=1, **{"is": 2})),
        ("args ioctl case", _case(arg=1, mask=1 << 32, **{"is": 1 << 32})),
    ],
)
def test_contradictions_are_refused(where: str, value: object) -> None:
    raw: dict[str, Any] = msgspec.to_builtins(_tables.load())
    inner = raw
    *path, last = where.split()
    for key in path:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(ValueError, match=r"group|profile|args|exactly one"):
        _tables.check(msgspec.convert(raw, _tables.Tables))


def test_unknown_words_are_refused() -> None:
    raw: dict[str, Any] = msgspec.to_builtins(_tables.load())
    raw["group"]["io"]["verdict"] = "allow"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(raw, _tables.Tables)
