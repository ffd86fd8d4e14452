"""What a process has left lying about, as the kernel shows it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

# What tests and commands that run at the same time make.
_OTHERS = ("test-", "escape", "scratch", "demo", "bench", "files", "loose")
CGROUPS = Path("/sys/fs/cgroup")


def processes() -> dict[int, tuple[int, int, str]]:
    """Return pid -> (parent, start time, command) of every process that can be seen."""
    seen = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path(f"/proc/{entry}/stat").read_text()
        except OSError:
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        if fields[0] != "Z":
            seen[int(entry)] = (int(fields[1]), int(fields[19]), name)
    return seen


def tree(root: int) -> dict[int, int]:
    """Return pid -> start time of everything below a process."""
    seen = processes()
    found: dict[int, int] = {}
    new = [root]
    while new:
        parent = new.pop()
        for pid, (above, start, _) in seen.items():
            if above == parent and pid not in found:
                found[pid] = start
                new.append(pid)
    return found


def helpers(root: int) -> dict[int, int]:
    """Return pid -> start time of our own programs below a process: broker and supervisor first.

    In the order of their start: numbers of processes wrap round.
    """
    seen = processes()
    found = [
        (start, pid)
        for pid, start in tree(root).items()
        if pid in seen and seen[pid][2].startswith("agentsbx")
    ]
    return {pid: start for start, pid in sorted(found)}


def alive(those: dict[int, int]) -> dict[int, str]:
    """Return which of the processes still run (the same ones, by their start time)."""
    seen = processes()
    return {
        pid: seen[pid][2] for pid, start in those.items() if pid in seen and seen[pid][1] == start
    }


def cgroups() -> set[str]:
    """Return the control groups that any agentsbx made."""
    for _ in range(50):
        try:
            return {str(path) for path in CGROUPS.glob("**/agentsbx*") if path.is_dir()}
        except OSError:  # a group of another test went in the middle of the walk
            time.sleep(0.01)
    raise AssertionError("the control groups change all the time")


def temporary_files() -> set[str]:
    """Return what an agentsbx could have left in shared places."""
    return {
        f"{place}/{name}"
        for place in ("/tmp", "/dev/shm", "/var/tmp", "/run")
        for name in os.listdir(place)
        if "agentsbx" in name and not any(word in name for word in _OTHERS)
    }


def mounts() -> int:
    """Return how many mounts this process sees."""
    return len(Path("/proc/self/mountinfo").read_text().splitlines())


def descriptors() -> int:
    """Return how many descriptors this process holds."""
    return len(os.listdir("/proc/self/fd"))


def resident_kb(pid: int) -> int:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def eventually(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Return whether something becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return true()


def sleepers(seconds: int) -> int:
    """Return how many `sleep SECONDS` run."""
    n = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                n += Path(f"/proc/{name}/cmdline").read_bytes() == b"sleep\0%d\0" % seconds
    return n
