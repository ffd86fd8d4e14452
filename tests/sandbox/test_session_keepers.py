"""Programs of a session that turn on their keeper: their tree dies all the same, and in time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentsbx
from agentsbx import Sandbox
from agentsbx.errors import SandboxUnavailable
from sandbox.session_raw import LIST, READ, STAT, WRITE, NotStarted, Raw, opened

needs_perl = pytest.mark.skipif(not Path("/usr/bin/perl").exists(), reason="no /usr/bin/perl")
ENOSPC = 28
# Children in sessions of their own, born all the time; then the process above it is no more.
ESCAPE = """
(setsid sh -c 'while :; do sh -c "setsid sleep 7311 &"; done') &
(while :; do setsid sleep 7311 & done) &
sleep 0.3
kill -9 $PPID
sleep 7311
"""
# Processes that live for one fork(2) each: whoever kills by number comes too late.
HOPPERS = r"""
use POSIX; $| = 1; $SIG{CHLD} = "IGNORE";
for (1..20) {
  my $q = fork;
  if (defined $q && !$q) { while (1) { my $p = fork; POSIX::_exit(0) if $p } }
}
print "up\n"; sleep 7311;
"""
# Stops whatever else is there, also programs that are about to be.
STOPPER = r"""
$| = 1; print "up\n";
while (1) { for (2..400) { kill("STOP", $_) if $_ != $$ && $_ != getppid() } }
"""


def count(text: str, *marks: str) -> int:
    return sum(any(m in line for m in marks) for line in text.splitlines())


LOOK = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null"


def alive(session: Raw, *marks: str) -> int:
    return count(session.run("sh", "-c", LOOK), *marks)


@pytest.fixture
def session() -> Iterator[Raw]:
    with opened() as raw:
        yield raw


def settled(session: Raw, *marks: str) -> int:
    """Return how many are left once that has had a moment to become none; -1: no room to look."""
    left = -1
    for _ in range(40):
        with contextlib.suppress(NotStarted):  # processes= is full of what is being killed
            left = alive(session, *marks)
            if not left:
                break
        time.sleep(0.05)
    return left


def test_the_count_sees_what_lives(session: Raw) -> None:
    session.spawn("sleep", "7311")
    assert alive(session, "sleep 7311") == 1


def test_the_escape_works_without_a_sandbox() -> None:
    marked = ESCAPE.replace("7311", "7312").replace("while :", "for i in 1 2 3")
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(["sh", "-c", f"sh -c '{_quoted(marked)}'; true"], timeout=20, check=True)
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x007312\x00":
                found.append(int(pid))
    for pid in found:
        os.kill(pid, 9)
    assert found


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


@pytest.mark.parametrize("n", range(3))
def test_a_killed_keeper_leaves_nothing(session: Raw, n: int) -> None:
    program = session.spawn("sh", "-c", ESCAPE)
    assert program.frame()[0] == 0, "closed: nothing is said of a tree that nobody watched die"
    assert settled(session, "sleep 7311", "setsid") == 0


def test_a_killed_keeper_takes_no_other_program_with_it(session: Raw) -> None:
    other = session.spawn("sh", "-c", "echo up; exec sleep 7313")
    assert other.line() == "up\n"
    assert session.spawn("sh", "-c", ESCAPE).frame()[0] == 0
    assert settled(session, "sleep 7311") == 0
    assert alive(session, "sleep 7313") == 1
    other.kill()
    assert other.status() == 9


@needs_perl
def test_exited_is_said_of_a_dead_tree_only(session: Raw) -> None:
    program = session.spawn("perl", "-e", HOPPERS)
    assert program.line() == "up\n"
    program.kill()
    kind, _ = program.frame()
    if kind:  # else its keeper gave up, and pid 1 goes on
        assert alive(session, "perl") == 0, "nothing is left to wait for"
    assert settled(session, "perl") == 0


def test_a_stopped_keeper_is_ended_with_its_tree(session: Raw) -> None:
    program = session.spawn("sh", "-c", "sleep 0.2; kill -STOP $PPID; exec sleep 7311")
    began = time.monotonic()
    assert program.frame()[0] == 0
    assert time.monotonic() - began < 5
    assert settled(session, "sleep 7311") == 0


def test_a_keeper_stopped_at_once_does_not_hold_the_host() -> None:
    with Sandbox() as box:
        box.exec("true")
        began = time.monotonic()
        with contextlib.suppress(SandboxUnavailable):  # it had not said yet that it started
            assert box.exec("kill -STOP $PPID; exec sleep 7311", timeout=0.3).exit_code == 137
        assert time.monotonic() - began < 5
        time.sleep(0.2)
        assert count(box.exec(LOOK).stdout.decode(), "sleep 7311") == 0


@needs_perl
def test_a_program_that_stops_all_others_costs_no_more_than_its_session() -> None:
    with Sandbox() as box:
        stopper = box.start(["perl", "-e", STOPPER])
        next(iter(stopper))
        for _ in range(8):
            began = time.monotonic()
            with contextlib.suppress(agentsbx.AgentsbxError):
                box.exec("exec sleep 7311", timeout=0.2)
            assert time.monotonic() - began < 10
        stopper.kill()
    with Sandbox() as box:
        assert box.exec("echo fine").stdout == b"fine\n"


def test_a_listing_that_fails_is_no_empty_listing(session: Raw) -> None:
    assert session.file(LIST, "/nowhere")[0] == 2
    assert session.file(LIST, "/etc/passwd")[0] == 20
    err, records = session.file(LIST, "/usr")
    assert (err, b"bin" in records) == (0, True)


def test_links_to_the_file_process_itself_reach_nothing(session: Raw) -> None:
    home = "/sandbox/home"
    made = session.run(
        "sh", "-c",
        f"cd {home} && for i in $(seq 3 20); do ln -s /proc/self/fd/$i fd$i; done && "
        "ln -s /proc/1/mem mem; ln -s /proc/self/mem own; ls | wc -l",
    )  # fmt: skip
    assert made == "20\n"
    for i in range(3, 21):
        for op in (WRITE, READ, STAT):
            err, data = session.file(op, f"{home}/fd{i}", b"payload")
            assert err in (0, 2, 6, 13, ENOSPC), (i, op, err)
            assert data in (b"", b"payload"), "its own memfd at most"
    for name in ("mem", "own"):
        assert session.file(WRITE, f"{home}/{name}", b"x")[0] in (13, 30), name
    assert session.file(WRITE, f"{home}/plain", b"kept")[0] == 0
    assert session.file(READ, f"{home}/plain") == (0, b"kept")


def test_two_sessions_of_one_template_see_nothing_of_each_other() -> None:
    with Sandbox() as one, Sandbox() as other:
        one.write("secret", "mine")
        one.start("exec sleep 7311", background=True)
        assert other.list(".") == []
        assert count(other.exec(LOOK).stdout.decode(), "sleep 7311") == 0
        with contextlib.suppress(SandboxUnavailable):  # its own keeper dies too
            other.exec("kill -9 -1")
        with pytest.raises(FileNotFoundError):
            other.read("secret")
        assert one.read("secret") == b"mine"
        assert count(one.exec(LOOK).stdout.decode(), "sleep 7311") == 1
