"""Ctrl-C at any moment of a call: a host program of its own.

    python interrupts.py CALLS

Interrupts the main thread again and again while it calls; prints one JSON object.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import agentsbx
from agentsbx import _gate


def work(n: int) -> int:
    """Runs in the job."""
    return n


def big(n: int) -> int:
    """Runs in the job: its answer does not fit a frame."""
    return 1 << 2_000_000


def slow(n: int) -> int:
    """Runs in the job, long enough to leave the quick way."""
    import time

    time.sleep(0.01)
    return n


def interrupt(over: threading.Event) -> None:
    rng = random.Random(1)
    while not over.wait(0.0005 + rng.random() * 0.003):
        os.kill(os.getpid(), signal.SIGINT)


def descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


def settled() -> int:
    """How many descriptors there are when nothing happens any more."""
    gc.collect()
    time.sleep(0.5)
    return len(descriptors())


def main() -> None:
    """Make the calls and report."""
    calls = int(sys.argv[1])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below nohup(1)
    quick, longer, large = map(agentsbx.sandbox, (work, slow, big))
    ways: list[Callable[[int], Any]] = [
        quick, quick, longer, large, lambda n: agentsbx.run(["true"]).value, quick.run,
    ]  # fmt: skip
    for way in ways * 3:
        way(1)
    before = settled()
    over = threading.Event()
    thread = threading.Thread(target=interrupt, args=(over,))
    interrupted = values = 0
    strange: list[str] = []
    n = 0
    thread.start()
    while n < calls:
        try:
            n += 1
            ways[n % len(ways)](n)
            values += 1
        except KeyboardInterrupt:
            interrupted += 1
        except BaseException as error:
            strange.append(repr(error)[:300])
    while thread.is_alive():
        with contextlib.suppress(KeyboardInterrupt):
            over.set()
            thread.join()
    for _ in range(8):  # all places of the gate are free, or these would wait
        assert quick(n) == n
    threads = [threading.Thread(target=longer, args=(n,)) for n in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(20)
    after = settled()
    report = {
        "calls": calls, "values": values, "interrupted": interrupted,
        "strange": strange[:10], "before": before, "after": after,
        "places": _gate.gate().running, "stuck": sum(one.is_alive() for one in threads),
        "fds": descriptors(),
    }  # fmt: skip
    print(json.dumps(report))


if __name__ == "__main__":
    main()
