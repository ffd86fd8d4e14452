"""Semantics section 1: which code runs."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
import textwrap
import threading
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import SerializationError, sandbox

LEVEL = 1
LOCK = threading.Lock()
TOKEN = ""


class Thing:
    """A class of the project, with a body that tells where it ran."""

    made_in = os.getpid()

    def __init__(self, x: int) -> None:
        self.x = x


@sandbox
def level() -> int:
    return LEVEL


def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()


def python(source: str, cwd: Path, *args: str, name: str | None = None) -> str:
    env = os.environ | {"PYTHONPATH": str(Path(agentsbx.__file__).parents[1])}
    if name is None:
        argv = [sys.executable, "-c", textwrap.dedent(source), *args]
    else:
        (cwd / name).write_text(textwrap.dedent(source))
        argv = [sys.executable, name, *args]
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_1_1_globals_are_those_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    assert level() == 1
    monkeypatch.setattr(sys.modules[__name__], "LEVEL", 2)
    assert level() == 2


def test_1_1_the_closure_is_that_at_the_call() -> None:
    x = 1

    @sandbox
    def f() -> int:
        return x

    assert f() == 1
    x = 2
    assert f() == 2


def test_1_1_monkeypatched_and_replaced_code_runs() -> None:
    def old() -> str:
        return "old"

    def new() -> str:
        return "new"

    f = sandbox(old)
    assert f() == "old"
    old.__code__ = new.__code__
    assert f() == "new"
    f.__wrapped__ = lambda: "newer"  # type: ignore[misc, method-assign]
    assert f() == "newer"


def test_1_1_reloaded_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from agentsbx import sandbox\n@sandbox\ndef f():\n    return {}\n"
    project(tmp_path, monkeypatch, reloaded_mod=source.format(1))
    module = importlib.import_module("reloaded_mod")
    assert module.f() == 1
    (tmp_path / "reloaded_mod.py").write_text(source.format("2 + 2"))
    importlib.reload(module)
    assert module.f() == 4


@pytest.mark.parametrize("name", [None, "script.py"])
def test_1_1_the_same_in_scripts_and_python_c(tmp_path: Path, name: str | None) -> None:
    source = """
        from agentsbx import sandbox
        N = 1
        def helper(x): return x + N
        @sandbox
        def f(x): return helper(x)
        print(f(1)); N = 10; print(f(1))
        """
    assert python(source, tmp_path, name=name).split() == ["2", "11"]


def test_1_1_the_same_in_a_notebook_cell() -> None:
    cell: dict[str, Any] = {"__name__": "__main__", "sandbox": sandbox}
    exec("@sandbox\ndef f():\n    return N\nN = 1\nfirst = f()", cell)
    exec("N = 2\nsecond = f()", cell)
    exec("@sandbox\ndef f():\n    return N * 100\nthird = f()", cell)
    assert (cell["first"], cell["second"], cell["third"]) == (1, 2, 200)


def test_1_2_project_code_travels_by_value_and_libraries_by_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, monkeypatch, by_value_mod="def helper(x):\n    return x * 3\n")
    helper = importlib.import_module("by_value_mod").helper
    (tmp_path / "by_value_mod.py").unlink()

    @sandbox
    def f() -> Any:
        import json

        return helper(2), json.__file__

    value, file = f()
    assert value == 6
    import json

    assert file == json.__file__


def test_1_3_a_loaded_module_body_never_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(
        tmp_path,
        monkeypatch,
        loaded_mod="""
        import os
        if os.environ.get("HOST_ONLY_MARK") != "1":
            raise RuntimeError("the body ran again")
        class Model: pass
        def make(): return Model()
        """,
    )
    monkeypatch.setenv("HOST_ONLY_MARK", "1")
    module = importlib.import_module("loaded_mod")

    @sandbox
    def f(given: Any) -> bool:
        import loaded_mod  # type: ignore[import-not-found]

        return isinstance(given, loaded_mod.Model) and isinstance(
            loaded_mod.make(), loaded_mod.Model
        )

    assert f(module.Model()) is True


def test_1_3_a_module_not_loaded_is_served_as_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(
        tmp_path, monkeypatch, late_mod="import os\nPID = os.getpid()\ndef f():\n    return PID\n"
    )

    @sandbox
    def f() -> int:
        import late_mod  # type: ignore[import-not-found]

        return int(late_mod.f())

    assert f() == 1
    assert "late_mod" not in sys.modules


def test_1_3_what_cannot_cross_raises_by_name_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, monkeypatch, locked_mod="import threading\nlock = threading.Lock()\nok = 3\n")
    importlib.import_module("locked_mod")

    @sandbox
    def good() -> int:
        import locked_mod  # type: ignore[import-not-found]

        return int(locked_mod.ok)

    assert good() == 3

    @sandbox
    def bad() -> Any:
        import locked_mod

        return getattr(locked_mod, "lo" + "ck")

    with pytest.raises(Exception, match="lock"):
        bad()


def test_1_4_sys_path_grants_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("KEY=1")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    @sandbox
    def f() -> list[str]:
        import os

        seen = []
        for path in (".env", "tests", "pyproject.toml"):
            if os.path.exists(path):
                seen.append(path)
        return seen + os.listdir(".")

    assert f() == []


def test_1_5_a_changed_capture_is_never_stale() -> None:
    state = {"n": 0}

    @sandbox
    def f() -> int:
        return state["n"]

    for n in range(8):
        state["n"] = n
        assert f() == n
        assert f() == n


def test_1_6_explain_lists_captures_and_a_hidden_secret_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "sk-0123456789abcdefghijklmnop"
    table = [1, 2, 3]

    @sandbox
    def f() -> int:
        return len(text) + len(table) + LEVEL

    shown = f.explain()
    assert all(name in shown for name in ("text", "table", "LEVEL"))
    assert f() == len(text) + 4
    monkeypatch.setenv("SOME_API_KEY", text)
    with pytest.raises(SerializationError, match="SOME_API_KEY"):
        f.options()()


def test_1_6_captures_makes_the_list_exact() -> None:
    a, b = [1], [2]

    @sandbox(captures=["a"])
    def f() -> int:
        return len(a) + len(b)

    with pytest.raises(SerializationError, match="b"):
        f()
    assert f.options(captures=["a", "b"])() == 2


def test_1_6_big_captures_warn_once_and_random_generators_warn() -> None:
    big = b"x" * 2_000_000
    rng = random.Random(1)

    @sandbox
    def f() -> int:
        return len(big)

    with pytest.warns(UserWarning, match="big"):
        assert f() == 2_000_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f()

    @sandbox
    def g() -> float:
        return rng.random()

    with pytest.warns(UserWarning, match="rng"):
        g()


def test_1_7_what_cannot_cross_is_named_with_what_to_do() -> None:
    holder = types.SimpleNamespace(inner=types.SimpleNamespace(lock=threading.Lock()))

    @sandbox
    def by_global() -> Any:
        return LOCK

    @sandbox
    def by_closure() -> Any:
        return holder

    @sandbox
    def by_argument(x: Any) -> Any:
        return x

    @sandbox
    def by_default(x: Any = LOCK) -> Any:
        return x

    for call, words in (
        (by_global, "LOCK"),
        (by_closure, "holder"),
        (lambda: by_argument(holder), "x"),
        (by_default, "x"),
    ):
        with pytest.raises(SerializationError) as caught:
            call()  # type: ignore[operator]
        assert words in str(caught.value)
        assert caught.value.hint
        assert isinstance(caught.value, TypeError)
    with pytest.raises(SerializationError, match=r"inner\.lock|inner.*lock"):
        by_closure()


RELATIVE = """
import sys
from agentsbx import Sandbox, sandbox

@sandbox
def f():
    import json
    return json.dumps([1])

if __name__ == "__main__":
    assert ".." in sys.executable, sys.executable
    print(f())
    with Sandbox() as box:
        print(box.python("1 + 1").unwrap(), box.exec("python3 -c 'print(3)'").text)
"""


def test_an_interpreter_that_is_started_by_a_name_with_dots(scratch: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", scratch / "env"], check=True)
    (scratch / "work").mkdir()
    (scratch / "work/prog.py").write_text(RELATIVE)
    path = ":".join(p for p in sys.path if p)
    done = subprocess.run(
        ["../env/bin/python", "prog.py"], cwd=scratch / "work", capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": path}, timeout=60,
    )  # fmt: skip
    assert done.stdout == "[1]\n2 3\n\n", done.stderr
