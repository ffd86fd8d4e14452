"""pytest fixtures of agentsbx; loaded by every pytest run, so it imports nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

__all__ = ["sandbox_local"]


@pytest.fixture
def sandbox_local() -> Iterator[None]:
    """Run sandboxed calls in this process, unconfined, and check all that would cross.

    See `agentsbx.testing.local`.
    """
    from agentsbx.testing import local

    with local():
        yield
