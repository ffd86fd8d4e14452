"""`agentsbx run`: the command as if started here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import agentsbx

ENV = os.environ | {"PYTHONPATH": str(Path(agentsbx.__file__).parents[1])}


def cli(
    *words: str, stdin: str = "", cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentsbx", *words],
        input=stdin,
        env={**ENV, **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_three_streams_are_the_commands_own() -> None:
    done = cli("run", "--", "sh", "-c", "cat; echo err >&2; exit 7", stdin="in\n")
    assert (done.stdout, done.stderr, done.returncode) == ("in\n", "err\n", 7)


def test_output_is_not_bounded_and_not_changed() -> None:
    done = cli("run", "--output", "1KB", "--", "sh", "-c", "head -c 100000 /dev/zero")
    assert len(done.stdout) == 100_000
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("flags", "command", "code", "words"),
    [
        ([], ["sh", "-c", "kill -9 $$"], 137, ""),
        ([], ["sh", "-c", "kill -TERM $$"], 143, ""),
        (["--timeout", "0.5s"], ["sleep", "20"], 124, "timeout="),
        (
            ["--memory", "60MB"],
            ["python3", "-c", "x = bytearray(10**9)"],
            None,
            "emory",
        ),
        ([], ["no-such-program"], 127, "no-such-program"),
        ([], ["/etc"], 126, "/etc"),
        (["--read", "/no/such/path"], ["true"], 125, "/no/such/path"),
        (["--memroy", "1"], ["true"], 125, "did you mean --memory?"),
        (["--memory", "1 lightyear"], ["true"], 125, "memory"),
        (["--net", "example.com:443"], ["true"], 125, "net"),
    ],
)
def test_exit_codes_and_words(
    flags: list[str], command: list[str], code: int | None, words: str
) -> None:
    done = cli("run", *flags, "--", *command)
    assert done.stdout == ""
    assert words in done.stderr
    if code is not None:
        assert done.returncode == code
    else:
        assert done.returncode not in (0, 125)


def test_flags_of_the_command_are_left_alone() -> None:
    assert cli("run", "echo", "--read", "-h").stdout == "--read -h\n"
    assert cli("run", "--", "echo", "--", "x").stdout == "-- x\n"


def test_grants_and_variables(scratch: Path) -> None:
    (scratch / "a.txt").write_text("text")
    line = "cat a.txt; echo $MODE"
    done = cli(
        "run",
        "--read",
        "a.txt",
        "--env",
        "MODE=x",
        "--",
        "sh",
        "-c",
        line,
        cwd=scratch,
    )
    assert done.stdout == "textx\n"
    done = cli("run", "--write", ".", "--", "sh", "-c", "echo new > b.txt", cwd=scratch)
    assert (scratch / "b.txt").read_text() == "new\n", done.stderr
    assert cli("run", "--", "cat", str(scratch / "a.txt")).returncode == 1


def test_a_policy_file_and_a_preset(scratch: Path) -> None:
    (scratch / "p.toml").write_text('env = ["MODE=x"]\n')
    policy = str(scratch / "p.toml")
    assert cli("run", "--policy", policy, "--", "sh", "-c", "echo $MODE").stdout == "x\n"
    done = cli("run", "--policy", policy, "--timeout", "60s", "--", "true")
    assert done.returncode == 125
    assert "timeout" in done.stderr


def beating(scratch: Path, *, outer: list[str] | None = None) -> subprocess.Popen[bytes]:
    """Start a command that beats, with a child that left its session, and wait for both."""
    line = "echo x >> {0}; sleep 0.02"
    script = (
        f"setsid sh -c 'while :; do {line.format('daemon')}; done' & "
        f"while :; do {line.format('beat')}; done"
    )
    argv = [
        sys.executable,
        "-m",
        "agentsbx",
        "run",
        "--write",
        str(scratch),
        "--",
        "sh",
        "-c",
        script,
    ]
    process = subprocess.Popen([*(outer or []), *argv], env=ENV, cwd=scratch)
    end = time.monotonic() + 20
    while not ((scratch / "beat").exists() and (scratch / "daemon").exists()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


def assert_silent(scratch: Path) -> None:
    sizes = [(scratch / name).stat().st_size for name in ("beat", "daemon")]
    time.sleep(0.3)
    assert [(scratch / name).stat().st_size for name in ("beat", "daemon")] == sizes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_signal_takes_the_tree_along(scratch: Path, number: signal.Signals) -> None:
    # Tests under nohup(1) inherit an ignored SIGHUP, which a command rightly keeps ignoring.
    process = beating(scratch, outer=["env", "--default-signal"])
    process.send_signal(number)
    assert process.wait(20) == -number
    time.sleep(0.1)
    assert_silent(scratch)


def test_it_dies_with_its_parent(scratch: Path) -> None:
    outer = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"]
    process = beating(scratch, outer=outer)
    process.kill()
    process.wait(20)
    time.sleep(0.4)
    assert_silent(scratch)


def test_it_outlives_the_thread_that_started_it() -> None:
    source = """
import subprocess, sys, threading
made = []
argv = [sys.executable, "-m", "agentsbx", "run", "--", "sh", "-c", "sleep 1; echo alive"]
thread = threading.Thread(target=lambda: made.append(subprocess.Popen(argv, stdout=-1)))
thread.start(); thread.join()
print(made[0].communicate()[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", source], env=ENV, capture_output=True, text=True, timeout=60
    )
    assert "alive" in done.stdout


def test_help_and_usage(make_scratch: Callable[[str], Path]) -> None:
    assert "--memory SIZE" in cli("run", "--help").stdout
    assert cli("run").returncode == 125
    assert "usage: agentsbx" in cli().stderr
    assert "did you mean 'doctor'" in cli("docter").stderr
    assert cli("--version").stdout == f"agentsbx {agentsbx.__version__}\n"


def test_explain_tells_what_was_swallowed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    done = cli("run", "--explain", "--", "sh", "-c", f"cat {secret} 2>/dev/null; echo out")
    assert (done.returncode, done.stdout) == (0, "out\n")
    assert f"read=['{secret}']" in done.stderr
    assert cli("run", "--explain", "--", "true").stderr == "agentsbx: nothing was denied\n"
