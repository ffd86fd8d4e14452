"""agentsbx inside agentsbx: the suite runs in a sandbox, and calls in there are walled or refused.

A job may not make namespaces, so nothing but a tier without them can work in there. Where calls run
the core part runs too; where they are refused, that is at once, whole and with a reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import agentsbx

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(agentsbx.__file__).resolve().parents[1]
pytestmark = pytest.mark.needs("linux")

INNER = """
import json, time
import agentsbx
@agentsbx.sandbox
def add(a, b):
    return a + b
start, found = time.monotonic(), {}
try:
    found["result"] = add(1, 2)
except agentsbx.SandboxUnavailable as error:
    found |= {"text": str(error), "stage": error.stage, "hint": error.hint}
found["seconds"] = time.monotonic() - start
print(json.dumps(found))
"""


def inside(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this interpreter by `agentsbx run`, with the checkout to read."""
    variables = {"PYTHONPATH": f"{PACKAGE}{os.pathsep}{ROOT / 'tests'}", **env}
    flags = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    grants = [word for place in {PACKAGE, ROOT} for word in ("--read", str(place))]
    argv = [sys.executable, "-m", "agentsbx", "run", *grants, *flags, "--memory", "1GB"]
    argv += ["--timeout", "100s", "--processes", "200", "--", sys.executable, *command]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=110, check=False, cwd="/",
        env=os.environ | {"PYTHONPATH": variables["PYTHONPATH"]},
    )  # fmt: skip


def call_inside() -> dict[str, object]:
    done = inside("-c", INNER)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_call_in_a_sandbox_runs_or_is_refused_at_once() -> None:
    found = call_inside()
    assert float(str(found["seconds"])) < 20
    if "result" in found:
        assert found["result"] == 3
        return
    assert found["stage"] in ("userns", "namespaces", "proc", "landlock", "seccomp")
    assert "filter refuses it" in str(found["text"])
    assert found["hint"]


def test_the_same_program_calls_outside() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INNER], capture_output=True, text=True, timeout=60, check=True,
        env=os.environ | {"PYTHONPATH": str(PACKAGE)},
    )  # fmt: skip
    assert json.loads(done.stdout)["result"] == 3


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(("tests/unit/test_policy.py", "tests/unit/test_errors.py"), id="no calls"),
        pytest.param(
            ("tests/sandbox/test_results.py", "tests/sandbox/test_quick_call.py"), id="calls"
        ),
    ],
)
def test_parts_of_the_suite_pass_in_a_sandbox(part: tuple[str, ...]) -> None:
    if not (ROOT / "tests/unit").is_dir():
        pytest.skip("machine lacks: a checkout")
    if "sandbox" in part[0] and "result" not in call_inside():
        pytest.skip("machine lacks: a tier that works in a job (no namespaces there)")
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        f"--rootdir={ROOT}",
        "-m",
        "not alone",
    ]
    paths = [str(ROOT / name) for name in part]
    # The working directory cannot be written to, and hypothesis keeps examples there.
    home = {"HYPOTHESIS_STORAGE_DIRECTORY": "/sandbox/home/.hypothesis"}
    done = inside("-m", "pytest", *options, *paths, **home)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
