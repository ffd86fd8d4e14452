"""Tools as an agent would have them: two functions and a shell, each call in a fresh sandbox."""

from __future__ import annotations

import contextlib
import csv
import io
from collections import Counter, defaultdict

import agentsbx
from agentsbx import Grant, Result, sandbox


@sandbox(read=["elements.csv"])
def analyse(path: str) -> dict[str, object]:
    """Count, compare and average the rows of a table of chemical elements."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    weights: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        weights[row["period"]].append(float(row["weight"]))
    heaviest = max(rows, key=lambda row: float(row["weight"]))
    return {
        "rows": len(rows),
        "phases": dict(Counter(row["phase"] for row in rows)),
        "heaviest": heaviest["name"],
        "mean weight": {period: round(sum(w) / len(w), 1) for period, w in weights.items()},
    }


@sandbox(read=["elements.csv"], write=["reports"], timeout="10s", memory="256MB", processes=32)
def run_python(source: str) -> str:
    """Run a program that a model wrote, and return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "<model>", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


@sandbox(write=[Grant(".", code=True)], timeout="10s")
def edit_project(source: str) -> str:
    """Run a program that may change this project, the code of these tools included."""
    exec(compile(source, "<model>", "exec"), {"__name__": "__main__"})
    return "done"


def shell(line: str) -> Result:
    """Run a shell line that may read the table."""
    return agentsbx.run(["sh", "-c", line], read=["elements.csv"], timeout="10s")
