"""`Result`: outcome, short repr, summary table."""

from __future__ import annotations

import pytest

from agentsbx.errors import SandboxTimeout
from agentsbx.result import Exit, Limit, Result, Usage, Violation, format_limit


def test_unwrap_gives_the_value_or_raises_the_error() -> None:
    assert Result(value=3).unwrap() == 3
    with pytest.raises(KeyError):
        Result(error=KeyError("x")).unwrap()


def test_text_keeps_bytes_that_are_not_utf8_visible() -> None:
    result = Result(stdout=b"a\xff", stderr="ü".encode())
    assert (result.text, result.stderr_text) == ("a\\xff", "ü")


def test_repr_is_one_short_line() -> None:
    result = Result(
        error=SandboxTimeout("x" * 250),
        exit=Exit(signal=9, cause="timeout"),
        usage=Usage(wall_s=30.0, peak_memory_bytes=5_000_000),
    )
    shown = repr(result)
    assert shown.startswith("<Result error=SandboxTimeout(")
    assert "cause=timeout wall=30s memory=5MB" in shown
    assert len(shown) < 160
    assert len(repr(Result(value="y" * 10_000))) < 160


def test_summary_shows_limits_usage_and_denials() -> None:
    violation = Violation(
        operation="read", target="/x", denied_by="mount", message="no /x", count=2
    )
    limits = {
        "memory": Limit(name="memory", asked=512e6, enforced_by="cgroup", used=512e6, hit=True),
        "cpus": Limit(name="cpus"),
    }
    text = Result(
        value=1,
        limits=limits,
        violations=[violation],
        enforced={"files": "mounts"},
        lost=("sleep",),
    ).summary()
    assert "memory  512MB      512MB  cgroup       HIT" in text
    assert "cpus    unlimited  -      none" in text
    assert "2 x no /x" in text
    assert "sleep" in text
    assert "files  mounts" in text


def test_format_limit_uses_the_unit_of_the_limit() -> None:
    assert format_limit("cpu_time", 90.0) == "90s"
    assert format_limit("processes", 64) == "64"
    assert format_limit("cpus", 0.5) == "0.5"
    assert format_limit("memory", -1) == "unlimited"


def test_results_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Result().value = 1  # type: ignore[misc]
