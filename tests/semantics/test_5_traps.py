"""Semantics 5.3: what stays inside a call is warned of where it can be seen at the decoration."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import sandbox

N = 0
CACHE: dict[str, int] = {}
LOG: list[str] = []
DIGEST = hashlib.sha256()


class State:
    count = 0


STATE = State()


def said(fn: Callable[..., Any], **keywords: Any) -> list[str]:
    """Decorate, and return the words of the warnings without the function's name."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        sandbox(**keywords)(fn)
    assert all(w.category is RuntimeWarning for w in seen)
    assert all(len(str(w.message)) <= 300 for w in seen)
    return [str(w.message).partition(": ")[2] for w in seen]


def test_5_3_stores_to_globals() -> None:
    def f() -> None:
        global N
        N += 1

    def inside() -> Any:
        def g() -> None:
            global N
            N = 2

        return g()

    def deletes() -> None:
        global N
        del N

    words = ["sets global N, which stays inside the call; return the value"]
    assert said(f) == said(inside) == said(deletes) == words
    call = _quiet(f)
    call()
    assert N == 0, "and so it is"


def test_5_3_stores_to_variables_of_functions_around() -> None:
    n = 0

    def f() -> int:
        nonlocal n
        n += 1
        return n

    assert said(f) == ["sets nonlocal n, which stays inside the call; return the value"]
    call = _quiet(f)
    assert (call(), call(), n) == (1, 1, 0)


def test_5_3_changes_of_globals_that_hold_data() -> None:
    def item(key: str) -> int:
        CACHE[key] = 1
        return 1

    def method(text: str) -> str:
        LOG.append(text)
        return text

    def attribute() -> str:
        STATE.count += 1
        return "x"

    assert said(item) == ["changes global CACHE, which stays inside the call; return it"]
    assert said(method) == ["changes global LOG, which stays inside the call; return it"]
    assert said(attribute) == ["changes global STATE, which stays inside the call; return it"]
    assert _quiet(method)("a") == "a"
    assert LOG == []


def test_5_3_lru_cache_below_the_decorator() -> None:
    def f(x: int) -> int:
        return x

    words = ["functools.lru_cache under @sandbox is empty in every call; put it above @sandbox"]
    assert said(functools.lru_cache(f)) == said(functools.cache(f)) == words
    assert said(functools.partial(functools.cache(f), 1)) == words
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        above = functools.cache(sandbox(f))
    assert (above(1), above(1), above.cache_info().hits) == (1, 1, 1)


class Loader:
    def load(self) -> None:
        self.data = 1

    def took(self, item: int) -> int:
        self.items.append(item)  # type: ignore[attr-defined]
        return self.data

    def counted(self) -> int:
        self.data += 1
        return self.data

    def paired(self) -> tuple[int, Loader]:
        self.data = 1
        return 1, self

    def loaded(self) -> Loader:
        self.data = 1
        return self


def test_5_3_mutated_arguments_of_functions_without_a_result() -> None:
    def rows(rows: list[int]) -> None:
        rows.append(1)

    def frame(df: dict[str, int], *, key: str) -> None:
        df[key] = 1

    assert said(rows) == ["changes argument rows, which stays inside the call; return it"]
    assert said(frame) == ["changes argument df, which stays inside the call; return it"]
    assert said(Loader.took) == ["changes argument self, which stays inside the call; return it"]
    assert said(Loader.counted) == said(Loader.took)
    assert said(Loader.load) == ["changes argument self, which stays inside the call; return it"]
    mine = [0]
    _quiet(rows)(mine)
    assert mine == [0]


def _harmless() -> list[Callable[..., Any]]:
    def returns(rows: list[int]) -> list[int]:
        rows.append(1)
        return rows

    def own(n: int) -> list[int]:
        out = []
        out.append(n)
        CACHE = {}
        CACHE[n] = n
        return out

    def rebound(rows: list[int]) -> None:
        rows = list(rows)
        rows.append(1)

    def modules() -> None:
        os.environ["X"] = "1"
        sys.path.append("/x")

    def digest() -> str:
        DIGEST.update(b"x")
        return "x"

    def own_closure() -> int:
        n = 0

        def add() -> None:
            nonlocal n
            n += 1

        add()
        return n

    def generator(rows: list[int]) -> Any:
        for row in rows:
            LOG_OF_MINE = []
            LOG_OF_MINE.append(row)
        return len(rows)

    return [
        returns,
        own,
        rebound,
        modules,
        digest,
        own_closure,
        generator,
        Loader.paired,
        Loader.loaded,
    ]


@pytest.mark.parametrize("fn", _harmless(), ids=lambda f: f.__name__)
def test_5_3_what_is_no_trap_is_not_warned_of(fn: Callable[..., Any]) -> None:
    assert said(fn) == []


def test_5_3_without_source_stores_to_globals_are_seen_all_the_same() -> None:
    world: dict[str, Any] = {}
    exec("def f(x):\n global seen\n seen = x\n\ndef g(rows):\n rows.append(1)\n", world)
    assert said(world["f"]) == ["sets global seen, which stays inside the call; return the value"]
    assert said(world["g"]) == []


def test_5_3_once_for_each_place(tmp_path: Path) -> None:
    code = """
        from agentsbx import sandbox

        def make():
            @sandbox
            def f():
                global n
                n = 1
            return f

        for _ in range(3):
            make()
        make().options(timeout="5s").options(memory="100MB")
        """
    (tmp_path / "tool.py").write_text(textwrap.dedent(code))
    env = os.environ | {"PYTHONPATH": str(Path(agentsbx.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "tool.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("sets global n") == 1
    assert "tool.py:5" in done.stderr, "at the function"


def test_5_3_decorating_costs_little() -> None:
    """No import and no process; a fraction of a millisecond, most of it for suspicious ones."""
    import time

    def f(rows: list[int]) -> list[int]:
        return [row + 1 for row in rows]

    from agentsbx import _traps

    best = min(_timed(lambda: _traps.warn(f), time.perf_counter) for _ in range(50))
    assert best < 0.001


def _timed(call: Callable[[], None], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def _quiet(fn: Callable[..., Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sandbox(fn)
