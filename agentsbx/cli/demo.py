"""`agentsbx demo`: an agent's tools at work in sandboxes, then the same tools attacked.

Everything is real: the tools are `data/demo/tools.py` on `data/demo/elements.csv`, copied into a
throw-away project; the key, the secret, the listener and the hook that the attacks want are made
for the demo and checked afterwards. No network. Exit code 1 if anything was not stopped.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from agentsbx.cli._attacks import ATTACKS, Attack
from agentsbx.cli._table import table
from agentsbx.result import Result

__all__ = ["main"]

DATA = Path(__file__).resolve().parent.parent / "data" / "demo"

PROGRAM = """
import csv
with open("elements.csv") as file:
    rows = list(csv.DictReader(file))
by_kind = {}
for row in rows:
    by_kind.setdefault(row["kind"], []).append(float(row["weight"]))
for kind, weights in sorted(by_kind.items(), key=lambda item: -len(item[1]))[:3]:
    print(f"{kind}: {len(weights)}, mean weight {sum(weights) / len(weights):.1f}")
with open("reports/kinds.txt", "w") as report:
    print(*sorted(by_kind), sep="\\n", file=report)
"""
LINE = "cut -d, -f7 elements.csv | tail -n +2 | sort | uniq -c | sort -rn"


class Row(NamedTuple):
    """One line of the final table."""

    what: str
    ok: bool
    outcome: str
    ms: float


class World:
    """What the attacks are after; all of it made for the demo."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.home = folder / "home"
        self.secret = secrets.token_hex(16)
        self.key = self.home / ".ssh" / "id_ed25519"
        self.key.parent.mkdir(parents=True, mode=0o700)
        self.key.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{self.secret}\n")
        shutil.copytree(DATA, self.project, ignore=shutil.ignore_patterns("__pycache__"))
        (self.project / "reports").mkdir()
        self.hook = self.project / ".git" / "hooks" / "pre-commit"
        self.hook.parent.mkdir(parents=True)
        self.hook.write_text("#!/bin/sh\nexit 0\n")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)  # noqa: FBT003
        self.port = self.listener.getsockname()[1]
        self.n_processes = 0

    def shorten(self, text: str) -> str:
        """Leave the names of temporary folders out of a message."""
        return text.replace(str(self.home), "~").replace(str(self.project), "project")

    def was_reached(self) -> bool:
        """Whether somebody connected to the demo's own listener."""
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@contextmanager
def _world() -> Iterator[World]:
    before, cwd = dict(os.environ), os.getcwd()
    with tempfile.TemporaryDirectory(prefix="agentsbx-demo-") as folder:
        world = World(Path(folder).resolve())
        os.environ["HOME"] = str(world.home)
        os.environ["DEMO_API_KEY"] = world.secret
        os.chdir(world.project)
        try:
            yield world
        finally:
            world.listener.close()
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(before)
            sys.modules.pop("demo_tools", None)


def main(argv: list[str]) -> int:
    """Run the demo."""
    if argv:
        print("usage: agentsbx demo\n\nShow tools at work in sandboxes, and attacks stopped.")
        return 0 if argv[0] in ("-h", "--help") else 125
    started = time.monotonic()
    with _world() as world:
        tools = _load(world.project / "tools.py")
        print("An agent's tools, each call in a fresh sandbox (agentsbx/data/demo/tools.py)\n")
        rows = _work(tools, world)
        print("\nThe same tools, with hostile programs\n")
        rows += [_attack(attack, tools, world) for attack in ATTACKS]
        costs = _costs(tools)
    print("\nWhat happened\n")
    print(
        table(
            [
                ("", "", "outcome", "ms"),
                *((r.what, _mark(r), r.outcome, f"{r.ms:.1f}") for r in rows),
            ]
        )
    )
    print("\nWhat it costs here\n")
    print(table([("one call", "median ms", ""), *costs]))
    failed = [row.what for row in rows if not row.ok]
    print(f"\n{len(rows)} calls checked in {time.monotonic() - started:.1f} s, ", end="")
    print(f"NOT as it should be: {', '.join(failed)}" if failed else "all as it should be")
    return 1 if failed else 0


def _mark(row: Row) -> str:
    return "ok" if row.ok else "FAILED"


def _load(path: Path) -> ModuleType:
    """Import the agent's tools as a project would: by file, as project code."""
    spec = importlib.util.spec_from_file_location("demo_tools", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_tools"] = module
    spec.loader.exec_module(module)
    return module


# -- work ---------------------------------------------------------------------------------------


def _work(tools: ModuleType, world: World) -> list[Row]:
    rows = []
    work: tuple[tuple[str, Callable[[], Result], Callable[[Result], bool]], ...] = (
        (
            "analyse a table",
            lambda: tools.analyse.run("elements.csv"),
            lambda r: r.value["rows"] == 103 and r.value["heaviest"] == "Lawrencium",
        ),
        (
            "run a model's program",
            lambda: tools.run_python.run(PROGRAM),
            lambda r: (
                r.value.startswith("transition metal: 29")
                and "noble gas" in (world.project / "reports" / "kinds.txt").read_text()
            ),
        ),
        (
            "run a shell pipeline",
            lambda: tools.shell(LINE),
            lambda r: r.text.split()[:2] == ["90", "solid"] and r.value == 0,
        ),
    )
    for what, call, check in work:
        result, ms = _timed(call)
        ok = result.error is None and check(result)
        shown = result.text if what.endswith("pipeline") else result.value
        print(f"  {what}:\n" + _indented(str(shown if result.error is None else result.error)))
        rows.append(Row(what, ok, _outcome(result), ms))
    return rows


def _timed(call: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - start) * 1000


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


def _outcome(result: Result) -> str:
    return (
        "done" if result.error is None else _short(f"{type(result.error).__name__}: {result.error}")
    )


def _short(text: str, width: int = 96) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."


# -- attacks ------------------------------------------------------------------------------------


def _attack(attack: Attack, tools: ModuleType, world: World) -> Row:
    print(f"  {attack.what}:")
    call = getattr(tools, attack.tool).run
    try:
        source = attack.source(world)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the table tells who was killed
            result, ms = _timed(lambda: call(source))
        problem = _leaks(result, world) or attack.check(result, world)
        reason = attack.reason(result) if problem is None else ""
        if problem is None and not reason:
            problem = f"stopped, but no reason was given: {result.error or result.value}"
    except Exception as error:  # the demo itself must tell, whatever went wrong
        problem, reason, ms = f"{type(error).__name__}: {error}", "", 0.0
    shown = world.shorten(problem or reason)
    print(_indented(shown))
    return Row(attack.what, problem is None, _short(shown), ms)


def _leaks(result: Result, world: World) -> str | None:
    """Say how the secret came out, if it did."""
    for name, where in (
        ("the result", repr(result.value)),
        ("stdout", result.text),
        ("stderr", result.stderr_text),
        ("the error", f"{result.error!r} {getattr(result.error, '__notes__', '')}"),
    ):
        if world.secret in where:
            return f"the secret came out in {name}"
    return None


# -- costs --------------------------------------------------------------------------------------


def _costs(tools: ModuleType) -> list[tuple[str, str, str]]:
    def median(call: Callable[[], Any], n: int) -> float:
        times = []
        for _ in range(n):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1000)
        return statistics.median(times)

    sandboxed = median(lambda: tools.analyse("elements.csv"), 50)
    here = median(lambda: tools.analyse.local("elements.csv"), 50)
    command = median(lambda: tools.shell("true"), 10)
    python = median(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), 10)
    return [
        ("analyse(...) in a sandbox", f"{sandboxed:.2f}", "fresh sandbox, pooled"),
        ("analyse(...) without", f"{here:.2f}", "the work alone"),
        ('shell("true") in a sandbox', f"{command:.2f}", "fresh sandbox, exec"),
        ("python -c pass", f"{python:.2f}", "a bare process, no sandbox, for comparison"),
    ]
