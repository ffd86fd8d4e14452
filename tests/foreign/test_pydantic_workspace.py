"""The conformance suite of pydantic-ai's workspaces, unchanged, over a session: 38 rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("pydantic_ai.workspaces.conformance")

from pydantic_ai.workspaces.conformance import WorkspaceBackendSuite

from foreign.session_shims import Workspace


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


class TestWorkspace(WorkspaceBackendSuite):
    @pytest.fixture
    async def backend(self) -> AsyncIterator[Workspace]:  # type: ignore[override]
        made = Workspace()
        await made.working_dir()
        yield made
        await made.destroy()

    @pytest.fixture
    def fresh_backend(self) -> Callable[[], Any]:
        return Workspace

    @pytest.fixture
    def attach_backend(self) -> Callable[[Any], Any]:
        return Workspace

    @pytest.fixture
    def destroy_environment(self) -> Callable[[Any], Awaitable[None]]:
        return Workspace.destroy


def test_the_suite_has_not_shrunk() -> None:
    """What is counted are their rules: 38 of them, none of which is skipped here."""
    rules = [name for name in dir(WorkspaceBackendSuite) if name.startswith("test_")]
    assert len(rules) >= 38
