"""How type checkers see decorated functions; `test_typing.py` runs mypy and pyright over this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, assert_type

import agentsbx
from agentsbx import Policy, Result, SandboxExecutor, sandbox, testing
from agentsbx.result import HostCall


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

    @staticmethod
    @sandbox(timeout=1)
    async def astatic(x: int, y: int) -> bytes:
        return bytes(x + y)

    @classmethod
    @sandbox
    def klass(cls, x: int) -> str:
        return cls.__name__ * x

    @classmethod
    @sandbox("strict")
    async def aklass(cls, x: int) -> str:
        return cls.__name__ * x


class Child(Tool):
    """Inherits all of it."""


@sandbox(python="/srv/venv", packages=["/srv/libs", Path("more")], seed=1, output="capture")
def elsewhere(*values: int, scale: float = 1.0) -> list[float]:
    return [value * scale for value in values]


@sandbox(host=[len, max], host_args=("ctx",), host_calls=5, host_bytes="1MB", host_rate=2.5)
def bridged(ctx: object, n: int) -> int:
    return n


@sandbox(host={"size": len}, host_args={"ctx": ("user_id", "find")})
def proxied(ctx: object, n: int) -> int:
    return n


def told(stream: str, text: str) -> None: ...


@sandbox(on_output=told)
def live(n: int) -> int:
    return n


assert_type(live(1), int)


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
    assert_type(stream.run(3), Result[Sequence[int]])
    assert_type(astream(3), AsyncIterator[str])
    listed: Coroutine[Any, Any, Result[Sequence[str]]] = astream.run(3)
    listed.close()
    stream("x")  # E: argument


def use() -> None:
    assert_type(bare(1, y="a"), float)
    assert_type(bare.submit(1), Future[float])
    assert_type(bare.map([1]), Iterator[float])
    assert_type(asynchronous.submit(1), Future[str])
    bare.submit("x")  # E: argument
    with SandboxExecutor(Policy(), max_workers=2, memory="1GB") as executor:
        assert_type(executor.submit(len, "x"), Future[int])
    assert_type(bare.run(1), Result[float])
    assert_type(bare.run(1).unwrap(), float)
    plain: Result = bare.run(1)  # as a bare name it says nothing of the value
    assert_type(plain.unwrap(), Any)
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
    assert_type(Tool.method.run(tool, 1), Result[float])
    assert_type(tool.method.run(tool, 1), Result[float])
    assert_type(tool.method.policy, Policy)
    assert_type(tool.method.explain(), str)
    assert_type(tool.method.local(tool, 1), float)
    assert_type(tool.method.options(timeout=1)(tool, 1), float)
    assert_type(Child().method(1), float)
    assert_type(Tool.static(1), int)
    assert_type(tool.static(1), int)
    assert_type(tool.static.run(1), Result[int])
    assert_type(Tool.klass(1), str)
    assert_type(tool.klass(1), str)
    assert_type(Child.klass(1), str)
    assert_type(Tool.klass.run(Tool, 1), Result[str])
    assert_type(elsewhere(1, 2, scale=0.5), list[float])
    assert_type(bare.options(python="/srv/venv").run(1, y="b"), Result[float])
    assert_type(agentsbx.run(["true"], timeout="1s"), Result[int])
    with testing.local():
        assert_type(testing.is_local(), bool)
    tool.method("x")  # E: argument
    bare("x")  # E: argument
    bare()  # E: missing
    sandbox(memroy=1)  # E: unknown keyword
    bare.run("x")  # E: argument
    bare.options(memroy=1)  # E: unknown keyword
    assert_type(bridged(None, 1) + proxied(None, 2), int)
    assert_type(bridged.run(None, 1).host_calls, tuple[HostCall, ...])
    sandbox(host=5)  # E: not a function
    sandbox(host_args=5)  # E: not names
    sandbox(packages=1)  # E: neither a path nor a list
    tool.method.run(2)  # E: the object is missing
    tool.static("x")  # E: argument
    Tool.klass("x")  # E: argument
    elsewhere(1, scale="x")  # E: argument
    agentsbx.run(["true"], pyton="/srv/venv")  # E: unknown keyword
    bare.loacl(1)  # E: attribute


async def ause() -> None:
    assert_type(await astream.run(1), Result[Sequence[str]])
    assert_type(await asynchronous(1), str)
    assert_type(await asynchronous.run(1), Result[str])
    assert_type((await asynchronous.run.aio(1)).unwrap(), str)
    assert_type(await asynchronous.aio(1), str)
    assert_type(await asynchronous.local(1), str)
    assert_type(await asynchronous.options(timeout=1)(1), str)
    assert_type(await bare.aio(1), float)
    assert_type(await bare.run.aio(1), Result[float])
    tool = Tool()
    assert_type(await tool.amethod(1), str)
    assert_type(await tool.amethod.run(tool, 1), Result[str])
    assert_type(await Tool.amethod.aio(tool, 1), str)
    assert_type(await tool.method.aio(tool, 1), float)
    assert_type(await tool.astatic(1, 2), bytes)
    assert_type(await Tool.aklass(1), str)
    assert_type(await Child().aklass(1), str)
    call: Coroutine[Any, Any, str] = asynchronous(1)
    await call
    await asyncio.gather(asynchronous(1), bare.aio(2))
