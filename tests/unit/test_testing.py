"""`agentsbx.testing`: calls in this process that check what a sandbox would check.

Most tests here are twins: the same call in a sandbox and here, with one outcome.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import PolicyError, RemoteError, SerializationError, sandbox
from agentsbx.testing import is_local, local

_MISSING = object()
LOCK = threading.Lock()
LOG: list[int] = []
COUNT = 0


class Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__("refused", code)
        self.code = code


@dataclass
class Item:
    name: str
    price: float = 0.0


class Unknown:
    """No annotation and no argument names it."""


class Counter:
    def __init__(self) -> None:
        self.n = 0

    @sandbox
    def add(self, by: int) -> int:
        return self.n + by

    @classmethod
    @sandbox
    def of(cls, n: int) -> str:
        return f"{cls.__name__} {n}"

    @staticmethod
    @sandbox
    def plus(a: int, b: int) -> int:
        return a + b


def value(x: Any = _MISSING) -> Any:
    return ["missing"] if x is _MISSING else [x, type(x).__name__]


def mutates(items: list[int]) -> list[int]:
    items.append(9)
    return items


def shares(a: list[int], b: list[int]) -> bool:
    a.append(1)
    return a is b


def makes(name: str) -> Item:
    return Item(name, 1.5)


def makes_unknown() -> Any:
    return Unknown()


def returns_wrong() -> Item:
    return Item(3, "x")  # type: ignore[arg-type]


def raises_own() -> None:
    raise Refused(7)


def raises(kind: str) -> None:
    raise {"exit": SystemExit, "stop": StopIteration, "key": KeyError, "os": OSError}[kind](2, "no")


def raises_ours() -> None:
    raise PolicyError("a job says so")


def returns_lambda() -> Any:
    return lambda: 1


def returns_much() -> list[str]:
    return ["x" * 100] * 1000


def holds_lock() -> bool:
    return LOCK.locked()


def cyclic(items: list[Any]) -> list[Any]:
    items.append(items)
    return items


def count_down(n: int) -> int:
    return n if n == 0 else count_down_again(n - 1)


count_down_again = sandbox(count_down)
strict_inner = sandbox(timeout=1)(value)


def calls_stricter() -> Any:
    return strict_inner(1)


TWINS: list[tuple[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    ("plain", value, (1,), {}),
    ("default keeps its identity", value, (), {}),
    ("sentinel given", value, (_MISSING,), {}),
    ("tuple", value, ((1, 2),), {}),
    ("bytes", value, (b"x" * 100_000,), {}),
    ("mutated argument", mutates, ([1],), {}),
    ("shared", lambda: shares, (), {}),
    ("annotated class", makes, ("a",), {}),
    ("argument's class", value, (Item("b"),), {}),
    ("unknown class", makes_unknown, (), {}),
    ("fields of a wrong type", returns_wrong, (), {}),
    ("own exception", raises_own, (), {}),
    ("KeyError", raises, ("key",), {}),
    ("OSError", raises, ("os",), {}),
    ("SystemExit", raises, ("exit",), {}),
    ("StopIteration", raises, ("stop",), {}),
    ("an error of ours", raises_ours, (), {}),
    ("lambda returned", returns_lambda, (), {}),
    ("too much returned", returns_much, (), {"result": 2000}),
    ("captured lock", holds_lock, (), {}),
    ("lock as argument", value, (LOCK,), {}),
    ("file as argument", value, (sys.__stdin__,), {}),
    ("cycle returned", cyclic, ([],), {}),
    ("recursion", count_down, (3,), {}),
    ("stricter tool inside", calls_stricter, (), {}),
    ("wrong arguments", value, (1, 2, 3), {}),
]


def outcome(call: Callable[[], Any]) -> tuple[Any, ...]:
    try:
        made = call()
    except Exception as error:
        return type(error), error.args, getattr(error, "code", None)
    return type(made), repr(made)


@pytest.mark.parametrize(
    ("fn", "args", "keywords"), [t[1:] for t in TWINS], ids=[t[0] for t in TWINS]
)
def test_the_outcome_is_that_of_a_sandbox(
    fn: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    tool = sandbox(**keywords)(fn)
    confined = outcome(lambda: tool(*args))
    with local():
        assert outcome(lambda: tool(*args)) == confined
        result = outcome(lambda: tool.run(*args).unwrap())
    assert result == confined


def test_the_trap_the_bare_function_hides_all_of_it() -> None:
    """What `fn.local` alone, the naive stand-in, lets a test believe."""
    mine = [1]
    assert mutates(mine) is mine
    assert holds_lock() is False
    assert isinstance(makes_unknown(), Unknown)


def test_arguments_are_copies_that_share_what_was_shared() -> None:
    one: list[int] = []
    with local():
        assert sandbox(shares)(one, one) is True
        assert sandbox(shares)([], []) is False
    assert one == []


def test_results_are_copies() -> None:
    numpy = pytest.importorskip("numpy")
    kept = []

    def tool(a: Any) -> Any:
        kept.append(a)
        return a

    given = numpy.zeros(100_000)
    with local(), pytest.warns(RuntimeWarning, match="'kept'"):
        back = sandbox(tool)(given)
    assert not numpy.shares_memory(given, kept[0])
    assert not numpy.shares_memory(back, kept[0])
    back[0] = 1
    assert given[0] == kept[0][0] == 0


def test_it_runs_here_and_the_present_function(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = os.getpid()
    tool = sandbox(os.getpid)
    assert tool() != seen
    with local():
        assert tool() == seen
    assert tool() != seen
    other = sandbox(value)
    monkeypatch.setattr(other, "__wrapped__", lambda x: "patched")
    with local():
        assert other(1) == "patched"


def test_after_usual_calls_no_quick_way_leads_into_a_sandbox() -> None:
    tool = sandbox(os.getpid)
    for _ in range(3):
        tool()
    with local():
        assert {tool() for _ in range(3)} == {os.getpid()}


def test_it_can_be_nested_and_decorates() -> None:
    @local()
    def test() -> bool:
        with local():
            pass
        return is_local()

    assert test()
    assert not is_local()


def test_it_holds_for_other_threads_too() -> None:
    tool = sandbox(os.getpid)
    found: list[int] = []
    with local():
        thread = threading.Thread(target=lambda: found.append(tool()))
        thread.start()
        thread.join()
    assert found == [os.getpid()]


def test_methods_of_all_kinds() -> None:
    counter = Counter()
    with local():
        assert counter.add(2) == 2
        assert Counter.add.run(counter, 3).value == 3
        assert Counter.of(1) == "Counter 1"
        assert counter.plus(1, 2) == 3
        with pytest.raises(TypeError, match=r"Counter\.add\.run\(k, 2\)"):
            counter.add.run(2)  # type: ignore[call-arg, arg-type]
    assert counter.n == 0, "a mutated self does not come back"


def test_partial_objects() -> None:
    with local():
        assert sandbox(functools.partial(value, 3))() == [3, "int"]


def test_policies_are_checked_and_not_enforced(tmp_path: Path) -> None:
    file = tmp_path / "hidden"
    file.write_text("x")
    tool = sandbox(timeout="1s")(Path.read_text)
    with pytest.raises(FileNotFoundError):
        tool(file)
    with local():
        assert tool(file) == "x"
        with pytest.raises(PolicyError, match="unknown keyword"):
            sandbox(memroy=1)  # type: ignore[call-overload]
    assert "nothing" in local_result(tool, file).enforced


def local_result(tool: Any, *args: Any) -> agentsbx.Result:
    with local():
        result: agentsbx.Result = tool.run(*args)
    return result


def test_a_wider_tool_inside_a_tool_is_refused_as_in_a_job() -> None:
    """Rule 5.6: rights are never gained; both ways say the same."""
    inner = sandbox(timeout="5s")(value)

    def outer() -> Any:
        return inner(1)

    tool = sandbox(timeout="9s")(outer)
    with pytest.raises(RemoteError, match="timeout 9s, not 5s") as confined:
        tool()
    with local(), pytest.raises(RemoteError) as here:
        tool()
    assert here.value.args == confined.value.args


def test_a_secret_that_is_captured_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "s3cret-value-of-it"
    monkeypatch.setenv("SERVICE_API_KEY", key)

    @sandbox
    def tool() -> int:
        return len(key)

    with local():
        with pytest.raises(SerializationError, match="SERVICE_API_KEY"):
            tool()
        assert tool.options(env="SERVICE_API_KEY")() == len(key)


def test_what_a_call_changes_and_a_sandbox_would_not_bring_back_is_told() -> None:
    def appends() -> None:
        LOG.append(1)

    def counts() -> int:
        global COUNT
        COUNT += 1
        return COUNT

    n = 0

    def closes() -> None:
        nonlocal n
        n += 1

    with local():
        for fn, name in ((appends, "LOG"), (counts, "COUNT"), (closes, "n")):
            with pytest.warns(RuntimeWarning, match="stays inside the call"):
                tool = sandbox(fn)
            with pytest.warns(RuntimeWarning, match=f"{fn.__name__} changed '{name}'"):
                tool()
    LOG.clear()


def test_output_is_passed_on_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    def tool() -> None:
        print("out")
        print("err", file=sys.stderr)

    with local():
        result = sandbox(tool).run()
        assert (result.text, result.stderr_text) == ("out\n", "err\n")
        assert capsys.readouterr() == ("out\n", "err\n")
        for mode, shown in (("capture", ("", "")), ("stderr", ("", "out\nerr\n"))):
            result = sandbox(output=mode)(tool).run()  # type: ignore[call-overload]
            assert (result.text, result.stderr_text) == ("out\n", "err\n")
            assert capsys.readouterr() == shown


def test_output_of_concurrent_calls_does_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    barrier = threading.Barrier(2)
    found: dict[str, str] = {}

    def tool(word: str, wait: Any = None) -> None:
        print(word)

    def call(word: str) -> None:
        with local():
            barrier.wait()
            found[word] = "".join(sandbox(tool).run(word).text for _ in range(20))

    before = sys.stdout
    threads = [threading.Thread(target=call, args=(w,)) for w in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"a": "a\n" * 20, "b": "b\n" * 20}
    assert sys.stdout is before


def test_seed_makes_a_call_repeat_and_leaves_the_test_alone() -> None:
    tool = sandbox(seed=7)(random.random)
    confined = tool()
    random.seed(1)
    expected = random.random()
    random.seed(1)
    with local():
        assert tool() == tool() == confined
    assert random.random() == expected


def test_ctrl_c_is_the_testers() -> None:
    @sandbox
    def tool() -> None:
        raise KeyboardInterrupt

    with local(), pytest.raises(KeyboardInterrupt):
        tool()


def test_warming_starts_nothing() -> None:
    with local():
        agentsbx.warm(sandbox(value))


# -- asyncio --------------------------------------------------------------------------------------


@sandbox
async def later(items: list[int]) -> list[int]:
    await asyncio.sleep(0)
    items.append(os.getpid())
    return items


async def test_async_functions() -> None:
    mine: list[int] = []
    with local():
        assert await later(mine) == [os.getpid()]
        assert (await later.run(mine)).value == [os.getpid()]
        assert await later.aio(mine) == [os.getpid()]
        assert (await later.run.aio(mine)).value == [os.getpid()]
    assert mine == []


async def test_sync_functions_do_not_block_the_loop() -> None:
    ready, go = threading.Event(), threading.Event()

    def tool() -> bool:
        # What is global in this process cannot cross; a test may reach it by its module.
        mine = sys.modules[__name__]
        mine.READY.set()  # type: ignore[attr-defined]
        done: bool = mine.GO.wait(20)  # type: ignore[attr-defined]
        return done

    sys.modules[__name__].READY, sys.modules[__name__].GO = ready, go  # type: ignore[attr-defined]
    with local():
        task = asyncio.ensure_future(sandbox(tool).aio())
        while not ready.is_set():
            await asyncio.sleep(0.01)
        go.set()
        assert await task is True
        assert (await sandbox(value).run.aio(1)).value == [1, "int"]


async def test_errors_and_cancelling() -> None:
    @sandbox
    async def forever() -> None:
        await asyncio.sleep(1000)

    @sandbox
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    with local():
        task = asyncio.ensure_future(forever())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(RemoteError, match="CancelledError"):
            await cancels_itself()
        with pytest.raises(SerializationError):
            await later(LOCK)  # type: ignore[arg-type]


# -- without Linux, and as a fixture --------------------------------------------------------------

ELSEWHERE = """
import asyncio, sys, sysconfig
sysconfig.get_config_vars()  # of the machine that this really is
sys.platform = "darwin"
sys.modules["agentsbx._core"] = None  # a machine without the compiled part
from agentsbx import SandboxUnavailable, SerializationError, sandbox, warm
from agentsbx.testing import local

@sandbox(read="data", timeout="5s")
def tool(x, done=None):
    return [x, done]

@sandbox
async def later(x):
    return x

class K:
    @sandbox
    def m(self, x):
        return x

with local():
    warm(tool)
    assert tool(1) == [1, None]
    assert tool.run(2).value == [2, None]
    assert asyncio.run(tool.aio(3)) == [3, None]
    assert asyncio.run(later(4)) == 4
    assert K().m(5) == 5
    try:
        tool(open(__file__))
    except SerializationError:
        pass
    else:
        raise SystemExit("an open file has crossed")
started = [n for n in ("_engine", "_runtime", "_supervisor") if f"agentsbx.{n}" in sys.modules]
assert not started, started
try:
    tool(1)
except SandboxUnavailable:
    print("fine")
"""


def test_no_sandbox_and_no_compiled_part_is_needed(tmp_path: Path) -> None:
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, env=python_path()
    )
    assert done.stdout == "fine\n", done.stderr


def python_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(agentsbx.__file__).parents[1])}


def test_importing_the_plugin_is_light() -> None:
    """Every pytest run of a machine that has agentsbx loads it."""
    code = (
        "import pytest, sys; before = set(sys.modules); import agentsbx.pytest_plugin; "
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=python_path()
    )
    assert done.stdout.strip() == "['agentsbx', 'agentsbx.pytest_plugin']", done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""
        import os
        from agentsbx import sandbox
        tool = sandbox(os.getpid)

        def test_local(sandbox_local):
            assert tool() == os.getpid()

        def test_confined():
            assert tool() != os.getpid()
        """)
    )
    return tmp_path  # type: ignore[return-value]


def test_the_fixture_makes_calls_local_for_one_test(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "agentsbx.pytest_plugin", "-p",
         "no:cacheprovider", str(project)],
        capture_output=True, text=True, timeout=110, cwd=project,
        env=python_path() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # it may be installed too
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_is_an_entry_point() -> None:
    import tomllib

    pyproject = Path(agentsbx.__file__).parents[1] / "pyproject.toml"
    if not pyproject.exists():
        from importlib.metadata import entry_points

        assert {e.value for e in entry_points(group="pytest11")} >= {"agentsbx.pytest_plugin"}
        return
    found = tomllib.loads(pyproject.read_text())["project"]["entry-points"]["pytest11"]
    assert found == {"agentsbx": "agentsbx.pytest_plugin"}


def test_generators_stream_here_and_are_checked() -> None:
    @sandbox
    def items(n: int) -> Iterator[Any]:
        heard = yield [n]
        yield heard
        yield threading.Lock()

    @sandbox
    async def aitems(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    async def main() -> list[int]:
        assert [x async for x in items.aio(1) if x != [1]] == []
        return [x async for x in aitems(3)]

    with local():
        generator = items(1)
        assert next(generator) == [1]
        assert generator.send((1, 2)) == (1, 2)
        with pytest.raises(RemoteError, match="cannot leave the sandbox"):
            next(generator)
        assert isinstance(items.run(1).error, RemoteError)
        assert aitems.run is not None
        with pytest.raises(RemoteError):
            asyncio.run(main())
        assert asyncio.run(aitems.run(3)).value == [0, 1, 2]
        with pytest.raises(TypeError, match="missing a required argument"):
            items()
