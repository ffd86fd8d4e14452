"""Calls in eight threads while everything that can fail does: a host program of its own.

    python storm.py CALLS SEED [FAULT...]

Prints one JSON object: what calls came to, what was done to them, what is left afterwards. Kills
only what descends from this process. `FAULT`: of FAULTS, default all.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import json
import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import agentsbx

THREADS = 8
TIMEOUT_S = 5.0
SLACK_S = 30.0  # to start a supervisor anew on a busy machine, the call's time not counted
FAULTS = ("job", "new", "child", "reaper", "zygote", "supervisor", "broker", "files", "pids",
          "memory", "cancel")  # fmt: skip
WEIGHTS = (40, 30, 10, 10, 4, 1, 1, 4, 4, 4, 12)


# -- what is called ------------------------------------------------------------------------------


def work(kind: str, n: int) -> Any:
    """Runs in the job."""
    import os
    import subprocess
    import time

    if kind == "sleep":
        time.sleep(0.02)
    if kind == "raise":
        raise ValueError(n)
    if kind == "slow":
        time.sleep(30)
    if kind == "big":
        return bytes(300_000)
    if kind == "print":
        print("x" * 50_000)
    if kind == "child":
        return subprocess.run(["true"], check=False).returncode == 0 and n
    if kind == "disk":
        with open(os.environ["TMPDIR"] + "/full", "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
    if kind == "fds":
        for _ in range(100_000):
            os.open("/dev/null", os.O_RDONLY)
    if kind == "pids":
        for _ in range(1000):
            if os.fork() == 0:
                time.sleep(30)
    if kind == "memory":
        held = []
        while True:
            held.append(bytearray(1 << 24))
    return n


KINDS = ("plain",) * 8 + ("sleep",) * 4 + ("raise", "big", "print", "child", "disk", "fds", "pids",
                                          "memory", "slow", "command", "command")  # fmt: skip
# What the body itself may raise; everything else is ours and has a type of its own.
OWN: dict[str, tuple[type[BaseException], ...]] = {
    "raise": (ValueError,),
    "disk": (OSError,),
    "fds": (OSError,),
    "pids": (OSError, MemoryError),
    "memory": (MemoryError,),
    "child": (OSError, MemoryError),
}


# A limit that is put on a zygote is its next jobs' too.
SQUEEZED = (OSError, MemoryError, ImportError)


class Storm:
    """All calls and all faults of one run."""

    def __init__(self, calls: int, seed: int, faults: tuple[str, ...]) -> None:
        self.calls, self.seed, self.faults = calls, seed, faults
        self.squeezes = bool({"pids", "memory"} & set(faults))
        self.lock = threading.Lock()
        self.left = calls
        self.ends: Counter[str] = Counter()
        self.done_to: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest_s = 0.0
        self.running: dict[int, concurrent.futures.Future[Any]] = {}
        self.is_over = threading.Event()
        self.function = agentsbx.sandbox(
            timeout=TIMEOUT_S, memory="200MB", processes=40, disk="32MB", open_files=100
        )(work)
        self.short = agentsbx.sandbox(timeout="300ms")(work)

    def one(self, kind: str, n: int) -> Any:
        """One call, to its value."""
        if kind == "command":
            done = agentsbx.run(["sh", "-c", f"echo {n}; exit 0"], timeout=TIMEOUT_S)
            if done.error is not None:
                raise done.error
            if done.value:  # its shell was killed, or got no memory
                self.ends["command failed"] += 1
                return n
            return int(done.stdout) if done.stdout.strip() == str(n).encode() else done
        if kind == "slow":
            return self.short(kind, n)
        if "cancel" in self.faults and n % 5 == 0:
            future = self.function.submit(kind, n)
            with self.lock:
                self.running[n] = future
            try:
                return future.result(TIMEOUT_S + SLACK_S)
            finally:
                with self.lock:
                    del self.running[n]
        return self.function(kind, n)

    def is_right(self, kind: str, n: int, value: Any) -> bool:
        if kind == "child" and value is False:  # `true` was killed
            return True
        return bool(value == (bytes(300_000) if kind == "big" else n))

    def judge(self, kind: str, n: int) -> str:
        """Make one call and say what it came to; what must not be goes into `wrong`."""
        begun = time.monotonic()
        try:
            value = self.one(kind, n)
            end = "value" if self.is_right(kind, n, value) else "wrong value"
        except agentsbx.AgentsbxError as e:
            end = type(e).__name__
        except concurrent.futures.CancelledError:
            end = "cancelled"
        except BaseException as e:
            is_own = isinstance(e, OWN.get(kind, ()) + (SQUEEZED if self.squeezes else ()))
            end = type(e).__name__ if is_own else f"untyped {type(e).__name__}"
            if not is_own:
                self.blame(f"{kind} {n}: " + "".join(traceback.format_exception(e)[-12:]))
        took = time.monotonic() - begun
        if took > TIMEOUT_S + SLACK_S:
            self.blame(f"{kind} {n}: {end} after {took:.1f} s")
        if end == "wrong value":
            self.blame(f"{kind} {n}: {value!r:.300}")
        with self.lock:
            self.slowest_s = max(self.slowest_s, took)
            self.ends[end] += 1
        return end

    def trial(self, n: int) -> None:
        for _ in range(n):
            with contextlib.suppress(agentsbx.AgentsbxError, *SQUEEZED):
                self.function("plain", 0)

    def blame(self, what: str) -> None:
        with self.lock:
            if len(self.wrong) < 20:
                self.wrong.append(what)

    def caller(self, number: int) -> None:
        """One thread's share of the calls."""
        rng = random.Random(self.seed * 100 + number)
        while True:
            with self.lock:
                if self.left <= 0:
                    return
                self.left -= 1
                n = self.left
            self.judge(rng.choice(KINDS), n)

    def run(self) -> None:
        """All calls, with the faults beside them."""
        trouble = threading.Thread(target=self.trouble)
        trouble.start()
        callers = [threading.Thread(target=self.caller, args=(n,)) for n in range(THREADS)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join()
        self.is_over.set()
        trouble.join()

    # -- what is done to them --------------------------------------------------------------------

    def trouble(self) -> None:
        """One fault after the other until all calls are made."""
        rng = random.Random(self.seed)
        chosen = [(f, w) for f, w in zip(FAULTS, WEIGHTS, strict=True) if f in self.faults]
        while not self.is_over.wait(rng.random() * 0.02):
            fault = rng.choices([f for f, _ in chosen], [w for _, w in chosen])[0]
            try:
                getattr(self, f"do_{fault}")(rng)
            except (ProcessLookupError, FileNotFoundError, PermissionError):
                pass  # it was gone before
            except Exception as error:  # a cancel that raises, for one
                self.blame(f"{fault}: " + "".join(traceback.format_exception(error)[-6:]))

    def kill(self, rng: random.Random, depth: int, note: str, only: str = "") -> None:
        found = [p for p in below(os.getpid(), depth) if only in command(p)]
        if found:
            pid = rng.choice(found)
            os.kill(pid, signal.SIGKILL)
            self.done_to[note] += 1

    def do_job(self, rng: random.Random) -> None:
        self.kill(rng, 4, "job")

    def do_reaper(self, rng: random.Random) -> None:
        self.kill(rng, 4, "reaper", "launcher")

    def do_child(self, rng: random.Random) -> None:
        self.kill(rng, 5, "child of a job")

    def do_zygote(self, rng: random.Random) -> None:
        self.kill(rng, 3, "zygote")

    def do_supervisor(self, rng: random.Random) -> None:
        self.kill(rng, 2, "supervisor")

    def do_broker(self, rng: random.Random) -> None:
        self.kill(rng, 1, "broker")

    def do_new(self, rng: random.Random) -> None:
        """Kill a job in its set-up; what it had by then is noted."""
        known = set(below(os.getpid(), 4))
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            new = [p for p in below(os.getpid(), 4) if p not in known]
            if new:
                time.sleep(rng.random() * 0.004)
                stage = stage_of(new[0])
                os.kill(new[0], signal.SIGKILL)
                self.done_to[f"set-up: {stage}"] += 1
                return

    def do_files(self, rng: random.Random) -> None:
        """No descriptors for a moment: in the host or in a process of ours."""
        held = [os.open("/dev/null", os.O_RDONLY)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + rng.randrange(6), hard))
            self.done_to["no descriptors"] += 1
            time.sleep(0.02)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(held[0])

    def squeeze(self, rng: random.Random, what: int, note: str, bound: int) -> None:
        pids = below(os.getpid(), rng.choice((2, 3)))
        if not pids:
            return
        pid = rng.choice(pids)
        before = resource.prlimit(pid, what)
        try:
            resource.prlimit(pid, what, (bound, before[1]))
            self.done_to[note] += 1
            time.sleep(0.05)
        finally:
            resource.prlimit(pid, what, before)

    def do_pids(self, rng: random.Random) -> None:
        self.squeeze(rng, resource.RLIMIT_NPROC, "no processes", 0)

    def do_memory(self, rng: random.Random) -> None:
        self.squeeze(rng, resource.RLIMIT_AS, "no memory", 1 << 20)

    def do_cancel(self, rng: random.Random) -> None:
        with self.lock:
            futures = list(self.running.values())
        if futures:
            self.done_to["cancel"] += int(rng.choice(futures).cancel())


# -- what is there -------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def below(pid: int, depth: int) -> list[int]:
    """Processes so many generations down: broker, supervisor, zygotes, jobs, what they started."""
    level = [pid]
    for _ in range(depth):
        level = [child for parent in level for child in children(parent)]
    return level


def everything(pid: int) -> list[int]:
    return [p for child in children(pid) for p in (child, *everything(child))]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def stage_of(pid: int) -> str:
    """How far a job's set-up has come, by what the kernel shows."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    filters = int(status.get("Seccomp_filters", "0"))
    if filters > 1:
        channel = os.readlink(f"/proc/{pid}/fd/3") if os.path.exists(f"/proc/{pid}/fd/4") else ""
        return "walls up" if channel else "waiting"
    if status["CapEff"].strip("0") == "":
        return "capabilities dropped"
    if len(status["NStgid"].split()) > 1 and os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink(
        f"/proc/{status['PPid']}/ns/mnt"
    ):
        return "namespaces made"
    return "just forked"


def picture() -> dict[str, int]:
    gc.collect()
    mounts = len(Path("/proc/self/mountinfo").read_text().splitlines())
    groups: list[Path] = []
    for _ in range(50):
        with contextlib.suppress(OSError):  # a group of somebody's went in the middle of the walk
            groups = [p for p in Path("/sys/fs/cgroup").glob("**/agentsbx-*") if p.is_dir()]
            break
    # The name tells the broker's pid; ours are gone, others' are none of our business.
    ours = [p for p in groups if p.name.split("-")[1] in map(str, BROKERS)]
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes": len(everything(os.getpid())),
        "mounts": mounts,
        "groups": len(ours),
    }


BROKERS: set[int] = set()


def watch_brokers(over: threading.Event) -> None:
    while not over.wait(0.02):
        BROKERS.update(children(os.getpid()))


def settle(before: dict[str, int]) -> dict[str, int]:
    end = time.monotonic() + 10
    while (now := picture()) != before and time.monotonic() < end:
        time.sleep(0.1)
    return now


def main() -> None:
    """Run the storm and report."""
    calls, seed = int(sys.argv[1]), int(sys.argv[2])
    faults = tuple(sys.argv[3:]) or FAULTS
    warnings.simplefilter("ignore")
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what the jobs print
    assert agentsbx.sandbox(work)("plain", 1) == 1
    agentsbx.shutdown()
    before = picture()
    over = threading.Event()
    watcher = threading.Thread(target=watch_brokers, args=(over,))
    watcher.start()
    storm = Storm(calls, seed, faults)
    begun = time.monotonic()
    storm.run()
    took = time.monotonic() - begun
    if storm.squeezes:  # sandboxes that waited already have the limit that their zygote had
        storm.trial(8)
    nexts = [storm.judge("plain", -n) for n in range(1, 6)]
    over.set()
    watcher.join()
    agentsbx.shutdown()
    closed = time.monotonic()
    after = settle(before)
    report = {
        "seconds": round(took, 1), "settled_s": round(time.monotonic() - closed, 1),
        "slowest_s": round(storm.slowest_s, 2), "calls": calls,
        "ends": dict(storm.ends), "faults": dict(storm.done_to), "wrong": storm.wrong,
        "next": nexts, "before": before, "after": after,
    }  # fmt: skip
    print(json.dumps(report), file=sys.__stdout__)


if __name__ == "__main__":
    main()
