"""Shipped policies."""

from __future__ import annotations

import pytest

from agentsbx import presets
from agentsbx.errors import PolicyError
from agentsbx.policy import Limits, Policy


def test_default_file_equals_the_default_policy() -> None:
    written = Policy.from_file(presets.path("default"))
    assert written.limits == Limits()
    assert written.extend(timeout=None).narrow() == written
    assert not written.differences(Policy())
    assert not Policy().differences(written)


def test_python_is_another_name_of_default() -> None:
    assert presets.preset("python") == presets.preset("default") == Policy()


@pytest.mark.parametrize("name", presets.names())
def test_code_may_widen_a_preset(name: str) -> None:
    assert presets.preset(name).extend(timeout="20m").limits.timeout == 1200


def test_strict_enforces_at_least_the_default_and_build_does_not() -> None:
    assert presets.preset("strict").contains(Policy())
    assert not presets.preset("build").contains(Policy())


def test_strict_is_small() -> None:
    strict = presets.preset("strict")
    assert (strict.profile, strict.limits.processes, strict.limits.memory) == (
        "strict",
        16,
        256 * 10**6,
    )
    assert presets.preset("strict") is strict


def test_unknown_preset_is_suggested() -> None:
    with pytest.raises(PolicyError, match=r"did you mean 'strict'.*a file is written with /"):
        presets.preset("srict")
