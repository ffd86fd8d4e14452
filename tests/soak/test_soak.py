"""Memory, descriptors, processes stay flat under mixed calls; `./dev soak [SECONDS]` for longer."""

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
SECONDS = float(os.environ.get("AGENTSBX_SOAK_SECONDS", "4"))
SEED = int(os.environ.get("AGENTSBX_SOAK_SEED", "0")) or random.SystemRandom().randrange(1 << 31)
# How much the last quarter may have beyond the second: what is random (how many calls are in the
# middle of something), and for memory what the allocator keeps of it.
MORE = {"descriptors": 60, "helper_descriptors": 120, "processes": 3, "jobs": 25, "threads": 20,
        "groups": 20, "arenas_kb": 100_000, "host_kb": 12_000, "helpers_kb": 6_000}  # fmt: skip


@pytest.mark.alone
@pytest.mark.limit(120 + SECONDS)
def test_everything_stays_flat(box: Any) -> None:
    root = str(HERE.parents[1])
    path = [root] if os.path.isdir(f"{root}/agentsbx") else []
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, str(HERE / "soak.py"), str(SECONDS), str(SEED)],
        stdout=subprocess.PIPE, check=True, env=env,
    )  # fmt: skip
    report = json.loads(done.stdout)
    print(json.dumps(report, indent=1))
    assert not report["wrong"], "\n".join(report["wrong"])
    assert report["calls"] > SECONDS * 5
    assert len(report["done"]) > 10, report["done"]
    grown = {
        key: values
        for key, values in report["quarters"].items()
        if values[3] > values[1] + MORE[key] + (SECONDS < 60) * MORE[key]
    }
    assert not grown, grown
    assert report["left"] == {"descriptors": report["before"], "processes": 0}
