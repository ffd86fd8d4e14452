"""What one call leaves is not there in the next, nor on the host.

Source: snekbox#106, #113; security.md section 4 row "shared /tmp ... state kept between calls",
section 5 rows "cached Landlock ruleset fd", "repeated random numbers".
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PLACES = ["/tmp", "/dev/shm", "/run", "/var/tmp", "~", ".", "/", "/dev", "/dev/mqueue", "$TMPDIR"]


def leave(places: list[str]) -> list[str]:
    """Runs in the job: leave a file wherever it can."""
    import builtins
    import os
    import sys

    done = []
    for place in places:
        folder = os.path.expanduser(os.path.expandvars(place))
        try:
            with open(os.path.join(folder, "agentsbx-left"), "w") as file:
                file.write("left")
            done.append(place)
        except OSError:
            continue
    builtins.agentsbx_left = True  # type: ignore[attr-defined]
    sys.modules["agentsbx_left"] = sys
    os.environ["AGENTSBX_LEFT"] = "1"
    os.umask(0)
    return done


def look(places: list[str]) -> list[str]:
    """Runs in the next job: look for it."""
    import builtins
    import os
    import sys

    found = []
    for place in places:
        folder = os.path.expanduser(os.path.expandvars(place))
        if os.path.exists(os.path.join(folder, "agentsbx-left")):
            found.append(place)
    if hasattr(builtins, "agentsbx_left"):
        found.append("builtins")
    if "agentsbx_left" in sys.modules:
        found.append("sys.modules")
    if "AGENTSBX_LEFT" in os.environ:
        found.append("environ")
    mask = os.umask(0o22)
    if mask == 0:
        found.append("umask")
    return found


def test_files_and_memory_cross_between_unconfined_calls(scratch: Path) -> None:
    """The control: forks of one process, and programs in one file system, share these places."""
    places = [str(scratch)]
    assert leave(places) == places
    try:
        assert {str(scratch), "builtins", "sys.modules", "environ"} <= set(look(places))
    finally:
        import builtins

        del builtins.agentsbx_left  # type: ignore[attr-defined]
        del sys.modules["agentsbx_left"], os.environ["AGENTSBX_LEFT"]
    code = f"import os, sys; sys.exit(not os.path.exists({str(scratch / 'agentsbx-left')!r}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_crosses_between_calls(box: Any) -> None:
    leave_in_box, look_in_box = box.sandbox(leave), box.sandbox(look)
    for _ in range(5):
        done = leave_in_box(PLACES)
        assert "$TMPDIR" in done
        assert look_in_box(PLACES) == []
    for place in PLACES:
        folder = os.path.expanduser(os.path.expandvars(place))
        assert not os.path.exists(os.path.join(folder, "agentsbx-left")), place


def numbers() -> tuple[float, bytes, int, int]:
    """Runs in the job: what should differ in each call."""
    import os
    import random
    import secrets

    return (
        random.random(),
        os.urandom(8),
        secrets.randbits(64),
        id(object()) and random.getrandbits(64),
    )


def test_no_two_calls_draw_the_same_numbers(box: Any) -> None:
    draw = box.sandbox(numbers)
    drawn = [draw() for _ in range(12)]
    for column in zip(*drawn, strict=True):
        assert len(set(column)) == len(column)


def randomness() -> tuple[str, list[str]]:
    """Runs in the job: the bytes that the kernel gave the program at exec, and its addresses."""
    with open("/proc/self/auxv", "rb") as file:
        words = memoryview(file.read()).cast("Q").tolist()
    table = dict(zip(words[::2], words[1::2], strict=True))
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        memory.seek(table[25])
        canary = memory.read(16).hex()
    with open("/proc/self/maps") as file:
        starts = [line.split("-")[0] for line in file if "[heap]" in line or "libc.so" in line]
    return canary, starts


def test_a_job_is_no_fork_of_this_process(box: Any) -> None:
    """Shared stack canary and addresses would make one leak fit every process."""
    mine, my_places = randomness()
    theirs, places = box.sandbox(randomness)()
    assert mine != theirs
    assert my_places[:2] != places[:2]


def test_two_templates_are_no_forks_of_each_other(box: Any) -> None:
    first = box.sandbox(randomness)()
    second = box.sandbox(preload=["json", "decimal"])(randomness)()
    assert first[0] != second[0]


def test_arguments_are_read_behind_the_wall(box: Any, scratch: Path) -> None:
    """Unpickling an argument is user code: the walls must stand before (dify-sandbox#27)."""
    import pickle

    secret = scratch / "secret"
    secret.write_text("agentsbx-canary")
    evil = _Reads(str(secret))
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer))"
    control = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(evil), check=True,
                             capture_output=True)  # fmt: skip
    assert b"agentsbx-canary" in control.stdout

    def echo(value: Any) -> str:
        return str(value)

    result = box.sandbox(echo).run(evil)
    assert "agentsbx-canary" not in f"{result.value} {result.error!r}"


class _Reads:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, (f"open({self.path!r}).read()",))


def test_a_rewritten_zygote_file_is_not_run(box: Any, scratch: Path) -> None:
    """A module in the working directory or on PYTHONPATH must not shadow the zygote's imports."""
    (scratch / "json.py").write_text("raise SystemExit('shadowed')\n")
    before = os.getcwd()
    os.chdir(scratch)
    try:

        def dumps() -> str:
            import json

            return json.dumps([1])

        assert box.sandbox(fresh=True)(dumps)() == "[1]"
    finally:
        os.chdir(before)
