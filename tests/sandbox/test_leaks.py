"""A thousand calls, with crashes, timeouts and daemons among them, leave nothing behind.

Source: conventions.md (contract tests: leaks), design.md section 8.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest

from sandbox import watching

pytestmark = pytest.mark.alone


def work(kind: str) -> Any:
    """Runs in the job."""
    import os
    import signal
    import subprocess
    import tempfile
    import time

    if kind == "crash":
        os._exit(3)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGSEGV)
        os.kill(1, signal.SIGKILL)
        os._exit(1)
    if kind == "raise":
        raise ValueError("x")
    if kind == "timeout":
        time.sleep(30)
    if kind == "daemon" and os.fork() == 0:
        os.setsid()
        time.sleep(100)
        os._exit(0)
    if kind == "files":
        for _ in range(20):
            tempfile.mkdtemp()
            os.memfd_create("left", 8)
    if kind == "big":
        return bytes(2 << 20)
    if kind == "children":
        subprocess.Popen(["sleep", "100"])
    if kind == "output":
        print("x" * 100000)
    return kind


KINDS = ["plain"] * 5 + ["crash", "killed", "raise", "daemon", "files", "big", "children", "output"]


def _groups() -> list[str]:
    """Return the control groups of our own helpers: other tests run beside this one."""
    own = [f"-{pid}-" for pid in watching.tree(os.getpid())]
    return [name for name in watching.cgroups() if any(pid in name for pid in own)]


def _picture() -> dict[str, Any]:
    return {
        "descriptors": watching.descriptors(),
        "processes": len(watching.tree(os.getpid())),
        "cgroups": len(_groups()),
        "mounts": watching.mounts(),
        "files": watching.temporary_files(),
        "memory": watching.resident_kb(os.getpid()),
        "helpers": sum(watching.resident_kb(pid) for pid in watching.helpers(os.getpid())),
    }


@pytest.mark.limit(400)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of what its jobs leave behind
def test_a_thousand_calls_leave_nothing_behind(box: Any, scratch: Path) -> None:
    call = box.sandbox(timeout="10s")(work)
    short = box.sandbox(timeout="50ms", write=[str(scratch)])(work)

    def run(number: int) -> None:
        kind = KINDS[number % len(KINDS)]
        result = call.run(kind)
        if kind in ("plain", "files", "daemon", "children"):
            assert result.value == kind, result
        elif kind == "big":
            assert result.error is None, result
            assert len(result.value) == 2 << 20
        elif kind == "output":
            assert len(result.stdout) == 100001
        else:
            assert result.error is not None
        if number % 50 == 0:
            assert isinstance(short.run("timeout").error, box.SandboxTimeout)
            box.run(["sh", "-c", "sleep 100 & true"])

    for number in range(150):  # pools and caches reach their size
        run(number)
    before = _picture()
    for number in range(1000):
        run(number)
    assert watching.eventually(
        lambda: len(watching.tree(os.getpid())) <= before["processes"] + 4
    ), watching.alive(watching.tree(os.getpid()))
    after = _picture()
    assert after["descriptors"] <= before["descriptors"] + 6, (before, after)
    assert after["cgroups"] <= before["cgroups"] + 4, (before, after)
    assert after["mounts"] == before["mounts"]
    assert after["files"] <= before["files"]
    assert after["memory"] <= before["memory"] + 6000, (before, after)
    assert after["helpers"] <= before["helpers"] + 2000, (before, after)


@pytest.mark.limit(200)
def test_a_hundred_functions_leave_nothing_behind(box: Any) -> None:
    """Decorating anew, as a notebook cell does, gives back what it took."""

    def run(number: int) -> None:
        def body() -> int:
            return number

        assert box.sandbox(body)() == number

    def settle() -> None:
        gc.collect()
        run(0)  # pools of functions that are gone go when the next is made

    for number in range(60):
        run(number)
    settle()
    before = _picture()
    for number in range(120):
        run(number)
    settle()
    assert watching.eventually(lambda: len(watching.tree(os.getpid())) <= before["processes"] + 6)
    after = _picture()
    assert after["descriptors"] <= before["descriptors"] + 20, (before, after)
    assert after["memory"] <= before["memory"] + 6000, (before, after)


def test_shutdown_gives_everything_back(box: Any) -> None:
    call = box.sandbox(work)
    call("plain")
    groups = watching.cgroups()
    ours = watching.helpers(os.getpid())
    assert ours
    box.shutdown()
    assert watching.eventually(lambda: not watching.alive(ours)), watching.alive(ours)
    mine = {name for name in groups if f"agentsbx-{os.getpid()}-" in name}
    assert watching.eventually(lambda: not (watching.cgroups() & mine)), watching.cgroups() & mine
    assert call("plain") == "plain"
