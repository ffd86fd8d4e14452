"""Benchmark groups about the call itself: pooled, beyond the pool, from threads, commands."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import agentsbx
from agentsbx import sandbox
from agentsbx.cli import _bench_bodies as bodies
from agentsbx.cli._measure import Sample, interleave

if TYPE_CHECKING:
    from agentsbx.cli.bench import Bench

__all__ = ["calls", "commands", "sustained"]

REFILL_S = 0.02  # the pool is full again after this


def by_value(name: str) -> Any:
    """Return a sandboxed function whose code lies in no module, as in a notebook or `__main__`."""
    names: dict[str, Any] = {"__name__": "__bench__"}
    exec(compile(bodies.PROOF, "<bench>", "exec"), names)
    return sandbox(names[name])


class Helper:
    """A baseline process (see `_bench_helper`)."""

    def __init__(self, mode: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agentsbx.cli._bench_helper", mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def told(self) -> float:
        """Ask for one run that times itself."""
        self._in.write(b".")
        return float(self._out.readline())

    def ask(self) -> None:
        """Ask for one run and wait for its byte."""
        self._in.write(b".")
        self._out.read(1)

    def close(self) -> None:
        """End it."""
        self._in.close()
        self._out.close()
        self._process.wait()


@contextmanager
def helper(mode: str) -> Iterator[Helper]:
    """Start a helper and end it."""
    found = Helper(mode)
    try:
        yield found
    finally:
        found.close()


def _one(_: int) -> int:
    return os.getpid()


def calls(bench: Bench) -> None:
    """Pooled single-use calls against what one would do without."""
    reference, value = sandbox(bodies.body), by_value("body")

    def call(fn: Any) -> None:
        x, proof = fn(7, bench.canary)
        assert x == 7
        bench.check(proof)

    with (
        helper("fork") as fork,
        concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        found = bench.keep(
            "call",
            interleave(
                {
                    "pooled, code by value": lambda: call(value),
                    "pooled, code of a library": lambda: call(reference),
                    "os.fork + pipe, 20 MB host": fork.told,
                    "ProcessPoolExecutor, warm": lambda: pool.submit(_one, 7).result(),
                },
                bench.n(200),
                pause_s=REFILL_S,
            ),
        )
        python = bench.keep(
            "call",
            interleave(
                {
                    "python -c pass": lambda: subprocess.run(
                        [sys.executable, "-c", "pass"], check=True
                    )
                },
                bench.n(30),
            ),
        )["python -c pass"]
    fork_s = found["os.fork + pipe, 20 MB host"].p50
    pool_s = found["ProcessPoolExecutor, warm"].p50
    for name in ("pooled, code by value", "pooled, code of a library"):
        p50 = found[name].p50
        bench.bar(f"{name} / fork + pipe", p50 / fork_s, 0.15)
        bench.bar(f"python -c pass / {name}", python.p50 / p50, 50, at_least=True)
        bench.bar(f"{name} / ProcessPoolExecutor", p50 / pool_s, 1.0)


def sustained(bench: Bench) -> None:
    """Beyond the pool: calls as fast as they come, from one and from many threads."""
    fn = by_value("body")

    def call() -> None:
        bench.check(fn(7, bench.canary)[1])

    with helper("zygote") as zygote:
        found = bench.keep(
            "sustained",
            interleave(
                {
                    "30 calls at once": lambda: _burst(call, 30),
                    "30 plain forks of a zygote": lambda: _burst(zygote.ask, 30),
                },
                bench.n(30),
            ),
        )
    mine, plain = found["30 calls at once"], found["30 plain forks of a zygote"]
    bench.bar("a call beyond the pool / plain fork of a zygote", mine.p50 / plain.p50, 1.6)
    bench.bar("sustained calls / plain forks", 100 * plain.p50 / mine.p50, 55, "%", at_least=True)
    rates = {n: _rate(call, n, 0.5 if bench.quick else 2.0) for n in (1, 2, 4, 8)}
    bench.samples |= {
        f"sustained: {n} threads, time per call": Sample.of([1 / rate]) for n, rate in rates.items()
    }
    best = max(rates.values())
    bench.bar("rate at 8 threads / best rate", 100 * rates[8] / best, 75, "%", at_least=True)


def _burst(call: Any, n: int) -> float:
    start = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - start) / n


def _rate(call: Any, n_threads: int, seconds: float) -> float:
    """Return calls per second from `n_threads` threads."""
    end = time.perf_counter() + seconds
    counts = [0] * n_threads
    errors: list[BaseException] = []

    def work(i: int) -> None:
        try:
            while time.perf_counter() < end:
                call()
                counts[i] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n_threads)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts) / (time.perf_counter() - start)


def commands(bench: Bench) -> None:
    """Commands: from a shell, and by the Python API in a warm process."""
    check = f"test $$ -ne {os.getpid()} && ! test -e {bench.canary}"
    proof = agentsbx.run(["sh", "-c", check])
    assert proof.value == 0, proof

    def run() -> None:
        result = agentsbx.run(["/bin/true"])
        assert result.value == 0, result
        assert result.policy_id == proof.policy_id  # the very plan that the check ran under

    found = bench.keep(
        "command",
        interleave(
            {
                "agentsbx.run, warm": run,
                "subprocess.run": lambda: subprocess.run(["/bin/true"], check=True),
            },
            bench.n(100),
            pause_s=REFILL_S,
        ),
    )
    shell = bench.keep(
        "command",
        interleave(
            {"agentsbx run -- /bin/true": lambda: _shell([*_script(), "run", "--", "/bin/true"])},
            bench.n(20),
        ),
    )["agentsbx run -- /bin/true"]
    bench.bar(
        "agentsbx.run / subprocess.run",
        found["agentsbx.run, warm"].p50 / found["subprocess.run"].p50,
        1.2,
    )
    bench.bar("agentsbx run -- /bin/true", shell.p50 * 1e3, 60, "ms")


def _script() -> list[str]:
    """Return the installed command, or the module where there is none."""
    path = os.path.join(os.path.dirname(sys.executable), "agentsbx")
    return [path] if os.access(path, os.X_OK) else [sys.executable, "-m", "agentsbx"]


def _shell(argv: list[str]) -> None:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPATH"] = os.path.dirname(os.path.dirname(agentsbx.__file__))
    subprocess.run(argv, check=True, env=env)
