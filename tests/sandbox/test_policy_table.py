"""`policy test`: a table runs in a real sandbox; model and sandbox are compared."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from agentsbx import _why_table
from agentsbx._why_table import Row, read_table, run_table
from agentsbx.errors import PolicyError
from agentsbx.policy import Policy


@pytest.fixture
def place(scratch: Path) -> Path:
    (scratch / "r").mkdir()
    (scratch / "w/.git/hooks").mkdir(parents=True)
    for name in ("secret", "r/f", "w/f", "w/.envrc"):
        (scratch / name).write_text("x")
    for name in ("w/prog", "prog"):
        (scratch / name).write_text(f"#!/bin/sh\ntouch {scratch}/w/ran\n")
        (scratch / name).chmod(0o755)
    return scratch


PATHS = {
    "read": ["r", "r/f", "w/f", "secret", "/etc/passwd", "/etc/shadow", "/dev/null", "/dev/tty",
             "/sys/kernel", "/usr/bin/env", "/sandbox/tmp"],
    "write": ["r/f", "r/new", "w", "w/f", "w/new", "w/.envrc", "w/.git/hooks", "secret",
              "/usr/bin/x", "/sandbox/tmp/x", "/dev/null"],
    "exec": ["w/prog", "prog", "r/f", "/bin/sh"],
    "connect": ["127.0.0.1:9"],
    "env": ["KEY", "OTHER", "HOME", "PATH"],
    "fork": [""],
    "syscall": ["getpid", "ptrace", "mount", "io_uring_setup", "link", "keyctl", "mlock", "semget"],
}  # fmt: skip


def rows(folder: Path) -> list[Row]:
    found = []
    for op, targets in PATHS.items():
        for target in targets:
            at = str(folder / target) if op in ("read", "write", "exec") else target
            found.append(Row(op=op, target=at, verdict="deny"))
    return found


@pytest.mark.parametrize("profile", ["python", "strict", "build"])
def test_model_and_sandbox_agree_on_every_row(
    place: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "k")
    monkeypatch.setenv("OTHER", "o")
    policy = Policy.from_keywords(
        read=[place / "r"], write=[place / "w"], env=["KEY"], profile=profile, syscalls="semget"
    )
    asked = rows(place)
    checked = run_table(policy, asked)
    assert [(row.op, row.target, row.problem) for row in checked if row.is_disagreement] == []
    assert {row.sandbox for row in checked} == {"allow", "deny"}
    assert all(row.sandbox for row in checked if row.target != "/dev/tty")
    # As the sandbox answered they are a table that holds.
    again = [
        msgspec.structs.replace(a, verdict=c.sandbox)
        for a, c in zip(asked, checked, strict=True)
        if c.sandbox
    ]
    assert [row.problem for row in run_table(policy, again)] == [""] * len(again)
    assert sorted(os.listdir(place / "w")) == [".envrc", ".git", "f", "prog"], "nothing is left"


def test_a_wrong_expectation_names_rule_and_change(place: Path) -> None:
    policy = Policy.from_keywords(read=place / "r")
    (row,) = run_table(policy, [Row(op="read", target=str(place / "secret"), verdict="allow")])
    assert not row.is_disagreement
    assert row.problem.startswith("deny, not allow: mount namespace and Landlock: nothing grants")
    assert row.problem.endswith(f"smallest change: read=['{place}/secret']")


def test_a_model_that_is_wrong_is_told_apart(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row expects what the sandbox does, and fails all the same."""
    real = _why_table.judge

    def wrong(policy: Policy, op: str, target: str) -> object:
        return msgspec.structs.replace(real(policy, op, target), verdict="deny")

    monkeypatch.setattr(_why_table, "judge", wrong)
    row_in = Row(op="read", target=str(place / "r/f"), verdict="allow")
    (row,) = run_table(Policy.from_keywords(read=place / "r"), [row_in])
    assert row.is_disagreement
    assert row.problem.startswith("model and sandbox disagree")


def test_what_the_host_lacks_proves_nothing(place: Path) -> None:
    for op, target in (("read", "/nonexistent/x"), ("env", "NOT_SET_HERE"), ("exec", "/no/prog")):
        (row,) = run_table(Policy(), [Row(op=op, target=target, verdict="deny")])
        assert "would prove nothing" in row.problem


def test_a_program_that_may_run_is_not_run(place: Path) -> None:
    policy = Policy.from_keywords(write=place / "w")
    (row,) = run_table(policy, [Row(op="exec", target=str(place / "w/prog"), verdict="allow")])
    assert row.problem == ""
    assert not (place / "w/ran").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "missing required field `row`"),
        ("row = []", "has no row"),
        ("[[row]]\nop = 'read'\nverdict = 'allow'", "needs a target"),
        ("[[row]]\nop = 'read'\ntarget = '/x'\nverdict = 'maybe'", "neither 'allow' nor 'deny'"),
        ("[[row]]\nop = 'syscall'\ntarget = 'pause'\nverdict = 'allow'", "cannot be tried"),
        ("[[row]]\nop = 'syscall'\ntarget = 'ioctl'\nverdict = 'allow'", "cannot be tried"),
        ("[[row]]\nop = 'fork'\nverdict = 'allow'\nexpect = 1", "unknown field"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(PolicyError, match=words):
        read_table(str(tmp_path / "t.toml"))


@pytest.mark.parametrize(
    "sent", [None, [], [("allow",)], [("maybe", 0)], "x", [("allow", 0)] * 3, [("allow", "0")]]
)
def test_answers_of_the_job_are_checked(sent: object) -> None:
    with pytest.raises(PolicyError, match="probing job"):
        _why_table._answers(sent, 1)
