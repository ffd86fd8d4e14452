"""Tools of libraries that nobody here wrote, as they stand there, mean the same under `sandbox`.

Needs the packages of `requirements.txt`: `./dev foreign` runs this in an environment of its own.
Elsewhere each package that is not installed is a skip that says so.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentsbx import sandbox
from contract.tree import ROOT, need_checkout
from foreign.outcomes import Outcome, lay_out, outcome, prepare, rules_of, same
from foreign.page import pinned, table
from foreign.tool_rows import ENVIRONMENT, ROWS, Row

pytestmark = [
    pytest.mark.needs("userns"),
    pytest.mark.filterwarnings("ignore"),  # the libraries' own
    pytest.mark.limit(180),
]
PINNED = pinned()
# Packages that are small and import nothing else: also run as code of the project.
VENDORED = (
    "more-itertools",
    "toolz",
    "smolagents",
    "langchain-text-splitters",
    "sqlite-utils",
    "mcp-server-time",
)


@functools.cache
def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def need(package: str) -> None:
    if version_of(package) is None:
        pytest.skip(f"machine lacks: module:{package} (not installed; ./dev foreign has it)")


@pytest.fixture(autouse=True)
def here(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the row's folder, which is the working directory."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(scratch)
    return scratch


def both(row: Row, here: Path) -> tuple[Outcome, Outcome]:
    """Return what the plain call gives and what the sandboxed one gives, each in a fresh folder."""
    lay_out(here)
    plain = outcome(*prepare(row, here), here)
    lay_out(here)
    tool, args, kwargs = prepare(row, here)

    def boxed(*a: Any, **k: Any) -> Any:
        return sandbox(**rules_of(row, here))(tool)(*a, **k)

    return plain, outcome(boxed, args, kwargs, here)


@pytest.mark.parametrize("row", [r for r in ROWS if not r.differs], ids=lambda r: r.name)
def test_a_tool_gives_what_it_gives_unsandboxed(row: Row, here: Path) -> None:
    """The same value of the same type, or the same exception, and the same files."""
    need(row.package)
    plain, boxed = both(row, here)
    assert type(boxed.error) is type(plain.error), (plain.said, boxed.said)
    assert same(plain.seen_by(row), boxed.seen_by(row)), (plain.said, boxed.said)
    assert boxed.files == plain.files


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.rules and not r.differs], ids=lambda r: r.name
)
def test_a_rule_is_there_because_it_is_needed(row: Row, here: Path) -> None:
    """Without it the call means something else, or says what was denied."""
    need(row.package)
    lay_out(here)
    plain = outcome(*prepare(row, here), here)
    lay_out(here)
    tool, args, kwargs = prepare(row, here)
    bare = outcome(lambda *a, **k: sandbox(tool)(*a, **k), args, kwargs, here)
    if bare.error is None and plain.error is None and plain.files == bare.files:
        assert not same(plain.seen_by(row), bare.seen_by(row))


@pytest.mark.parametrize("row", [r for r in ROWS if r.differs], ids=lambda r: r.name)
def test_what_cannot_be_the_same_is_known(row: Row, here: Path) -> None:
    """And is an error that says why, or what the row says."""
    need(row.package)
    plain, boxed = both(row, here)
    assert boxed.said.startswith(row.differs)
    assert not plain.said.startswith(row.differs)


@pytest.mark.parametrize("package", VENDORED)
def test_a_package_copied_into_the_project_means_the_same(package: str, here: Path) -> None:
    """Then its code travels by value, with all that it refers to."""
    need(package)
    argv = [sys.executable, "-m", "foreign.vendored", package, str(here)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here / "vendor"), *sys.path])}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_the_table_is_large_enough_and_pinned() -> None:
    """The bar: forty functions of six packages."""
    assert {row.package for row in ROWS} <= PINNED.keys()
    same_rows = [row for row in ROWS if not row.differs]
    assert len({(row.module, row.tool) for row in same_rows}) >= 40
    assert len({row.package for row in same_rows}) >= 6


def test_the_installed_versions_are_the_pinned_ones() -> None:
    found = {package: version_of(package) for package in PINNED}
    if None in found.values():
        pytest.skip("machine lacks: module:foreign (not installed; ./dev foreign has it)")
    assert found == PINNED


def test_the_page_has_the_table() -> None:
    """docs/explanation/foreign-programs.md, written by `python tests/foreign/page.py`."""
    need_checkout()
    text = (ROOT / "docs/explanation/foreign-programs.md").read_text()
    assert table() in text, "run: python tests/foreign/page.py"
