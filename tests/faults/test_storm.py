"""Whatever dies or runs out under a call, it ends in a value or a typed error, and nothing stays.

`./dev faults [N]` makes N calls (10,000); the suite a few hundred in all.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CALLS = int(os.environ.get("AGENTSBX_FAULTS_CALLS", "0"))
SEED = int(os.environ.get("AGENTSBX_FAULTS_SEED", "0")) or random.SystemRandom().randrange(1 << 31)

pytestmark = [pytest.mark.alone, pytest.mark.limit(60 + CALLS)]


def run(script: str, *words: object) -> dict[str, Any]:
    root = str(HERE.parents[1])
    path = [root] if os.path.isdir(f"{root}/agentsbx") else []
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, str(HERE / script), *map(str, words)],
        stdout=subprocess.PIPE, check=True, env=env,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(report, indent=1))
    return report


def test_storm_of_faults(box: Any) -> None:
    report = run("storm.py", CALLS or 150, SEED)
    assert not report["wrong"], "\n".join(report["wrong"])
    assert set(report["next"]) == {"value"}, report
    assert report["after"] == report["before"], report
    assert sum(report["ends"].values()) >= report["calls"]
    assert len(report["faults"]) > 4, f"too little was done: {report}"
    assert report["ends"].get("value", 0) > report["calls"] / 10, "hardly a call went well"


@pytest.mark.parametrize("fault", ["zygote", "supervisor", "files"])
def test_storm_of_one_kind(box: Any, fault: str) -> None:
    """The rare ones, so often that they meet each other and every step of a start."""
    report = run("storm.py", max(CALLS // 20, 50), SEED, fault)
    assert not report["wrong"], "\n".join(report["wrong"])
    assert set(report["next"]) == {"value"}, report
    assert report["after"] == report["before"], report
    assert report["faults"], "nothing was done"


def test_interrupts_leave_no_descriptor_and_no_place_behind(box: Any) -> None:
    report = run("interrupts.py", max(CALLS // 5, 250))
    assert not report["strange"], report["strange"]
    assert report["interrupted"] > report["calls"] / 10, "Ctrl-C came too rarely"
    assert report["after"] <= report["before"] + 1, report
    assert (report["places"], report["stuck"]) == (0, 0), report


def test_first_calls_at_once_start_one_of_each(box: Any) -> None:
    for _ in range(3):
        report = run("first_use.py")
        assert report["values"] == list(range(1, 11))
        assert report["started"] == [1, 1, 1], report
        assert report["after"] == report["before"], report
