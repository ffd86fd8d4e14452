"""Each rule as a small program: kept by `sandbox`, broken by what one writes first (`_naive`)."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from _naive import STAND_INS
from agentsbx import sandbox

Decorate = Callable[..., Callable[..., Any]]
RULES: dict[str, tuple[str, Callable[[Decorate, Path], bool]]] = {}

RATE = 2


def rule(number: str, broken_by: str) -> Callable[[Any], Any]:
    """Register the program of a rule: it says whether it was kept; an exception: it was not."""

    def register(program: Any) -> Any:
        RULES[f"{number} {program.__name__}"] = broken_by, program
        return program

    return register


def rated(x: int) -> int:
    return x * RATE


def replaced(x: int) -> str:
    return f"old {x}"


class Quota(Exception):
    """An exception whose arguments are not those of its `__init__`."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{why} ({code})")
        self.code = code


RAN: list[str] = []


def note(text: str) -> None:
    RAN.append(text)


class Evil:
    def __reduce__(self) -> Any:
        return note, ("the host ran this",)


@dataclass
class Box:
    value: Any


@rule("1.1", "pooled")
def globals_are_those_at_the_call(decorate: Decorate, _scratch: Path) -> bool:
    global RATE
    fn = decorate(rated)
    RATE = 10
    try:
        return bool(fn(2) == 20)
    finally:
        RATE = 2


@rule("1.1", "pooled")
def a_replaced_function_is_the_one_that_runs(decorate: Decorate, _scratch: Path) -> bool:
    fn = decorate(replaced)
    old = replaced.__code__
    replaced.__code__ = (lambda x: f"new {x}").__code__
    try:
        return bool(fn(1) == "new 1")
    finally:
        replaced.__code__ = old


@rule("1.1", "pooled")
def closures_run_as_they_are(decorate: Decorate, _scratch: Path) -> bool:
    factor = 2

    def scaled(x: int) -> int:
        return x * factor

    fn = decorate(scaled)
    factor = 5
    return bool(fn(2) == 10)


@rule("1.3", "spawned")
def the_body_of_a_loaded_module_does_not_run_again(decorate: Decorate, scratch: Path) -> bool:
    log = scratch / "log"
    (scratch / "side_effects.py").write_text(
        f"open({str(log)!r}, 'a').write('x')\ndef answer():\n    return 42\n"
    )
    sys.path.insert(0, str(scratch))
    try:
        module = importlib.import_module("side_effects")
        return bool(decorate(module.answer)() == 42 and log.read_text() == "x")
    finally:
        sys.path.remove(str(scratch))
        sys.modules.pop("side_effects", None)


@rule("1.4", "forked")
def the_folder_of_the_code_is_not_readable(decorate: Decorate, scratch: Path) -> bool:
    (scratch / ".env").write_text("KEY=1")

    def look() -> bool:
        return os.path.exists(scratch / ".env")

    return not decorate(look)()


@rule("1.6", "forked")
def a_captured_secret_is_refused(decorate: Decorate, _scratch: Path) -> bool:
    os.environ["NAIVE_API_KEY"] = token = "sk-0123456789abcdef"

    def leak() -> str:
        return token

    try:
        decorate(leak)()
    except TypeError as error:
        return "NAIVE_API_KEY" in str(error)
    finally:
        del os.environ["NAIVE_API_KEY"]
    return False


@rule("3.1", "forked")
def nothing_of_the_job_runs_in_the_host(decorate: Decorate, _scratch: Path) -> bool:
    RAN.clear()

    def hostile() -> Any:
        return Evil()

    with contextlib.suppress(Exception):
        decorate(hostile)()
    return not RAN


@rule("3.2", "forked")
def exceptions_keep_their_type_and_state(decorate: Decorate, _scratch: Path) -> bool:
    def spend() -> None:
        raise Quota(7, "spent")

    try:
        decorate(spend)()
    except Quota as error:
        return error.code == 7
    return False


@rule("3.3", "forked")
def control_flow_is_not_forged(decorate: Decorate, _scratch: Path) -> bool:
    def leave() -> None:
        raise SystemExit(3)

    try:
        decorate(leave)()
    except Exception:
        return True
    except SystemExit:
        return False
    return False


@rule("3.5", "forked")
def the_original_traceback_is_there(decorate: Decorate, _scratch: Path) -> bool:
    def deep() -> None:
        raise LookupError("x")

    try:
        decorate(deep)()
    except LookupError as error:
        return "in deep" in str(error.__cause__)
    return False


@rule("4.2", "forked")
def a_relative_write_raises_and_nothing_is_written(decorate: Decorate, scratch: Path) -> bool:
    def report() -> None:
        with open("report.txt", "w") as file:
            file.write("x")

    before = Path.cwd()
    os.chdir(scratch)
    try:
        decorate(report)()
    except OSError:
        return not (scratch / "report.txt").exists()
    finally:
        os.chdir(before)
    return False


@rule("4.8", "forked")
def variables_that_are_not_granted_are_hidden(decorate: Decorate, _scratch: Path) -> bool:
    os.environ["NAIVE_SECRET"] = "s"

    def look() -> str | None:
        return os.environ.get("NAIVE_SECRET")

    try:
        return decorate(look)() is None
    finally:
        del os.environ["NAIVE_SECRET"]


@rule("5.1", "forked")
def a_timeout_ends_the_call(decorate: Decorate, _scratch: Path) -> bool:
    def slow() -> int:
        time.sleep(2)
        return 1

    try:
        decorate(slow, timeout="0.5s")()
    except TimeoutError:
        return True
    return False


@rule("5.3", "forked")
def what_is_left_alive_dies_with_the_call(decorate: Decorate, scratch: Path) -> bool:
    mark = scratch / "mark"
    mark.write_text("")

    def leaves() -> None:
        if os.fork() == 0:
            for fd in range(3, 64):
                with contextlib.suppress(OSError):
                    os.close(fd)
            time.sleep(0.5)
            mark.write_text("alive")
            os._exit(0)

    decorate(leaves, write=str(mark))()
    time.sleep(1)
    return mark.read_text() == ""


@rule("5.4", "forked")
def no_two_calls_draw_the_same_numbers(decorate: Decorate, _scratch: Path) -> bool:
    np = pytest.importorskip("numpy")
    np.random.seed(1)

    def draw() -> float:
        return float(np.random.random())

    fn = decorate(draw)
    return bool(fn() != fn())


@rule("5.5", "forked")
def a_killed_job_is_an_error_and_not_the_end(decorate: Decorate, _scratch: Path) -> bool:
    def dies() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    try:
        decorate(dies)()
    except EOFError:
        return False  # the stand-in's own plumbing shows
    except Exception as error:
        return "SIGKILL" in str(error)
    return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RULES)
def test_the_sandbox_keeps_the_rule(name: str, tmp_path: Path) -> None:
    def decorate(fn: Any, **policy: Any) -> Any:
        return sandbox(**policy)(fn)

    assert RULES[name][1](decorate, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RULES)
def test_the_stand_in_breaks_it(name: str, tmp_path: Path) -> None:
    broken_by, program = RULES[name]
    try:
        kept = program(STAND_INS[broken_by], tmp_path)
    except Exception:
        kept = False
    assert not kept, f"{broken_by} keeps the rule: the program proves nothing"
