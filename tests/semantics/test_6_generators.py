"""Semantics section 6: generators and async generators stream from one sandbox."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import inspect
import itertools
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import RemoteError, SerializationError, sandbox


@dataclass
class Point:
    x: int
    y: float


@sandbox
def count(n: int) -> Iterator[int]:
    yield from range(n)


@sandbox
def talk() -> Generator[Any, Any, list[Any]]:
    """Echo what is sent."""
    heard: list[Any] = []
    while True:
        try:
            value = yield len(heard)
        except ValueError as error:
            heard.append(("thrown", *error.args))
            continue
        if value == "stop":
            return heard
        heard.append(value)


@sandbox
async def acount(n: int) -> AsyncIterator[int]:
    for i in range(n):
        await asyncio.sleep(0)
        yield i


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


# -- the protocol ------------------------------------------------------------------------------


def test_6_items_come_in_order_and_lazily(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("")

    @sandbox(write=str(log))
    def steps() -> Iterator[int]:
        for i in range(3):
            with open(log, "a") as file:
                file.write(f"{i}")
            yield i

    generator = steps()
    assert log.read_text() == "", "nothing runs before the first item is asked for"
    assert next(generator) == 0
    time.sleep(0.1)
    assert log.read_text() == "0", "in lockstep: no item is made ahead"
    assert list(generator) == [1, 2]


def test_6_a_naive_stand_in_runs_ahead(tmp_path: Path) -> None:
    """What a pool of processes can do: collect, then hand out."""
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        next(iter(pool.submit(_collect, str(log)).result()))
    assert log.read_text() == "012"


def _collect(path: str) -> list[int]:
    def steps() -> Iterator[int]:
        for i in range(3):
            with open(path, "a") as file:
                file.write(f"{i}")
            yield i

    return list(steps())


def test_6_send_throw_and_the_returned_value() -> None:
    generator = talk()
    assert next(generator) == 0
    assert generator.send({"a": [1]}) == 1
    assert generator.throw(ValueError("boo", 7)) == 2
    assert next(generator) == 3
    with pytest.raises(StopIteration) as stop:
        generator.send("stop")
    assert stop.value.value == [{"a": [1]}, ("thrown", "boo", 7), None]
    assert next(generator, "over") == "over"


def test_6_yield_from_and_for_loops() -> None:
    def outer() -> Generator[int, None, Any]:
        got = yield from talk_twice()
        return got

    @sandbox
    def talk_twice() -> Generator[int, None, str]:
        yield 1
        yield 2
        return "done"

    generator = outer()
    assert [next(generator), next(generator)] == [1, 2]
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "done"


def test_6_an_exception_that_is_let_pass_is_the_very_one() -> None:
    """`contextlib.contextmanager` and others compare by identity."""
    opened: list[str] = []

    @contextlib.contextmanager
    @sandbox
    def resource() -> Iterator[str]:
        yield "open"

    def use(error: Exception) -> None:
        with resource() as got:
            opened.append(got)
            raise error

    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        use(mine)
    assert caught.value is mine
    assert opened == ["open"]


def test_6_an_error_of_the_body_ends_it() -> None:
    @sandbox
    def bad() -> Iterator[int]:
        yield 1
        raise LookupError("two")

    generator = bad()
    assert next(generator) == 1
    with pytest.raises(LookupError, match="two") as caught:
        next(generator)
    assert "in bad" in str(caught.value.__cause__)
    assert next(generator, None) is None


def test_6_items_of_all_kinds() -> None:
    np = pytest.importorskip("numpy")

    @sandbox
    def items() -> Iterator[Any]:
        yield None
        yield (1, "a", {2.5})
        yield np.arange(200_000)
        yield b"x" * 50_000
        yield 2**100

    @sandbox
    def points() -> Iterator[Point]:
        yield Point(1, 2.0)

    first, second, third, fourth, fifth = items()
    assert first is None
    assert second == (1, "a", {2.5})
    assert third.sum() == np.arange(200_000).sum()
    third[0] = 7  # writable
    assert (fourth, fifth) == (b"x" * 50_000, 2**100)
    assert list(points()) == [Point(1, 2.0)]


def test_6_large_values_are_sent_too() -> None:
    generator = talk()
    next(generator)
    assert generator.send(b"y" * 200_000) == 1
    with pytest.raises(StopIteration) as stop:
        generator.send("stop")
    assert stop.value.value == [b"y" * 200_000]


def test_6_what_cannot_cross_is_named() -> None:
    @sandbox
    def items() -> Iterator[Any]:
        yield 1
        yield print

    generator = items()
    next(generator)
    with pytest.raises(RemoteError, match="cannot leave the sandbox"):
        next(generator)
    generator = talk()
    next(generator)
    with (
        open(os.devnull) as file,
        pytest.raises(SerializationError, match="generator"),
    ):
        generator.send(file)
    assert next(generator, "over") == "over"


# -- life --------------------------------------------------------------------------------------


@pytest.fixture
def told(tmp_path: Path) -> tuple[Any, Path]:
    mark = tmp_path / "mark"
    mark.write_text("")

    @sandbox(write=str(mark))
    def holds() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            mark.write_text("finally")

    return holds, mark


def test_6_close_runs_the_finally_blocks(told: tuple[Any, Path]) -> None:
    holds, mark = told
    generator = holds()
    next(generator)
    generator.close()
    assert mark.read_text() == "finally"
    generator.close()
    assert next(generator, None) is None


def test_6_an_abandoned_generator_is_dead_at_once(told: tuple[Any, Path]) -> None:
    holds, mark = told
    generator = holds()
    next(generator)
    del generator
    time.sleep(0.2)
    assert mark.read_text() == ""
    for _ in holds():
        break
    cycle: list[Any] = [holds()]
    next(cycle[0])
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert mark.read_text() == ""


def test_6_nothing_of_an_abandoned_generator_is_left() -> None:
    @sandbox
    def busy() -> Iterator[int]:
        os.posix_spawn("/bin/sleep", ["sleep", "60"], os.environ)
        yield 1

    next(count(1))
    gc.collect()
    time.sleep(0.3)
    before = sleepers()
    generator = busy()
    next(generator)
    assert until(lambda: sleepers() == before + 1)
    del generator
    assert until(lambda: sleepers() == before)


def sleepers() -> int:
    n = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                n += file.read() == b"sleep\x0060\0"
    return n


def test_6_a_generator_that_ignores_close() -> None:
    @sandbox
    def stubborn() -> Iterator[int]:
        while True:
            with contextlib.suppress(GeneratorExit):
                yield 1

    generator = stubborn()
    next(generator)
    with pytest.raises(RuntimeError, match="GeneratorExit"):
        generator.close()


def test_6_arguments_are_checked_at_the_call() -> None:
    with pytest.raises(TypeError, match="missing a required argument"):
        count()  # type: ignore[call-arg]


def test_6_it_is_a_generator_function_for_everyone() -> None:
    assert inspect.isgeneratorfunction(count)
    assert inspect.isgenerator(count(1))
    assert inspect.isasyncgenfunction(acount)
    assert inspect.isasyncgen(acount(1))
    assert not inspect.iscoroutinefunction(acount)
    assert count(1).__qualname__ == "count"
    assert agentsbx._decorator.is_wrapper(count)


def test_6_several_at_once_are_several_sandboxes() -> None:
    assert list(zip(count(3), count(3), strict=True)) == [(0, 0), (1, 1), (2, 2)]
    assert list(itertools.islice(count(10**9), 3)) == [0, 1, 2]


def test_5_1_the_clock_stands_still_while_the_consumer_holds_an_item() -> None:
    @sandbox(timeout="1s")
    def items(pause: float) -> Iterator[int]:
        yield 1
        time.sleep(pause)
        yield 2

    generator = items(0.1)
    next(generator)
    time.sleep(1.5)
    assert next(generator) == 2
    generator = items(30)
    next(generator)
    time.sleep(0.5)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        next(generator)
    assert time.monotonic() - start < 5


def test_5_1_the_time_of_all_items_counts_together() -> None:
    @sandbox(timeout="1s")
    def items() -> Iterator[int]:
        for i in range(100):
            time.sleep(0.15)
            yield i

    with pytest.raises(TimeoutError):
        list(items())


def test_5_1_a_held_generator_is_not_taken_for_an_unused_sandbox() -> None:
    generator = count(3)
    next(generator)
    time.sleep(3)
    assert list(generator) == [1, 2]


def test_6_what_a_killed_generator_planted_is_moved_aside(tmp_path: Path) -> None:
    @sandbox(write=str(tmp_path))
    def plants() -> Iterator[int]:
        with open(tmp_path / ".envrc", "w") as file:
            file.write("evil")
        yield 1
        yield 2

    generator = plants()
    next(generator)
    assert (tmp_path / ".envrc").exists()
    del generator
    assert not (tmp_path / ".envrc").exists()


# -- verbs -------------------------------------------------------------------------------------


def test_6_run_gives_a_list() -> None:
    result = count.run(3)
    assert (result.value, result.error) == ([0, 1, 2], None)
    assert result.usage.wall_s > 0

    @sandbox
    def bad() -> Iterator[int]:
        print("said")
        yield 1
        raise LookupError("no")

    result = bad.run()
    assert result.value is None
    assert isinstance(result.error, LookupError)
    assert result.stdout == b"said\n"
    with pytest.raises(TypeError):
        count.run("x", 2)


def test_6_output_comes_while_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    @sandbox
    def speaks() -> Iterator[int]:
        print("one")
        yield 1
        print("two")
        yield 2

    generator = speaks()
    next(generator)
    assert capsys.readouterr().out == "one\n"
    next(generator)
    assert capsys.readouterr().out == "two\n"


def test_6_async_generators() -> None:
    async def main() -> None:
        assert [x async for x in acount(3)] == [0, 1, 2]
        assert [x async for x in acount.aio(2)] == [0, 1]
        assert [x async for x in count.aio(2)] == [0, 1]
        assert (await acount.run(2)).value == [0, 1]
        assert (await acount.run.aio(2)).value == [0, 1]
        assert (await count.run.aio(2)).value == [0, 1]
        async for x in acount(5):
            if x == 1:
                break
        generator = acount(5)
        await anext(generator)
        await generator.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(generator)

    asyncio.run(main())


def test_6_async_send_and_throw() -> None:
    @sandbox
    async def echo() -> Any:
        value = None
        while True:
            try:
                value = yield value
            except ValueError as error:
                value = str(error)

    async def main() -> None:
        generator = echo()
        assert await anext(generator) is None
        assert await generator.asend(5) == 5
        assert await generator.athrow(ValueError("v")) == "v"
        await generator.aclose()

    asyncio.run(main())


def test_6_tasks_of_an_async_generator_run_on_while_an_item_is_held() -> None:
    @sandbox
    async def beats() -> AsyncIterator[int]:
        n = 0

        async def tick() -> None:
            nonlocal n
            while True:
                await asyncio.sleep(0.01)
                n += 1

        task = asyncio.create_task(tick())
        yield n
        yield n
        task.cancel()

    async def main() -> None:
        generator = beats()
        assert await anext(generator) == 0
        await asyncio.sleep(0.4)
        assert await anext(generator) > 3
        await generator.aclose()

    asyncio.run(main())


def test_6_cancelling_the_task_kills_the_generator() -> None:
    @sandbox
    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(60)
        yield 2

    async def main() -> None:
        generator = slow()
        await anext(generator)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(generator), 0.2)
        assert time.monotonic() - start < 5

    asyncio.run(main())


class Tool:
    def __init__(self, n: int) -> None:
        self.n = n

    @sandbox
    def each(self, step: int) -> Iterator[int]:
        for i in range(self.n):
            yield i * step

    @sandbox
    def twice(self) -> list[int]:
        return [*self.each(1), *self.each(2)]


def test_6_methods_and_nested_calls() -> None:
    tool = Tool(3)
    assert list(tool.each(2)) == [0, 2, 4]
    assert Tool.each.run(tool, 2).value == [0, 2, 4]
    assert tool.twice() == [0, 1, 2, 0, 2, 4]
    with pytest.raises(TypeError, match=r"Tool\.each\.run"):
        tool.each.run(2)


def test_5_6_a_nested_generator_with_a_stricter_policy_is_refused() -> None:
    @sandbox(profile="strict")
    def inner() -> Iterator[int]:
        yield 1

    @sandbox
    def outer() -> list[int]:
        return list(inner())

    with pytest.raises(RemoteError, match="profile python, not strict"):
        outer()


# -- hostile jobs ------------------------------------------------------------------------------


def test_a_function_that_sends_an_item_is_refused() -> None:
    @sandbox
    def forged() -> int:
        from agentsbx import _core

        _core.send_frame(3, 27, b"\0" * 9)
        return 1

    with pytest.raises(agentsbx.ResultError):
        forged()


def test_items_that_nobody_asked_for_are_not_taken_for_answers() -> None:
    """A job that writes ahead fills its own socket; each step takes one frame."""

    @sandbox
    def floods() -> Iterator[int]:
        from agentsbx import _core, _worker

        body, buffers = _worker.encode(666)
        for _ in range(3):
            _worker._send(27, body, buffers)
        yield 1
        time.sleep(0.5)  # the words that the host sent for the forged items are here already
        _core.close_all(3)
        yield 2

    generator = floods()
    assert [next(generator) for _ in range(3)] == [666] * 3
    assert next(generator) == 1
    with pytest.raises(agentsbx.AgentsbxError):
        next(generator)
