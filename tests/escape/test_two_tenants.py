"""Two tenants at once on one template, each trying to reach the other: nothing crosses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from escape import tenants

# An ordinary user's tenants share what the kernel counts for that user with all tests beside them.
# What an attack leaves open in its job, Python warns of: it is the point here.
pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning")]
if os.geteuid():
    pytestmark.append(pytest.mark.alone)

# What two plain processes of one parent, user and file system do to each other.
CROSSES_UNCONFINED = (
    "signal the group",
    "renice the group",
    "ioprio of the group",
    "renice the user",
    "process table",
    "pending signals",
    "descriptors in flight",
    "pipe pages",
    "files",
    "memory",
    "listed processes",
    "signal by number",
    "inotify instances",
    "abstract sockets",
)


# unix(7), pipe(7): a user namespace has no counters of its own for these (see the threat model).
PER_HOST_UID = ("descriptors in flight", "pipe pages")


@pytest.mark.parametrize("how", CROSSES_UNCONFINED)
def test_plain_processes_reach_each_other(how: str, scratch: Path) -> None:
    scratch.chmod(0o777)
    if how == "renice the user" and os.geteuid() != 0:
        pytest.skip("machine lacks: root, for a user of its own that may be reniced")
    argv = [sys.executable, "-I", tenants.__file__, how, str(scratch / "stop")]
    done = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    try:
        out, _ = done.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(done.pid, signal.SIGKILL)
    answers = json.loads(out)
    crossed = answers["victim"] or answers["attack"]
    if how == "inotify instances" and not crossed:
        pytest.skip("machine lacks: a low fs.inotify.max_user_instances")
    if os.geteuid() != 0 and how == "process table" and not crossed:
        pytest.skip("machine lacks: a user of its own for the control")
    assert crossed, answers


@pytest.mark.parametrize("how", tenants.ATTACKS)
def test_nothing_crosses_between_two_tenants(how: str, box: Any, scratch: Path) -> None:
    if how in PER_HOST_UID and os.geteuid() != 0:
        pytest.skip("machine lacks: a host uid for each job; the kernel counts this for the uid")
    stop = scratch / "stop"
    policy = {
        "read": [str(scratch)],
        "memory": "128MB",
        "processes": 24,
        "disk": "16MB",
        "inodes": 1000,
        "timeout": "20s",
    }
    victim = box.sandbox(**policy)(tenants.victim)
    attack = box.sandbox(**policy)(tenants.attack)
    answers: dict[str, Any] = {}
    here = str(os.stat("/proc/self/ns/pid").st_ino)

    def call(name: str, function: Any, *args: str) -> None:
        answers[name] = function.run(*args)

    first = threading.Thread(target=call, args=("victim", victim, "", str(stop)))
    first.start()
    time.sleep(0.4)
    second = threading.Thread(target=call, args=("attack", attack, how, here))
    second.start()
    time.sleep(0.9)
    assert first.is_alive(), f"the victim ended early: {answers}"
    stop.touch()
    first.join()
    second.join()
    assert answers["victim"].value == [], answers["victim"]
    assert not answers["attack"].value, answers["attack"]


def big() -> bytes:
    """Runs in the job: a result that travels by memfd."""
    return bytes(3 << 20)


def test_big_results_come_back_while_a_tenant_hoards(box: Any) -> None:
    """Descriptors in flight are counted for the user, not for the job."""
    attack = box.sandbox(timeout="20s")(tenants.attack)
    fetch = box.sandbox(timeout="20s")(big)
    fetch()
    thread = threading.Thread(target=attack.run, args=("descriptors in flight", "0"))
    thread.start()
    time.sleep(0.5)
    try:
        for _ in range(5):
            assert len(fetch()) == 3 << 20
    finally:
        thread.join()
