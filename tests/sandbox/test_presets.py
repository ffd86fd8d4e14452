"""Each preset does the work that it is for, in a real sandbox, and no more."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import sandbox

PROGRAM = '#include <stdio.h>\nint twice(int);\nint main(void) { printf("%d\\n", twice(21)); }\n'


def start_a_program() -> int:
    """Runs in the job."""
    return subprocess.run(["true"], check=False).returncode


def test_strict_computes_and_starts_no_program() -> None:
    assert sandbox("strict")(lambda: sum(range(1000)))() == 499500
    assert start_a_program() == 0
    with pytest.raises(agentsbx.SandboxViolation, match="strict"):
        sandbox("strict")(start_a_program)()


@pytest.mark.parametrize("name", ["build", "data-science", "node", "shell"])
def test_no_preset_gives_network(name: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]

        def connect(port: int) -> None:
            with socket.create_connection(("127.0.0.1", port)):
                pass

        connect(port)
        with pytest.raises(agentsbx.SandboxViolation, match="no network"):
            sandbox(name)(connect)(port)


def test_shell_runs_a_pipeline() -> None:
    text = "".join(f"{n % 7} line\n" for n in range(20000))
    script = (
        "sort | uniq -c | awk '{ print $2, $1 }' | tee counts | tail -n 1; tar cz counts | wc -c"
    )
    done = agentsbx.run(["sh", "-c", f"cd $HOME; {script}"], policy="shell", input=text)
    last, size = done.stdout.split(b"\n")[:2]
    assert (done.value, last) == (0, b"6 2857"), done.stderr
    assert int(size) > 50
    many = "for i in $(seq 80); do sleep 0.3 & done; wait; echo $i"
    assert agentsbx.run(["sh", "-c", many], policy="shell").stdout == b"80\n"
    assert agentsbx.run(["sh", "-c", many]).value != 0, "the default allows fewer processes"


@pytest.mark.needs("program:gcc")
def test_build_compiles_and_links_c(scratch: Path) -> None:
    (scratch / "main.c").write_text(PROGRAM)
    (scratch / "twice.c").write_text("int twice(int n) { return 2 * n; }\n")
    script = (
        "cd $TMPDIR && for f in main twice; do gcc -g -O2 -c $0/$f.c & done; wait;"
        "gcc -o prog main.o twice.o && ./prog"
    )
    done = agentsbx.run(["sh", "-c", script, str(scratch)], policy="build", read=[scratch])
    assert (done.value, done.stdout) == (0, b"42\n"), done.stderr


def summarise(n: int) -> Any:
    """Runs in the job."""
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({"key": np.arange(n) % 10, "value": np.ones((n, 12)).sum(axis=1)})
    product = np.ones((300, 300)) @ np.ones((300, 300))
    return frame.groupby("key").sum(), product


@pytest.mark.needs("module:numpy", "module:pandas")
def test_data_science_returns_frames_and_arrays() -> None:
    total, product = sandbox("data-science")(summarise)(5_000_000)
    assert total["value"].tolist() == [6_000_000.0] * 10
    assert product.shape == (300, 300)
    assert product[0, 0] == 300
    error = sandbox(summarise).run(5_000_000).error  # by an rlimit it is numpy's own class
    assert isinstance(error, MemoryError) or "MemoryError" in str(error), error


@pytest.mark.needs("program:node")
def test_node_runs_workers_and_writes_files() -> None:
    script = """
    const fs = require("fs"), zlib = require("zlib");
    const { Worker } = require("worker_threads");
    fs.writeFileSync(process.env.HOME + "/out.json", JSON.stringify({ a: [1, 2, 3] }));
    const made = JSON.parse(fs.readFileSync(process.env.HOME + "/out.json"));
    zlib.gzip("x".repeat(100000), (error, packed) => {
      const worker = new Worker("require('worker_threads').parentPort.postMessage(6 * 7)",
                                { eval: true });
      worker.on("message", (n) => console.log(made.a.length, packed.length < 1000, n));
    });
    """
    done = agentsbx.run(["node", "-e", script], policy="node")
    assert (done.value, done.stdout) == (0, b"3 true 42\n"), done.stderr[-2000:]


def test_presets_hide_the_host(scratch: Path) -> None:
    (scratch / "secret").write_text("canary")
    os.chmod(scratch / "secret", 0o644)
    assert subprocess.run(["cat", scratch / "secret"], check=False).returncode == 0
    for name in ("build", "data-science", "node", "shell"):
        done = agentsbx.run(["cat", str(scratch / "secret")], policy=name)
        assert done.value != 0
        assert b"canary" not in done.stdout
