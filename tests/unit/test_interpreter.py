"""Cells and calls of a session's interpreter: the conversation, without a sandbox around it.

`tests/sandbox/test_session_python.py` runs the same verbs in a real session.
"""

from __future__ import annotations

import asyncio
import base64
import os
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from _plain_home import PlainHome, plain_python
from agentsbx import ResultError, SandboxTimeout, SerializationError, sandbox
from agentsbx._displays import MAX_DISPLAYS
from agentsbx._python_result import PythonResult
from agentsbx._sandbox_python import SessionPython
from agentsbx.errors import LimitExceeded, PolicyError, RemoteError
from agentsbx.policy import Policy


@pytest.fixture(scope="module")
def shared() -> Iterator[SessionPython]:
    python = plain_python()
    yield python
    python.close()


@pytest.fixture
def python() -> Iterator[SessionPython]:
    made = plain_python()
    yield made
    made.close()


def run(python: SessionPython, code: str, timeout: float | None = None) -> PythonResult:
    return python.python(textwrap.dedent(code), timeout)


# -- cells ----------------------------------------------------------------------------------------


def test_last_expression_is_the_value(shared: SessionPython) -> None:
    assert run(shared, "a = 2\na + 1").unwrap() == 3
    assert run(shared, "b = 2").value is None
    assert run(shared, "b = 2").text is None
    assert run(shared, "'x' * 3").text == "'xxx'"
    assert run(shared, "(1, {2: 3.5}, b'x')").value == (1, {2: 3.5}, b"x")
    assert run(shared, "").value is None
    assert run(shared, "# nothing").value is None
    assert run(shared, "_ = 7\n_").value == 7


def test_state_is_kept_between_cells(shared: SessionPython) -> None:
    run(shared, "import json\ndef twice(x):\n    return json.loads(json.dumps(x)) * 2")
    assert run(shared, "twice(21)").value == 42
    assert run(shared, "class Point: pass\np = Point()").ok
    assert run(shared, "import pickle\npickle.loads(pickle.dumps(p)).__class__ is Point").value


def test_value_that_cannot_cross_is_its_text_and_says_so(shared: SessionPython) -> None:
    result = run(shared, "class Odd:\n    def __repr__(self): return 'odd!'\nOdd()")
    assert (result.value, result.text, result.is_text) == ("odd!", "odd!", True)
    assert not run(shared, "1").is_text
    bad = run(shared, "class Bad:\n    def __repr__(self): raise ValueError\nBad()")
    assert bad.text == "<repr failed: ValueError>"
    deep = run(shared, "x = []\nfor _ in range(100000): x = [x]\nx")
    assert deep.ok
    assert deep.is_text


def test_text_of_a_long_value_is_bounded(shared: SessionPython) -> None:
    result = run(shared, "list(range(100000))")
    assert len(result.value) == 100000
    assert result.text is not None
    assert result.text.startswith("[0, 1, 2,")
    assert result.text.endswith(", 999, ...]")
    assert len(run(shared, "'x' * 10**6").text or "") < 200_000


def test_traceback_shows_the_lines_of_the_cells(python: SessionPython) -> None:
    run(python, "def divide(a):\n    return a / 0")
    result = run(python, "x = 5\ndivide(x)")
    assert isinstance(result.error, ZeroDivisionError)
    lines = [line for line in result.traceback.splitlines() if "~" not in line and "^" not in line]
    assert lines == [
        "Traceback (most recent call last):",
        '  File "<cell 2>", line 2, in <module>',
        "    divide(x)",
        '  File "<cell 1>", line 2, in divide',
        "    return a / 0",
        "ZeroDivisionError: division by zero",
    ]
    assert run(python, "1 +").traceback.startswith('  File "<cell 3>", line 1\n    1 +')
    assert run(python, "x").value == 5


def test_traceback_of_awaited_code_has_no_frames_but_the_cell(python: SessionPython) -> None:
    result = run(python, "async def f():\n    raise KeyError('k')\nawait f()")
    frames = [line for line in result.traceback.splitlines() if line.startswith("  File")]
    assert frames == [
        '  File "<cell 1>", line 3, in <module>',
        '  File "<cell 1>", line 2, in f',
    ]


def test_top_level_await_and_one_loop_for_all_cells(shared: SessionPython) -> None:
    code = """
    import asyncio
    queue = asyncio.Queue()
    async def put():
        await asyncio.sleep(0.01)
        await queue.put('there')
    task = asyncio.create_task(put())
    await asyncio.sleep(0)
    """
    assert run(shared, code).ok
    assert run(shared, "await queue.get()").value == "there"
    assert run(shared, "asyncio.run(asyncio.sleep(0, 'own loop'))").value == "own loop"
    assert run(shared, "await asyncio.sleep(0, 'again')").value == "again"


def test_future_imports_hold_in_later_cells(python: SessionPython) -> None:
    run(python, "from __future__ import annotations")
    assert run(python, "def f(x: Missing): pass\nf.__annotations__").value == {"x": "Missing"}


def test_output_is_that_of_the_cell_and_of_its_children(shared: SessionPython) -> None:
    code = """
    import os, subprocess, sys
    print('a')
    subprocess.run(['sh', '-c', 'echo b; echo c >&2'])
    os.write(1, b'd\\n')
    sys.stdout.write('e')
    """
    result = run(shared, code)
    assert (result.stdout, result.stderr) == (b"a\nb\nd\ne", b"c\n")
    assert run(shared, "print('next')").stdout == b"next\n"
    assert run(shared, "import warnings; warnings.warn('w')").stderr.endswith(
        b"warnings.warn('w')\n"
    )


def test_what_is_printed_between_cells_is_told_apart(shared: SessionPython) -> None:
    code = "import subprocess\np = subprocess.Popen(['sh', '-c', 'sleep 0.2; echo late'])"
    assert run(shared, code).stdout == b""
    time.sleep(0.6)
    result = run(shared, "print('own')\np.wait()")
    assert (result.stdout, result.background) == (b"own\n", b"late\n")


def test_more_output_than_allowed_ends_the_interpreter_and_keeps_the_part() -> None:
    python = plain_python(Policy.from_keywords(output="100kB"))
    result = run(python, "while True: print('x' * 1000)")
    assert isinstance(result.error, LimitExceeded)
    assert result.error.limit == "output"
    assert 100_000 <= len(result.stdout) <= 200_000
    assert "gone" in result.state_lost
    assert run(python, "1").value == 1
    python.close()


def test_exit_ends_the_interpreter_and_is_told(python: SessionPython) -> None:
    run(python, "x = 1")
    result = run(python, "print('bye')\nexit(3)")
    assert (result.ok, result.exit_code, result.stdout) == (True, 3, b"bye\n")
    assert "gone" in result.state_lost
    after = run(python, "x")
    assert isinstance(after.error, NameError)
    assert after.state_lost == ""  # it was told with the cell that did it
    told = run(python, "import sys; sys.exit('sorry')")
    assert (told.exit_code, told.stderr) == (1, b"sorry\n")


def test_death_between_cells_is_told_by_the_next(python: SessionPython) -> None:
    run(python, "import os, threading\nthreading.Timer(0.1, os._exit, [7]).start()")
    time.sleep(0.5)
    result = run(python, "1 + 1")
    assert result.value == 2
    assert "exit code 7" in result.state_lost
    assert run(python, "1").state_lost == ""


def test_death_in_a_cell_is_an_error_that_tells_of_the_loss(python: SessionPython) -> None:
    result = run(python, "import os\nos.kill(os.getpid(), 11)")
    assert "SIGSEGV" in str(result.error) or "crashed" in str(result.error)
    assert "signal 11" in result.state_lost
    assert any("variables" in note for note in getattr(result.error, "__notes__", []))
    assert run(python, "2").value == 2


def test_timeout_kills_with_all_children_and_keeps_what_was_printed(python: SessionPython) -> None:
    start = time.monotonic()
    result = run(python, "import time\nprint('before')\ntime.sleep(60)", 0.3)
    assert time.monotonic() - start < 5
    assert isinstance(result.error, SandboxTimeout)
    assert "300ms" in str(result.error)
    assert result.stdout == b"before\n"
    assert "gone" in result.state_lost
    assert isinstance(run(python, "time").error, NameError)


def test_copies_of_the_interpreter_do_not_answer_for_it(python: SessionPython) -> None:
    code = """
    import os
    x = os.fork()
    if not x:
        display('in the copy')
    'parent' if x else 'child'
    """
    result = run(python, code)
    assert result.value == "parent"
    run(python, "os.waitpid(x, 0)[1]")
    assert run(python, "x > 1").value is True
    error = run(
        python, "if not os.fork(): raise SystemExit(5)\nos.waitstatus_to_exitcode(os.wait()[1])"
    )
    assert error.value == 5
    code = """
    import multiprocessing
    with multiprocessing.get_context('fork').Pool(2) as pool:
        got = pool.map(abs, [-1, -2])
    got
    """
    assert run(python, code).value == [1, 2]


def test_a_copy_that_lives_on_does_not_hide_the_end(python: SessionPython) -> None:
    run(python, "import os, time\nif not os.fork(): time.sleep(30)")
    start = time.monotonic()
    assert run(python, "exit()").exit_code == 0
    assert run(python, "1").value == 1
    assert time.monotonic() - start < 5


def test_asking_a_person_raises(shared: SessionPython) -> None:
    for call in ("input()", "breakpoint()", "import pdb; pdb.set_trace()"):
        assert "put the answer into the code" in str(run(shared, call).error)


def test_code_must_be_text(shared: SessionPython) -> None:
    with pytest.raises(TypeError, match="source text"):
        shared.python(b"1", None)  # type: ignore[arg-type]
    assert isinstance(run(shared, "x = '\\0'\n\0").error, (SyntaxError, ValueError))
    assert run(shared, "'" + "y" * 100_000 + "'").value == "y" * 100_000


# -- displays -------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n"


def test_display_gives_rich_forms_as_plain_data(shared: SessionPython) -> None:
    code = f"""
    import base64
    class Rich:
        def __repr__(self): return 'rich'
        def _repr_html_(self): return '<b>rich</b>'
        def _repr_png_(self): return {base64.b64encode(PNG).decode()!r}
        def _repr_svg_(self): raise ValueError
    class Bundle:
        def __repr__(self): return 'bundle'
        def _repr_mimebundle_(self, include=None, exclude=None):
            forms = {{'application/x+json': {{'a': [1]}}, 'image/png': b'raw', 3: 'x'}}
            return forms, {{'meta': 1}}
    display(Rich(), 5)
    Bundle()
    """
    rich, five, bundle = run(shared, code).displays
    assert rich.data == {"text/html": "<b>rich</b>", "image/png": PNG, "text/plain": "rich"}
    assert rich.png == PNG
    assert not rich.is_result
    assert five.data == {"text/plain": "5"}
    assert bundle.is_result
    assert bundle.data == {
        "application/x+json": '{"a": [1]}', "image/png": b"raw", "text/plain": "bundle",
    }  # fmt: skip


def test_displays_are_bounded_in_number_and_bytes() -> None:
    python = plain_python(Policy.from_keywords(result="1MB"))
    many = run(python, f"for i in range({MAX_DISPLAYS} + 5): display(i)")
    assert (len(many.displays), many.displays_dropped) == (MAX_DISPLAYS, 5)
    big = run(python, "display({'image/png': b'x' * 700_000}, raw=True)\n" * 2)
    assert (len(big.displays), big.displays_dropped) == (1, 1)
    python.close()


def test_pandas_table_is_shown_as_html_and_crosses(shared: SessionPython) -> None:
    pytest.importorskip("pandas")
    result = run(shared, "import pandas as pd\npd.DataFrame({'a': [1, 2]})")
    assert result.value["a"].tolist() == [1, 2]
    assert "<table" in str(result.displays[0].data["text/html"])


def test_figures_of_matplotlib_are_shown(python: SessionPython) -> None:
    pytest.importorskip("matplotlib")
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nplt.plot([2, 1])\nNone"
    result = run(python, code, 120)
    assert result.ok, result.traceback
    assert [d.png[:8] for d in result.displays if d.png] == [PNG, PNG]


# -- hostile cells --------------------------------------------------------------------------------

FORGE = """
import struct, os
def frame(kind, body=b''):
    os.write(3, struct.pack('=IIQQ', kind, len(body), 0, 0) + body)
"""


@pytest.mark.parametrize(
    "attack",
    [
        "frame(16, b'')",
        "frame(16, b'\\xff' * 100)",
        "frame(16, bytes(8) + b'\\x00\\x81\\xa1a')",
        "frame(17, b'x')",
        "frame(20, b'\\x0b\\0\\0\\0')",
        "frame(21, bytes(40))",
        "frame(19, bytes(12))",
        "frame(24, b'x')",
        "frame(26, bytes(64))",
        "frame(27, b'x')",
        "frame(30, b'x')",
        "frame(30, bytes(8) + b'\\x93\\xc3\\x80')",
        "frame(31, b'')",
        "frame(99)",
        "os.write(3, b'')",
        "os.write(3, b'short')",
        "frame(25, b'\\xff')",
        "frame(22, b'x' * 1000)\nframe(16, b'12345678')",
    ],
)
def test_forged_frame_is_an_answer_or_an_end_and_the_next_cell_works(
    python: SessionPython, attack: str
) -> None:
    """It may lie about its own result; it gets no word of ours, and the host is in step again."""
    run(python, FORGE)
    result = run(python, attack)
    assert result.error is None or isinstance(result.error, Exception)
    assert not isinstance(result.value, bytes)
    late = run(python, "1 + 1")  # it may meet what the attack has left of the true answer
    assert late.value == 2 or (isinstance(late.error, ResultError) and late.state_lost)
    for _ in range(2):
        assert run(python, "1 + 1").value == 2


def test_true_answer_after_a_forged_one_is_not_that_of_the_next_cell(python: SessionPython) -> None:
    run(python, FORGE + "import sys, time\nmarks = lambda: sys.modules['agentsbx._worker'].marks")
    value = "b'\\0\\x94\\x07\\xa17\\xc3\\0'"
    forged = f"n = marks()[0].encode()\nframe(16, struct.pack('=II', 0, len(n)) + n + {value})"
    result = run(python, f"{forged}\ntime.sleep(0.3)\n'true'")
    assert result.value == 7
    late = run(python, "'next'")
    assert isinstance(late.error, ResultError)
    assert "another request" in str(late.error)
    assert "gone" in late.state_lost
    assert run(python, "'then'").value == "then"


def test_answer_that_nobody_asked_for_ends_the_interpreter(python: SessionPython) -> None:
    run(python, FORGE + "x = 1\nimport threading")
    run(
        python,
        "threading.Timer(0.1, frame, [16, bytes(8) + b'\\0\\x94\\x07\\xa17\\xc3\\0']).start()",
    )
    time.sleep(0.4)
    result = run(python, "'mine'")
    assert result.value == "mine"
    assert "nobody had asked for" in result.state_lost
    assert isinstance(run(python, "x").error, NameError)


def test_flood_of_displays_is_dropped_and_memory_stays(python: SessionPython) -> None:
    run(python, FORGE)
    body = "bytes(8) + b'\\x93\\xc2\\x81\\xaatext/plain\\xa1x\\x80'"
    result = run(python, f"for _ in range(20_000): frame(30, {body})\n'done'")
    assert result.value == "done"
    assert (len(result.displays), result.displays_dropped) == (MAX_DISPLAYS, 20_000 - MAX_DISPLAYS)


@pytest.mark.parametrize("frame", ["30, bytes(8) + b'\\x93\\xc2\\x80\\x80'", "25, b'\\xc0'"])
def test_flood_without_end_is_ended_in_time(python: SessionPython, frame: str) -> None:
    """So many send that the channel is never empty when the deadline comes."""
    code = f"""
channel = os.dup(3)
for _ in range(6):
    if not os.fork():
        break
os.dup2(channel, 3)
while True: frame({frame})
"""
    run(python, FORGE)
    start = time.monotonic()
    result = run(python, code, 0.5)
    assert time.monotonic() - start < 3
    assert isinstance(result.error, SandboxTimeout)
    assert run(python, "1").value == 1


@pytest.mark.parametrize("attack", ["os.close(3)", "os.closerange(0, 100)", "os.dup2(1, 3)"])
def test_closing_descriptors_ends_the_interpreter_only(python: SessionPython, attack: str) -> None:
    result = run(python, f"import os\nx = 1\n{attack}", 5)
    assert result.error is not None
    assert "gone" in result.state_lost
    assert run(python, "print('ok')\n2").stdout == b"ok\n"


def test_memfd_that_is_not_sealed_is_refused(python: SessionPython) -> None:
    code = """
    import os, socket, struct
    s = socket.socket(fileno=os.dup(3))
    fd = os.memfd_create('x')
    os.ftruncate(fd, 4096)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('i', fd))]
    s.sendmsg([struct.pack('=IIQQ', 16, 0, 9, 4096)], rights)
    """
    result = run(python, code)
    assert isinstance(result.error, ResultError)
    assert "not sealed" in str(result.error)
    assert run(python, "1").value == 1


def test_project_modules_are_never_served_to_cells(python: SessionPython) -> None:
    """Semantics 1.3; the frame by hand is answered with no."""
    assert isinstance(run(python, "import _plain_home").error, ModuleNotFoundError)
    run(python, FORGE)
    code = "frame(18, b'_plain_home')\nimport socket\nsocket.socket(fileno=os.dup(3)).recv(1 << 16)"
    got = run(python, code).value
    assert b"Policy" not in got
    assert b"N" in got
    assert len(got) < 100


# -- calls ----------------------------------------------------------------------------------------

counter = 0
seen: dict[str, int] = {}


class Thing:
    def __init__(self, n: int) -> None:
        self.n = n


class Broken(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def bump(by: int = 1) -> int:
    global counter
    counter += by
    return counter


def look() -> int:
    return counter


def note(key: str) -> dict[str, int]:
    seen[key] = seen.get(key, 0) + 1
    return seen


def keep_thing(n: int) -> None:
    global kept
    kept = Thing(n)


def is_thing(other: Thing) -> tuple[bool, bool]:
    return isinstance(kept, Thing), isinstance(other, Thing)  # type: ignore[name-defined]


def test_call_returns_and_raises_as_the_decorator_does(shared: SessionPython) -> None:
    def add(a: int, b: int = 2) -> int:
        return a + b

    def fail(code: int) -> None:
        raise Broken(code)

    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    def leave() -> None:
        raise SystemExit(3)

    assert shared.call(add, (1,), {}) == 3
    assert shared.call(add, (), {"a": 1, "b": 5}) == 6
    assert shared.call(later, (4,), {}) == 4
    with pytest.raises(Broken) as caught:
        shared.call(fail, (7,), {})
    assert caught.value.code == 7
    with pytest.raises(TypeError, match="missing"):
        shared.call(add, (), {})
    with pytest.raises(RemoteError):  # 3.3: control flow does not cross, nor end the interpreter
        shared.call(leave, (), {})
    with pytest.raises(SerializationError, match="lock"):
        shared.call(add, (threading.Lock(),), {})
    assert shared.call(add, (1,), {}) == 3


def test_module_state_is_kept_between_calls_of_several_functions(python: SessionPython) -> None:
    assert [python.call(bump, (), {}), python.call(bump, (5,), {})] == [1, 6]
    assert python.call(look, (), {}) == 6
    assert python.call(note, ("a",), {}) == {"a": 1}
    assert python.call(note, ("a",), {}) == {"a": 2}
    assert (counter, seen) == (0, {})


def test_classes_are_one_for_all_functions(python: SessionPython) -> None:
    python.call(keep_thing, (1,), {})
    assert python.call(is_thing, (Thing(2),), {}) == (True, True)


def test_1_1_changed_globals_are_shipped_anew(
    python: SessionPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Semantics 1.1: as they are at the call. What has not changed here keeps its state there."""
    python.call(bump, (5,), {})
    python.call(note, ("a",), {})
    monkeypatch.setitem(globals(), "seen", {"b": 10})
    assert python.call(note, ("b",), {}) == {"b": 11}
    assert python.call(bump, (), {}) == 6
    monkeypatch.setitem(globals(), "counter", 100)
    assert python.call(look, (), {}) == 100
    seen["c"] = 1  # in place
    assert python.call(note, ("c",), {}) == {"b": 10, "c": 2}


def test_1_1_mutated_capture_is_not_stale_in_a_function_that_comes_later(
    python: SessionPython,
) -> None:
    items = [1]

    def first() -> int:
        return len(items)

    def second() -> int:
        return len(items)

    assert python.call(first, (), {}) == 1
    items.append(2)
    assert python.call(second, (), {}) == 2


def test_2_1_arguments_are_new_at_each_call(python: SessionPython) -> None:
    def push(to: list[int]) -> int:
        to.append(1)
        return len(to)

    given = [0]
    assert python.call(push, (given,), {}) == 2
    given.append(5)
    assert python.call(push, (given,), {}) == 3
    assert given == [0, 5]


def test_1_3_project_modules_are_served_to_calls(python: SessionPython) -> None:
    def use() -> str:
        import _naive

        return _naive.__name__

    assert python.call(use, (), {}) == "_naive"


def test_failed_arguments_do_not_lose_the_function(python: SessionPython) -> None:
    def size(x: Any) -> int:
        return len(x)

    with pytest.raises(SerializationError):
        python.call(size, (threading.Lock(),), {})
    assert python.call(size, ([1],), {}) == 1


def test_big_arguments_and_results(shared: SessionPython) -> None:
    numpy = pytest.importorskip("numpy")

    def double(a: Any) -> Any:
        a *= 2
        return a

    array = numpy.arange(200_000)
    for _ in range(2):
        assert (shared.call(double, (array,), {}) == array * 2).all()
    assert array[1] == 1


def test_many_functions_are_shipped_without_end(python: SessionPython) -> None:
    for i in range(300):
        assert python.call(lambda i=i: i, (), {}) == i


def test_cells_and_calls_have_a_main_of_their_own(python: SessionPython) -> None:
    run(python, "counter = 'cell'")
    python.call(bump, (), {})
    assert run(python, "counter, __name__").value == ("cell", "__main__")


def test_generator_function_is_refused_with_what_to_do(shared: SessionPython) -> None:
    def items() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="Return a list"):
        shared.call(items, (), {})


def test_5_6_decorated_function_needs_a_policy_as_wide(python: SessionPython) -> None:
    @sandbox
    def plain(x: int) -> int:
        return x

    @sandbox(processes=2)
    def narrower(x: int) -> int:
        return x

    assert python.call(plain, (3,), {}) == 3
    with pytest.raises(PolicyError, match="processes"):
        python.call(narrower, (3,), {})


def test_lost_state_is_warned_of_at_the_next_call(python: SessionPython) -> None:
    def die_soon() -> None:
        import os
        import threading

        threading.Timer(0.1, os._exit, [4]).start()

    python.call(die_soon, (), {})
    time.sleep(0.4)
    with pytest.warns(RuntimeWarning, match="exit code 4"):
        assert python.call(look, (), {}) == 0


def test_logs_and_warnings_of_calls_reach_the_host(shared: SessionPython) -> None:
    def warn() -> None:
        warnings.warn("from inside", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="from inside"):
        shared.call(warn, (), {})


# -- threads and loops ----------------------------------------------------------------------------


def test_threads_take_turns(shared: SessionPython) -> None:
    run(shared, "active = most = 0")
    code = """
    active += 1
    most = max(most, active)
    import time; time.sleep(0.01)
    active -= 1
    """
    threads = [threading.Thread(target=run, args=(shared, code)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run(shared, "active, most").value == (0, 1)


def test_first_uses_at_once_make_one_interpreter() -> None:
    home = PlainHome()
    python = SessionPython(home)
    threads = [threading.Thread(target=run, args=(python, "1")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert home.n_started == 1
    python.close()


def test_two_loops_take_turns(shared: SessionPython) -> None:
    async def some() -> list[Any]:
        cells = [shared.python_async(f"{i} + 1", None) for i in range(5)]
        return [r.value for r in await asyncio.gather(*cells)]

    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(asyncio.run(some()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [[1, 2, 3, 4, 5]] * 2


def test_cancelled_task_ends_its_cell_and_the_next_is_told(python: SessionPython) -> None:
    async def main() -> None:
        run(python, "x = 1")
        task = asyncio.create_task(python.python_async("import time; time.sleep(60)", None))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        result = await python.python_async("1 + 1", None)
        assert result.value == 2
        assert "cancelled" in result.state_lost

    start = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - start < 10


def test_cancelling_a_waiting_cell_leaves_the_running_one_alone(python: SessionPython) -> None:
    async def main() -> None:
        first = asyncio.create_task(
            python.python_async("import time; time.sleep(0.5); 'first'", None)
        )
        await asyncio.sleep(0.1)
        second = asyncio.create_task(python.python_async("ran = 1", None))
        await asyncio.sleep(0.1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert (await first).value == "first"
        assert isinstance((await python.python_async("ran", None)).error, NameError)

    asyncio.run(main())


def test_async_call_returns_the_value(shared: SessionPython) -> None:
    async def main() -> None:
        assert await shared.call_async(abs, (-3,), {}) == 3

    asyncio.run(main())


def test_closed_session_says_so() -> None:
    from agentsbx import SandboxUnavailable

    python = plain_python()
    run(python, "1")
    python.close()
    with pytest.raises(SandboxUnavailable, match="closed"):
        run(python, "1")


def test_signal_between_cells_does_not_end_the_interpreter(python: SessionPython) -> None:
    code = """
    import signal
    def late(*_):
        raise ValueError('from a handler')
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    """
    assert run(python, code).ok
    time.sleep(0.3)
    result = run(python, "late.__name__")
    assert result.value == "late"
    assert b"ValueError: from a handler" in result.background


def test_module_attribute_that_a_cell_was_refused_is_served_to_the_next_call(
    python: SessionPython,
) -> None:
    """What a cell asks for in vain is asked for again: `seen` stands for no captured name here."""

    def first() -> str:
        import _naive

        return _naive.__name__

    def later(name: str) -> bool:
        import _naive

        return hasattr(_naive, name)

    name = next(n for n in vars(__import__("_naive")) if n[:1] != "_")
    python.call(first, (), {})
    assert run(python, f"import sys\nhasattr(sys.modules['_naive'], {name!r})").value is False
    assert python.call(later, (name,), {})


def test_threads_of_a_call_that_import_while_it_answers_stay_in_step(python: SessionPython) -> None:
    def start() -> int:
        import contextlib
        import threading

        def load() -> None:
            with contextlib.suppress(ImportError):
                import _machine

                del _machine

        for _ in range(5):
            threading.Thread(target=load).start()
        return 1

    for _ in range(5):
        assert python.call(start, (), {}) == 1
        assert run(python, "2").value == 2


def test_forked_host_does_not_speak_on_the_channel_of_its_parent(python: SessionPython) -> None:
    run(python, "x = 1")
    pid = os.fork()
    if not pid:
        code = 1
        try:
            result = run(python, "x")
            if isinstance(result.error, NameError) and "forked" in result.state_lost:
                code = 0
            python.close()
        finally:
            os._exit(code)
    assert run(python, "x").value == 1
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert run(python, "x").value == 1


def test_quick_call_is_left_where_anything_has_changed(
    python: SessionPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Semantics 1.1 again, once the quick way is taken: code, globals, arguments, environment."""
    taken: list[bool] = []
    real = python._interpreter.quick

    def quick(*args: Any) -> Any:
        got = real(*args)
        taken.append(got is not None)
        return got

    monkeypatch.setattr(python._interpreter, "quick", quick)
    assert [python.call(scaled, (i,), {}) for i in range(3)] == [0, 10, 20]
    assert taken[-1]
    assert python.call(scaled, (), {"n": 4}) == 40
    assert not taken[-1]
    monkeypatch.setitem(globals(), "factor", 100)
    assert python.call(scaled, (1,), {}) == 100
    assert not taken[-1]
    assert python.call(scaled, (2,), {}) == 200
    assert taken[-1]
    monkeypatch.setenv("SOMETHING_NEW", "1")
    assert python.call(scaled, (2,), {}) == 200
    assert not taken[-1]


factor = 10


def scaled(n: int) -> int:
    return n * factor


def loud(n: int) -> int:
    import time

    print("x" * n)
    time.sleep(0.02)
    return n


def test_quick_call_that_takes_longer_or_fails_goes_on_the_general_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    python = SessionPython(PlainHome())
    for n in (1, 2, 100_000):
        assert python.call(loud, (n,), {}) == n
    assert capsys.readouterr().out == "x\nxx\n" + "x" * 100_000 + "\n"
    assert python.call(scaled, (1,), {}) == 10
    assert python.call(scaled, (1,), {}) == 10
    with pytest.raises(TypeError, match="unsupported operand"):
        python.call(scaled, (None,), {})
    assert len(python.call(scaled, ("ab" * 10_000,), {})) == 200_000
    run(python, "import threading, os\nthreading.Timer(0.1, os._exit, [1]).start()")
    time.sleep(0.3)
    with pytest.warns(RuntimeWarning, match="exit code 1"):
        assert python.call(scaled, (1,), {}) == 10
    python.close()


def test_function_with_host_functions_is_refused(python: SessionPython) -> None:
    def helper() -> int:
        return 1

    @sandbox(host=[helper])
    def caller() -> int:
        return helper()

    with pytest.raises(TypeError, match="host="):
        python.call(caller, (), {})
