"""Cells and calls in a session, behind every wall.

`tests/unit/test_interpreter.py` has the conversation itself, without a sandbox around it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from _plain_home import plain_python
from agentsbx import (
    AsyncSandbox,
    MemoryLimitExceeded,
    PythonResult,
    Sandbox,
    SandboxTimeout,
    SandboxUnavailable,
    SandboxViolation,
)
from agentsbx._sandbox_python import SessionPython

Make = Callable[..., Sandbox]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Sandbox] = []

    def python(**keywords: Any) -> Sandbox:
        made.append(Sandbox(**keywords))
        return made[-1]

    yield python
    for one in made:
        one.close()


@pytest.fixture
def plain() -> Iterator[SessionPython]:
    made = plain_python()
    yield made
    made.close()


def run(python: Sandbox | SessionPython, code: str, timeout: float | None = None) -> PythonResult:
    if isinstance(python, SessionPython):
        return python.python(code, timeout)
    return python.python(code, timeout=timeout)


def test_cells_keep_state_and_show_their_lines(make: Make) -> None:
    python = make()
    assert run(python, "import math\nx = 20\nx + 1").value == 21
    result = run(python, "print(x)\nmath.sqrt(-1)")
    assert result.stdout == b"20\n"
    assert isinstance(result.error, ValueError)
    assert '  File "<cell 2>", line 2, in <module>\n    math.sqrt(-1)\n' in result.traceback
    assert run(python, "import subprocess\nsubprocess.run(['echo', 'kid']).returncode").value == 0


HIDDEN = """
import os
found = []
for path in (KEY, '/proc/1/environ', '/etc/shadow'):
    try:
        open(path).read()
        found.append(path)
    except OSError:
        pass
os.environ.get('CELL_CANARY'), found
"""


def test_cell_sees_nothing_of_the_host(
    make: Make, plain: SessionPython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    code = f"KEY = {str(key)!r}\n{HIDDEN}"
    assert key.as_posix() in run(plain, code).value[1]  # without a sandbox it is there
    monkeypatch.setenv("CELL_CANARY", "1")
    variable, found = run(make(), code).value
    assert variable is None
    assert str(key) not in found
    assert "/etc/shadow" not in found
    error = run(make(), f"open({str(key)!r})").error
    assert isinstance(error, FileNotFoundError)
    assert any("read=" in note for note in error.__notes__)


def test_cell_reads_and_writes_what_is_granted(make: Make, make_scratch: Any) -> None:
    data = make_scratch("data")
    (data / "in.txt").write_text("in")
    os.chmod(data / "in.txt", 0o644)
    python = make(read=[str(data)])
    assert run(python, f"open({str(data / 'in.txt')!r}).read()").value == "in"
    result = run(python, f"open({str(data / 'out.txt')!r}, 'w')")
    assert isinstance(result.error, SandboxViolation)
    assert "write=" in str(result.error)
    run(python, "import os\nown = os.environ['TMPDIR'] + '/own'")
    assert run(python, "open(own, 'w').write('abc')").value == 3
    assert run(python, "open(own).read()").value == "abc"


def test_cell_reaches_no_network(make: Make, plain: SessionPython) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2).close()"
        assert run(plain, code).ok
        assert isinstance(run(make(), code).error, OSError)


def test_timeout_kills_the_whole_tree(make: Make) -> None:
    python = make()
    code = """
import os, subprocess, time
subprocess.Popen(['sleep', '300'])
if not os.fork():
    os.setsid()
    time.sleep(300)
print('before', flush=True)
time.sleep(300)
"""
    start = time.monotonic()
    result = run(python, code, 1)
    assert time.monotonic() - start < 10
    assert isinstance(result.error, SandboxTimeout)
    assert result.stdout == b"before\n"
    assert "gone" in result.state_lost
    assert isinstance(run(python, "os").error, NameError)


def test_memory_limit_is_named(make: Make) -> None:
    """A cgroup ends the whole session and says so; an rlimit the allocation only."""
    box = make(memory="200MB")
    result = run(box, "x = bytearray(1 << 30)", 60)
    assert isinstance(result.error, MemoryLimitExceeded)
    if result.state_lost:
        assert "whole session ended (memory)" in result.state_lost
        with pytest.raises(MemoryLimitExceeded):
            run(box, "1 + 1")
    else:
        assert run(box, "1 + 1").value == 2


BOMB = """
import os, time
made = 0
try:
    while made < 5000:
        if not os.fork():
            time.sleep(300)
            os._exit(0)
        made += 1
except OSError as error:
    failed = error.errno
made
"""


def test_fork_bomb_stays_within_the_limit_and_dies_with_the_interpreter(make: Make) -> None:
    python = make(processes=32)
    result = run(python, BOMB, 60)
    assert result.value < 40
    ended = run(python, "exit()")
    assert ended.exit_code == 0
    assert run(python, "1 + 1").value == 2


def test_copy_in_a_session_of_its_own_is_dead_after_a_timeout(
    make: Make, make_scratch: Any
) -> None:
    """It would write on for ever: the kill is of the tree, not of a process group."""
    data = make_scratch("data")
    os.chmod(data, 0o777)
    python = make(write=[str(data)])
    code = f"""
import os, time
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    while True:
        with open({str(data / "beat")!r}, 'w') as f:
            f.write(str(time.time()))
        time.sleep(0.01)
while not os.path.exists({str(data / "beat")!r}):
    time.sleep(0.01)
time.sleep(300)
"""
    assert isinstance(run(python, code, 3).error, SandboxTimeout)
    time.sleep(0.3)
    last = (data / "beat").read_text()
    time.sleep(0.5)
    assert (data / "beat").read_text() == last


counter = 0


def bump() -> int:
    global counter
    counter += 1
    return counter


def test_calls_keep_module_state(make: Make) -> None:
    python = make()
    assert [python.call(bump) for _ in range(3)] == [1, 2, 3]
    assert counter == 0
    with pytest.raises(FileNotFoundError):
        python.call(open, "/etc/shadow")


def test_big_arrays_cross_both_ways(make: Make) -> None:
    numpy = pytest.importorskip("numpy")

    def double(a: Any) -> Any:
        return a * 2

    array = numpy.arange(300_000)
    python = make()
    assert (python.call(double, array) == array * 2).all()
    assert (run(python, "import numpy\nnumpy.arange(300_000)").value == array).all()


def test_packages_of_the_tool_are_there_and_ours_are_not_in_the_way(
    make: Make, make_scratch: Any
) -> None:
    folder = make_scratch("packages")
    (folder / "cell_library").mkdir()
    (folder / "cell_library/__init__.py").write_text("ANSWER = 42")
    python = make(packages=[str(folder)])
    assert run(python, "import cell_library\ncell_library.ANSWER").value == 42
    assert run(python, "import sys\nsys.modules['cell_library'].__file__").value.startswith(
        str(folder)
    )
    assert python.call(bump) == 1


def test_cells_run_in_threads_at_once_in_two_sessions(make: Make) -> None:
    one, two = make(), make()
    got: list[Any] = []
    cells = [(one, "x = 1; x"), (two, "x = 2; x")] * 3
    threads = [
        threading.Thread(target=lambda p=p, c=c: got.append(run(p, c).value)) for p, c in cells
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [1, 1, 1, 2, 2, 2]


def test_descriptors_do_not_grow(make: Make) -> None:
    python = make()
    run(python, "exit()")
    run(python, "1")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        run(python, "exit()")
        run(python, "x = bytes(100_000)\nx")
    assert len(os.listdir("/proc/self/fd")) <= before


def test_cell_is_quick_enough_to_notice_a_slow_way(make: Make) -> None:
    """The bar is 1 ms; ten times that on a machine with other work."""
    python = make()
    for _ in range(20):
        run(python, "1 + 1")
    start = time.perf_counter()
    for _ in range(50):
        run(python, "1 + 1")
    assert (time.perf_counter() - start) / 50 < 0.010


def test_async_session_runs_cells_and_calls_one_after_the_other() -> None:
    async def main() -> None:
        async with AsyncSandbox() as box:
            await box.python("x = 0")
            cells = [box.python("x += 1\nx") for _ in range(5)]
            assert sorted([r.value for r in await asyncio.gather(*cells)]) == [1, 2, 3, 4, 5]
            assert await box.call(bump) == 1
            assert await box.call(bump) == 2
            task = asyncio.create_task(box.python("import time\ntime.sleep(60)"))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert "cancelled" in (await box.python("1")).state_lost

    start = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - start < 20


def test_programs_and_files_of_the_session_are_seen_by_cells(make: Make) -> None:
    box = make()
    box.write("note.txt", b"from the host")
    assert run(box, "open('note.txt').read()").value == "from the host"
    run(box, "open('made.txt', 'w').write('by a cell')")
    assert box.read("made.txt") == b"by a cell"
    assert box.exec(["cat", "made.txt"]).stdout == b"by a cell"
    run(box, "exit()")
    assert run(box, "open('made.txt').read()").value == "by a cell"


def test_end_of_the_interpreter_leaves_other_programs_alone(make: Make) -> None:
    box = make()
    code = "import os\nos.kill(os.getpid(), 9)"
    process = box.exec(["sh", "-c", "sleep 1; echo done"], timeout=30)
    assert process.stdout == b"done\n"
    result = run(box, code)
    assert "signal 9" in result.state_lost
    assert box.exec(["echo", "still"]).stdout == b"still\n"
    assert run(box, "1").value == 1


def test_closed_session_takes_no_cell(make: Make) -> None:
    box = make()
    run(box, "1")
    box.close()
    with pytest.raises(SandboxUnavailable):
        run(box, "1")
