"""Where things lie, for the tests that hold the source tree to the laws of the design."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "agentsbx"


def need_checkout() -> None:
    """Leave when only the tests were copied (CI runs them against an installed wheel)."""
    if not CSRC.is_dir():
        pytest.skip("machine lacks: the source tree (an installed package is being tested)")
