"""Every technique works without the sandbox and fails in it, as a function and as a command."""

from __future__ import annotations

import pytest

import _machine as machine
from escape import harness

CASES = [(technique, route) for technique in harness.techniques() for route in technique.routes]
IDS = [f"{technique.name}[{route}]" if route else technique.name for technique, route in CASES]
every_technique = pytest.mark.parametrize(("technique", "route"), CASES, ids=IDS)


@every_technique
def test_works_unconfined(technique: harness.Technique, route: str, canary: dict[str, str]) -> None:
    outcome = harness.unconfined(technique, canary | {"route": route})
    assert outcome.broken is None, outcome.broken
    reason = technique.needs.get(route)
    if outcome.success is None and reason is not None:
        pytest.skip(f"machine lacks: {reason} ({outcome.stopped_by})")
    assert outcome.success, f"proves nothing: {outcome}"


def skip_without_wall(technique: harness.Technique, route: str) -> None:
    feature = technique.wall.get(route)
    reason = machine.lacks(feature) if feature else None
    if reason:
        pytest.skip(f"machine lacks: {feature} ({reason})")


@every_technique
def test_fails_in_sandbox(technique: harness.Technique, route: str, canary: dict[str, str]) -> None:
    skip_without_wall(technique, route)
    outcome = harness.sandboxed(technique, canary | {"route": route})
    assert outcome.success is None, outcome
    assert outcome.broken is None, outcome.broken
    assert outcome.stopped_by


@every_technique
def test_fails_in_command(technique: harness.Technique, route: str, canary: dict[str, str]) -> None:
    skip_without_wall(technique, route)
    outcome = harness.commanded(technique, canary | {"route": route})
    assert outcome.success is None, outcome
    assert outcome.broken is None, outcome.broken
    assert outcome.stopped_by
