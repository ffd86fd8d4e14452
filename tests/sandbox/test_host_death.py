"""The host is killed: no user instruction 100 ms later, and nothing stays.

Source: design.md section 8, "host killed by SIGKILL"; security.md section 3 row "supervisor dies".
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import watching

pytestmark = pytest.mark.alone

HOST = """
import sys, threading
import agentsbx

place, how = sys.argv[1:]

def write(place, how):
    import os, signal, time
    if how == "ignoring":
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
    if how in ("daemon", "many"):
        for _ in range(1 if how == "daemon" else 15):
            if os.fork() == 0:
                os.setsid()
                break
    while True:
        with open(place + "/log", "a") as file:
            file.write(f"{time.time()}\\n")

if how == "idle":
    agentsbx.sandbox(lambda: 1)()
    open(place + "/log", "w").write("0\\n")
    import time
    time.sleep(100)
elif how == "command":
    script = 'while :; do date +%s.%N >> "$0/log"; done'
    agentsbx.run(["sh", "-c", script, place], write=[place], timeout="60s")
elif how == "thread":
    call = agentsbx.sandbox(write=[place], timeout="60s")(write)
    threads = [threading.Thread(target=call, args=(place, how)) for _ in range(3)]
    for thread in threads:
        thread.start()
else:
    agentsbx.sandbox(write=[place], timeout="60s")(write)(place, how)
"""


WAYS = ("plain", "ignoring", "daemon", "many", "command", "thread", "idle")


@pytest.fixture
def place(scratch: Path) -> Path:
    (scratch / "log").touch()
    (scratch / "tmp").mkdir()
    (scratch / "log").chmod(0o666)
    scratch.chmod(0o777)
    return scratch


@pytest.fixture
def start(place: Path) -> Iterator[Any]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(how: str) -> subprocess.Popen[bytes]:
        env = os.environ | {"TMPDIR": str(place / "tmp")}
        host = subprocess.Popen([sys.executable, "-c", HOST, str(place), how], env=env)
        started.append(host)
        log = place / "log"
        assert watching.eventually(lambda: log.stat().st_size > 0, 20), "the job never wrote"
        return host

    yield begin
    for host in started:
        host.kill()
        host.wait()


@pytest.mark.parametrize(
    ("how", "blow"),
    [
        *((how, signal.SIGKILL) for how in WAYS),
        *((how, blow) for how in ("plain", "command") for blow in (signal.SIGTERM, signal.SIGSEGV)),
    ],
)
def test_nothing_runs_after_the_host_is_killed(
    how: str, blow: int, place: Path, start: Any
) -> None:
    host = start(how)
    time.sleep(0.2)
    groups = {name for name in watching.cgroups() if f"-{host.pid}-" in name}
    those = watching.tree(host.pid)
    assert those
    os.kill(host.pid, blow)
    killed = time.time()
    host.wait()
    time.sleep(0.1)
    size = (place / "log").stat().st_size
    time.sleep(0.5)
    assert (place / "log").stat().st_size == size, "it still writes"
    last = max(float(line) for line in (place / "log").read_text().splitlines()[-200:] if line)
    assert last <= killed + 0.1, f"wrote {last - killed:.3f} s after the host's death"
    assert watching.eventually(lambda: not watching.alive(those), 3), watching.alive(those)
    assert watching.eventually(lambda: not (watching.cgroups() & groups), 3), groups
    assert not list((place / "tmp").iterdir())


@pytest.mark.parametrize("which", [0, 1])
def test_a_dead_helper_ends_its_jobs_and_is_replaced(which: int, box: Any, place: Path) -> None:
    """Broker or supervisor killed: the call ends with an error, the job is gone, the next works."""
    import threading

    def write(place: str) -> None:
        while True:
            with open(place + "/log", "a") as file:
                file.write("x")

    def one() -> int:
        return 1

    call, again = box.sandbox(write=[str(place)], timeout="20s")(write), box.sandbox(one)
    assert again() == 1
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call.run(str(place))))
    thread.start()
    assert watching.eventually(lambda: (place / "log").stat().st_size > 0, 10)
    helpers = list(watching.helpers(os.getpid()))
    os.kill(helpers[min(which, len(helpers) - 1)], signal.SIGKILL)
    thread.join(10)
    assert not thread.is_alive(), "the call hangs"
    size = (place / "log").stat().st_size
    time.sleep(0.3)
    assert (place / "log").stat().st_size == size, "the job outlived the supervisor"
    assert results
    assert results[0].error is not None
    assert again() == 1
