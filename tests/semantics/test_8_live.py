"""Semantics section 8: output while the call runs (`on_output=`)."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import agentsbx
from agentsbx import PolicyError, sandbox
from agentsbx.testing import local

Seen = list[tuple[str, str]]


def joined(seen: Seen, stream: str) -> str:
    return "".join(text for name, text in seen if name == stream)


def test_8_live_output_comes_while_the_call_runs_in_the_thread_of_the_call() -> None:
    seen: list[tuple[float, str, int]] = []

    def told(stream: str, text: str) -> None:
        seen.append((time.monotonic(), text, threading.get_ident()))

    @sandbox(on_output=told, output="capture")
    def f() -> int:
        print("first", flush=True)
        time.sleep(0.6)
        print("last", flush=True)
        return 1

    assert f() == 1
    assert [text for _, text, _ in seen] == ["first\n", "last\n"]
    assert seen[1][0] - seen[0][0] > 0.3
    assert {ident for *_, ident in seen} == {threading.get_ident()}


def test_8_live_every_call_is_told_each_stream_in_order_and_the_result_has_it_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: Seen = []

    @sandbox(on_output=lambda *said: seen.append(said))
    def f(n: int) -> None:
        for i in range(n):
            print(i)
            print(-i, file=sys.stderr)

    for _ in range(3):  # a quick way, if there were one, would tell nothing
        seen.clear()
        result = f.run(2000)
        assert joined(seen, "stdout") == "".join(f"{i}\n" for i in range(2000))
        assert joined(seen, "stderr") == "".join(f"{-i}\n" for i in range(2000))
        assert result.stdout.decode() == joined(seen, "stdout") == capsys.readouterr().out
    seen.clear()
    f(1)
    f(1)
    assert joined(seen, "stdout") == "0\n0\n"


def test_8_live_characters_are_whole_and_what_is_no_text_is_escaped() -> None:
    seen: Seen = []
    script = r"printf 'h\303'; sleep 0.3; printf '\251\377\303'"
    result = agentsbx.run(["sh", "-c", script], on_output=lambda *said: seen.append(said))
    assert result.stdout == b"h\xc3\xa9\xff\xc3"
    assert joined(seen, "stdout") == "hé\\xff\\xc3"
    assert seen[0] == ("stdout", "h")


def test_8_live_is_bounded_by_output() -> None:
    seen: Seen = []
    result = agentsbx.run(["yes"], on_output=lambda *said: seen.append(said), output="10KB")
    assert isinstance(result.error, agentsbx.LimitExceeded)
    assert len(joined(seen, "stdout")) == 10_000


class Stop(Exception):
    """What the callback raises."""


@pytest.mark.parametrize("verb", ["call", "run", "command", "stream"])
def test_8_live_what_the_callback_raises_kills_the_call_and_leaves_it(verb: str) -> None:
    def told(stream: str, text: str) -> None:
        raise Stop(text)

    @sandbox(on_output=told, output="capture", timeout="60s")
    def f() -> None:
        print("x", flush=True)
        time.sleep(50)

    @sandbox(on_output=told, output="capture", timeout="60s")
    def items() -> Iterator[int]:
        print("x", flush=True)
        time.sleep(50)
        yield 1

    calls = {
        "call": f,
        "run": f.run,
        "command": lambda: agentsbx.run(["sh", "-c", "echo x; sleep 50"], on_output=told),
        "stream": lambda: list(items()),
    }
    start = time.monotonic()
    n_fds = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with pytest.raises(Stop, match="x"):
            calls[verb]()
        n_fds = n_fds if _ else len(os.listdir("/proc/self/fd"))
    assert time.monotonic() - start < 30
    assert len(os.listdir("/proc/self/fd")) <= n_fds + 3  # nothing is left open but what waits


def test_8_live_a_cut_character_at_the_end_is_told_and_may_raise() -> None:
    def told(stream: str, text: str) -> None:
        raise Stop(text)

    with pytest.raises(Stop, match=r"\\xc3"):
        agentsbx.run(["printf", r"\303"], on_output=told)


def test_8_live_streams_and_asyncio() -> None:
    seen: Seen = []

    @sandbox(on_output=lambda *said: seen.append(said), output="capture")
    def items() -> Iterator[int]:
        print("a", flush=True)
        yield 1
        print("b", flush=True)

    assert list(items()) == [1]
    assert joined(seen, "stdout") == "a\nb\n"

    @sandbox(on_output=lambda *said: seen.append(said), output="capture")
    def f() -> None:
        print("c")

    asyncio.run(f.aio())
    assert joined(seen, "stdout") == "a\nb\nc\n"


def test_8_live_in_this_process() -> None:
    seen: Seen = []

    @sandbox(on_output=lambda *said: seen.append(said), output="capture")
    def f() -> None:
        print("here")

    with local():
        f()
    assert joined(seen, "stdout") == "here\n"


def test_8_live_callbacks_that_cannot_be_called_are_refused() -> None:
    async def told(stream: str, text: str) -> None: ...

    for wrong in (told, 3, str):
        with pytest.raises(PolicyError, match="on_output"):
            sandbox(on_output=wrong)  # type: ignore[arg-type]
