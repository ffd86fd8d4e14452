"""Semantics section 2: arguments."""

from __future__ import annotations

from typing import Any

import pytest

from agentsbx import sandbox

_MISSING = object()


@sandbox
def default_identity(x: Any = _MISSING, *, y: Any = _MISSING) -> tuple[bool, bool]:
    return x is _MISSING, y is _MISSING


@sandbox
def shared(a: list[Any], b: Any, *, key: Any = None) -> tuple[bool, bool, bool]:
    return a is b, key is a, a[0] is a


def test_2_1_defaults_keep_their_identity() -> None:
    assert default_identity() == (True, True)
    assert default_identity(1) == (False, True)
    assert default_identity(y=None) == (True, False)


def test_2_1_shared_references_and_cycles_stay_shared() -> None:
    a: list[Any] = []
    a.append(a)
    assert shared(a, a, key=a) == (True, True, True)
    assert shared(a, [a]) == (False, False, True)


@pytest.mark.parametrize("n", [10, 1_000_000])
def test_2_2_buffers_are_writable_and_changes_stay_private(n: int) -> None:
    numpy = pytest.importorskip("numpy")

    @sandbox
    def f(array: Any, raw: bytearray) -> Any:
        array[0] = 7
        raw[0] = 8
        return array, raw

    array, raw = numpy.zeros(n), bytearray(n)
    back, raw_back = f(array, raw)
    assert (array[0], raw[0]) == (0, 0)
    assert (back[0], raw_back[0]) == (7, 8)
    back[1] = 9  # writable on this side too
    raw_back[1] = 9
    again, _ = f(array, raw)
    assert again[1] == 0
