"""Semantics section 8: output, logs, warnings, nobody to ask, coverage."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import sandbox

log = logging.getLogger(__name__)


class OurWarning(UserWarning):
    """A category with an `__init__` of its own, which the host must not call."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def forked(fn: Callable[..., Any], *args: Any) -> Any:
    """The naive stand-in: the function in a plain forked process."""
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    worker = fork.Process(target=lambda: answers.put(fn(*args)))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    return answers.get()


# -- 8.1 output -----------------------------------------------------------------------------------


def test_8_1_output_is_forwarded_captured_or_discarded(capsys: pytest.CaptureFixture[str]) -> None:
    @sandbox
    def f() -> None:
        print("hello")
        print("oh", file=sys.stderr)

    for _ in range(3):  # the general way, and the quick one
        f()
        assert capsys.readouterr() == ("hello\n", "oh\n")
    f.options(output="stderr")()
    out, err = capsys.readouterr()
    assert (out, sorted(err.split())) == ("", ["hello", "oh"])
    for quiet in (f.options(output="capture"), f.options(output="discard")):
        result = quiet.run()
        assert (result.text, result.stderr_text) == ("hello\n", "oh\n")
        for _ in range(3):
            quiet()
    assert capsys.readouterr() == ("", "")


def test_8_1_a_plain_fork_does_not_reach_capsys(capsys: pytest.CaptureFixture[str]) -> None:
    """The control: what a naive stand-in prints is not seen by whoever replaced sys.stdout."""
    forked(print, "hello")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("mode", ["forward", "capture"])
def test_8_1_streams_are_exact_and_apart(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    raw = bytes(range(256)) + "äöü€😀".encode() * 3

    @sandbox(output=mode)
    def f(raw: bytes) -> None:
        sys.stdout.buffer.write(raw)
        sys.stdout.flush()
        os.write(2, raw[::-1])
        for i in range(300):
            os.write(1, b"%d\n" % i)
            os.write(2, b"%d\n" % -i)

    result = f.run(raw)
    assert result.stdout == raw + b"".join(b"%d\n" % i for i in range(300))
    assert result.stderr == raw[::-1] + b"".join(b"%d\n" % -i for i in range(300))


def test_8_1_a_character_cut_by_a_read_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    @sandbox
    def f() -> None:
        for byte in "€é".encode():
            os.write(1, bytes([byte]))
            time.sleep(0.03)
        os.write(1, b"\xe2\x82")

    f()
    assert capsys.readouterr().out == "€é\\xe2\\x82"


def test_8_1_what_the_host_cannot_encode_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii", write_through=True))

    @sandbox
    def f() -> None:
        print("caffè")

    f()
    assert raw.getvalue() == b"caff\\xe8\n"


def test_8_1_output_is_forwarded_while_the_call_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, str]] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            seen.append((time.monotonic(), text))
            return len(text)

    monkeypatch.setattr(sys, "stdout", Stream())

    @sandbox
    def f() -> None:
        print("first")
        time.sleep(0.7)
        print("second")

    f()
    assert [text for _, text in seen] == ["first\n", "second\n"]
    assert seen[1][0] - seen[0][0] > 0.4


def test_8_1_output_is_bounded_and_kept_after_a_kill(capsys: pytest.CaptureFixture[str]) -> None:
    @sandbox(timeout="0.5s")
    def f() -> None:
        print("before")  # not flushed by hand
        print("cried", file=sys.stderr)
        time.sleep(60)

    result = f.run()
    assert result.exit.cause == "timeout"
    assert (result.text, result.stderr_text) == ("before\n", "cried\n")
    assert capsys.readouterr() == ("before\n", "cried\n")

    @sandbox(output="10KB")
    def g(n: int) -> None:
        for _ in range(n):
            print("x" * 99)

    g(1), g(1), g(1)
    for call in (lambda: g.run(10_000), lambda: g.run(101)):
        capsys.readouterr()
        result = call()
        assert len(result.stdout) == 10_000
        assert len(capsys.readouterr().out) == 10_000
        assert "output" in str(result.error)
    with pytest.raises(agentsbx.LimitExceeded, match="output"):
        g(101)


def test_8_1_a_terminal_is_not_steered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)

    @sandbox
    def f() -> None:
        print("\x1b]0;title\x07\x9b2J", end="\t\n")

    for _ in range(3):
        f()
        assert shown.getvalue() == "\\x1b]0;title\\x07\\x9b2J\t\n"
        shown.seek(0)
        shown.truncate()


# -- 8.2 logs -------------------------------------------------------------------------------------


@sandbox
def logs() -> tuple[bool, int]:
    log.debug("debug")
    log.info("info %s", 1)
    log.warning("warning %(a)s", {"a": "b"}, extra={"user": "u", "n": 3})
    try:
        raise LookupError("nothing")
    except LookupError:
        log.exception("failed")
    return log.isEnabledFor(logging.INFO), len(logging.getLogger().handlers)


def test_8_2_records_arrive_at_the_logger_of_the_same_name(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger=__name__):
        enabled, _ = logs()
    assert enabled
    assert capfd.readouterr() == ("", "")
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        (__name__, "INFO", "info 1"),
        (__name__, "WARNING", "warning b"),
        (__name__, "ERROR", "failed"),
    ]
    info, warning, error = caplog.records
    first = logs.__wrapped__.__code__.co_firstlineno
    assert (info.pathname, info.filename, info.funcName) == (__file__, Path(__file__).name, "logs")
    assert info.lineno == first + 3
    assert abs(info.created - time.time()) < 60
    assert info.sandbox == "logs"  # type: ignore[attr-defined]
    assert (warning.user, warning.n) == ("u", 3)  # type: ignore[attr-defined]
    assert error.exc_info is None
    assert "LookupError: nothing" in str(error.exc_text)
    assert "in logs" in caplog.text


def test_8_2_a_plain_fork_loses_them(caplog: pytest.LogCaptureFixture) -> None:
    """The control: levels come along by fork, the records stay there."""
    with caplog.at_level(logging.INFO, logger=__name__):
        assert forked(logs.local)[0]
    assert not caplog.records


def test_8_2_levels_are_those_at_the_call(caplog: pytest.LogCaptureFixture) -> None:
    for level, count in ((10, 4), (40, 1), (20, 3), (30, 2), (10, 4)):
        log.setLevel(level)
        try:
            caplog.clear()
            assert logs()[0] == (level <= 20)
            assert len(caplog.records) == count
        finally:
            log.setLevel(logging.NOTSET)
    logging.disable(logging.ERROR)
    try:
        caplog.clear()
        assert not logs()[0]
    finally:
        logging.disable(logging.NOTSET)
    assert not caplog.records
    assert len(logs.run().unwrap()) == 2
    assert len(caplog.records) == 2


def test_8_2_filters_and_handlers_of_the_host_decide() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    handler.addFilter(lambda record: "warning" in record.getMessage())
    log.addHandler(handler)
    log.propagate = False
    try:
        logs()
    finally:
        log.removeHandler(handler)
        log.propagate = True
    assert stream.getvalue() == f"WARNING {__name__} warning b\n"


def test_8_2_handlers_are_not_shipped_and_basic_config_is_mirrored() -> None:
    """pytest has root handlers: `logging.info()` in a job sets up no others."""

    @sandbox
    def f() -> tuple[list[str], bool]:
        logging.info("x")  # noqa: LOG015
        logging.basicConfig()
        return [type(h).__name__ for h in logging.root.handlers], logging.root.hasHandlers()

    result = f.run()
    assert result.unwrap() == (["NullHandler"], True)
    assert result.stderr == b""


def test_8_2_handlers_added_in_the_job_run_there_too(caplog: pytest.LogCaptureFixture) -> None:
    @sandbox
    def f() -> None:
        own = logging.getLogger("own")
        own.addHandler(logging.StreamHandler(sys.stdout))
        own.warning("to both")
        own.propagate = False
        own.warning("only here")

    assert f.run().text == "to both\nonly here\n"
    assert [r.getMessage() for r in caplog.records] == ["to both"]


def test_8_2_threads_and_children_of_the_job_log_too(caplog: pytest.LogCaptureFixture) -> None:
    @sandbox(processes=10)
    def f() -> None:
        thread = threading.Thread(target=log.warning, args=("from a thread",), name="worker")
        thread.start()
        thread.join()
        child = multiprocessing.get_context("fork").Process(
            target=log.warning, args=("from a child",), name="child"
        )
        child.start()
        child.join()

    f()
    got = {r.getMessage(): (r.threadName, r.processName) for r in caplog.records}
    assert got["from a thread"][0] == "worker"
    assert got["from a child"][1] == "child"


def test_8_2_an_unconfigured_host_shows_warnings_on_stderr_once(scratch: Path) -> None:
    (scratch / "tool.py").write_text(
        textwrap.dedent("""
        import logging
        from agentsbx import sandbox
        log = logging.getLogger(__name__)
        @sandbox
        def f():
            log.info("info")
            log.warning("warned")
        @sandbox
        def g():
            logging.warning("root warned")
        """)
    )
    done = python("import tool; tool.f(); tool.f(); tool.g()", scratch)
    assert (done.stdout, done.stderr.splitlines()) == (
        "",
        ["warned", "warned", "WARNING:root:root warned"],
    )


def test_8_2_an_error_of_a_handler_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strict(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OverflowError(record.getMessage())

    handler = Strict()
    log.addHandler(handler)
    try:
        start = time.monotonic()
        result = logs.run()
        assert repr(result.error) == "OverflowError('warning b')"
        with pytest.raises(OverflowError):
            logs()
        assert time.monotonic() - start < 5
    finally:
        log.removeHandler(handler)


def test_8_2_records_beyond_the_bound_are_dropped_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentsbx import _notes

    @sandbox
    def f(n: int, size: int) -> int:
        for i in range(n):
            log.warning("%d %s", i, "x" * size)
        return n

    monkeypatch.setattr(_notes, "MAX_NOTES", 50)
    result = f.run(70, 1)
    assert (result.unwrap(), len(caplog.records), result.notes_dropped) == (70, 50, 20)
    assert "dropped: 20" in result.summary()
    caplog.clear()
    monkeypatch.setattr(_notes, "MAX_BYTES", 100_000)
    result = f.run(30, 1_000_000)
    assert result.unwrap() == 30
    assert 5 < len(caplog.records) < 15
    assert max(len(r.getMessage()) for r in caplog.records) < 10_000
    assert result.notes_dropped == 30 - len(caplog.records)


def test_8_2_a_job_that_never_logs_loads_nothing_for_it() -> None:
    @sandbox
    def f() -> list[str]:
        return sorted(sys.modules.keys() & {"logging", "agentsbx._report", "agentsbx._lines"})

    agentsbx.shutdown()  # else a template of other tests may serve it, which has more
    assert f() == []


# -- 8.3 warnings ---------------------------------------------------------------------------------


@sandbox
def warns() -> str:
    warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    warnings.warn(OurWarning("ours", 3), stacklevel=1)
    warnings.warn("for the caller", stacklevel=2)
    return "done"


def test_8_3_warnings_cross(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        here = sys._getframe().f_lineno + 1
        assert warns() == "done"
    assert capfd.readouterr() == ("", "")
    first = warns.__wrapped__.__code__.co_firstlineno
    assert [(w.category, str(w.message), w.filename, w.lineno) for w in caught] == [
        (DeprecationWarning, "old thing", __file__, first + 2),
        (OurWarning, "ours", __file__, first + 3),
        (UserWarning, "for the caller", __file__, here),
    ]


def test_8_3_a_plain_fork_loses_them() -> None:
    """The control."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forked(warns.local)
    assert not [w for w in caught if "old thing" in str(w.message)]


def test_8_3_filters_of_the_host_decide() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        warnings.filterwarnings("once", "old", DeprecationWarning)
        for _ in range(3):
            warns()
    assert [str(w.message) for w in caught] == ["old thing"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", OurWarning)
        result = warns.run()
        assert type(result.error) is OurWarning
        assert str(result.error) == "ours"
        with pytest.raises(OurWarning) as caught_error:
            warns()
    assert "in the sandbox" in caught_error.value.__notes__[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.filterwarnings("ignore", module=__name__.replace(".", r"\."))
        warns()
    assert caught == []


def test_8_3_the_functions_own_filters_act_in_the_job() -> None:
    @sandbox
    def f() -> tuple[int, str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn("kept inside", stacklevel=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                warnings.warn("raised inside", stacklevel=1)
            except UserWarning as error:
                return len(caught), str(error)
        return 0, ""

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f() == (1, "raised inside")


def test_8_3_an_unknown_category_is_told_by_name() -> None:
    @sandbox
    def f() -> None:
        class Inner(UserWarning):
            pass

        warnings.warn("hidden", Inner, stacklevel=1)

    with pytest.warns(UserWarning, match=r"Inner: hidden") as caught:
        f()
    assert caught[0].category is UserWarning


def test_8_3_what_a_finalizer_warns_cannot_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    @sandbox
    def f() -> str:
        open("/proc/self/stat")  # noqa: SIM115
        return "done"

    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: seen.append(found.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f() == "done"
    assert [type(error) for error in seen] == [ResourceWarning]


def test_8_3_what_python_ignores_costs_nothing_until_it_matters(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scratch / "tool.py").write_text(
        textwrap.dedent("""
        import sys, warnings
        from agentsbx import sandbox
        @sandbox
        def f():
            open("/proc/self/stat").read()
            warnings.warn("old", DeprecationWarning)
            return "agentsbx._report" in sys.modules
        """)
    )
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)  # there nothing is ignored
    plain = python("import tool; print(tool.f(), tool.f())", scratch)
    assert (plain.stdout, plain.stderr) == ("False False\n", "")
    source = """
import tool, warnings
tool.f()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    tool.f()
print(sorted(w.category.__name__ for w in caught))
"""
    told = python(source, scratch)
    assert (told.stdout, told.stderr) == ("['DeprecationWarning', 'ResourceWarning']\n", "")


# -- 8.4 nobody to ask ----------------------------------------------------------------------------


def asks_input() -> str:
    return input("name? ")


def asks_breakpoint() -> None:
    breakpoint()


def asks_pdb() -> None:
    import pdb

    pdb.set_trace()


def asks_pdb_class() -> None:
    import pdb

    pdb.Pdb().set_trace()
    len("")


def asks_code() -> None:
    import code

    code.interact()


def asks_getpass() -> str:
    import getpass

    return getpass.getpass()


def asks_from_getpass() -> str:
    from getpass import getpass

    return getpass("key: ")


@pytest.mark.parametrize(
    "fn",
    [asks_input, asks_breakpoint, asks_pdb, asks_pdb_class, asks_code, asks_getpass,
     asks_from_getpass],
)  # fmt: skip
@pytest.mark.parametrize("preload", [False, True])
def test_8_4_what_asks_a_person_says_so(fn: Callable[[], Any], preload: bool) -> None:
    call = sandbox(preload=["pdb", "code", "getpass"] if preload else [])(fn)
    result = call.run()
    assert type(result.error) is RuntimeError
    words = str(result.error)
    assert f"{fn.__name__}.local(" in words
    assert "asks a person" in words
    assert len(words) <= 300
    assert (result.stdout, result.stderr) == (b"", b"")


def test_8_4_standard_input_is_empty() -> None:
    @sandbox
    def f() -> tuple[str, str, bytes]:
        return sys.stdin.read(), sys.stdin.readline(), os.read(0, 10)

    assert f() == ("", "", b"")


# -- 8.5 coverage ---------------------------------------------------------------------------------

PROJECT = """
import threading
from agentsbx import sandbox

def helper(x):
    if x > 1:
        y = x * 2
    else:
        y = 0
    return y

def gen(n):
    for i in range(n):
        yield i

@sandbox
def tool(x):
    try:
        v = sum(gen(3))
        if x == 5:
            raise ValueError("no")
    except KeyError:
        v = 0
    t = threading.Thread(target=helper, args=(x,))
    t.start()
    t.join()
    import late
    return late.f(v)

@sandbox
async def later(x):
    return helper(x)
"""
LATE = """
def f(x):
    if x:
        return 1
    return 2
"""
DRIVER = """
import asyncio, json, multiprocessing, sys
import coverage
branch, way = sys.argv[1] == "branch", sys.argv[2]
cov = coverage.Coverage(data_file=None, branch=branch, include=["project.py", "late.py"])
cov.start()
import project

def forked(fn):
    fork = multiprocessing.get_context("fork")
    def call(*args):
        answers = fork.SimpleQueue()
        worker = fork.Process(target=lambda: answers.put(fn.local(*args)))
        worker.start()
        worker.join()
        return answers.get()
    return call

tool, later = project.tool, project.later
if way == "local":
    tool, later = tool.local, later.local
if way == "forked":
    tool = forked(tool)
for x in (2, 0):
    assert tool(x) == 1
if way != "forked":
    try:
        tool(5)
    except ValueError:
        pass
    assert asyncio.run(later(1)) == 0
cov.stop()
data = cov.get_data()
found = {}
for file in data.measured_files():
    what = data.arcs(file) if branch else data.lines(file)
    found[file.rpartition("/")[2]] = sorted(map(tuple, what) if branch else what)
print(json.dumps(found))
"""


def python(source: str, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose working directory and first search path is a folder."""
    env = os.environ | {"PYTHONPATH": str(Path(agentsbx.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", source, *args],
        cwd=folder, env=env, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


@pytest.fixture
def measured(scratch: Path) -> Callable[[str, str], dict[str, list[Any]]]:
    """Return what measures the project: `measured("lines" or "branch", way)`."""
    pytest.importorskip("coverage", reason="machine lacks: the package coverage")
    import json

    for name, text in (("project", PROJECT), ("late", LATE), ("driver", DRIVER)):
        (scratch / f"{name}.py").write_text(text)

    def measure(kind: str, way: str) -> dict[str, list[Any]]:
        source = "import runpy, sys; sys.argv[0] = 'driver.py'; runpy.run_path('driver.py')"
        done = python(source, scratch, kind, way)
        assert done.returncode == 0, done.stderr
        found: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
        return found

    return measure


@pytest.mark.parametrize("kind", ["lines", "branch"])
def test_8_5_coverage_sees_what_ran_in_the_sandbox(
    kind: str, measured: Callable[[str, str], dict[str, list[Any]]]
) -> None:
    sandboxed = measured(kind, "sandbox")
    assert sandboxed == measured(kind, "local")
    assert sandboxed["late.py"]
    lost = measured(kind, "forked")  # the control
    assert "late.py" not in lost
    assert len(lost["project.py"]) < len(sandboxed["project.py"])


# -- 8.6 protocol descriptors ---------------------------------------------------------------------


def test_8_6_protocol_descriptors_are_never_standard_streams(scratch: Path) -> None:
    """A host whose standard streams are closed: nothing of ours takes their numbers."""
    (scratch / "tool.py").write_text(
        textwrap.dedent("""
        import os
        from agentsbx import sandbox
        @sandbox
        def f():
            print("printed")
            return [os.readlink(f"/proc/self/fd/{n}").partition(":")[0] for n in range(3)]
        """)
    )
    source = """
import json, os, sys
keep = os.dup2(os.dup(1), 100)
os.closerange(0, 3)
import tool
found = [tool.f() for _ in range(5)]
taken = [n for n in range(3) if os.path.exists(f"/proc/self/fd/{n}")]
os.write(100, json.dumps([found, taken]).encode())
os._exit(0)
"""
    done = python(source, scratch)
    assert done.stdout == ("[[" + ", ".join(['["/dev/null", "pipe", "pipe"]'] * 5) + "], []]"), (
        done.stderr
    )
