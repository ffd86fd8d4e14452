"""Programs of a session that turn on the host: on its waiting, its clock, its descriptors."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest

from agentsbx import Sandbox, _core
from agentsbx._wire import Event
from agentsbx.errors import SandboxUnavailable


def test_the_clock_runs_while_the_output_is_read_slowly() -> None:
    with Sandbox(output="1GB") as box:
        program = box.start(["yes"], timeout=0.5)
        start = time.monotonic()
        for _ in program:  # the pipe is full again each time that it is looked at
            time.sleep(0.05)
            assert time.monotonic() - start < 8, "it writes on, long after its time"
        result = program.poll()
        assert result is not None
        assert result.timed_out
        assert result.exit_code == 137


@pytest.mark.parametrize("limit", ["100kB", "1GB"])
def test_who_writes_on_after_the_programs_end_holds_nobody_up(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain, n = _core.drain, 0

    def slow(fd: int) -> bytes:  # a host that is slower than the writers
        nonlocal n
        n += 1
        assert n < 200, "the output of another program is read without end"
        time.sleep(0.01)
        return drain(fd)

    with Sandbox(output=limit) as box:
        box.exec("true")
        monkeypatch.setattr(_core, "drain", slow)
        result = box.exec("yes & yes & yes & exit 3", keep_background=True, timeout=5)
        assert result.exit_code in (3, 137)  # 137: more than output= before it had ended
        assert n > 1 or result.truncated  # they did write on


def test_output_that_somebody_else_takes_holds_nobody_up() -> None:
    """A job of the host's user can open its output for reading, and take what poll(2) saw."""
    ours, theirs = os.pipe()
    idle = _core.socketpair()
    got: list[int] = []

    def look() -> None:
        got.append(_core.wait_frame(idle[0], ours, -1, 300)[0])

    try:
        for _ in range(20):
            got.clear()
            both = [threading.Thread(target=look, daemon=True) for _ in range(2)]
            for thread in both:
                thread.start()
            time.sleep(0.02)
            os.write(theirs, b"x")
            for thread in both:
                thread.join(5)
            assert not any(thread.is_alive() for thread in both), "blocked in read(2)"
            assert sorted(got) == [Event.TIMEOUT, Event.STDOUT]
    finally:
        _core.close_all(ours, theirs, *idle)


def test_who_kills_its_keeper_ends_itself_and_not_the_session() -> None:
    with Sandbox() as box:
        box.write("kept", b"x")
        for _ in range(7):  # more often than the supervisor has places for who waits
            with contextlib.suppress(SandboxUnavailable):  # before it was said to have started
                assert box.exec("kill -9 -1").exit_code == 137
        assert box.read("kept") == b"x"
        assert box.exec("echo here").text == "here\n"


def test_a_link_planted_in_a_write_grant_leads_the_host_nowhere(tmp_path: Path) -> None:
    granted, other = tmp_path / "granted", tmp_path / "other"
    for folder in (granted, other):
        folder.mkdir()
        folder.chmod(0o777)
    (other / "secret").write_text("s")
    (tmp_path / "alias").symlink_to(granted)  # the caller's own link is followed
    with Sandbox(write=[granted]) as box:
        box.write("evil", b"e")
        box.exec(
            f"ln -s {other} {granted}/out; ln -s {other}/secret {granted}/in; mkdir {granted}/d"
        )
        assert (granted / "in").read_text() == "s"  # it works, for who follows
        for base in (granted, tmp_path / "alias"):
            with pytest.raises(OSError, match="out"):
                box.download("evil", base / "out" / "planted")
            with pytest.raises(OSError, match="in"):
                box.upload(base / "in", "got")
            with pytest.raises(OSError, match="out"):
                box.upload(base / "out" / "secret", "got")
        assert os.listdir(other) == ["secret"]
        box.download("evil", tmp_path / "alias" / "d" / "fine")
        assert (granted / "d" / "fine").read_bytes() == b"e"
        box.upload(granted / "d", "d")
        assert box.read("d/fine") == b"e"
