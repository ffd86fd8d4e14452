"""A simulator of classic BPF as seccomp uses it, and the meaning of the tables, written apart from
the code that compiles them: `meaning` reads the TOML directly."""

from __future__ import annotations

import errno
import struct
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import agentsbx._tables as tables_module

ALLOW, KILL, NOTIFY, ERRNO = 0x7FFF0000, 0x80000000, 0x7FC00000, 0x00050000
X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003
ARCH = {"x86_64": X86_64, "aarch64": AARCH64}
M32, M64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
DATA = Path(tables_module.__file__).parent / "data"

LD_W_ABS, AND_K, RET_K = 0x20, 0x54, 0x06
JA, JEQ, JGT, JGE, JSET = 0x05, 0x15, 0x25, 0x35, 0x45


def decode(program: bytes) -> list[tuple[int, int, int, int]]:
    assert len(program) % 8 == 0
    assert 0 < len(program) // 8 <= 4096
    return list(struct.iter_unpack("=HBBI", program))


def run(
    program: Sequence[tuple[int, int, int, int]], nr: int, args: Sequence[int], arch: int
) -> int:
    """Return the SECCOMP_RET_* value; every instruction that seccomp would refuse is an error."""
    padded = [value & M64 for value in (*args, *[0] * (6 - len(args)))]
    data = struct.pack("<IIQ6Q", nr & M32, arch, 0x7F0000001234, *padded)
    accumulator = pc = 0
    while True:
        code, jt, jf, k = program[pc]
        pc += 1
        if code == LD_W_ABS:
            assert k % 4 == 0
            assert k + 4 <= len(data)
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == AND_K:
            accumulator &= k
        elif code == RET_K:
            return k
        elif code == JA:
            pc += k
        elif code in (JEQ, JGT, JGE, JSET):
            truth = {
                JEQ: accumulator == k,
                JGT: accumulator > k,
                JGE: accumulator >= k,
                JSET: bool(accumulator & k),
            }[code]
            pc += jt if truth else jf
        else:
            raise AssertionError(f"instruction {code:#x} at {pc - 1}")


def check_program(program: Sequence[tuple[int, int, int, int]]) -> None:
    """What the kernel's checker asks: jumps stay inside, the last instruction returns."""
    for pc, (code, jt, jf, k) in enumerate(program):
        if code == JA:
            assert pc + 1 + k < len(program)
        elif code in (JEQ, JGT, JGE, JSET):
            assert pc + 1 + max(jt, jf) < len(program)
    assert program[-1][0] == RET_K


def depth(program: Sequence[tuple[int, int, int, int]], nr: int, arch: int) -> int:
    """Return how many instructions run for a call with zero arguments."""
    data = struct.pack("<IIQ6Q", nr, arch, 0, *[0] * 6)
    accumulator = pc = count = 0
    while True:
        code, jt, jf, k = program[pc]
        pc += 1
        count += 1
        if code == RET_K:
            return count
        if code == LD_W_ABS:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == AND_K:
            accumulator &= k
        elif code == JA:
            pc += k
        else:
            pc += jt if (accumulator == k if code == JEQ else accumulator >= k) else jf


class Meaning:
    """The verdict that the TOML files promise."""

    def __init__(self, arch: str) -> None:
        raw = tomllib.loads((DATA / "syscalls.toml").read_text())
        self.arch = arch
        self.groups: dict[str, Any] = raw["group"]
        self.profiles: dict[str, Any] = raw["profile"]
        self.args: dict[str, Any] = tomllib.loads((DATA / "args.toml").read_text())
        self.numbers: dict[str, int] = {}
        column = 1 + ["x86_64", "aarch64"].index(arch)
        for line in (DATA / "numbers.csv").read_text().splitlines():
            fields = line.split(",")
            if not line.startswith("#") and fields[column]:
                self.numbers[fields[0]] = int(fields[column])
        self.names = {nr: name for name, nr in self.numbers.items()}
        self.group_of = {n: g for g, group in self.groups.items() for n in group["syscalls"]}

    def verdict(
        self,
        profile: str,
        nr: int,
        args: Sequence[int],
        *,
        notify: bool = True,
        extra: Sequence[str] = (),
        seal: bool = False,
    ) -> int:
        if nr == 4095:
            return ERRNO | errno.EDOM
        if self.arch == "x86_64" and 0x40000000 <= nr < M32:
            return KILL
        name = self.names.get(nr)
        if name is None:
            return ERRNO | errno.ENOSYS
        group = self.groups[self.group_of[name]]
        if self.group_of[name] not in self.profiles[profile]["allow"] and name not in extra:
            return self._answer(group.get("errno", "ENOSYS"), notify and group.get("notify", False))
        if name not in self.args:
            return ALLOW
        for case in self.args[name]["case"]:
            if profile not in case.get("profiles", [profile]):
                continue
            if case.get("option") == "terminal":  # sessions only: tests/sandbox/test_session.py
                continue
            if case.get("option") == "memfd_noexec_seal" and not seal:
                continue
            if case.get("only_notify") and not notify:
                continue
            if all(self._holds(test, args) for test in case.get("test", [])):
                return self._answer(case["then"], notify and case.get("notify", False))
        raise AssertionError(f"{name}: no case")

    @staticmethod
    def _answer(then: str, notify: bool) -> int:
        if then == "allow":
            return ALLOW
        return NOTIFY if notify else ERRNO | int(getattr(errno, then))

    @staticmethod
    def _holds(test: dict[str, Any], args: Sequence[int]) -> bool:
        value = (args[test["arg"]] if test["arg"] < len(args) else 0) & M64
        value &= M64 if test.get("long") else test.get("mask", M32)
        if "isnt" in test:
            return bool(value != test["isnt"])
        wanted = test["is"]
        return value in (wanted.values() if isinstance(wanted, dict) else (wanted,))
