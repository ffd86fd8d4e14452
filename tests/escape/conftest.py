"""The things on the host that the attacks reach for. Every one is made by the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from escape import world as world_module


@pytest.fixture(scope="session")
def world() -> Iterator[world_module.World]:
    """Yield the canaries, alive for the whole session."""
    made = world_module.World()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def canary(world: world_module.World) -> dict[str, str]:
    """Yield what an attack is told about its targets; the grants are as new."""
    return world.reset()
