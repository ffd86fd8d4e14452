"""`agentsbx call`, `doctor`, `policy`, `demo`, `bench`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.test_run import cli

TOOLS = """
import os
from agentsbx import sandbox

@sandbox(timeout="20s")
def add(a: int, b: int = 1) -> dict:
    return {"sum": a + b, "pid": os.getpid()}

def plain(text):
    print("printed")
    return [text, (1, 2)]

async def later(x):
    return x

def fails():
    raise ValueError("no")
"""


@pytest.fixture
def tools(scratch: Path) -> Path:
    (scratch / "tools.py").write_text(TOOLS)
    return scratch


def test_call_prints_the_value_as_json(tools: Path) -> None:
    done = cli("call", "tools:add", "2", "b=3", cwd=tools)
    assert json.loads(done.stdout) == {"sum": 5, "pid": 1}, done.stderr
    done = cli("call", "tools.py:plain", "a b", cwd=tools)
    assert json.loads(done.stdout.splitlines()[-1]) == ["a b", [1, 2]], done.stderr
    assert cli("call", "tools:later", "[1]", cwd=tools).stdout == "[1]\n"


def test_call_fails_with_words(tools: Path) -> None:
    done = cli("call", "tools:fails", cwd=tools)
    assert (done.returncode, "ValueError: no" in done.stderr) == (1, True)
    for words in (["tools:nothing"], ["nowhere:f"], ["tools"], ["tools:add"], []):
        done = cli("call", *words, cwd=tools)
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith("agentsbx: ")


def test_doctor_tells_what_was_tried() -> None:
    done = cli("doctor", "--json")
    found = json.loads(done.stdout)
    assert found["works"] == (done.returncode == 0)
    tried = {check["what"]: check["status"] for check in found["checks"]}
    if found["works"]:
        assert tried["files of the host are hidden"] == "enforced"
        assert tried["no network"] == "enforced"
        assert tried["limit: timeout"] == "enforced"
    assert "kernel" in found["machine"]
    text = cli("doctor").stdout
    assert "this machine" in text
    assert "tried" in text


def test_policy_check_explain_schema(scratch: Path) -> None:
    (scratch / "good.toml").write_text('read = ["."]\n[limits]\nmemory = "1GB"\n')
    (scratch / "bad.toml").write_text('[limits]\nmemory = "1 lightyear"\n')
    done = cli("policy", "check", "good.toml", cwd=scratch)
    assert (done.stdout, done.returncode) == ("good.toml: ok\n", 0)
    done = cli("policy", "check", "bad.toml", "good.toml", "strict", cwd=scratch)
    assert done.returncode == 1
    assert "bad.toml:2" in done.stderr
    assert str(scratch) in cli("policy", "explain", "good.toml", cwd=scratch).stdout
    assert "[limits]" in cli("policy", "explain", "--toml", "strict").stdout
    assert json.loads(cli("policy", "schema").stdout)["title"] == "agentsbx"


@pytest.mark.slow
def test_demo_stops_every_attack() -> None:
    done = cli("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok ") >= 12


@pytest.mark.slow
def test_bench_measures_and_checks() -> None:
    done = cli("bench", "--quick", "--only", "start", "--json")
    found = json.loads(done.stdout)
    assert not found["failed"], found["failed"]
    assert {bar["name"] for bar in found["bars"]} >= {"import agentsbx"}


@pytest.mark.parametrize("mode", ["fork", "zygote"])
def test_a_baseline_of_bench_answers(mode: str) -> None:
    helper = [sys.executable, "-m", "agentsbx.cli._bench_helper", mode]
    done = subprocess.run(helper, input=b"xx", capture_output=True, timeout=60, check=True)
    assert (len(done.stdout.split()) if mode == "fork" else len(done.stdout)) == 2
