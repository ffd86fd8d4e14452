"""How type checkers see decorated functions; `test_typing.py` runs mypy and pyright over this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from typing import Any, assert_type

import agentsbx
from agentsbx import Policy, Result, SandboxExecutor, sandbox


@sandbox
def bare(x: int, *, y: str = "") -> float:
    return float(x)


@sandbox(read=["data"], memory="512MB", timeout="30s", env="LANG", cpus=1.0)
def with_keywords(x: int) -> dict[str, int]:
    return {"x": x}


@sandbox(Policy())
async def asynchronous(x: int) -> str:
    return str(x)


@sandbox("strict")
def from_preset() -> None: ...


class Tool:
    @sandbox
    def method(self, x: int) -> float:
        return float(x)

    @sandbox(timeout=1)
    async def amethod(self, x: int) -> str:
        return str(x)

    @staticmethod
    @sandbox
    def static(x: int) -> int:
        return x


@sandbox
def stream(n: int) -> Iterator[int]:
    yield from range(n)


@sandbox(timeout="5s")
def full(n: int) -> Generator[int, str, float]:
    yield n
    return 1.0


@sandbox
async def astream(n: int) -> AsyncIterator[str]:
    yield str(n)


def use_streams() -> None:
    assert_type(stream(3), Iterator[int])
    assert_type(full(3), Generator[int, str, float])
    assert_type(stream.aio(3), AsyncIterator[int])
    assert_type(stream.run(3), Result)
    assert_type(astream(3), AsyncIterator[str])
    listed: Coroutine[Any, Any, Result] = astream.run(3)
    listed.close()
    stream("x")  # E: argument


def use() -> None:
    assert_type(bare(1, y="a"), float)
    assert_type(bare.run(1), Result)
    assert_type(bare.submit(1), Future[float])
    assert_type(bare.map([1]), Iterator[float])
    assert_type(asynchronous.submit(1), Future[str])
    bare.submit("x")  # E: argument
    with SandboxExecutor(Policy(), max_workers=2, memory="1GB") as executor:
        assert_type(executor.submit(len, "x"), Future[int])
    assert_type(with_keywords(1), dict[str, int])
    assert_type(from_preset(), None)
    assert_type(bare.policy, Policy)
    assert_type(bare.explain(), str)
    local: Callable[..., float] = bare.local
    local(1)
    assert_type(bare.options(timeout="20s")(1), float)
    tool = Tool()
    assert_type(tool.method(1), float)
    assert_type(Tool.method(tool, 1), float)
    assert_type(Tool.method.run(tool, 1), Result)
    assert_type(Tool.static(1), int)
    assert_type(agentsbx.run(["true"], timeout="1s"), Result)
    tool.method("x")  # E: argument
    bare("x")  # E: argument
    bare()  # E: missing
    sandbox(memroy=1)  # E: unknown keyword
    bare.run("x")  # E: argument


async def ause() -> None:
    assert_type(await astream.run(1), Result)
    assert_type(await asynchronous(1), str)
    assert_type(await asynchronous.run(1), Result)
    assert_type(await bare.aio(1), float)
    assert_type(await bare.run.aio(1), Result)
    tool = Tool()
    assert_type(await tool.amethod(1), str)
    call: Coroutine[Any, Any, str] = asynchronous(1)
    await call
    await asyncio.gather(asynchronous(1), bare.aio(2))
