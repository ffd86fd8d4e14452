"""What some foreign tools are given: in place of a service, or as their users would have it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["Balance", "repository"]


class Balance:
    """The database of a bank with one customer."""

    async def customer_balance(self, *, id: int) -> float:  # noqa: A002  # as the example has it
        """Return what the customer has."""
        return 100.0 + id


def repository(here: Path) -> Any:
    """Make a git repository with one commit, the same each time."""
    import git

    when = {"GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z"}
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for words in (("init", "-q", "-b", "main"), ("add", "."), (*who, "commit", "-qm", "first")):
        subprocess.run(["git", *words], cwd=here, env={**os.environ, **when}, check=True)
    (here / "notes.txt").write_text("changed\n")
    return git.Repo(here)
