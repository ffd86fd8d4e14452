"""mypy --strict and pyright accept the usage that is right and refuse what is marked `# E:`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

USAGE = Path(__file__).with_name("typing_usage.py")
ROOT = USAGE.parents[2]


def expected() -> set[int]:
    lines = USAGE.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if "# E:" in line}


@pytest.mark.slow
def test_mypy_strict(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--output", "json"),
            *("--follow-imports", "silent", "--cache-dir", str(tmp_path), str(USAGE)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    errors = {m["line"] for m in messages if m["severity"] == "error"}
    assert errors == expected(), done.stdout + done.stderr


@pytest.mark.slow
def test_pyright() -> None:
    pyright = shutil.which("pyright") or shutil.which(
        "pyright", path=str(Path(sys.executable).parent)
    )
    if pyright is None:
        pytest.skip("machine lacks: pyright")
    done = subprocess.run(
        [pyright, "--outputjson", "--pythonpath", sys.executable, str(USAGE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    if not done.stdout.startswith("{"):
        pytest.skip(f"machine lacks: pyright that runs ({done.stderr[:100]})")
    messages = json.loads(done.stdout)["generalDiagnostics"]
    errors = {m["range"]["start"]["line"] + 1 for m in messages if m["severity"] == "error"}
    assert errors == expected(), json.dumps(messages, indent=1)
