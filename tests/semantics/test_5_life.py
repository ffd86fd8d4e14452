"""Semantics section 5: time, number, life."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import agentsbx
from agentsbx import PolicyError, SandboxTimeout, sandbox


def spawn(source: str, **more: object) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(Path(agentsbx.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(source)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,  # type: ignore[call-overload]
    )


def output(source: str) -> str:
    process = spawn(source)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return str(out).strip()


def test_5_1_timeout_runs_from_the_start_of_the_job() -> None:
    @sandbox(timeout="0.5s")
    def f(seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    f(0)
    start = time.monotonic()
    with pytest.raises(SandboxTimeout, match="timeout="):
        f(20)
    assert 0.4 < time.monotonic() - start < 5
    result = f.run(20)
    assert result.limits["timeout"].hit
    assert result.exit.cause == "timeout"


def test_5_3_threads_alive_at_return_are_killed_and_named() -> None:
    @sandbox
    def f() -> int:
        threading.Thread(target=time.sleep, args=(60,), name="lingerer", daemon=True).start()
        return 1

    start = time.monotonic()
    with pytest.warns(RuntimeWarning, match="lingerer"):
        result = f.run()
    assert result.value == 1
    assert time.monotonic() - start < 10
    assert any("lingerer" in name for name in result.lost)


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_5_3_processes_alive_at_return_are_killed_and_named(scratch: Path) -> None:
    @sandbox(write=[str(scratch)])
    def f(folder: str) -> int:
        import subprocess

        subprocess.Popen(
            ["sh", "-c", f"while :; do echo x >> {folder}/beat; sleep 0.01; done"],
            start_new_session=True,
        )
        while not os.path.exists(f"{folder}/beat"):
            time.sleep(0.01)
        return 1

    with pytest.warns(RuntimeWarning, match="sh"):
        result = f.run(str(scratch))
    assert result.value == 1
    size = (scratch / "beat").stat().st_size
    time.sleep(0.2)
    assert (scratch / "beat").stat().st_size == size
    assert result.lost


def test_5_4_no_two_calls_draw_the_same_numbers_and_a_seed_repeats() -> None:
    @sandbox
    def f() -> list[float]:
        import random

        drawn = [random.random(), float(os.urandom(1)[0])]
        try:
            import numpy
        except ImportError:
            return drawn
        return [*drawn, float(numpy.random.rand())]

    drawn = [tuple(f()) for _ in range(6)]
    assert len({d[0] for d in drawn}) == 6
    if len(drawn[0]) == 3:
        assert len({d[2] for d in drawn}) == 6

    @sandbox(seed=7)
    def seeded() -> float:
        import random

        return random.random()

    assert seeded() == seeded()


def test_5_5_the_supervisor_outlives_the_thread_that_first_called() -> None:
    source = """
        import threading
        from agentsbx import sandbox
        @sandbox
        def f(x): return x + 1
        got = []
        t = threading.Thread(target=lambda: got.append(f(1))); t.start(); t.join()
        import time; time.sleep(0.3)
        print(got, f(2))
        """
    assert output(source) == "[2] 3"


def test_5_5_ctrl_c_ends_the_current_call_only() -> None:
    source = """
        import os, signal, time
        from agentsbx import sandbox
        # A shell's background jobs inherit an ignored SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        @sandbox
        def f(s): time.sleep(s); return s
        f(0)
        print("ready")
        try:
            f(60)
        except KeyboardInterrupt:
            print("interrupted", f(0))
        """
    process = spawn(source, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does it
    out, err = process.communicate(timeout=20)
    assert out == "interrupted 0\n", err


def test_5_5_a_forked_host_gets_a_supervisor_of_its_own() -> None:
    source = """
        import os
        from agentsbx import sandbox
        @sandbox
        def f(x): return x + 1
        assert f(1) == 2
        pid = os.fork()
        assert f(2) == 3
        if pid == 0:
            assert f(3) == 4
            os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
        print(f(4))
        """
    assert output(source) == "5"


def test_5_5_calls_from_many_threads_at_once_and_under_a_running_loop() -> None:
    @sandbox
    def f(x: int) -> int:
        return x * 2

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(f, range(30))) == [2 * x for x in range(30)]

    async def main() -> list[int]:
        return [f(1), await f.aio(2), *await asyncio.gather(*(f.aio(x) for x in range(5)))]

    assert asyncio.run(main()) == [2, 4, 0, 2, 4, 6, 8]


def test_5_5_cancelling_a_task_kills_the_job_at_once(scratch: Path) -> None:
    @sandbox(write=[str(scratch)])
    async def f(path: str) -> None:
        while True:
            with open(path, "a") as file:
                file.write("x")
            await asyncio.sleep(0.01)

    beat = scratch / "beat"

    async def main() -> float:
        task = asyncio.create_task(f(str(beat)))
        while not beat.exists():
            await asyncio.sleep(0.01)
        start = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - start

    took = asyncio.run(main())
    size = beat.stat().st_size
    time.sleep(0.2)
    assert beat.stat().st_size == size
    assert took < 2


@sandbox
def recursive(n: int) -> list[int]:
    return [os.getpid(), *(recursive(n - 1) if n else [])]


@sandbox(timeout="5s")
def stricter() -> int:
    return 1


@sandbox(timeout="5s")
def calls_itself_strict() -> int:
    return stricter()


@sandbox(timeout="60s")
def calls_stricter() -> int:
    return stricter()


def test_5_6_a_nested_call_runs_inline_under_a_policy_as_strict() -> None:
    assert recursive(3) == [1, 1, 1, 1]
    assert calls_itself_strict() == 1


def test_5_6_a_nested_call_that_would_lose_a_limit_is_refused_by_name() -> None:
    error = calls_stricter.run().error
    assert "timeout 60s, not 5s" in f"{error} {getattr(error, '__notes__', '')}"
    assert not isinstance(error, PolicyError)  # raised inside: told, not rebuilt (rule 3.3)


def test_5_7_warm_and_shutdown() -> None:
    @sandbox
    def f() -> int:
        return 1

    agentsbx.warm(f, n=2)
    assert f() == 1
    agentsbx.shutdown()
    agentsbx.shutdown()
    assert f() == 1


def test_5_7_decorating_the_same_cell_often_leaks_nothing() -> None:
    def fds() -> int:
        gc.collect()
        cell()  # pools of functions that are gone go when the next is made
        return len(os.listdir("/proc/self/fd"))

    def cell() -> int:
        @sandbox
        def f() -> int:
            return 1

        return f()

    for _ in range(60):  # more than the bound on pools
        cell()
    before = fds()
    for _ in range(60):
        cell()
    assert fds() <= before + 5
