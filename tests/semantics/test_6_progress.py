"""`fn.map(..., progress=)`: what a terminal shows, and what others do not."""

from __future__ import annotations

import io
import sys
import time
from types import SimpleNamespace

import pytest

from agentsbx import _progress, sandbox


class Terminal(io.StringIO):
    """Standard error that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("rich", "rich.progress", "rich.console"):
        monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
    stream = Terminal()
    # Not sys.stderr itself: pytest puts its own there between a fixture and its test.
    monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=stream))
    return stream


@sandbox(output="capture")
def half(x: int) -> int:
    if x % 2:
        raise ValueError(x)
    return x // 2


def test_progress_counts_to_the_total_and_ends_its_line(terminal: Terminal) -> None:
    assert list(half.map([2, 4, 6], progress=True)) == [1, 2, 3]
    shown = terminal.getvalue()
    assert shown.endswith("\r\x1b[Khalf: 3/3\n")
    assert shown.count("\n") == 1


def test_progress_says_what_failed_and_ends_with_the_error(terminal: Terminal) -> None:
    with pytest.raises(ValueError, match="1"):
        list(half.map(iter([1]), progress="halving"))
    assert terminal.getvalue().endswith("\r\x1b[Khalving: 1, 1 failed\n")


def test_progress_of_an_abandoned_loop_counts_the_cancelled(terminal: Terminal) -> None:
    @sandbox(output="capture", timeout="60s")
    def waits(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    values = waits.map([0, 50, 50], progress=True)
    assert next(values) == 0
    del values
    assert terminal.getvalue().endswith("waits: 1/3, 2 cancelled\n")


def test_progress_shows_nothing_where_there_is_no_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = io.StringIO()
    monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=plain))
    assert list(half.map([2], progress=True)) == [1]
    monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=terminal))
    assert list(half.map([2])) == [1]
    assert plain.getvalue() == terminal.getvalue() == ""


def test_progress_by_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich", reason="machine lacks: the package rich")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(ValueError, match="1"):
        list(half.map([2, 1], progress="[halving]"))
    shown = stream.getvalue()
    assert "[halving]" in shown
    assert "1 failed" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


def test_progress_is_a_flag_or_a_label() -> None:
    with pytest.raises(TypeError, match="progress=3"):
        half.map([1], progress=3)  # type: ignore[arg-type]
