"""Mixed calls for a long time, in eight threads and two event loops: a host program of its own.

    python soak.py SECONDS SEED

Functions, commands, generators, big arguments, errors, timeouts, cancels; sessions too where this
agentsbx has them. Samples memory, descriptors, processes and control groups of the host and of the
programs that it started; prints one JSON object.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import json
import os
import random
import statistics
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import agentsbx

THREADS, LOOPS, TASKS = 8, 2, 4


def work(n: int) -> int:
    """Runs in the job."""
    return n + 1


def fail(n: int) -> int:
    """Runs in the job."""
    raise ValueError(n)


def echo(data: bytes) -> bytes:
    """Runs in the job."""
    print("x" * 2000)
    return data


def sleep(seconds: float) -> float:
    """Runs in the job."""
    import time

    time.sleep(seconds)
    return seconds


def count(n: int) -> Iterator[int]:
    """Runs in the job."""
    yield from range(n)


async def acount(n: int) -> AsyncIterator[int]:
    """Runs in the job."""
    for i in range(n):
        yield i


def leave(n: int) -> int:
    """Runs in the job: leaves a process, a thread, files."""
    import subprocess
    import tempfile
    import threading

    subprocess.Popen(["sleep", "100"])
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    with open(tempfile.mkdtemp() + "/x", "w") as file:
        file.write("left")
    return n


class Soak:
    """All that runs until the time is over."""

    def __init__(self, seconds: float, seed: int) -> None:
        box = agentsbx.sandbox(timeout="20s")
        self.work, self.fail, self.echo, self.leave = box(work), box(fail), box(echo), box(leave)
        self.sleep, self.short = box(sleep), agentsbx.sandbox(timeout="100ms")(sleep)
        self.count, self.acount = box(count), box(acount)
        self.end = time.monotonic() + seconds
        self.seed = seed
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lock = threading.Lock()

    # -- what is done, each returns whether it came out right -------------------------------------

    def do_call(self, rng: random.Random) -> bool:
        n = rng.randrange(1000)
        return bool(self.work(n) == n + 1)

    def do_result(self, rng: random.Random) -> bool:
        return bool(self.work.run(1).value == 2)

    def do_error(self, rng: random.Random) -> bool:
        try:
            self.fail(3)
        except ValueError as error:
            return error.args == (3,)
        return False

    def do_big(self, rng: random.Random) -> bool:
        data = rng.randbytes(rng.choice((100, 40_000, 2_000_000)))
        return bool(self.echo(data) == data)

    def do_timeout(self, rng: random.Random) -> bool:
        try:
            self.short(30)
        except agentsbx.SandboxTimeout:
            return True
        return False

    def do_cancel(self, rng: random.Random) -> bool:
        future = self.sleep.submit(rng.choice((0.001, 5)))
        time.sleep(rng.random() * 0.02)
        future.cancel()
        with contextlib.suppress(concurrent.futures.CancelledError):
            future.result(20)
        return True

    def do_generator(self, rng: random.Random) -> bool:
        return list(self.count(4)) == [0, 1, 2, 3]

    def do_abandon(self, rng: random.Random) -> bool:
        return next(iter(self.count(100))) == 0

    def do_command(self, rng: random.Random) -> bool:
        return agentsbx.run(["sh", "-c", "echo a; exit 3"]).value == 3

    def do_leave(self, rng: random.Random) -> bool:
        return bool(self.leave(5) == 5)

    def do_map(self, rng: random.Random) -> bool:
        return list(self.work.map([1, 2, 3])) == [2, 3, 4]

    def do_session(self, rng: random.Random) -> bool:
        with agentsbx.Sandbox() as session:
            return bool(session.exec(["sh", "-c", "echo $((1 + 1))"]).exit_code == 0)

    async def ado_call(self, rng: random.Random) -> bool:
        return bool(await self.work.aio(1) == 2)

    async def ado_generator(self, rng: random.Random) -> bool:
        return [n async for n in self.acount(3)] == [0, 1, 2]

    async def ado_cancel(self, rng: random.Random) -> bool:
        task = asyncio.ensure_future(self.sleep.aio(5))
        await asyncio.sleep(rng.random() * 0.03)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return True

    async def ado_wait_for(self, rng: random.Random) -> bool:
        try:
            await asyncio.wait_for(self.sleep.aio(5), 0.05)
        except TimeoutError:
            return True
        return False

    async def ado_session(self, rng: random.Random) -> bool:
        async with agentsbx.AsyncSandbox() as session:
            return bool((await session.exec(["true"])).exit_code == 0)

    # -- who does it -----------------------------------------------------------------------------

    def ways(self, prefix: str) -> list[tuple[str, Callable[..., Any]]]:
        names = [n for n in sorted(dir(self)) if n.startswith(prefix)]
        if not hasattr(agentsbx, "Sandbox"):
            names.remove(f"{prefix}session")
        weights = {"call": 6, "big": 2, "command": 2}
        return [
            (n.removeprefix(prefix), getattr(self, n))
            for n in names
            for _ in range(weights.get(n.removeprefix(prefix), 1))
        ]

    def note(self, name: str, right: object) -> None:
        with self.lock:
            self.done[name] += 1
            if right is not True and len(self.wrong) < 10:
                self.wrong.append(f"{name}: {right}")

    def thread(self, number: int) -> None:
        rng = random.Random(self.seed * 100 + number)
        ways = self.ways("do_")
        while time.monotonic() < self.end:
            name, way = rng.choice(ways)
            try:
                self.note(name, way(rng))
            except BaseException as error:
                self.note(name, "".join(traceback.format_exception(error)[-6:]))

    def loop(self, number: int) -> None:
        async def task(n: int) -> None:
            rng = random.Random(self.seed * 1000 + number * 10 + n)
            ways = self.ways("ado_")
            while time.monotonic() < self.end:
                name, way = rng.choice(ways)
                try:
                    self.note(f"async {name}", await way(rng))
                except BaseException as error:
                    self.note(f"async {name}", "".join(traceback.format_exception(error)[-6:]))

        async def tasks() -> None:
            await asyncio.gather(*(task(n) for n in range(TASKS)))

        asyncio.run(tasks())

    def run(self) -> list[dict[str, int]]:
        """Do it all; returns the samples."""
        threads = [threading.Thread(target=self.thread, args=(n,)) for n in range(THREADS)]
        threads += [threading.Thread(target=self.loop, args=(n,)) for n in range(LOOPS)]
        for thread in threads:
            thread.start()
        samples = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(min(1.0, max(0.05, (self.end - time.monotonic()) / 40)))
            if time.monotonic() < self.end:
                samples.append(sample())
        for thread in threads:
            thread.join()
        return samples


# -- samples -------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def resident_kb(pid: int, what: str = "VmRSS") -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1])
    return 0


def held() -> list[str]:
    """What this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return sorted(found)


def sample() -> dict[str, int]:
    """What is held now: by the host, and by broker, supervisor and zygotes."""
    me = os.getpid()
    brokers = children(me)
    supervisors = [p for b in brokers for p in children(b)]
    zygotes = [p for s in supervisors for p in children(s)]
    ours = [*brokers, *supervisors]
    fds = 0
    for pid in ours:
        with contextlib.suppress(OSError):
            fds += len(os.listdir(f"/proc/{pid}/fd"))
    groups = 0
    with contextlib.suppress(OSError):  # one went in the middle of the walk
        for found in Path("/sys/fs/cgroup").glob("**/agentsbx-*/slot-*"):
            groups += any(f"agentsbx-{b}-" in str(found) for b in brokers)
    return {
        "host_kb": resident_kb(me, "RssAnon"),
        "arenas_kb": resident_kb(me, "RssShmem"),  # kept for reuse, up to a bound
        "helpers_kb": sum(map(resident_kb, (*ours, *zygotes))),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "helper_descriptors": fds,
        "processes": len(ours) + len(zygotes),
        "jobs": sum(len(children(z)) for z in zygotes),
        "threads": threading.active_count(),
        "groups": groups,
    }


def quarters(samples: list[dict[str, int]]) -> dict[str, list[float]]:
    """Medians of each quarter of the samples."""
    n = max(1, len(samples) // 4)
    return {
        key: [statistics.median(s[key] for s in samples[i : i + n]) for i in range(0, 4 * n, n)]
        for key in samples[0]
    }


def main() -> None:
    """Run and report."""
    warnings.simplefilter("ignore")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what the jobs print
    before = held()
    soak = Soak(float(sys.argv[1]), int(sys.argv[2]))
    samples = soak.run()
    agentsbx.shutdown()
    gc.collect()  # what maps a result holds a descriptor
    print(
        json.dumps(
            {
                "seconds": float(sys.argv[1]),
                "samples": len(samples),
                "calls": sum(soak.done.values()),
                "done": dict(soak.done),
                "wrong": soak.wrong,
                "quarters": quarters(samples),
                "before": before,
                "left": {"descriptors": held(), "processes": len(children(os.getpid()))},
            }
        ),
        file=sys.__stdout__,
    )


if __name__ == "__main__":
    main()
