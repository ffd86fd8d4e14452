"""Measuring on a machine that others use too: interleaved samples, and whether it was quiet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Load", "Sample", "interleave"]


class Sample(NamedTuple):
    """What repeated runs took, in seconds, sorted."""

    times: tuple[float, ...]

    @classmethod
    def of(cls, times: list[float]) -> Sample:
        """Sort and keep."""
        return cls(tuple(sorted(times)))

    @property
    def p50(self) -> float:
        """The median."""
        return self.times[len(self.times) // 2]

    @property
    def p95(self) -> float:
        """Exceeded by one run in twenty."""
        return self.times[min(len(self.times) - 1, int(len(self.times) * 0.95))]

    @property
    def min(self) -> float:
        """The least disturbed run."""
        return self.times[0]

    def as_dict(self) -> dict[str, float | int]:
        """For `--json`: milliseconds."""
        return {
            "n": len(self.times),
            "p50_ms": self.p50 * 1e3,
            "p95_ms": self.p95 * 1e3,
            "min_ms": self.min * 1e3,
        }


def interleave(
    calls: Mapping[str, Callable[[], Any]], n: int, *, pause_s: float = 0.0, warm: int = 2
) -> dict[str, Sample]:
    """Run each of `calls` `n` times, in turn, so that a busy spell hits all of them alike.

    A call that returns a float tells its own time in seconds. `pause_s` passes before each.
    """
    for _ in range(warm):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(n):
        for name, call in calls.items():
            if pause_s:
                time.sleep(pause_s)
            start = time.perf_counter()
            told = call()
            took = time.perf_counter() - start
            times[name].append(told if isinstance(told, float) else took)
    return {name: Sample.of(found) for name, found in times.items()}


class Load:
    """Watches the machine: the same piece of work takes the same time when nobody else runs."""

    def __init__(self) -> None:
        self._stat = _cpu_times()
        self._spins: list[float] = []
        self.look()

    def look(self) -> None:
        """Time a fixed piece of work a few times."""
        for _ in range(15):
            start = time.perf_counter()
            sum(range(40_000))
            self._spins.append(time.perf_counter() - start)

    def verdict(self) -> tuple[bool, str]:
        """Whether measurements of this machine can be judged, and why not."""
        self.look()
        spins = Sample.of(self._spins)
        spread = spins.p95 / spins.min
        now = _cpu_times()
        total = sum(now) - sum(self._stat) or 1
        steal = (now[7] - self._stat[7]) / total if len(now) > 7 else 0.0
        average = os.getloadavg()[0] / (os.cpu_count() or 1)
        facts = f"same work p95/min {spread:.2f}, steal {steal:.1%}, load {average:.2f} per CPU"
        return spread < 1.5 and steal < 0.03 and average < 1.2, facts


def _cpu_times() -> list[int]:
    try:
        with open("/proc/stat") as file:
            return [int(word) for word in file.readline().split()[1:]]
    except OSError:
        return [0] * 10
