"""Semantics 5.2 and section 6: many calls, as futures, and how many run at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import PolicyError, SandboxBusy, SandboxExecutor, _gate, configure, sandbox


@sandbox
def square(x: int) -> int:
    return x * x


@sandbox
async def asquare(x: int) -> int:
    await asyncio.sleep(0)
    return x * x


@sandbox
def slow(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@sandbox
def with_child() -> None:
    subprocess.run(["sleep", "61"], check=False)


@sandbox
def counts(n: int) -> Iterator[int]:
    yield from range(n)


def sleepers() -> int:
    n = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                n += file.read() == b"sleep\x0061\0"
    return n


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.fixture
def few() -> Iterator[_gate.Gate]:
    """Only three sandboxes at once, and a second's patience."""
    gate = _gate.gate()
    places, timeout = gate.places, gate.timeout_s
    configure(max_concurrency=3, queue_timeout="1s")
    yield gate
    configure(max_concurrency=places, queue_timeout=timeout)


# -- submit ------------------------------------------------------------------------------------


def test_6_submit_gives_a_future() -> None:
    future = square.submit(3)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(20) == 9
    assert asquare.submit(4).result(20) == 16
    done, _ = concurrent.futures.wait([square.submit(x) for x in range(5)], timeout=20)
    assert sorted(f.result() for f in done) == [0, 1, 4, 9, 16]
    with pytest.raises(TypeError, match="missing a required argument"):
        square.submit().result(20)  # type: ignore[call-arg]


def test_6_an_error_of_the_body_is_the_futures() -> None:
    @sandbox
    def bad() -> None:
        raise LookupError("no")

    error = bad.submit().exception(20)
    assert isinstance(error, LookupError)
    assert "in bad" in str(error.__cause__)


def test_6_cancel_kills_a_running_call() -> None:
    before = sleepers()
    future = with_child.submit()
    assert until(lambda: sleepers() == before + 1)
    called: list[Any] = []
    future.add_done_callback(called.append)
    assert future.running()
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    assert called == [future]
    assert until(lambda: sleepers() == before)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(1)
    assert until(lambda: _gate.gate().running == 0)


def test_6_cancel_with_waiters_and_as_completed() -> None:
    futures = [slow.submit(30), square.submit(2)]
    threading.Timer(0.5, futures[0].cancel).start()
    ended = list(concurrent.futures.as_completed(futures, timeout=20))
    assert set(ended) == set(futures)
    assert futures[0].cancelled()
    assert not futures[1].cancel()
    assert futures[1].result() == 4


def test_6_a_naive_stand_in_cannot_cancel_what_runs() -> None:
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        future = pool.submit(time.sleep, 1)
        assert until(future.running)
        assert not future.cancel()


def test_6_a_future_cancelled_before_its_start_never_runs(few: _gate.Gate, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.write_text("")

    @sandbox(write=str(mark))
    def marks() -> None:
        mark.write_text("ran")

    holding = [slow.submit(1.0) for _ in range(3)]
    late = marks.submit()
    assert late.cancel()
    concurrent.futures.wait(holding, timeout=20)
    time.sleep(0.2)
    assert mark.read_text() == ""


def test_6_futures_and_asyncio() -> None:
    async def main() -> None:
        assert await asyncio.wrap_future(square.submit(5)) == 25
        running = asyncio.ensure_future(asyncio.wrap_future(slow.submit(30)))
        await asyncio.sleep(0.3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        with SandboxExecutor() as executor:
            got = await asyncio.get_running_loop().run_in_executor(executor, pow, 2, 10)
        assert got == 1024

    asyncio.run(main())
    assert until(lambda: _gate.gate().running == 0)


def test_6_generators_have_no_future() -> None:
    with pytest.raises(TypeError, match="generator function: take its items from the call"):
        counts.submit(3)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="generator function"):
        counts.map([1])  # type: ignore[attr-defined]


def test_6_inside_a_job_futures_are_made_right_there() -> None:
    @sandbox
    def outer() -> list[int]:
        return [square.submit(3).result(), *square.map([1, 2])]

    assert outer() == [9, 1, 4]


# -- map ---------------------------------------------------------------------------------------


def test_6_map_is_ordered_and_takes_several_iterables() -> None:
    @sandbox
    def waits(x: int) -> int:
        time.sleep(0.05 * (3 - x))
        return x

    assert list(waits.map(range(4))) == [0, 1, 2, 3]

    @sandbox
    def add(x: int, y: int) -> int:
        return x + y

    assert list(add.map([1, 2, 3], [10, 20])) == [11, 22]


def test_6_map_takes_endless_input_a_bounded_way_ahead(few: _gate.Gate) -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for i in itertools.count():
            taken.append(i)
            yield i

    values = square.map(endless())
    assert list(itertools.islice(values, 3)) == [0, 1, 4]
    assert len(taken) <= 3 + 2 * few.places + 1
    del values


def test_6_map_raises_at_its_place_and_ends_the_rest() -> None:
    @sandbox
    def picky(x: int) -> int:
        if x == 1:
            raise LookupError("one")
        time.sleep(0 if x == 0 else 30)
        return x

    values = picky.map(range(6))
    assert next(values) == 0
    start = time.monotonic()
    with pytest.raises(LookupError, match="one"):
        next(values)
    assert until(lambda: _gate.gate().running == 0)
    assert time.monotonic() - start < 15


def test_6_an_abandoned_map_ends_what_runs() -> None:
    values = slow.map([0, 40, 40])
    assert next(values) == 0
    del values
    gc.collect()
    assert until(lambda: _gate.gate().running == 0)


def test_6_map_has_a_timeout_for_the_whole() -> None:
    with pytest.raises(TimeoutError):
        list(slow.map([0, 30], timeout=1))
    assert until(lambda: _gate.gate().running == 0)


def test_6_map_of_an_async_function_is_an_async_iterator() -> None:
    async def main() -> None:
        assert [x async for x in asquare.map(range(4))] == [0, 1, 4, 9]

    asyncio.run(main())


def test_6_methods_take_the_object_first() -> None:
    class Tool:
        k = 3

        @sandbox
        def times(self, x: int) -> int:
            return self.k * x

    tool = Tool()
    assert Tool.times.submit(tool, 2).result(20) == 6
    with pytest.raises(TypeError, match=r"Tool\.times\.submit\(k, 2\)"):
        tool.times.submit(2)  # type: ignore[call-arg, arg-type, attr-defined]


# -- the executor ------------------------------------------------------------------------------


def test_6_the_executor_keeps_policies_apart(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("text")

    def read() -> str:
        return (tmp_path / "f").read_text()

    with SandboxExecutor(read=str(tmp_path)) as executor:
        assert executor.submit(read).result(20) == "text"
        assert executor.submit(sandbox(read)).exception(20) is not None, "it keeps its own policy"
    with SandboxExecutor() as executor:
        assert isinstance(executor.submit(read).exception(20), FileNotFoundError)


def test_6_the_executor_takes_methods_classes_and_partials() -> None:
    class Tool:
        def __init__(self, k: int) -> None:
            self.k = k

        def times(self, x: int) -> int:
            return self.k * x

    import functools

    with SandboxExecutor(max_workers=2) as executor:
        assert executor.submit(Tool(4).times, 2).result(20) == 8
        assert executor.submit(str, 7).result(20) == "7"
        assert executor.submit(functools.partial(pow, 2), 5).result(20) == 32
        assert list(executor.map(divmod, [7, 8], [2, 3])) == [(3, 1), (2, 2)]


def test_6_the_executor_runs_no_more_than_its_workers() -> None:
    with SandboxExecutor(max_workers=2) as executor:
        futures = [executor.submit(slow, 0.3) for _ in range(6)]
        most = 0
        while not all(f.done() for f in futures):
            most = max(most, _gate.gate().running)
            time.sleep(0.005)
    assert 1 <= most <= 2


def test_6_shutdown_can_drop_what_waits() -> None:
    executor = SandboxExecutor(max_workers=1)
    futures = [executor.submit(slow, 0.5) for _ in range(4)]
    assert until(futures[0].running)
    executor.shutdown(cancel_futures=True)
    assert futures[0].result() == 0.5
    assert all(f.cancelled() for f in futures[2:])
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(slow, 0)
    with pytest.raises(ValueError, match="max_workers"):
        SandboxExecutor(max_workers=0)


# -- how many at once --------------------------------------------------------------------------


def test_5_2_500_calls_at_once_neither_fail_nor_exceed_the_cap() -> None:
    gate = _gate.gate()
    most = 0
    answers: list[int] = []

    def call(x: int) -> None:
        nonlocal most
        got = square(x)
        most = max(most, gate.running)
        answers.append(got)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(500)]
    watching = True

    def watch() -> None:
        nonlocal most
        while watching:
            most = max(most, gate.running)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    watching = False
    watcher.join()
    assert sorted(answers) == sorted(i * i for i in range(500))
    assert most <= gate.places
    assert gate.running == 0


def test_5_2_500_tasks_at_once() -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(square.aio(i) for i in range(500)))

    assert asyncio.run(main()) == [i * i for i in range(500)]
    assert until(lambda: _gate.gate().running == 0)


def test_5_2_who_finds_no_place_in_time_gets_its_own_error(few: _gate.Gate) -> None:
    holding = [slow.submit(30) for _ in range(3)]
    assert until(lambda: few.running == 3)
    start = time.monotonic()
    with pytest.raises(SandboxBusy, match="queue_timeout=1s") as caught:
        square(2)
    assert 0.9 < time.monotonic() - start < 10
    assert len(str(caught.value)) <= 300
    with pytest.raises(SandboxBusy):
        agentsbx.run(["true"])
    with pytest.raises(SandboxBusy):
        next(counts(1))
    for future in holding:
        future.cancel()
    assert square(2) == 4


def test_5_2_the_wait_is_no_part_of_the_timeout(few: _gate.Gate) -> None:
    configure(queue_timeout="20s")
    quick = sandbox(timeout="1s")(lambda: 1)
    holding = [slow.submit(1.6) for _ in range(3)]
    assert until(lambda: few.running == 3)
    assert quick() == 1
    concurrent.futures.wait(holding, timeout=20)


def test_5_2_a_generator_holds_a_place_while_it_lives(few: _gate.Gate) -> None:
    held = [counts(3) for _ in range(3)]
    for generator in held:
        next(generator)
    assert few.running == 3
    with pytest.raises(SandboxBusy, match="generators"):
        square(1)
    held[0].close()
    assert square(1) == 1
    del held, generator
    gc.collect()
    assert until(lambda: few.running == 0)


def test_5_2_the_number_can_change_while_calls_run(few: _gate.Gate) -> None:
    holding = [slow.submit(1.0) for _ in range(3)]
    assert until(lambda: few.running == 3)
    configure(max_concurrency=1)
    assert few.running == 3
    concurrent.futures.wait(holding, timeout=20)
    assert until(lambda: few.running == 0)
    assert few.try_acquire()
    assert not few.try_acquire()
    few.release()
    with pytest.raises(PolicyError):
        configure(max_concurrency=0)


def test_5_2_variables_set_it_too() -> None:
    script = (
        "import agentsbx._gate as g; print(g.gate().places, g.gate().timeout_s, flush=True)\n"
        "import os\nif os.fork() == 0:\n    from agentsbx import sandbox\n"
        "    print(sandbox(lambda: 7)(), g.gate().places, flush=True)\n    os._exit(0)\nos.wait()"
    )
    env = {
        **os.environ,
        "AGENTSBX_MAX_CONCURRENCY": "5",
        "AGENTSBX_QUEUE_TIMEOUT": "9",
        "PYTHONPATH": str(Path(agentsbx.__file__).parents[1]),
    }
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "5 9.0\n7 5\n", done.stderr
    env["AGENTSBX_MAX_CONCURRENCY"] = "many"
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert "AGENTSBX_MAX_CONCURRENCY='many' is not a number" in done.stderr
