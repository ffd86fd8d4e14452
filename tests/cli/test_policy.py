"""`agentsbx policy show|why|test`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from cli.test_run import cli

POLICY = """\
extends = "strict"
read = ["data"]
[function."tools:fetch".limits]
timeout = "5s"
"""
TOOLS = """
from agentsbx import sandbox
@sandbox("./p.toml")
def fetch(): ...
@sandbox(memory="1GB")
def other(): ...
def plain(): ...
"""
TABLE = """\
policy = "./p.toml"
[[row]]
op = "open"
target = "data"
verdict = "allow"
[[row]]
op = "write"
target = "data"
verdict = "deny"
[[row]]
op = "fork"
verdict = "deny"
"""


@pytest.fixture
def place(scratch: Path) -> Path:
    (scratch / "data").mkdir()
    for name, text in (("p.toml", POLICY), ("tools.py", TOOLS), ("t.toml", TABLE)):
        (scratch / name).write_text(text)
    return scratch


def test_show_is_a_policy_file(place: Path) -> None:
    text = cli("policy", "show", "p.toml", cwd=place).stdout
    assert "# p.toml:2" in text
    assert tomllib.loads(text)["function"]["tools:fetch"] == {"limits": {"timeout": 5.0}}
    full = cli("policy", "show", "--resolved", "p.toml", cwd=place).stdout
    assert 'result = "64MiB"                  # default' in full


def test_show_of_a_function_says_which_section_applies(place: Path) -> None:
    done = cli("policy", "show", "--resolved", "tools:fetch", cwd=place)
    assert done.stdout.splitlines()[0] == f"# tools:fetch: {place}/p.toml, section tools:fetch"
    assert "timeout = 5.0" in done.stdout
    done = cli("policy", "show", "tools:other", "--policy", "p.toml", cwd=place)
    assert done.stdout.startswith("# tools:other: ")
    assert "section" not in done.stdout.splitlines()[0]
    assert 'memory = "1GB"' in cli("policy", "show", "tools:other", cwd=place).stdout
    done = cli("policy", "show", "tools:plain", cwd=place)
    assert (done.returncode, "is not decorated" in done.stderr) == (125, True)


def test_why_answers_and_exits_with_the_verdict(place: Path) -> None:
    done = cli("policy", "why", "open /etc/passwd")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "allow: read /etc/passwd")
    done = cli("policy", "why", "write data", "--policy", "p.toml", cwd=place)
    assert done.returncode == 1
    assert f"smallest change: write=['{place}/data']" in done.stdout
    done = cli("policy", "why", "fork", "tools:fetch", "--json", cwd=place)
    assert json.loads(done.stdout)["change"] == "profile='python'"
    assert cli("policy", "why", "opn /x").returncode == 125


def test_test_runs_a_table(place: Path) -> None:
    done = cli("policy", "test", str(place / "t.toml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 as expected" in done.stdout
    done = cli("policy", "test", "t.toml", "--policy", "default", "--json", cwd=place)
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert [row["sandbox"] for row in rows] == ["deny", "deny", "allow"]
    assert "smallest change" in rows[0]["problem"]


def test_trust_lets_a_found_file_widen_until_it_changes(place: Path) -> None:
    found = place / "agentsbx.toml"
    found.write_text("read = ['data']\nwrite = []\n[limits]\nmemory = '2GB'\n")
    env = {"XDG_CONFIG_HOME": str(place / "config")}
    shown = cli("policy", "show", "tools:other", cwd=place, env=env)
    assert 'memory = "1GB"' in shown.stdout
    assert "Ignored, as it is not trusted: read " in shown.stdout
    assert "only narrows: limits.memory, read ignored" in shown.stderr
    done = cli("policy", "trust", "agentsbx.toml", cwd=place, env=env)
    assert done.returncode == 0, done.stderr
    shown = cli("policy", "show", "tools:other", cwd=place, env=env)
    assert f'memory = "2GB"                    # found {found}' in shown.stdout
    assert shown.stderr == ""
    listed = cli("policy", "trust", "--list", cwd=place, env=env).stdout
    assert listed == f"trusted   {found}\n"
    found.write_text("[limits]\nmemory = '3GB'\n")
    assert cli("policy", "trust", "--list", cwd=place, env=env).stdout == f"changed   {found}\n"
    shown = cli("policy", "show", "tools:other", cwd=place, env=env)
    assert "it changed since it was trusted" in shown.stderr
    assert 'memory = "1GB"' in shown.stdout
    assert cli("policy", "untrust", "agentsbx.toml", cwd=place, env=env).returncode == 0
    assert cli("policy", "untrust", "agentsbx.toml", cwd=place, env=env).returncode == 1
    assert cli("policy", "trust", "p.toml", cwd=place, env=env).returncode == 125


def test_a_command_is_narrowed_by_a_found_file(place: Path) -> None:
    assert cli("run", "--", "true", cwd=place).returncode == 0
    (place / "agentsbx.toml").write_text("write = []\n[limits]\nopen_files = 77\n")
    done = cli("run", "--write", "data", "--", "sh", "-c", "ulimit -n; touch data/x", cwd=place)
    assert (done.stdout, done.returncode) == ("77\n", 1), done.stderr
    assert not (place / "data/x").exists()
    assert cli("policy", "why", "write data", cwd=place).returncode == 1
    named = cli("run", "--policy", "./agentsbx.toml", "--", "sh", "-c", "ulimit -n", cwd=place)
    assert named.stdout == "77\n"
