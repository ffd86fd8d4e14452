"""What happens in the middle of a call: deaths, forks of the host; and which CPUs a job may use."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import JobDied, sandbox

WAYS = ("import", "import and kill", "die", "many imports", "hang up", "half a frame")


def count_and_die(folder: str, how: str) -> int:
    """Runs in the job: leave a mark, then die in the middle of something."""
    import os
    import signal
    import struct
    import time

    with open(folder + "/ran", "a") as file:
        file.write("x")
    name = b"no_such_module_anywhere"
    ask = struct.pack("=IIQQ", 18, len(name), 0, 0) + name
    if how.startswith("import"):
        os.write(3, ask)
    if how == "import and kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "many imports":
        os.set_blocking(3, False)
        try:
            while True:
                os.write(3, ask)
        except BlockingIOError:
            pass
    if how == "hang up":
        os.close(3)
        time.sleep(0.2)
    if how == "half a frame":
        os.write(3, ask[:10])
    os._exit(1)


@pytest.mark.parametrize("how", WAYS)
def test_a_body_runs_at_most_once(how: str, scratch: Path) -> None:
    scratch.chmod(0o777)
    call = sandbox(write=[str(scratch)], timeout="20s")(count_and_die)
    for number in (1, 2):
        error = call.run(str(scratch), how).error
        assert isinstance(error, agentsbx.AgentsbxError)
        assert (scratch / "ran").read_text() == "x" * number
        if how in ("die", "import and kill"):
            assert isinstance(error, JobDied)


FORKS = """
import os, sys, threading, time
from agentsbx import sandbox

@sandbox(timeout="20s")
def slow(x, seconds):
    import time
    time.sleep(seconds)
    return x

answers = []
assert slow(0, 0) == slow(0, 0) == 0
threads = [threading.Thread(target=lambda i=i: answers.append(slow(i, 0.4))) for i in range(3)]
for thread in threads:
    thread.start()
time.sleep(0.15)
children = []
for number in range(2):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = 0 if [slow(number, 0), slow(7, 0)] == [number, 7] else 2
        finally:
            os._exit(code)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
for thread in threads:
    thread.join()
assert sorted(answers) == [0, 1, 2], answers
assert slow(5, 0) == 5
"""


def test_the_host_forks_in_mid_call() -> None:
    """Calls under way end in the parent; the children, whose locks nobody holds, have their own."""
    flags = ["-W", "ignore::DeprecationWarning"]  # 3.12: fork beside threads
    subprocess.run([sys.executable, *flags, "-c", FORKS], check=True, timeout=60)


def test_a_job_may_use_the_cpus_of_the_host() -> None:
    @sandbox(timeout="20s")
    def cpus() -> Any:
        import os

        return os.sched_getaffinity(0), os.cpu_count()

    here = os.sched_getaffinity(0), os.cpu_count()
    for _ in range(8):  # a waiting sandbox is tied to its caller's CPU until the call comes
        assert cpus() == here
        assert cpus.run().value == here
    done = agentsbx.run(["grep", "Cpus_allowed_list", "/proc/self/status"])
    own = next(
        line for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("Cpus_allowed_list")
    )  # fmt: skip
    assert done.text.strip() == own


PINNED = """
import os
from agentsbx import sandbox

@sandbox(timeout="20s")
def cpus():
    import os
    return os.sched_getaffinity(0)

one = {max(os.sched_getaffinity(0))}
os.sched_setaffinity(0, one)
for _ in range(4):
    assert cpus() == one
"""


def test_a_job_of_a_pinned_host_is_pinned() -> None:
    subprocess.run([sys.executable, "-c", PINNED], check=True, timeout=60)


def test_calls_from_threads_that_move_between_cpus() -> None:
    call = sandbox(timeout="20s")(lambda: len(os.sched_getaffinity(0)))
    seen: list[int] = []

    def work(cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread alone
        seen.extend(call() for _ in range(5))

    before = os.sched_getaffinity(0)
    assert call() == len(before)
    threads = [threading.Thread(target=work, args=(cpu,)) for cpu in sorted(before)[:4]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [len(before)] * 5 * len(threads)
