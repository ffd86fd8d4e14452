"""Real programs run under the default profile as if it were not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentsbx import _filter

HERE = Path(__file__).parent
WORKLOADS = sorted(path.name for path in (HERE / "workloads").glob("*.py"))


def _run(tmp_path: Path, bpf: bytes, script: Path) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "filter.bpf"
    path.write_bytes(bpf)
    return subprocess.run(
        [sys.executable, "-I", str(HERE / "filter_live.py"), str(path),
         sys.executable, str(script)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("profile", ["python", "build"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_workload_passes_under_the_filter(name: str, profile: str, tmp_path: Path) -> None:
    bpf = _filter.build_filter(profile, notify=False, ids=(1000, 1000))
    done = _run(tmp_path, bpf, HERE / "workloads" / name)
    if done.returncode == 77:
        pytest.skip("could not import numpy or pandas")
    assert done.returncode == 0, done.stderr[-3000:]


def test_strict_has_threads_but_no_processes(tmp_path: Path) -> None:
    script = tmp_path / "strict.py"
    script.write_text(
        "import errno, os, sys, threading\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import filter_live\n"
        "filter_live.load(open(sys.argv[2], 'rb').read())\n"
        "t = threading.Thread(target=int); t.start(); t.join()\n"
        "run, link = (lambda: os.execv('/bin/true', ['true'])), (lambda: os.link('a', 'b'))\n"
        "for call in (os.fork, run, link):\n"
        "    try: call()\n"
        "    except OSError as e: print(errno.errorcode[e.errno])\n"
    )
    path = tmp_path / "filter.bpf"
    path.write_bytes(_filter.build_filter("strict", notify=False))
    done = subprocess.run(
        [sys.executable, str(script), str(HERE), str(path)],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["EPERM", "EPERM", "ENOSYS"]
