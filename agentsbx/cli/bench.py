"""`agentsbx bench`: what a sandboxed call costs on this machine, against the bars that we set.

Everything is measured interleaved with its baseline in one process, and every sample of a sandboxed
call proves that it ran in a sandbox: pid 1, another uid where we are root, a readable file of the
host that cannot be opened.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from typing import Any, NamedTuple

import agentsbx
from agentsbx._load import load
from agentsbx.cli._measure import Load, Sample
from agentsbx.cli._table import table

__all__ = ["Bar", "Bench", "main"]


class Bar(NamedTuple):
    """One bar: what was measured against what it may be."""

    name: str
    measured: float
    limit: float
    unit: str = "x"
    at_least: bool = False

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def row(self, *, judged: bool) -> tuple[str, str, str, str]:
        """Return a line of the table."""
        sign = ">=" if self.at_least else "<="
        verdict = ("ok" if self.ok else "MISSED") if judged else ("ok" if self.ok else "(loaded)")
        return (
            self.name,
            f"{self.measured:.2f} {self.unit}",
            f"{sign} {self.limit:g} {self.unit}",
            verdict,
        )


class Bench:
    """Collects bars and samples; one per run."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.bars: list[Bar] = []
        self.samples: dict[str, Sample] = {}
        self.notes: list[str] = []
        self.load = Load()
        self._file = tempfile.NamedTemporaryFile(prefix="agentsbx-bench-")  # noqa: SIM115
        os.chmod(self._file.name, 0o644)  # readable for everybody, where it can be seen
        self.canary = self._file.name

    def n(self, full: int) -> int:
        """How often to measure: a fifth with `--quick`."""
        return max(5, full // 5) if self.quick else full

    def keep(self, group: str, found: dict[str, Sample]) -> dict[str, Sample]:
        """Record samples under a name."""
        self.samples |= {f"{group}: {name}": sample for name, sample in found.items()}
        self.load.look()
        return found

    def bar(self, name: str, measured: float, limit: float, unit: str = "x", **more: bool) -> None:
        """Record a bar."""
        self.bars.append(Bar(name, measured, limit, unit, **more))

    def checked(self, told: tuple[float, Any]) -> float:
        """Return the seconds that a call told, once its proof is checked."""
        self.check(told[1])
        return told[0]

    def check(self, proof: Any) -> None:
        """Raise unless `proof` is that of a sandboxed process."""
        pid, uid, seen = proof
        if pid != 1 or not seen or (os.getuid() == 0 and uid == 0):
            raise AssertionError(f"a sample did not run in a sandbox: pid {pid}, uid {uid}, {seen}")


GROUPS = (
    "calls", "sustained", "commands", "inside", "data", "meaning", "tools", "sessions", "start",
    "idle",
)  # fmt: skip


def main(argv: list[str]) -> int:
    """Measure and print; exit code 1 if a bar is missed on a machine quiet enough to tell."""
    parser = argparse.ArgumentParser(
        prog="agentsbx bench", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples, a few seconds")
    parser.add_argument("--json", action="store_true", help="all numbers, as JSON")
    parser.add_argument("--only", action="append", choices=GROUPS, help="only these; repeatable")
    options = parser.parse_args(argv)
    load("_runtime")  # where there are no sandboxes at all, this says why
    from agentsbx.cli import _bench_calls, _bench_meaning, _bench_rest, _bench_sessions

    bench = Bench(quick=options.quick)
    for group in options.only or GROUPS:
        homes = _bench_calls, _bench_meaning, _bench_rest, _bench_sessions
        measure = next(getattr(home, group) for home in homes if hasattr(home, group))
        if not options.json:
            print(f"measuring {group} ...", file=sys.stderr, flush=True)
        try:
            measure(bench)
        except agentsbx.AgentsbxError as error:
            bench.notes.append(f"{group}: {type(error).__name__}: {error}")
    agentsbx.shutdown()
    quiet, facts = bench.load.verdict()
    missed = [bar for bar in bench.bars if not bar.ok]
    if options.json:
        json.dump(_data(bench, facts, quiet=quiet), sys.stdout, indent=2)
        print()
    else:
        print(_text(bench, facts, quiet=quiet))
    return 1 if bench.notes or (missed and quiet) else 0


def _data(bench: Bench, facts: str, *, quiet: bool) -> dict[str, Any]:
    return {
        "version": agentsbx.__version__,
        "user": "root" if os.getuid() == 0 else "ordinary",
        "judged": quiet,
        "load": facts,
        "bars": [bar._asdict() | {"ok": bar.ok} for bar in bench.bars],
        "samples": {name: sample.as_dict() for name, sample in bench.samples.items()},
        "failed": bench.notes,
    }


def _text(bench: Bench, facts: str, *, quiet: bool) -> str:
    rows = [
        (name, *(f"{value * 1e3:.3f}" for value in (sample.p50, sample.p95, sample.min)))
        for name, sample in bench.samples.items()
    ]
    lines = [
        table([("milliseconds", "p50", "p95", "min"), *rows]),
        "",
        table([("bar", "measured", "limit", ""), *(b.row(judged=quiet) for b in bench.bars)]),
        "",
        *(f"FAILED {note}" for note in bench.notes),
        f"machine: {facts}",
    ]
    if not quiet:
        lines.append("This machine is too loaded to judge: run it again when it is quiet.")
    return "\n".join(lines)
