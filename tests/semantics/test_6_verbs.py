"""Semantics sections 6 and 7, as far as this version has them: verbs and keywords."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import PolicyError, Result, sandbox


def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return ["logged", fn(*args, **kwargs)]

    return inner


class Tool:
    scale = 10

    def __init__(self, k: int) -> None:
        self.k = k

    @sandbox
    def method(self, x: int) -> int:
        return self.k * x

    @sandbox
    def calls_another(self, x: int) -> int:
        return self.method(x) + self.static(x) + self.klass(x)

    @staticmethod
    @sandbox
    def static(x: int) -> int:
        return x

    @classmethod
    @sandbox
    def klass(cls, x: int) -> int:
        return cls.scale * x

    @sandbox
    async def later(self, x: int) -> int:
        await asyncio.sleep(0)
        return self.k + x


def test_methods_of_all_kinds() -> None:
    tool = Tool(3)
    assert tool.method(2) == 6
    assert tool.static(2) == Tool.static(2) == 2
    assert tool.klass(2) == Tool.klass(2) == 20
    assert asyncio.run(tool.later(1)) == 4
    assert Tool.method.run(tool, 2).value == 6
    assert tool.calls_another(1) == 3 + 1 + 10
    with pytest.raises(TypeError, match=r"Tool\.method\.run\(k, 2\)"):
        tool.method.run(2)  # type: ignore[arg-type]


def test_lambdas_partials_and_other_decorators() -> None:
    n = 5
    assert sandbox(lambda x: x + n)(1) == 6
    assert sandbox(functools.partial(max, 3))(1) == 3
    assert functools.partial(sandbox(max), 3)(1) == 3

    def f(x: int) -> int:
        return x

    assert sandbox(logged(f))(1) == ["logged", 1]
    assert logged(sandbox(f))(1) == ["logged", 1]


async def test_verbs_of_async_functions() -> None:
    @sandbox
    async def f(x: int) -> float:
        await asyncio.sleep(0)
        return 1 / x

    assert await f(2) == 0.5
    result = await f.run(0)
    assert isinstance(result, Result)
    assert isinstance(result.error, ZeroDivisionError)
    assert (await asyncio.gather(f(1), f(2), f.aio(4))) == [1, 0.5, 0.25]


def test_a_result_says_what_was_enforced() -> None:
    @sandbox(memory="300MB")
    def f() -> int:
        print("out")
        print("err", file=sys.stderr)
        return 1

    result = f.run()
    assert (result.ok, result.unwrap(), result.text, result.stderr_text) == (
        True,
        1,
        "out\n",
        "err\n",
    )
    assert result.limits["memory"].asked == 300_000_000
    assert result.limits["memory"].enforced_by != "none"
    assert result.usage.wall_s > 0
    assert len(result.policy_id) == 64
    assert result.call_id != f.run().call_id
    assert result.enforced
    assert (result.exit.code, result.exit.cause) == (0, "exited")


def test_options_of_a_file_policy_only_as_the_file_allows(scratch: Path) -> None:
    (scratch / "p.toml").write_text('widen = ["timeout"]\n[limits]\ntimeout = "5s"\n')

    @sandbox(str(scratch / "p.toml"))
    def f() -> int:
        return 1

    assert f.options(timeout="20s")() == 1
    assert f.options(memory="100MB")() == 1  # narrower
    with pytest.raises(PolicyError, match="memory"):
        f.options(memory="10GB")


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"memroy": 1}, "memory="),
        ({"cpu": 1}, "cpu_time="),
        ({"net": True}, "net="),
        ({"memory": "1 lightyear"}, "memory"),
        ({"timeout": "-1s"}, "timeout"),
    ],
)
def test_wrong_keywords_say_what_to_write(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        sandbox(**keywords)


async def test_run_is_not_for_strings() -> None:
    with pytest.raises(TypeError, match="list of words"):
        agentsbx.run("echo hello")  # type: ignore[arg-type]
    with pytest.raises(agentsbx.JobDied, match="exit code 3"):
        agentsbx.run(["/bin/sh", "-c", "echo no >&2; exit 3"], check=True)
    assert agentsbx.run(["/bin/cat"], input="text").text == "text"
