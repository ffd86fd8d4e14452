"""The first calls of a program, all at once: a host program of its own; prints one JSON object."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path

import agentsbx

THREADS = 10


def work(n: int) -> int:
    """Runs in the job."""
    return n + 1


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def main() -> None:
    """Start them behind one barrier."""
    functions = [agentsbx.sandbox(timeout=20 + n)(work) for n in range(THREADS)]
    before = sorted(os.listdir("/proc/self/fd"))
    gate = threading.Barrier(THREADS)
    values: list[int] = []

    def call(n: int) -> None:
        gate.wait()
        values.append(functions[n](n))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    brokers = children(os.getpid())
    supervisors = [s for b in brokers for s in children(b)]
    zygotes = [z for s in supervisors for z in children(s)]
    agentsbx.shutdown()
    print(
        json.dumps(
            {
                "values": sorted(values),
                "started": [len(brokers), len(supervisors), len(zygotes)],
                "before": before,
                "after": sorted(os.listdir("/proc/self/fd")),
            }
        )
    )


if __name__ == "__main__":
    main()
