"""Fixtures and markers that the whole suite shares.

`@pytest.mark.needs("landlock>=4", "root")` skips a test on a machine that lacks what it names, and
the skip says so ("machine lacks: ..."). With AGENTSBX_NO_SKIP=1 every other skip is a failure: a
test may then not excuse itself on a machine that has the feature.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import _machine as machine

LACKS = "machine lacks: "
TEST_TIMEOUT_S = 120.0


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "needs(*features): skip where the machine lacks a feature")
    config.addinivalue_line("markers", "limit(seconds): fail a test that takes longer")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, visibly, what this machine cannot do."""
    for marker in item.iter_markers("needs"):
        for feature in marker.args:
            reason = machine.lacks(feature)
            if reason is not None:
                pytest.skip(f"{LACKS}{feature} ({reason})")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Under AGENTSBX_NO_SKIP=1, turn a skip that no missing feature explains into a failure."""
    outcome: Any = yield
    report = outcome.get_result()
    if os.environ.get("AGENTSBX_NO_SKIP") != "1" or not report.skipped:
        return
    if hasattr(report, "wasxfail"):
        return
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if LACKS not in text and "could not import" not in text:
        report.outcome = "failed"
        report.longrepr = f"AGENTSBX_NO_SKIP=1 and skipped all the same: {text}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Interrupt a test that hangs, so that one hole does not hide the others."""
    marker = item.get_closest_marker("limit")
    seconds = float(marker.args[0]) if marker else TEST_TIMEOUT_S

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def make_scratch() -> Iterator[Callable[[str], Path]]:
    """Make directories that every user may enter: pytest's own are closed to other users, and a
    sandbox that root starts runs as another one."""
    made: list[Path] = []

    def make(name: str = "scratch") -> Path:
        path = Path(tempfile.mkdtemp(prefix=f"scratch-agentsbx-{name}-"))
        path.chmod(0o755)
        made.append(path)
        return path

    yield make
    for path in made:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def scratch(make_scratch: Callable[[str], Path]) -> Path:
    """Yield one directory that sandboxes of root and of an ordinary user can be granted."""
    return make_scratch("scratch")


@functools.cache
def _agentsbx() -> Any:
    import agentsbx

    return agentsbx


@pytest.fixture
def box() -> Any:
    """Yield the package; skip where this machine cannot run a sandbox at all."""
    return _agentsbx()
