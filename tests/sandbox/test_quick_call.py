"""The quick way of a call (`_fast`): when it is left, and that nothing is different there.

Source: semantics 1.1 (code as it is at the call), 4.5, 4.8, 4.9; design section 9 (results of
hostile jobs).
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agentsbx import (
    JobDied,
    ResultError,
    SandboxTimeout,
    SandboxUnavailable,
    _fast,
    sandbox,
    shutdown,
)

RATE = 2


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way each call took: "quick", "begun" (handed over in mid-call) or "general".

    With a supervisor of its own: beside many pools of an ordinary user no sandbox would wait.
    """
    shutdown()
    seen: list[str] = []
    real = _fast.Quick.call

    def call(self: _fast.Quick, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        got = real(self, args, kwargs)
        seen.append({tuple: "quick", _fast.Begun: "begun"}.get(type(got), "general"))
        return got

    monkeypatch.setattr(_fast.Quick, "call", call)
    return seen


def until_quick(ways: list[str], call: Callable[[], Any]) -> Any:
    """Call until the quick way was gone to its end.

    Three times in a row: then no sandbox waits any more that was made before the snapshot.
    """
    end = time.monotonic() + 20
    while time.monotonic() < end:
        value = call()
        if ways[-3:] == ["quick"] * 3:
            ways.clear()
            return value
        time.sleep(0.01)
    raise AssertionError(f"never quick: {ways[-5:]}")


def settle(call: Any) -> None:
    """Wait until a sandbox waits again."""
    pool = call.__agentsbx_site__.call_site(call.__wrapped__).quick.pool
    assert select.select([pool.sock.number], [], [], 10)[0]


def test_the_usual_call_is_quick(ways: list[str]) -> None:
    @sandbox
    def double(x: int) -> int:
        return 2 * x

    assert until_quick(ways, lambda: double(4)) == 8
    assert until_quick(ways, lambda: double(5)) == 10


def test_a_changed_global_leaves_it(ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    @sandbox
    def price(x: int) -> int:
        return x * RATE

    assert until_quick(ways, lambda: price(3)) == 6
    monkeypatch.setattr(sys.modules[__name__], "RATE", 5)
    assert price(3) == 15
    assert ways == ["general"]


def test_a_changed_cell_leaves_it(ways: list[str]) -> None:
    n = 1

    @sandbox
    def get() -> int:
        return n

    assert until_quick(ways, get) == 1
    n = 2
    assert get() == 2
    assert ways == ["general"]


@pytest.mark.parametrize("what", ["env", "argv", "cwd", "path", "main"])
def test_a_changed_process_leaves_it(
    what: str, ways: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @sandbox(env=["SHOWN"])
    def look() -> tuple[Any, ...]:
        import __main__

        file = getattr(__main__, "__file__", None)
        return os.environ.get("SHOWN"), sys.argv, os.getcwd(), file

    monkeypatch.setenv("SHOWN", "before")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    main = sys.modules["__main__"]

    def host() -> tuple[Any, ...]:
        file = getattr(main, "__file__", None)
        return os.environ["SHOWN"], sys.argv, os.getcwd(), file

    assert until_quick(ways, look) == host()
    if what == "env":
        monkeypatch.setenv("SHOWN", "after")
    elif what == "argv":
        monkeypatch.setattr(sys, "argv", [*sys.argv, "--more"])
    elif what == "cwd":
        (tmp_path / "below").mkdir()
        monkeypatch.chdir(tmp_path / "below")
    elif what == "path":
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "new")])
    else:
        monkeypatch.setattr(main, "__file__", "/somewhere/else.py", raising=False)
    assert look() == host()
    assert ways == ["general"]


def test_another_interpreter_leaves_it(ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    @sandbox
    def one() -> int:
        return 1

    assert until_quick(ways, one) == 1
    with monkeypatch.context() as changed:
        changed.setattr(sys, "executable", "/usr/bin/blender")
        with pytest.raises(SandboxUnavailable, match=r"sys\.executable"):
            one()
    assert ways == ["general"]
    assert until_quick(ways, one) == 1


def test_a_lost_working_directory_leaves_it(
    ways: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    @sandbox
    def one() -> int:
        return 1

    assert until_quick(ways, one) == 1
    (tmp_path / "here").rmdir()
    assert one() == one() == 1
    assert ways[0] == "general"


def test_a_replaced_grant_leaves_it(ways: list[str], scratch: Path) -> None:
    file = scratch / "data"
    file.write_text("old")

    @sandbox(read=[str(file)])
    def read(path: str) -> str:
        return Path(path).read_text()

    assert until_quick(ways, lambda: read(str(file))) == "old"
    (scratch / "new").write_text("new")
    (scratch / "new").replace(file)
    assert read(str(file)) == "new"
    assert ways == ["general"]


def test_a_write_grant_is_never_quick(ways: list[str], scratch: Path) -> None:
    @sandbox(write=[str(scratch)])
    def one() -> int:
        return 1

    for _ in range(4):
        assert one() == 1
    assert "quick" not in ways
    assert "begun" not in ways


def test_another_shape_of_arguments_leaves_it(ways: list[str]) -> None:
    @sandbox
    def minus(a: int, b: int = 1) -> int:
        return a - b

    assert until_quick(ways, lambda: minus(3)) == 2
    assert minus(3, b=2) == 1
    assert ways == ["general"]
    assert until_quick(ways, lambda: minus(3, b=2)) == 1
    for wrong in (lambda: minus(), lambda: minus(1, 2, 3), lambda: minus(1, c=2)):
        with pytest.raises(TypeError, match=r"minus\(\)"):
            wrong()
    assert ways == ["general"] * 3


def test_a_new_function_leaves_it(ways: list[str]) -> None:
    @sandbox
    def one() -> int:
        return 1

    assert until_quick(ways, one) == 1
    one.__wrapped__ = lambda: 2
    assert one() == 2
    assert "quick" not in ways


# -- begun the quick way, ended by the general one ----------------------------------------------


def act(what: str, place: str) -> Any:
    """Runs in the job."""
    import ctypes
    import struct
    import threading

    channel = 3
    if what == "nothing":
        return {"a": [1, 2.5, None, "text"], "b": (b"bytes", {1, 2})}
    if what == "print":
        print("to stdout")
        print("to stderr", file=sys.stderr)
        return 1
    if what == "slow":
        time.sleep(0.02)
        return "slow"
    if what == "late":
        time.sleep(30)
    if what == "big":
        return bytes(300_000), "x" * 50_000
    if what == "raise":
        raise LookupError("no such key", 7)
    if what == "exit":
        raise SystemExit(3)
    if what == "die":
        os._exit(9)
    if what == "fault":
        ctypes.string_at(0)
    if what == "denied":
        return Path(place).read_text()
    if what == "daemon":
        threading.Thread(target=time.sleep, args=(60,), daemon=True, name="left").start()
        return 2
    if what == "import":
        import quick_call_project

        return quick_call_project.VALUE
    body = {
        "garbage": struct.pack("<II", 0, 0) + b"\xc1\xff\x00garbage",
        "short": b"\x01",
        "buffers": struct.pack("<II", 2, 0) + bytes(16) + b"\xc0",
        "empty": b"",
    }[what]
    os.write(channel, struct.pack("=IIQQ", 16, len(body), 0, 0) + body)
    time.sleep(10)
    return None


def outcome(call: Callable[[], Any]) -> tuple[Any, ...]:
    try:
        return "value", call()
    except Exception as error:
        return type(error), str(error), error.args, getattr(error, "__notes__", [])


ACTS = ("nothing", "print", "slow", "big", "raise", "exit", "die", "fault", "denied", "import",
        "garbage", "short", "buffers", "empty")  # fmt: skip


@pytest.mark.parametrize("what", ACTS)
def test_both_ways_give_the_same(
    what: str, ways: list[str], capsys: pytest.CaptureFixture[str], scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (scratch / "quick_call_project.py").write_text("VALUE = 'project'\n")
    (scratch / "hidden").write_text("hidden")
    monkeypatch.syspath_prepend(str(scratch))
    call = sandbox(timeout="20s")(act)
    place = str(scratch / "hidden")
    until_quick(ways, lambda: call("nothing", place))
    settle(call)
    before = len(os.listdir("/proc/self/fd"))
    expected = ["quick" if what in ("nothing", "print") else "begun"]
    for _ in range(5):  # on a busy machine an answer may come later than the quick way waits
        ways.clear()
        quick = outcome(lambda: call(what, place))
        printed = capsys.readouterr()
        if ways == expected:
            break
        settle(call)
    assert ways == expected
    general = outcome(lambda: call.run(what, place).unwrap())
    assert quick == general
    assert printed == capsys.readouterr()
    assert printed.out == ("to stdout\n" if what == "print" else "")
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    if what in ("die", "fault"):
        assert quick[0] is JobDied
    if what in ("garbage", "short", "buffers", "empty"):
        assert quick[0] is ResultError


def test_a_deadline_holds_for_a_call_that_began_quick(ways: list[str]) -> None:
    call = sandbox(timeout="300ms")(act)
    until_quick(ways, lambda: call("nothing", ""))
    settle(call)
    start = time.monotonic()
    with pytest.raises(SandboxTimeout, match="timeout=300ms"):
        call("late", "")
    assert time.monotonic() - start < 3
    assert ways == ["begun"]


def test_what_is_left_behind_is_named(ways: list[str]) -> None:
    call = sandbox(timeout="20s")(act)
    until_quick(ways, lambda: call("nothing", ""))
    settle(call)
    with pytest.warns(RuntimeWarning, match="left"):
        assert call("daemon", "") == 2
    assert ways == ["begun"]


def test_a_call_that_began_quick_runs_once(
    ways: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when the job dies while the host answers its import."""

    @sandbox(timeout="20s")
    def once(how: str) -> int:
        import struct

        if how == "die":
            print("ran", flush=True)
            name = b"no_such_module_anywhere"
            os.write(3, struct.pack("=IIQQ", 18, len(name), 0, 0) + name)
            os._exit(1)
        return 1

    until_quick(ways, lambda: once("live"))
    settle(once)
    with pytest.raises(JobDied):
        once("die")
    assert ways == ["begun"]
    assert capsys.readouterr().out == "ran\n"


def test_a_thread_gets_the_sandbox_that_another_took(ways: list[str]) -> None:
    """With many pools the supervisor keeps sandboxes back until a call asks for one."""

    def square(x: int) -> int:
        return x * x

    for number in range(14):  # each leaves sandboxes waiting
        call = sandbox(timeout="20s", env={"NUMBER": str(number)})(square)
        if number < 10:
            assert call(3) == 9
            continue
        start = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(call, range(40))) == [x * x for x in range(40)]
        assert time.monotonic() - start < 10
