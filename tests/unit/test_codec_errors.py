"""What a job raises, as the host sees it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
import traceback
from typing import Any

import pytest

from _codec_samples import Disk, Flaky, catch
from agentsbx import errors
from agentsbx._codec import (
    ClassTable,
    CodecLimits,
    RemoteTraceback,
    decode,
    decode_exception,
    encode,
    encode_exception,
)


class Stop(StopIteration):
    pass


class Locked(Exception):
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no words")


TABLE = ClassTable.build(
    exceptions=(Flaky, Disk, Locked, Stop, asyncio.CancelledError, errors.SandboxTimeout),
    globals_exceptions=(concurrent.futures.CancelledError, KeyboardInterrupt),
)


def raised(exc: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise exc from cause
    except BaseException as caught:
        return caught


def over(exc: BaseException, table: ClassTable = TABLE) -> Any:
    body, buffers = encode_exception(exc)
    return decode_exception(body, buffers, classes=table)


@pytest.mark.parametrize(
    "code",
    [
        "1/0", "{}['k']", "[][1]", "int('x')", "open('/nonexistent/\\ud800')", "None.x", "nowhere",
        "import nothing_here", "compile('a b', 'f.py', 'exec')", "b'\\xff'.decode()",
        "'\\ud800'.encode()", "assert False, [1]", "raise OSError", "raise TimeoutError(1, 'x')",
        "raise ValueError(1, [2], None)", "raise UnicodeError('x')", "raise MemoryError",
    ],
)  # fmt: skip
def test_builtin_exceptions_come_back_as_themselves(code: str) -> None:
    exc = catch(code)
    made = over(exc)
    assert type(made) is type(exc)
    assert made.args == exc.args
    assert str(made) == str(exc)
    for name in ("errno", "filename", "lineno", "text", "name", "start", "reason"):
        assert getattr(made, name, None) == getattr(exc, name, None)


def test_project_exception_keeps_type_args_and_state() -> None:
    made = over(raised(Flaky(3, retry=True)))
    assert type(made) is Flaky
    assert (made.args, made.code, made.retry) == (("code 3",), 3, True)
    made = over(raised(Disk("sda")))
    assert type(made) is Disk
    assert (made.errno, made.filename, made.device) == (5, "/dev/x", "sda")


def test_exception_of_the_standard_library_comes_back() -> None:
    exc = catch("import json; json.loads('{')")
    made = over(exc)
    assert type(made) is json.JSONDecodeError
    assert (made.pos, made.doc, str(made)) == (exc.pos, exc.doc, str(exc))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "exc",
    [
        SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(1), StopAsyncIteration(),
        Stop(), asyncio.CancelledError(), concurrent.futures.CancelledError(),
        errors.SandboxTimeout("forged"), errors.SandboxViolation("forged"), errors.ResultError("x"),
        BaseExceptionGroup("g", [SystemExit(1)]), RemoteTraceback("x"),
    ],
)  # fmt: skip
def test_control_flow_and_our_words_cannot_be_forged(exc: BaseException) -> None:
    made = over(raised(exc))
    assert type(made) is errors.RemoteError
    assert made.type_name.endswith(type(exc).__qualname__)
    (inside,) = decode(*encode([exc]), classes=TABLE)
    assert type(inside) is errors.RemoteError


def test_unknown_exception_is_a_remote_error_with_its_words() -> None:
    made = over(raised(Flaky(3, retry=False)), ClassTable.build())
    assert type(made) is errors.RemoteError
    assert "Flaky: code 3" in str(made)
    assert made.args_repr == "('code 3',)"


def test_traceback_hangs_at_the_end_of_the_causes() -> None:
    made = over(raised(KeyError("k"), raised(Flaky(1, retry=True))))
    assert type(made.__cause__) is Flaky
    last = made.__cause__.__cause__
    assert type(last) is RemoteTraceback
    assert "in raised" in str(last)
    assert "Flaky: code 1" in str(last)
    assert "agentsbx/_codec" not in str(last)
    shown = "".join(traceback.format_exception(made))
    assert "direct cause" in shown


def test_context_notes_and_groups_come_back() -> None:
    exc = catch("try:\n 1/0\nexcept Exception:\n raise KeyError(1)")
    exc.add_note("note \x1b[31m")
    made = over(exc)
    assert type(made.__context__) is ZeroDivisionError
    assert made.__notes__ == ["note \\x1b[31m"]
    group = over(raised(ExceptionGroup("g", [ValueError(1), SystemError(2), Flaky(1, retry=True)])))
    assert type(group) is ExceptionGroup
    assert [type(part) for part in group.exceptions] == [ValueError, SystemError, Flaky]


def test_terminal_codes_in_words_are_escaped() -> None:
    made = over(raised(Flaky(3, retry=True).with_traceback(None)), ClassTable.build())
    evil = over(raised(type("E", (Exception,), {})("\x1b]0;x\x07\u202e")))
    assert "\x1b" not in f"{evil}{evil.__cause__}{made}"
    assert "\u202e" not in f"{evil}{evil.__cause__}"


def test_what_cannot_leave_becomes_its_repr() -> None:
    made = over(raised(ValueError(threading.Lock(), 5)))
    assert made.args[0].startswith("<unlocked _thread.lock")
    assert made.args[1] == 5
    made = over(raised(Locked()))
    assert type(made) is Locked
    assert made.lock.startswith("<unlocked")


def test_encoding_an_exception_never_fails() -> None:
    loop = ValueError("x")
    loop.args = (loop,)
    assert isinstance(over(raised(loop)), ValueError)
    first, second = ValueError(1), KeyError(2)
    first.__cause__, second.__cause__ = second, first
    assert isinstance(over(first), ValueError)
    body, buffers = encode_exception(
        raised(ValueError("x" * 10**6)), limits=CodecLimits(body_bytes=100)
    )
    assert isinstance(decode_exception(body, buffers, classes=TABLE), Exception)
    chain: BaseException = ValueError(0)
    for n in range(100):
        chain = raised(ValueError(n), chain)
    assert isinstance(over(chain), ValueError)


def test_value_is_not_taken_for_an_exception() -> None:
    for value in (1, [1j], [ValueError(1)]):
        body, buffers = encode(value)
        with pytest.raises(errors.ResultError):
            decode_exception(body, buffers, classes=TABLE)
