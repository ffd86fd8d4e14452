"""Benchmark groups about what runs inside, data, start-up and idle sandboxes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import agentsbx
from agentsbx import sandbox
from agentsbx.cli import _bench_bodies as bodies
from agentsbx.cli._bench_calls import by_value
from agentsbx.cli._measure import interleave

if TYPE_CHECKING:
    from agentsbx._types import Keywords
    from agentsbx.cli._measure import Sample
    from agentsbx.cli.bench import Bench

__all__ = ["data", "idle", "inside", "start"]

IDLE = 1000


def inside(bench: Bench) -> None:
    """Run the same work inside and outside."""
    with tempfile.TemporaryDirectory(prefix="agentsbx-bench-") as folder:
        os.chmod(folder, 0o777)
        options: Keywords = {"write": [folder], "timeout": "60s"}
        _compare(bench, "2,000 files", "files", (folder, 2000), 1.2, bench.n(20), options)
    _compare(bench, "CPU-bound Python", "spin", (300_000,), 1.02, bench.n(30))
    found = _both(bench, "getppid", "system_calls", (20_000,), bench.n(15))
    bench.bar("getppid, more than outside", (found[0].min - found[1].min) * 1e9, 60, "ns")
    if not _has_numpy():
        return
    options = {"memory": "2GB", "timeout": "60s"}
    _compare(bench, "matrix product", "product", (1200,), 1.02, bench.n(10), options)
    numpy = sandbox(bodies.proved)
    name = "import numpy"
    calls = {
        name: lambda: bench.checked(numpy("import_numpy", bench.canary)),
        f"{name}, outside": _import_outside,
    }
    found = tuple(bench.keep("inside", interleave(calls, bench.n(10))).values())
    bench.bar(f"{name}, inside / outside", found[0].p50 / found[1].p50, 1.10)


def _both(
    bench: Bench,
    name: str,
    work: str,
    args: tuple[Any, ...],
    n: int,
    options: Keywords | None = None,
) -> tuple[Sample, ...]:
    fn = sandbox(**(options or {}))(bodies.proved)
    calls = {
        name: lambda: bench.checked(fn(work, bench.canary, *args)),
        f"{name}, outside": lambda: bodies.proved(work, bench.canary, *args)[0],
    }
    return tuple(bench.keep("inside", interleave(calls, n)).values())


def _compare(
    bench: Bench,
    name: str,
    work: str,
    args: tuple[Any, ...],
    limit: float,
    n: int,
    options: Keywords | None = None,
) -> None:
    found = _both(bench, name, work, args, n, options)
    bench.bar(f"{name}, inside / outside", found[0].p50 / found[1].p50, limit)


def _import_outside() -> float:
    code = "import time; s = time.perf_counter(); import numpy; print(time.perf_counter() - s)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return float(done.stdout)


def _has_numpy() -> bool:
    import importlib.util

    return importlib.util.find_spec("numpy") is not None


def data(bench: Bench) -> None:
    """A big array as argument, against copying it once."""
    if not _has_numpy():
        return
    import numpy

    a = numpy.arange(12_500_000, dtype=numpy.int64)
    fn = by_value("array").options(memory="1GB")

    def call() -> None:
        total, proof = fn(a, bench.canary)
        assert total == 12_499_999
        bench.check(proof)

    found = bench.keep(
        "data",
        interleave({"100 MB argument": call, "memcpy 100 MB": a.copy}, bench.n(25)),
    )
    ratio = found["100 MB argument"].p50 / found["memcpy 100 MB"].p50
    bench.bar("100 MB argument / memcpy", ratio, 2.0)


FIRST = """
import agentsbx
@agentsbx.sandbox
def f(): return __import__("os").getpid()
assert f() == 1
"""


def start(bench: Bench) -> None:
    """Fresh processes: import, and the first call."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPATH"] = os.path.dirname(os.path.dirname(agentsbx.__file__))

    def python(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, env=env)

    found = bench.keep(
        "fresh process",
        interleave(
            {
                "first call": lambda: python(FIRST),
                "import cloudpickle, msgspec": lambda: python("import cloudpickle, msgspec"),
                "import agentsbx": lambda: python("import agentsbx"),
            },
            bench.n(20),
        ),
    )
    ratio = found["first call"].p50 / found["import cloudpickle, msgspec"].p50
    bench.bar("first call / import cloudpickle, msgspec", ratio, 2.0)
    bench.bar("import agentsbx", found["import agentsbx"].p50 * 1e3, 60, "ms")


def idle(bench: Bench) -> None:
    """Keep many sandboxes waiting with numpy loaded, then use them all."""
    n = 200 if bench.quick else IDLE
    preload = ["numpy"] if _has_numpy() else []
    fn = by_value("body").options(preload=preload)
    bench.check(fn(1, bench.canary)[1])
    time.sleep(0.2)
    before, processes = _available(), _processes()
    agentsbx.warm(fn, n=n)
    end = time.monotonic() + 60
    while _processes() - processes < n - 8 and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.5)
    waiting = _processes() - processes
    each = (before - _available()) / n
    if waiting < n - 8:  # some waited before
        bench.notes.append(f"idle: only {waiting} of {n} sandboxes wait")
    for _ in range(n):
        bench.check(fn(1, bench.canary)[1])
    bench.bar(f"memory of one of {n} idle sandboxes", each / 1e6, 0.8, "MB")
    agentsbx.shutdown()


def _processes() -> int:
    return sum(name.isdigit() for name in os.listdir("/proc"))


def _available() -> int:
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return 0
