"""The decorator without any process: a stand-in for `agentsbx._runtime` runs the functions here."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
import pydoc
import subprocess
import sys
import threading
import time
import traceback
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import agentsbx
from agentsbx import Policy, PolicyError, Result, _injob, _load, _nested, sandbox
from agentsbx._decorator import is_wrapper
from agentsbx._kinds import Kind

if TYPE_CHECKING:
    from nowhere import Unknown


class Cancel:
    def __init__(self) -> None:
        self.event = threading.Event()

    def cancel(self) -> None:
        self.event.set()


class CallSite:
    quick = None

    def __init__(self, fn: Any, policy: Policy, *, kind: Kind, name: str, **options: Any):
        self.fn, self.policy, self.kind, self.name, self.options = (
            fn,
            policy,
            kind,
            name,
            options,
        )


@dataclass
class Fake:
    module: types.ModuleType
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]
    killed: list[float]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Fake:
    module = types.ModuleType("agentsbx._runtime")
    fake = Fake(module, [], [])

    def invoke(
        site: CallSite,
        args: Any,
        kwargs: Any,
        *,
        cancel: Cancel,
        detail: bool,
        begun: None = None,
    ) -> Result:
        fake.calls.append((site, args, kwargs))
        if site.name == "slow":
            assert cancel.event.wait(10)
            time.sleep(0.05)  # the kill takes a moment
            fake.killed.append(time.monotonic())
            return Result(error=TimeoutError("cancelled"))
        try:
            value = site.fn(*args, **kwargs)
            return Result(value=asyncio.run(value) if site.kind.is_async else value)
        except Exception as error:
            return Result(error=error.with_traceback(None))

    module.__dict__.update(CallSite=CallSite, Cancel=Cancel, invoke=invoke, IN_JOB=False)
    monkeypatch.setitem(sys.modules, "agentsbx._runtime", module)
    monkeypatch.setitem(_load._loaded, "_runtime", module)
    monkeypatch.setattr(agentsbx, "_runtime", module, raising=False)
    return fake


def test_completion_and_help_show_function_and_verbs_as_they_are_called() -> None:
    class Tool:
        @sandbox
        def method(self, x: int, *, y: str = "") -> float:
            """Say something."""
            return float(x)

        @classmethod
        @sandbox
        async def klass(cls, x: int) -> float:
            """Say more."""
            return float(x)

    for found, shown in (
        (Tool.method, "(self, x: int, *, y: str = '') -> float"),
        (Tool().method, "(x: int, *, y: str = '') -> float"),
        (Tool.method.run, "(self, x: int, *, y: str = '') -> 'Result'"),
        (Tool.method.run.aio, "(self, x: int, *, y: str = '') -> 'Result'"),
        (Tool().method.aio, "(self, x: int, *, y: str = '') -> float"),
        (Tool.klass, "(x: int) -> float"),
        (Tool.klass.run, "(cls, x: int) -> 'Result'"),
    ):
        assert str(inspect.signature(found)) == shown
        assert inspect.getdoc(found)
    text = pydoc.plain(pydoc.render_doc(Tool))
    assert "method(self, x: int, *, y: str = '') -> float\n |      Say something." in text
    assert "Say more." in text
    assert "@sandbox" in inspect.getsource(Tool.method)
    assert Tool.method.options.__doc__
    assert Tool.method.explain.__doc__
    assert Tool.method.explain.__qualname__.endswith("Tool.method.explain")


def test_wrapper_is_a_function_with_the_signature_and_the_annotations_evaluated() -> None:
    @sandbox
    def f(a: int, /, b: str = "x", *rest: float, c: bool, **more: Unknown) -> list[int]:
        """Words."""
        raise NotImplementedError

    assert type(f) is types.FunctionType
    assert f.__name__ == "f"
    assert f.__doc__ == "Words."
    assert f.__module__ == __name__
    assert f.__annotations__["a"] is int
    assert f.__annotations__["more"] == "Unknown"
    assert f.__annotations__["return"] == list[int]
    signature = inspect.signature(f)
    assert signature.parameters["b"].annotation is str
    assert signature.parameters["b"].default == "x"
    assert signature.return_annotation == list[int]
    assert f.__wrapped__ is f.local
    assert not inspect.iscoroutinefunction(f)


def test_every_form_of_use(runtime: Fake, tmp_path: Any) -> None:
    file = tmp_path / "p.toml"
    file.write_text("[limits]\nmemory = '100MB'\n")

    def f(x: int) -> int:
        return x + 1

    assert sandbox(f)(1) == 2
    assert sandbox()(f)(1) == 2
    assert sandbox(str(file))(f).policy.limits.memory == 100 * 10**6
    assert sandbox(file)(f).policy.limits.memory == 100 * 10**6
    assert sandbox("strict")(f).policy.profile == "strict"
    policy = Policy.from_keywords(timeout=5)
    assert sandbox(policy)(f).policy is policy
    assert sandbox(policy, memory="1GB")(f).policy.limits.memory == 10**9
    assert sandbox(memory="1GB")(f).policy.limits.memory == 10**9


def test_wrong_use_says_what_was_meant() -> None:
    with pytest.raises(TypeError, match=r"did you mean `Sandbox\(\.\.\.\)`"):
        sandbox(int)  # type: ignore[arg-type, unused-ignore]
    with pytest.raises(TypeError, match=r"Did you mean `Sandbox\(\.\.\.\)`"), sandbox(timeout=1):  # type: ignore[attr-defined]
        pass
    with pytest.raises(TypeError, match="not int"):
        sandbox(3)  # type: ignore[call-overload]
    with pytest.raises(PolicyError, match="memory"):
        sandbox(memroy=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not both"):
        sandbox(len, memory=3)  # type: ignore[call-overload]

    with pytest.raises(TypeError, match="below @property"):
        sandbox(property(lambda self: 1))  # type: ignore[arg-type, call-overload]


def test_async_function_stays_a_coroutine_function(runtime: Fake) -> None:
    @sandbox
    async def f(x: int) -> int:
        await asyncio.sleep(0)
        return x * 2

    assert inspect.iscoroutinefunction(f)
    assert inspect.iscoroutinefunction(f.run)
    assert asyncio.run(f(2)) == 4
    assert asyncio.run(f.aio(2)) == 4
    assert asyncio.run(f.run(2)).value == 4
    assert asyncio.run(f.run.aio(2)).value == 4


def test_verbs_of_a_sync_function(runtime: Fake) -> None:
    @sandbox
    def f(x: int) -> float:
        return 1 / x

    assert f(2) == 0.5
    assert f.run(2).value == 0.5
    assert isinstance(f.run(0).error, ZeroDivisionError)
    assert asyncio.run(f.aio(2)) == 0.5
    assert asyncio.run(f.run.aio(2)).value == 0.5
    assert f.local(2) == 0.5
    with pytest.raises(ZeroDivisionError):
        asyncio.run(f.aio(0))
    with pytest.raises(TypeError, match=r"f\(\) missing a required argument: 'x'"):
        f.run()  # type: ignore[call-arg]


def test_an_error_shows_one_frame_of_ours(runtime: Fake) -> None:
    @sandbox
    def f() -> None:
        raise KeyError("k")

    try:
        f()
    except KeyError as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "agentsbx/_" in frame.filename]
        assert len(ours) == 1
        walked = error.__traceback__
        while walked is not None:
            if "agentsbx/_" in walked.tb_frame.f_code.co_filename:
                assert walked.tb_frame.f_locals["__tracebackhide__"] is True
            walked = walked.tb_next
    with pytest.raises(TypeError, match=r"f\(\) too many positional") as caught:
        f(1)  # type: ignore[call-arg]
    assert type(caught.value) is TypeError
    assert len(caught.traceback) == 2


def test_present_code_runs(runtime: Fake) -> None:
    @sandbox
    def f() -> int:
        return 1

    assert f() == 1
    f.__wrapped__ = lambda: 2  # type: ignore[misc, method-assign]
    assert f() == 2

    @sandbox
    def g() -> int:
        return 3

    # What %autoreload does to a function that somebody holds.
    f.__code__ = g.__code__  # type: ignore[attr-defined]
    f.__dict__ = g.__dict__
    assert f() == 3
    assert f.run().value == 3


class Tool:
    def __init__(self, k: int) -> None:
        self.k = k

    @sandbox
    def method(self, x: int = 1) -> int:
        return self.k * x

    @staticmethod
    @sandbox
    def static_below(x: int) -> int:
        return x

    @sandbox
    @staticmethod
    def static_above(x: int) -> int:
        return x

    @classmethod
    @sandbox
    def class_below(cls, x: int) -> str:
        return f"{cls.__name__}{x}"

    @sandbox
    @classmethod
    def class_above(cls, x: int) -> str:
        return f"{cls.__name__}{x}"


class SubTool(Tool):
    pass


def test_methods_bind(runtime: Fake) -> None:
    tool = Tool(3)
    assert tool.method(2) == 6
    assert Tool.method(tool, 2) == 6
    assert tool.static_below(2) == Tool.static_below(2) == 2
    assert tool.static_above(2) == Tool.static_above(2) == 2
    assert tool.class_below(2) == "Tool2"
    assert SubTool.class_above(2) == "SubTool2"
    assert Tool.static_below.run(2).value == 2
    assert sandbox(tool.method.__func__.local.__get__(tool))(4) == 12  # type: ignore[attr-defined]


def test_verbs_of_methods_never_take_the_first_argument_for_self(runtime: Fake) -> None:
    tool = SubTool(3)
    assert Tool.method.run(tool, 2).value == 6
    assert tool.method.run(tool).value == 3
    with pytest.raises(TypeError, match=r"write Tool\.method\.run\(k, 2\)"):
        tool.method.run(2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"write Tool\.method\.run\(k, x=2\)"):
        tool.method.run(x=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"write Tool\.class_below\.run\(Tool, 2\)"):
        Tool.class_below.run(2)  # type: ignore[attr-defined]
    assert Tool.class_below.run(Tool, 2).value == "Tool2"  # type: ignore[attr-defined]


def test_partials_lambdas_callables_and_other_decorators(runtime: Fake) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    assert sandbox(functools.partial(add, 1))(2) == 3
    assert functools.partial(sandbox(add), 1)(2) == 3
    assert sandbox(lambda: 5)() == 5

    class Adder:
        def __call__(self, x: int) -> int:
            return x + 1

    assert sandbox(Adder())(1) == 2

    def twice(fn: Any) -> Any:
        @functools.wraps(fn)
        def inner(*args: Any) -> Any:
            return 2 * fn(*args)

        return inner

    over = twice(sandbox(add))
    assert over(1, 2) == 6
    assert not is_wrapper(over)
    under = sandbox(twice(add))
    assert under(1, 2) == 6
    assert is_wrapper(under)


def test_options_make_another_wrapper(runtime: Fake) -> None:
    @sandbox(timeout="5s", name="known")
    def f() -> int:
        return 1

    wider = f.options(timeout="20s")
    assert wider.policy.limits.timeout == 20
    assert f.policy.limits.timeout == 5
    assert wider() == 1
    assert runtime.calls[-1][0].name == "known"


async def test_cancelling_the_task_kills_and_waits(runtime: Fake) -> None:
    @sandbox
    def slow() -> None: ...

    slow = slow.options(name="slow")
    task = asyncio.create_task(slow.aio())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(runtime.killed) == 1


async def test_calls_of_one_loop_run_at_once_and_see_context_variables(runtime: Fake) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    barrier = threading.Barrier(3)

    @sandbox
    def f() -> int:
        barrier.wait(10)
        return variable.get()

    variable.set(7)
    assert await asyncio.gather(f.aio(), f.aio(), f.aio()) == [7, 7, 7]


def inside(monkeypatch: pytest.MonkeyPatch, **keywords: Any) -> None:
    monkeypatch.setattr(_injob, "is_job", True)
    monkeypatch.setattr(_injob, "policy", Policy.from_keywords(**keywords))
    monkeypatch.setattr(_injob, "_raw_policy", msgspec.msgpack.encode(_injob.policy))


def test_inside_a_job_a_call_runs_here_if_the_sandbox_is_as_strict(
    runtime: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    @sandbox(timeout="10s")
    def f(x: int) -> int:
        return x and f(x - 1) + 1

    inside(monkeypatch, timeout="5s")
    assert f(3) == 3
    assert f.run(3).value == 3
    assert asyncio.run(f.aio(3)) == 3
    assert not runtime.calls
    inside(monkeypatch, timeout="50s")
    with pytest.raises(PolicyError, match="timeout 50s, not 10s"):
        f(3)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_shipped_wrapper_runs_in_the_job(monkeypatch: pytest.MonkeyPatch, is_async: bool) -> None:
    if is_async:

        @sandbox(timeout="10s")
        async def f(x: int) -> int:
            """Words."""
            return x

    else:

        @sandbox(timeout="10s")
        def f(x: int) -> int:
            """Words."""
            return x

    make, args, state, _, _, complete = _nested.reduce(f)
    there = make(*args)
    complete(there, state)
    assert (there.__name__, there.__doc__) == ("f", "Words.")
    assert inspect.iscoroutinefunction(there) == is_async
    finish = asyncio.run if is_async else lambda value: value
    inside(monkeypatch, timeout="50s")
    with pytest.raises(PolicyError, match="timeout 50s, not 10s"):
        finish(there(1))
    inside(monkeypatch, timeout="5s")
    assert finish(there(1)) == 1
    assert finish(there.run(1)).value == 1
    assert asyncio.run(there.aio(1)) == 1


def test_import_loads_little_and_all_is_sorted_and_there() -> None:
    assert list(agentsbx.__all__) == sorted(agentsbx.__all__)
    for name in agentsbx.__all__:
        if name not in ("probe", "run", "shutdown", "warm"):
            assert getattr(agentsbx, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        agentsbx.nothing  # type: ignore[attr-defined] # noqa: B018


NO_EXTENSION = """
import sys
sys.modules["agentsbx._core"] = None
sys.platform = PLATFORM
import agentsbx
@agentsbx.sandbox(memory="1GB")
def f(): return 1
for call in (f, f.run, agentsbx.probe, lambda: agentsbx.run(["true"])):
    try:
        call()
    except agentsbx.SandboxUnavailable as error:
        assert "Linux" in str(error) or "not built" in str(error), error
    else:
        raise SystemExit("no error")
agentsbx.shutdown()
assert f.local() == 1 and "1GB" in f.explain()
print("ok")
"""


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_without_the_compiled_part_only_calls_fail(platform: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_EXTENSION.replace("PLATFORM", repr(platform))],
        env=os.environ | {"PYTHONPATH": str(Path(agentsbx.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == "ok\n", done.stderr


def test_import_starts_and_loads_little() -> None:
    source = f"""
import sys, threading
sys.path.insert(0, {str(Path(agentsbx.__file__).parents[1])!r})
import agentsbx
assert threading.active_count() == 1
heavy = {{"msgspec", "cloudpickle", "asyncio", "agentsbx._core"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-I", "-c", source], check=True, timeout=30)


def test_bound_methods_know_their_object() -> None:
    class Shop:
        def price(self, n: int) -> int:
            return n

    call = sandbox(Shop().price)
    assert list(inspect.signature(call).parameters) == ["n"]
    with pytest.raises(TypeError, match="too many"):
        call(1, 2)
    with pytest.raises(TypeError, match="'n'"):
        call.run()


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**70}, "seed="),
        ({"seed": 1.5}, "seed=1.5"),
        ({"seed": True}, "seed=True"),
        ({"captures": "LIMIT"}, "captures='LIMIT' is not a list of names"),
        ({"captures": [1]}, "captures="),
        ({"raises": [1]}, "exception classes"),
        ({"raises": int}, "exception classes"),
        ({"name": 7}, "name=7"),
    ],
)
def test_call_site_keywords_are_checked_at_the_decoration(keywords: Any, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        sandbox(**keywords)(len)
    assert words in str(caught.value)


def test_one_exception_class_is_a_list_of_one() -> None:
    fn = sandbox(raises=KeyError)(lambda: 1)
    assert fn.__agentsbx_site__.options["raises"] == [KeyError]


def test_sources_that_are_not_built_say_so(tmp_path: Path) -> None:
    """Python started in a checkout imports the sources, whatever is installed."""
    import shutil

    import agentsbx

    root = Path(agentsbx.__file__).parent
    shutil.copytree(root, tmp_path / "agentsbx", ignore=shutil.ignore_patterns("_core*", "_bin"))
    code = "from agentsbx import sandbox; sandbox(lambda: 1)()"
    said = []
    for folder in ("elsewhere", "csrc"):
        (tmp_path / folder).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        said.append(done.stderr.splitlines()[-1])
    assert "was installed without its compiled part" in said[0]
    assert f"from its sources in {str(tmp_path)!r}, which are not built" in said[1]
    assert "start Python in another folder" in said[1]


def test_explain_is_a_text_that_a_notebook_shows_as_lines() -> None:
    shown: list[str] = []
    text: Any = sandbox(lambda: 1).explain()
    text._repr_pretty_(types.SimpleNamespace(text=shown.append), cycle=False)
    assert shown == [str(text)]
    assert shown[0].count("\n") > 5


@pytest.mark.parametrize(
    "keyword", [{"seed": 1}, {"host": [len]}, {"captures": ["a"]}, {"output": "discard"}]
)
def test_a_command_takes_no_keywords_of_functions(keyword: Any) -> None:
    with pytest.raises(TypeError, match="for decorated functions, not for a command"):
        agentsbx.run(["true"], **keyword)
