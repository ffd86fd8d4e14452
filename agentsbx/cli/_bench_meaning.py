"""Benchmark groups about what a call means: output, generators, captures, many tools at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import agentsbx
from agentsbx import sandbox
from agentsbx.cli._bench_bodies import PROOF
from agentsbx.cli._bench_calls import REFILL_S
from agentsbx.cli._measure import Sample, interleave

if TYPE_CHECKING:
    from agentsbx.cli.bench import Bench

__all__ = ["meaning", "tools"]

MANY = 500
N_ITEMS = 1000

_BODIES = (
    PROOF
    + """
def says(x, canary):
    print("a line of output")
    return x, prove(canary)

def captures(x, canary):
    return x, len(captured) and prove(canary)

def items(n, canary):
    yield prove(canary)
    yield from range(n)
"""
)

# One process: n tools, each with a folder of its own, all with pandas; seconds and bytes (PSS).
_TOOLS = """
import os, re, sys, tempfile, time
import pandas
from agentsbx import sandbox
n = int(sys.argv[1])
root = tempfile.mkdtemp()
tools = []
for i in range(n):
    folder = os.path.join(root, str(i))
    os.mkdir(folder)
    names = {"pandas": pandas, "__name__": "__tools__"}
    exec("def tool(x):\\n return os_pid(), int(pandas.DataFrame({'a': [1, x]}).a.sum())\\n"
         "def os_pid():\\n import os\\n return os.getpid()", names)
    tools.append(sandbox(read=folder)(names["tool"]))
start = time.perf_counter()
for tool in tools:
    assert tool(2) == (1, 3)
took = time.perf_counter() - start
time.sleep(0.5)
def below(pid):
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = open(f"/proc/{name}/stat").read()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == pid:
            yield name
            yield from below(int(name))
pss = 0
for pid in below(os.getpid()):
    try:
        pss += int(re.search(r"Pss:\\s+(\\d+)", open(f"/proc/{pid}/smaps_rollup").read())[1])
    except OSError:
        pass
os.system(f"rm -r {root}")
print(took, pss * 1024)
"""


def meaning(bench: Bench) -> None:
    """Measure what output, captures and generators add to a call."""
    names: dict[str, Any] = {"__name__": "__bench__", "captured": os.urandom(100_000)}
    exec(compile(_BODIES, "<bench>", "exec"), names)
    plain, says = sandbox(names["body"]), sandbox(names["says"])
    captures, items = sandbox(names["captures"]), sandbox(names["items"])

    def call(fn: Any) -> None:
        x, proof = fn(7, bench.canary)
        assert x == 7
        bench.check(proof)

    def stream() -> float:
        generator = items(N_ITEMS, bench.canary)
        bench.check(next(generator))
        start = time.perf_counter()
        assert sum(generator) == N_ITEMS * (N_ITEMS - 1) // 2
        return (time.perf_counter() - start) / N_ITEMS

    with open(os.devnull, "w") as nowhere:
        kept, sys.stdout = sys.stdout, nowhere
        try:
            found = bench.keep(
                "call",
                interleave(
                    {
                        "pooled": lambda: call(plain),
                        "pooled, prints a line": lambda: call(says),
                        "pooled, captures 100 KB": lambda: call(captures),
                    },
                    bench.n(150),
                    pause_s=REFILL_S,
                ),
            )
        finally:
            sys.stdout = kept
    pooled, printed, captured = (s.p50 for s in found.values())
    bench.bar("a call that prints a line / a call", printed / pooled, 1.1)
    bench.bar("a call that captures 100 KB / a call", captured / pooled, 1.3)
    item = bench.keep("generator", interleave({"an item": stream}, bench.n(10)))["an item"]
    bench.bar("an item of a generator", item.p50 * 1e6, 60, "us")


def tools(bench: Bench) -> None:
    """Measure ten tools with pandas, and many calls at once."""
    try:
        import pandas  # noqa: F401
    except ImportError:
        bench.notes.append("tools: pandas is not installed")
    else:
        one, ten = _tools(1), _tools(10)
        bench.samples["ten tools with pandas: start"] = Sample.of([ten[0]])
        bench.bar("start of ten tools / of one", ten[0] / one[0], 2.0)
        bench.bar("memory of ten tools with pandas", ten[1] / 1e6, 150, "MB")
    names: dict[str, Any] = {"__name__": "__bench__"}
    exec(compile(PROOF, "<bench>", "exec"), names)
    fn = sandbox(names["body"])
    errors: list[BaseException] = []

    def call(x: int) -> None:
        try:
            bench.check(fn(x, bench.canary)[1])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(MANY)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.samples[f"{MANY} calls at once"] = Sample.of([time.perf_counter() - start])
    bench.bar(f"{MANY} calls at once, failed", len(errors), 0, "")


def _tools(n: int) -> tuple[float, float]:
    env = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(agentsbx.__file__))}
    argv = [sys.executable, "-c", _TOOLS, str(n)]
    done = subprocess.run(argv, env=env, check=True, capture_output=True, text=True)
    took, pss = map(float, done.stdout.split())
    return took, pss
