"""Benchmark group of sessions and the bridge: programs, cells, calls, files, a terminal."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any

from agentsbx import Sandbox, sandbox
from agentsbx.cli._bench_bodies import PROOF
from agentsbx.cli._bench_calls import REFILL_S
from agentsbx.cli._measure import interleave

if TYPE_CHECKING:
    from agentsbx.cli.bench import Bench

__all__ = ["sessions"]

MEGABYTE = 1 << 20
N_ASKED = 200
_BODIES = (
    PROOF
    + """
def asks(n, canary):
    from time import perf_counter
    start = perf_counter()
    for i in range(n):
        assert ask(i) == i
    return (perf_counter() - start) / n, prove(canary)

def ask(i):
    return i
"""
)


def sessions(bench: Bench) -> None:
    """Measure what a session's verbs cost against the plain ones."""
    names: dict[str, Any] = {"__name__": "__bench__"}
    exec(compile(_BODIES, "<bench>", "exec"), names)
    body, pooled = names["body"], sandbox(names["body"])
    asks = sandbox(host=[names["ask"]])(names["asks"])
    with Sandbox() as box, tempfile.TemporaryDirectory(prefix="agentsbx-bench-") as folder:
        _walls(bench, box)
        _programs(bench, box)
        _files(bench, box, os.path.join(folder, "plain"))

        def cell() -> None:
            assert box.python("1+1").value == 2

        found = bench.keep(
            "session",
            interleave(
                {
                    "pooled call": lambda: bench.check(pooled(7, bench.canary)[1]),
                    "call": lambda: box.call(body, 7, bench.canary),
                    "cell": cell,
                },
                bench.n(100),
                pause_s=REFILL_S,
            ),
        )
        once, called, ran = (s.p50 for s in found.values())
        bench.bar("a call in a session / a pooled call", called / once, 0.5)
        bench.bar("python('1+1')", ran * 1e3, 1.0, "ms")
    trips = bench.keep(
        "bridge",
        interleave({"round trip": lambda: bench.checked(asks(N_ASKED, bench.canary))}, bench.n(10)),
    )
    bench.bar("a round trip over the bridge", trips["round trip"].p50 * 1e6, 100, "us")


def _walls(bench: Bench, box: Sandbox) -> None:
    """Programs of the session are inside: the host's file is not there."""
    seen = box.exec(["cat", bench.canary])
    if seen.exit_code == 0 or box.read("/proc/1/comm") == b"":
        raise AssertionError("a program of the session saw the host")


def _programs(bench: Bench, box: Sandbox) -> None:
    found = bench.keep(
        "session",
        interleave(
            {
                "subprocess.run": lambda: subprocess.run(["/bin/true"], capture_output=True),
                "exec": lambda: box.exec(["/bin/true"]),
            },
            bench.n(150),
        ),
    )
    plain, inside = (s.p50 for s in found.values())
    bench.bar("exec(['/bin/true']) / subprocess.run", inside / plain, 1.2)
    process = box.start("stty -echo; echo up; cat", tty=True)
    events = iter(process)
    while b"up" not in next(events)[1]:
        pass

    def echo() -> float:
        start = time.perf_counter()
        process.write("x\n")
        said = b""
        while b"x" not in said:
            said += next(events)[1]
        return time.perf_counter() - start

    echoed = bench.keep("session", interleave({"terminal echo": echo}, bench.n(100)))
    process.kill()
    process.wait()
    bench.bar("echo of a terminal", echoed["terminal echo"].p50 * 1e3, 2, "ms")


def _files(bench: Bench, box: Sandbox, plain: str) -> None:
    data = os.urandom(MEGABYTE)

    def write() -> None:
        with open(plain, "wb") as file:
            file.write(data)

    def read() -> None:
        with open(plain, "rb") as file:
            assert len(file.read()) == MEGABYTE

    found = bench.keep(
        "session",
        interleave(
            {
                "plain write of 1 MB": write,
                "write of 1 MB": lambda: box.write("f", data),
                "plain read of 1 MB": read,
                "read of 1 MB": lambda: box.read("f"),
            },
            bench.n(60),
        ),
    )
    write_plain, written, read_plain, got = (s.p50 for s in found.values())
    bench.bar("writing 1 MB in a session / a plain file", written / write_plain, 3)
    bench.bar("reading 1 MB in a session / a plain file", got / read_plain, 3)
