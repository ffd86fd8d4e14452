"""The generator alone: first match wins for any rules, long jumps, refusals."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Callable, Sequence

import pytest
from filter_bpf import ALLOW, ARCH, ERRNO, KILL, M32, M64, NOTIFY, check_program, decode, run

from agentsbx import _filter

Compile = Callable[[bytes, int], bytes]
Cmp = tuple[int, int, int, int]
Rule = tuple[int, int, tuple[Cmp, ...]]
DEFAULT = ERRNO | 38
ACTIONS = (ALLOW, ERRNO | 1, ERRNO | 22, NOTIFY, KILL, DEFAULT)
NATIVE = ARCH[_filter.native_arch()]


def pack(rules: Sequence[Rule]) -> bytes:
    return b"".join(
        (
            struct.pack("=iIII", nr, action, len(cmps), 0)
            + b"".join(struct.pack("=IIQQ", *cmp) for cmp in cmps)
        ).ljust(112, b"\0")
        for nr, action, cmps in rules
    )


def refusal(compile_rules: Compile, rules: bytes, default: int = DEFAULT) -> int | None:
    """Return the errno that the compiler gives, or None."""
    try:
        compile_rules(rules, default)
    except OSError as error:
        return error.errno
    return None


def first_match(rules: Sequence[Rule], nr: int, args: Sequence[int]) -> int:
    if nr == 4095:
        return ERRNO | 33
    for rule_nr, action, cmps in rules:
        if rule_nr == nr and all(
            ((args[arg] & mask) == value) == (op == 0) for arg, op, mask, value in cmps
        ):
            return action
    return DEFAULT


def random_rules(dice: random.Random, numbers: int) -> list[Rule]:
    rules: list[Rule] = []
    masks = (M32, M64, 0xFF, 0xFFFFFFFF00000000, 0x1_0000_0001, 0xFFF7F7FF, 1 << 63)
    for nr in sorted(dice.sample(range(600), numbers)):
        mask, arg = dice.choice(masks), dice.randrange(6)
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            cmps = []
            for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 4))):
                if dice.random() < 0.4:
                    mask, arg = dice.choice(masks), dice.randrange(6)
                value = dice.choice((0, 1, 2, 3, 4, 5, M32, 1 << 32, 1 << 63, M64)) & mask
                cmps.append((arg, dice.randrange(2), mask, value))
            rules.append((nr, dice.choice(ACTIONS), tuple(cmps)))
    return rules


@pytest.mark.parametrize("seed", range(40))
def test_first_matching_rule_decides(seed: int, compile_rules: Compile) -> None:
    dice = random.Random(seed)
    rules = random_rules(dice, dice.choice((0, 1, 5, 60, 150)))
    program = decode(compile_rules(pack(rules), DEFAULT))
    check_program(program)
    values = [0, 1, 2, 3, 4, 5, M32, 1 << 32, (1 << 32) + 1, 1 << 63, M64, 0xFF, 0x800]
    for nr in range(601):
        for _ in range(12 if any(rule[0] == nr for rule in rules) else 1):
            args = [dice.choice(values) for _ in range(6)]
            assert run(program, nr, args, NATIVE) == first_match(rules, nr, args), (nr, args)


def test_programs_with_jumps_beyond_255_are_right(compile_rules: Compile) -> None:
    rules: list[Rule] = []
    for nr in range(0, 600, 2):
        rules.append((nr, ERRNO | (nr % 97 + 1), ((nr % 6, 0, M64, nr * 0x1_0000_0001),)))
        rules.append((nr, ALLOW, ((0, 1, M32, nr),)))
    program = decode(compile_rules(pack(rules), DEFAULT))
    check_program(program)
    assert len(program) > 2000
    assert any(code == 0x05 for code, *_ in program)
    for nr in range(601):
        for value in (0, nr, nr * 0x1_0000_0001, M64):
            args = [value] * 6
            assert run(program, nr, args, NATIVE) == first_match(rules, nr, args)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 249, 250, 251, 600, 1500])
def test_lists_of_any_length(count: int, compile_rules: Compile) -> None:
    wanted = [value * 3 for value in range(count)]
    rules: list[Rule] = [(16, ALLOW, ((1, 0, M32, value),)) for value in wanted]
    rules.append((16, ERRNO | 25, ()))
    program = decode(compile_rules(pack(rules), DEFAULT))
    check_program(program)
    for value in range(3 * count + 3):
        expected = ALLOW if value in wanted else ERRNO | 25
        assert run(program, 16, [0, value], NATIVE) == expected


def test_runs_of_values_become_ranges(compile_rules: Compile) -> None:
    rules: list[Rule] = [
        (16, ALLOW, ((1, 0, M32, value),)) for value in (0, 1, 2, 3, 9, 10, 20, 21, 22, M32)
    ]
    program = decode(compile_rules(pack(rules), DEFAULT))
    for value in (*range(30), M32 - 1, M32):
        expected = ALLOW if value in (0, 1, 2, 3, 9, 10, 20, 21, 22, M32) else DEFAULT
        assert run(program, 16, [0, value | 7 << 32], NATIVE) == expected


def test_too_big_a_program_is_refused(compile_rules: Compile) -> None:
    rules: list[Rule] = [(nr, ERRNO | (nr % 4094 + 1), ()) for nr in range(4090)]
    assert refusal(compile_rules, pack(rules)) == errno.E2BIG


GOOD: Rule = (1, ALLOW, ((0, 0, M32, 1),))


@pytest.mark.parametrize(
    "rules",
    [
        [(-1, ALLOW, ())],
        [(4095, ALLOW, ())],
        [(5000, ALLOW, ())],
        [(2, ALLOW, ()), (1, ALLOW, ())],
        [GOOD, (-2, 0xC000003E, ())],
        [(-2, 0x40000003, ())],
        [(1, 0x7FF00000, ())],  # RET_TRACE
        [(1, 0x00030000, ())],  # RET_TRAP
        [(1, ERRNO, ())],  # errno 0 would be a success that did nothing
        [(1, ERRNO | 4096, ())],
        [(1, ALLOW, ((6, 0, M32, 1),))],
        [(1, ALLOW, ((0, 2, M32, 1),))],
        [(1, ALLOW, ((0, 0, 0, 0),))],
        [(1, ALLOW, ((0, 0, 0xF0, 0x0F),))],
    ],
)
def test_malformed_rules_are_refused(rules: list[Rule], compile_rules: Compile) -> None:
    assert refusal(compile_rules, pack(rules)) == errno.EINVAL


@pytest.mark.parametrize("action", [0x7FF00000, 0x00030000, ERRNO, 5])
def test_malformed_default_is_refused(action: int, compile_rules: Compile) -> None:
    assert refusal(compile_rules, pack([GOOD]), action) == errno.EINVAL
