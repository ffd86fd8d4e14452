"""What the host's kernel says about a running job: no right, no group, no way back.

Source: CVE-2022-31214 (firejail), firedancer#9172; security.md section 2 rows "NO_NEW_PRIVS",
"supplementary groups, real uid 0", "multi-threaded loader", section 5 row "RT priority, nice ...".
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def wait(name: str, stop: str) -> None:
    """Runs in the job: be found by the name of the process."""
    import ctypes
    import os
    import time

    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)
    end = time.monotonic() + 15
    while not os.path.exists(stop) and time.monotonic() < end:
        time.sleep(0.02)


def status(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {
        key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }


@pytest.fixture
def job(box: Any, scratch: Path) -> Iterator[int]:
    """Yield the pid, outside, of a job that waits."""
    name, stop = f"sbxjob{os.getpid() % 100000}", scratch / "stop"
    call = box.sandbox(read=[str(scratch)], timeout="20s")(wait)
    thread = threading.Thread(target=call.run, args=(name, str(stop)))
    thread.start()
    found = 0
    end = time.monotonic() + 10
    while not found and time.monotonic() < end:
        for entry in os.listdir("/proc"):
            try:
                if Path(f"/proc/{entry}/comm").read_text().strip() == name:
                    found = int(entry)
            except OSError:
                continue
    try:
        assert found, "the job cannot be seen"
        yield found
    finally:
        stop.touch()
        thread.join()


def test_it_has_no_capability(job: int) -> None:
    fields = status(job)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, f"{name} {fields[name]}"
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_it_is_nobody_that_matters(job: int) -> None:
    fields = status(job)
    uids = {int(word) for word in fields["Uid"].split()}
    gids = {int(word) for word in fields["Gid"].split()}
    if os.geteuid() == 0:
        assert 0 not in uids | gids
        assert not uids & {65534, os.geteuid()}
        assert fields["Groups"] == ""
    else:
        assert uids == {os.geteuid()}
    assert len(uids) == 1
    assert len(gids) == 1


def test_it_has_namespaces_of_its_own(job: int) -> None:
    for name in ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user"):
        inside = os.stat(f"/proc/{job}/ns/{name}").st_ino
        assert inside != os.stat(f"/proc/self/ns/{name}").st_ino, f"shares {name} with the host"


def test_it_has_a_session_of_its_own(job: int) -> None:
    assert os.getsid(job) != os.getsid(0)
    assert os.getpgid(job) == job


def test_its_limits_hold(job: int) -> None:
    limits = {
        line[:26].strip(): line[26:].split()[:2]
        for line in Path(f"/proc/{job}/limits").read_text().splitlines()[1:]
    }
    assert limits["Max core file size"] == ["1", "1"]
    assert limits["Max realtime priority"] == ["0", "0"]
    assert limits["Max nice priority"] == ["0", "0"]
    assert limits["Max locked memory"] == ["0", "0"]
    assert limits["Max msgqueue size"][1] in {"0", "unlimited", "819200"}
    assert int(limits["Max open files"][1]) <= 256
    assert Path(f"/proc/{job}/oom_score_adj").read_text().strip() != "-1000"


def test_it_goes_before_the_host_when_memory_is_short(job: int) -> None:
    assert int(Path(f"/proc/{job}/oom_score_adj").read_text()) >= 500
