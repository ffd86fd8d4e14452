"""The bridge (issue 10): `host=` and `host_args=`, host functions that a job calls by name."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import agentsbx
from agentsbx import PolicyError, sandbox
from agentsbx.testing import local

HERE = os.getpid()
seen: list[Any] = []


@dataclass
class Hit:
    title: str
    score: float


class QuotaError(Exception):
    """One of the user's own."""


def where(tag: str = "") -> tuple[int, str]:
    """Say which process runs it."""
    return os.getpid(), tag


def search(query: str, limit: int = 2) -> list[Hit]:
    return [Hit(f"{query} {i}", i / 2) for i in range(limit)]


def rate(hit: Hit) -> float:
    seen.append(hit)
    return hit.score * 2


def fail(how: str) -> None:
    secret = "the host's own"  # noqa: F841 - must not cross with the traceback
    if how == "quota":
        error = QuotaError("over", 7)
        error.token = "sk-secret"  # type: ignore[attr-defined]
        raise error from RuntimeError("inner words")
    if how == "file":
        raise FileNotFoundError(2, "No such file", "/srv/x")
    if how == "interrupt":
        raise KeyboardInterrupt
    raise KeyError(how, object())


async def fetch(n: int) -> int:
    await asyncio.sleep(0.001)
    return n + 1


@sandbox(host=[where])
def ask_where(tag: str) -> list[Any]:
    return [os.getpid(), where(tag), where(tag=tag)]


def test_it_runs_in_the_host() -> None:
    inside, first, second = ask_where("x")
    assert inside != HERE
    assert first == second == (HERE, "x")


@sandbox(host=[search, rate])
def rank(query: str) -> tuple[list[Hit], list[float]]:
    hits = search(query, limit=3)
    return hits, [rate(hit) for hit in hits]


def test_instances_go_both_ways() -> None:
    seen.clear()
    hits, scores = rank.run("q").unwrap()
    assert scores == [0.0, 1.0, 2.0]
    assert [type(h) for h in seen] == [Hit] * 3
    assert hits[1].title == "q 1"


@sandbox(host=[search])
def wrong(how: str) -> str:
    calls: dict[str, Any] = {
        "type": lambda: search(5),  # type: ignore[arg-type]
        "many": lambda: search("a", 1, 2),  # type: ignore[call-arg]
        "name": lambda: search("a", lim=1),  # type: ignore[call-arg]
        "inner": lambda: search("a", limit="3"),  # type: ignore[arg-type]
        "function": lambda: search(len),  # type: ignore[arg-type]
    }
    try:
        calls[how]()
    except TypeError as error:
        return str(error)
    return "went through"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("type", "argument 'query' must be str, not int"),
        ("many", "too many positional arguments"),
        ("name", "unexpected keyword argument 'lim'"),
        ("inner", "argument 'limit' must be int, not str"),
        ("function", "cannot go there: arguments[0]"),
    ],
)
def test_wrong_arguments_are_a_type_error_in_the_job(how: str, words: str) -> None:
    assert words in wrong(how)
    with local():
        assert words in wrong(how) or how == "function"


@sandbox(host=[fail])
def caught(how: str) -> list[Any]:
    try:
        fail(how)
    except Exception as error:
        frames, tb = [], error.__traceback__
        while tb is not None:
            frames.append(tb.tb_frame.f_code.co_name)
            tb = tb.tb_next
        linked = (error.__cause__, error.__context__)
        return [type(error).__name__, list(map(str, error.args)), vars(error), frames, linked,
                isinstance(error, QuotaError)]  # fmt: skip
    return []


def test_exceptions_cross_as_class_and_arguments_alone() -> None:
    name, args, attributes, frames, linked, is_same = caught("quota")
    assert (name, args, is_same) == ("QuotaError", ["over", "7"], True)
    assert attributes == {}
    assert linked == (None, None)
    assert "fail" not in frames
    assert caught("key")[:2] == ["KeyError", ["key", "<object>"]]
    assert caught("file")[0] == "FileNotFoundError"
    assert "/srv/x" in caught("file")[1][-1]


def test_control_flow_of_the_host_ends_the_job() -> None:
    with pytest.raises(KeyboardInterrupt):
        caught("interrupt")


@sandbox(host=[fetch])
def plain_fetch(n: int) -> int:
    return asyncio.run(fetch(n))


@sandbox(host=[fetch, where])
async def async_fetch(n: int) -> list[Any]:
    return [await asyncio.gather(*[fetch(i) for i in range(n)]), where()[0]]


loops: list[Any] = []


async def note_loop() -> int:
    loops.append(asyncio.get_running_loop())
    return 1


@sandbox(host=[note_loop])
async def looped() -> int:
    return await note_loop()


@sandbox(host=[note_loop])
def looped_plain() -> int:
    return asyncio.run(note_loop())


def test_async_host_functions() -> None:
    assert plain_fetch(3) == 4
    assert asyncio.run(async_fetch(3)) == [[1, 2, 3], HERE]

    async def main() -> None:
        loops.clear()
        assert await looped() == 1
        assert await looped_plain.aio() == 1
        assert set(loops) == {asyncio.get_running_loop()}
        with pytest.raises(RuntimeError, match=r"await fn\.aio"):
            looped_plain()

    asyncio.run(main())


def test_submit_map_and_threads() -> None:
    assert ask_where.submit("s").result()[1] == (HERE, "s")
    assert [row[1] for row in ask_where.map(["a", "b"])] == [(HERE, "a"), (HERE, "b")]
    assert plain_fetch.submit(1).result() == 2


@sandbox(host=[where])
def threaded(n: int) -> list[str]:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return [tag for _, tag in pool.map(where, map(str, range(n)))]


def test_threads_of_a_job_may_call_at_once() -> None:
    assert threaded(60) == list(map(str, range(60)))


@sandbox(host=[where])
def stream(n: int) -> Iterator[Any]:
    for i in range(n):
        got = yield where(str(i))
        if got:
            yield where(got)


@sandbox(host=[where])
async def astream(n: int) -> AsyncIterator[Any]:
    for i in range(n):
        yield where(str(i))


def test_generators() -> None:
    assert list(stream(3)) == [(HERE, "0"), (HERE, "1"), (HERE, "2")]
    one = stream(1)
    next(one)
    assert one.send("sent") == (HERE, "sent")  # type: ignore[attr-defined]
    assert [c.name for c in stream.run(2).host_calls] == ["where", "where"]

    async def collect() -> list[Any]:
        return [item async for item in astream(2)]

    assert asyncio.run(collect()) == [(HERE, "0"), (HERE, "1")]


def slow(s: float) -> str:
    time.sleep(s)
    return "slept"


@sandbox(host=[slow], timeout="600ms")
def patient(host_s: float, own_s: float) -> str:
    told = slow(host_s)
    time.sleep(own_s)
    return told


def test_the_clock_stands_still_in_the_host() -> None:
    assert patient(1.0, 0.0) == "slept"
    with pytest.raises(agentsbx.SandboxTimeout):
        patient(0.1, 5.0)


@sandbox(host=[where], timeout="500ms", host_calls=1_000_000, host_rate=1e9)
def chatter() -> None:
    while True:
        where()


def test_quick_calls_do_not_outlive_the_timeout() -> None:
    start = time.monotonic()
    with pytest.raises(agentsbx.SandboxTimeout):
        chatter()
    assert time.monotonic() - start < 30


cancelled = threading.Event()


async def hang() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled.set()
        raise


@sandbox(host=[hang])
async def hanging() -> None:
    await hang()


@sandbox(host=[hang])
def hanging_plain() -> None:
    asyncio.run(hang())


def test_cancelling_the_call_cancels_the_host_function() -> None:
    async def main() -> None:
        task = asyncio.create_task(hanging())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    cancelled.clear()
    start = time.monotonic()
    asyncio.run(main())
    assert cancelled.wait(5)
    cancelled.clear()
    future = hanging_plain.submit()
    time.sleep(1)
    future.cancel()
    assert cancelled.wait(5)
    assert time.monotonic() - start < 30


@sandbox(host=[where], host_calls=3)
def greedy(n: int) -> list[str]:
    told = []
    for _ in range(n):
        try:
            told.append(str(len(where())))
        except RuntimeError as error:
            told.append(str(error))
    return told


def test_calls_are_counted() -> None:
    told = greedy(5)
    assert told[:3] == ["2"] * 3
    assert all("host_calls=3" in words for words in told[3:])
    with local():
        assert "host_calls=3" in greedy(4)[3]


def give(n: int) -> bytes:
    return bytes(n)


def take(data: bytes) -> int:
    return len(data)


@sandbox(host=[give, take], host_bytes="100KB")
def heavy(n: int, up: bool) -> Any:
    try:
        return take(bytes(n)) if up else len(give(n))
    except ValueError as error:
        return str(error)


def test_sizes_are_bounded() -> None:
    assert heavy(50_000, up=True) == heavy(50_000, up=False) == 50_000
    assert "host_bytes=100000" in heavy(101_000, up=True)
    assert "host_bytes" in heavy(101_000, up=False)


@sandbox(host=[where], host_rate=20)
def hasty(n: int) -> float:
    start = time.monotonic()
    for _ in range(n):
        where()
    return time.monotonic() - start


def test_the_rate_is_bounded() -> None:
    assert hasty(120) > 0.7  # a hundred at once, twenty more take a second


def down(n: int) -> int:
    return deep(n - 1) if n else 0


@sandbox(host=[down])
def deep(n: int) -> int:
    return down(n) + 1


def test_nesting_is_bounded() -> None:
    assert deep(3) == 4
    with pytest.raises(RecursionError, match="levels deep"):
        deep(20)


def test_every_call_is_recorded(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "agentsbx.bridge"):
        result = wrong.run("type")
    (call,) = result.host_calls
    assert (call.name, call.arguments, call.ok) == ("search", "5", False)
    assert call.error is not None
    assert call.error.startswith("TypeError: search() argument")
    assert "search(5) TypeError" in caplog.text
    assert "search(5)" in result.summary()
    long = ask_where.run("y" * 10_000).host_calls
    assert all(len(c.arguments) <= 200 for c in long)
    assert long[0].duration_s >= 0


class Context:
    """What a framework hands to its tools."""

    user_id = 7
    _token = "sk-secret"

    def __init__(self) -> None:
        self.lock = threading.Lock()  # cannot cross

    def lookup(self, key: str) -> str:
        return f"{self.user_id}:{key}:{os.getpid()}"

    async def alookup(self, key: str) -> str:
        await asyncio.sleep(0)
        return key.upper()


@sandbox(host_args=("ctx",))
def withheld(ctx: Context, how: str) -> str:
    uses: dict[str, Any] = {
        "attribute": lambda: ctx.user_id,
        "call": lambda: ctx(),  # type: ignore[operator]
        "iterate": lambda: list(ctx),  # type: ignore[call-overload]
        "item": lambda: ctx[0],  # type: ignore[index]
        "set": lambda: setattr(ctx, "user_id", 8),
        "none": lambda: repr(ctx) if ctx is not None and ctx else "",
    }
    try:
        return str(uses[how]())
    except (AttributeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("how", ["attribute", "call", "iterate", "item", "set", "none"])
def test_an_argument_that_stays_on_the_host(how: str) -> None:
    told = withheld(Context(), how)
    assert "stays on the host" in told
    if how == "attribute":
        assert "host_args={\"ctx\": ['user_id']}" in told
    assert "stays on the host" in withheld(how=how, ctx=Context())
    with local():
        assert withheld(Context(), how) == told


@sandbox(host_args={"ctx": ("user_id", "lookup", "alookup")})
def exposed(ctx: Any, key: str = "k") -> list[Any]:
    out = [ctx.user_id, ctx.lookup(key), asyncio.run(ctx.alookup(key))]
    for name in ("_token", "lock", "__class__", "__dict__"):
        try:
            out.append(repr(getattr(ctx, name)))
        except AttributeError as error:
            out.append(str(error))
    try:
        ctx.lookup(5)
    except TypeError as error:
        out.append(str(error))
    return out


def test_a_proxy_exposes_what_is_named() -> None:
    user, found, upper, token, lock, *_, told = exposed(Context())
    assert (user, found, upper) == (7, f"7:k:{HERE}", "K")
    assert "underscore" in token
    assert "not exposed" in lock
    assert "must be str, not int" in told
    assert [c.name for c in exposed.run(Context(), key="z").host_calls][:3] == [
        "ctx.user_id", "ctx.lookup", "ctx.lookup",
    ]  # fmt: skip
    with local():
        assert exposed(Context())[:3] == [7, f"7:k:{HERE}", "K"]


@sandbox(host={"look": where})
def named() -> Any:
    return look("n")  # type: ignore[name-defined]  # noqa: F821


def test_a_mapping_names_globals_of_the_job() -> None:
    assert named() == (HERE, "n")
    with local():
        assert named() == (HERE, "n")


def lazily() -> Iterator[int]:
    yield 1


@sandbox(host=[lazily])
def wants_a_generator() -> str:
    try:
        return str(lazily())
    except TypeError as error:
        return str(error)


def test_what_cannot_be_shipped_back_is_named() -> None:
    told = wants_a_generator()
    assert told.startswith("what lazily() returned ")
    assert "generator cannot cross" in told


def test_options_and_what_is_refused() -> None:
    @sandbox
    def bare(f: Any) -> Any:
        return f("o")

    assert bare.options(host=[where])(where) == (HERE, "o")
    assert bare(where)[0] != HERE  # not listed: it crosses and runs in the job
    for keywords in (
        {"host": [5]}, {"host": {"a b": len}}, {"host_args": {"f": ["_x"]}}, {"host_args": 5},
        {"host_args": ("nobody",)}, {"host_calls": 0}, {"host_rate": 0}, {"host_bytes": "4GB"},
        {"host": [where, type("W", (), {"__call__": len, "__name__": "where"})()]},
    ):  # fmt: skip
        with pytest.raises(PolicyError):
            bare.options(**keywords)


def test_local_runs_host_functions_with_the_same_checks() -> None:
    with local():
        assert ask_where("l")[1] == (HERE, "l")
        assert asyncio.run(async_fetch(2))[0] == [1, 2]
        assert list(stream(2)) == [(HERE, "0"), (HERE, "1")]
        assert ask_where.run("l").host_calls[0].name == "where"


def test_explain_names_it() -> None:
    text = exposed.explain()
    assert "The argument ctx stays on the host; of it the job may use user_id, lookup" in text
    assert "It may call on the host: search, rate." in rank.explain()


@sandbox(host=[where])
def inner(tag: str) -> Any:
    return where(tag)


@sandbox
def outer_without() -> Any:
    return inner("i")


@sandbox(host=[inner])
def outer_calls() -> Any:
    return inner("i")


@sandbox(host=[where])
def outer_offers() -> Any:
    return inner("i")


def test_a_sandboxed_function_with_host_functions_inside_a_job() -> None:
    with pytest.raises(
        agentsbx.RemoteError, match=r"PolicyError.*host=\[where\] too, or host=\[inner\]"
    ):
        outer_without()
    assert outer_calls() == outer_offers() == (HERE, "i")


@sandbox(host=[note_loop])
async def aloops() -> AsyncIterator[int]:
    yield await note_loop()
    yield await note_loop()


def test_async_generators_await_host_functions_of_the_callers_loop() -> None:
    async def main() -> None:
        loops.clear()
        assert [item async for item in aloops()] == [1, 1]
        result = await aloops.run.aio()
        assert result.value == [1, 1], result
        with local():
            assert [item async for item in aloops()] == [1, 1]
        assert set(loops) == {asyncio.get_running_loop()}
        assert len(loops) == 6

    asyncio.run(main())


def total(values: Any) -> float:
    return float(values.sum())


def zeros(n: int) -> Any:
    numpy = pytest.importorskip("numpy")
    return numpy.zeros(n)


@sandbox(host=[total, zeros], host_bytes="4MB")
def arrays(n: int) -> list[float]:
    return [total(zeros(n) + 1), total(zeros(3))]


def test_arrays_go_both_ways() -> None:
    pytest.importorskip("numpy")
    assert arrays(200_000) == [200_000.0, 0.0]


def interrupted_by(s: float) -> str:
    time.sleep(s)
    return f"slept {s}"


def test_an_interrupted_call_does_not_confuse_the_next() -> None:
    @sandbox(host=[interrupted_by, where])
    def plain() -> Any:
        import signal

        def ring(number: int, frame: Any) -> None:
            raise TimeoutError("rang")

        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            told = interrupted_by(0.5)
        except TimeoutError as error:
            told = str(error)
        try:
            import no_such_module_of_the_project  # noqa: F401 - asks the host too
        except ModuleNotFoundError as error:
            told += f", {error.name}"
        return told, where("after")

    assert plain() == ("rang, no_such_module_of_the_project", (HERE, "after"))
