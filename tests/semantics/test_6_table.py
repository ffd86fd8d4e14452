"""Semantics section 6, the table: every cell of `verbs.toml` is run; the page is made from it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentsbx import Result, sandbox

TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("verbs.toml").read_text())


def plain(x: int) -> int:
    return 2 * x


async def coroutine(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def generator(x: int) -> Iterator[int]:
    yield x
    yield 2 * x


async def agenerator(x: int) -> AsyncIterator[int]:
    yield x
    await asyncio.sleep(0)
    yield 2 * x


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sync": plain, "async": coroutine, "generator": generator, "async generator": agenerator,
}  # fmt: skip


async def value(call: Callable[[], Any]) -> None:
    assert call() == 6


async def coroutine_(call: Callable[[], Any]) -> None:
    got = call()
    assert inspect.isawaitable(got)
    assert await got == 6


async def generator_(call: Callable[[], Any]) -> None:
    assert list(call()) == [3, 6]
    got = call()
    assert next(got) == 3
    assert got.send(None) == 6
    got.close()
    with pytest.raises(StopIteration):
        next(got)


async def async_generator(call: Callable[[], Any]) -> None:
    assert [item async for item in call()] == [3, 6]
    got = call()
    assert await got.asend(None) == 3
    await got.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(got)


async def result(call: Callable[[], Any]) -> None:
    got = call()
    assert isinstance(got, Result)
    assert got.unwrap() == 6


async def coroutine_of_result(call: Callable[[], Any]) -> None:
    got = await call()
    assert isinstance(got, Result)
    assert got.unwrap() == 6


async def result_of_list(call: Callable[[], Any]) -> None:
    got = call()
    assert isinstance(got, Result)
    assert got.unwrap() == [3, 6]


async def coroutine_of_result_of_list(call: Callable[[], Any]) -> None:
    got = await call()
    assert isinstance(got, Result)
    assert got.unwrap() == [3, 6]


async def future(call: Callable[[], Any]) -> None:
    got = call()
    assert isinstance(got, concurrent.futures.Future)
    assert got.result(30) == 6


async def ordered_iterator(call: Callable[[], Any]) -> None:
    assert list(call()) == [2, 4, 6]


async def async_iterator(call: Callable[[], Any]) -> None:
    assert [item async for item in call()] == [2, 4, 6]


async def refused(call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match="call"):
        call()


CHECKS: dict[str, Callable[[Callable[[], Any]], Awaitable[None]]] = {
    "value": value, "coroutine": coroutine_, "generator": generator_,
    "async_generator": async_generator, "result": result,
    "coroutine_of_result": coroutine_of_result, "result_of_list": result_of_list,
    "coroutine_of_result_of_list": coroutine_of_result_of_list, "future": future,
    "ordered_iterator": ordered_iterator, "async_iterator": async_iterator, "refused": refused,
}  # fmt: skip
CELLS = [(verb, kind) for verb in TABLE["verb"] for kind in TABLE["kinds"]]


def needs(verb: dict[str, Any], kind: str) -> list[str]:
    """What this tree must have for a cell, by the names of `[present]`."""
    return [*([verb["needs"]] if "needs" in verb else []),
            *(["generators"] if "generator" in kind else [])]  # fmt: skip


@pytest.mark.parametrize(("verb", "kind"), CELLS, ids=[f"{v['shown']}-{k}" for v, k in CELLS])
async def test_6_every_cell_of_the_table(verb: dict[str, Any], kind: str) -> None:
    missing = [name for name in needs(verb, kind) if not TABLE["present"][name]]
    if missing:
        assert is_absent(missing[-1], verb, kind), f"{missing[-1]} is here: say so in verbs.toml"
        return
    fn = sandbox(FUNCTIONS[kind])
    await CHECKS[verb[kind]](lambda: eval(verb["call"], {"fn": fn}))


def is_absent(name: str, verb: dict[str, Any], kind: str) -> bool:
    if name == "generators":
        try:
            sandbox(FUNCTIONS[kind])
        except TypeError:
            return True
        return False
    return not hasattr(sandbox(FUNCTIONS[kind]), verb["shown"].removeprefix("fn.").split("(")[0])


def test_6_the_table_is_whole() -> None:
    assert set(CHECKS) == set(TABLE["outcome"])
    assert {verb[kind] for verb, kind in CELLS} == set(CHECKS), "an outcome that no cell has"
    assert set(FUNCTIONS) == set(TABLE["kinds"])
