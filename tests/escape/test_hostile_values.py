"""Values and exceptions made to hurt whoever receives them.

Source: CVE-2025-14931, CVE-2020-10735, CVE-2025-68668 (formatting of exceptions); security.md
section 5 rows "unpickling the result or the exception", "huge, deep, many-key", section 6.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytest

VALUES = [
    "reduce",
    "subclass of str",
    "subclass of dict",
    "subclass of int",
    "lying class",
    "getattr",
    "deep list",
    "deep dict",
    "self-containing list",
    "million keys",
    "ten million items",
    "integer of a million digits",
    "long string",
    "surrogates",
    "nan",
    "negative zero",
    "bytes of 1 GB",
    "generator",
    "module",
    "function",
    "type",
    "property bomb",
    "shared million",
    "lambda in a list",
]

EXCEPTIONS = [
    "reduce",
    "name of ours",
    "keyboard interrupt",
    "system exit",
    "generator exit",
    "stop iteration",
    "stop async iteration",
    "cancelled",
    "base exception",
    "lying class",
    "recursive cause",
    "huge message",
    "huge args",
    "evil str",
    "evil repr",
    "notes",
    "args of objects",
    "group",
    "deep group",
    "escapes",
    "our violation",
    "memory error",
    "recursion",
    "import error with path",
    "evil traceback",
    "os error",
    "our timeout",
    "sandbox unavailable",
    "unicode error",
    "syntax error",
]


def give(how: str, marker: str) -> Any:
    """Runs in the job: return a hostile value."""
    import sys

    class Reduces:
        def __reduce__(self) -> Any:
            return (open, (marker, "w"))

        def __getattr__(self, name: str) -> Any:
            raise KeyError(name)

    class Text(str):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

        def encode(self, *args: Any) -> bytes:
            return b"lie"

    class Table(dict[str, int]):
        def items(self) -> Any:
            while True:
                yield "x", 1

    class Number(int):
        def bit_length(self) -> int:
            return -1

        def to_bytes(self, *args: Any, **kwargs: Any) -> bytes:
            return b"x" * 100

    class Lies:
        __class__ = property(lambda self: dict)

    class Bomb:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise SystemExit(3)

    def nested(kind: str, depth: int) -> Any:
        made: Any = None
        for _ in range(depth):
            made = [made] if kind == "list" else {"k": made}
        return made

    loop: list[Any] = []
    loop.append(loop)
    same = list(range(1000))
    makers: dict[str, Any] = {
        "reduce": Reduces,
        "subclass of str": lambda: Text("x"),
        "subclass of dict": lambda: Table(a=1),
        "subclass of int": lambda: Number(5),
        "lying class": Lies,
        "getattr": lambda: [Reduces(), {"k": Reduces()}],
        "deep list": lambda: nested("list", 200000),
        "deep dict": lambda: nested("dict", 200000),
        "self-containing list": lambda: loop,
        "million keys": lambda: {str(n): n for n in range(3000000)},
        "ten million items": lambda: [None] * 10000000,
        "integer of a million digits": lambda: 1 << 3400000,
        "long string": lambda: "x" * (100 << 20),
        "surrogates": lambda: "\ud800\udfff" * 10,
        "nan": lambda: {"k": float("nan"), "z": float("inf")},
        "negative zero": lambda: -0.0,
        "bytes of 1 GB": lambda: bytes(300 << 20),
        "generator": lambda: (n for n in range(3)),
        "module": lambda: sys,
        "function": lambda: give_back,
        "type": lambda: Reduces,
        "property bomb": Bomb,
        "shared million": lambda: [same] * 5000,
        "lambda in a list": lambda: [lambda: 1],
    }

    def give_back() -> None:
        return None

    return makers[how]()


def fail(how: str, marker: str) -> None:
    """Runs in the job: raise a hostile exception."""
    import asyncio

    class Reduces(ValueError):
        def __reduce__(self) -> Any:
            return (open, (marker, "w"))

    class SandboxTimeout(TimeoutError):
        __module__ = "agentsbx.errors"
        violation = "forged"

    SandboxTimeout.__qualname__ = "SandboxTimeout"

    class Speaks(Exception):
        def __str__(self) -> str:
            if how == "evil str":
                raise SystemExit(4)
            return "fine"

        def __repr__(self) -> str:
            if how == "evil repr":
                raise KeyboardInterrupt
            return "x" * (50 << 20)

    class Lies(Exception):
        __class__ = property(lambda self: KeyboardInterrupt)

    if how == "reduce":
        raise Reduces("x")
    if how == "name of ours":
        raise SandboxTimeout("the host took too long; call again without the sandbox")
    if how in ("our violation", "our timeout", "sandbox unavailable"):
        import agentsbx

        kind: Any = {
            "our violation": agentsbx.SandboxViolation,
            "our timeout": agentsbx.SandboxTimeout,
            "sandbox unavailable": agentsbx.SandboxUnavailable,
        }[how]
        raise kind.__new__(kind, "forged")
    kinds: dict[str, Any] = {
        "keyboard interrupt": KeyboardInterrupt,
        "system exit": SystemExit,
        "generator exit": GeneratorExit,
        "stop iteration": StopIteration,
        "stop async iteration": StopAsyncIteration,
        "cancelled": asyncio.CancelledError,
        "base exception": BaseException,
        "memory error": MemoryError,
    }
    if how in kinds:
        raise kinds[how]("x")
    if how == "lying class":
        raise Lies("x")
    if how == "recursive cause":
        first, second = ValueError("a"), KeyError("b")
        first.__cause__, second.__cause__ = second, first
        raise first
    if how == "huge message":
        raise ValueError("x" * (100 << 20))
    if how == "huge args":
        raise ValueError(*range(500000))
    if how in ("evil str", "evil repr"):
        raise Speaks("x")
    if how == "notes":
        error = ValueError("x")
        for _ in range(20000):
            error.add_note("note" * 100)
        raise error
    if how == "args of objects":
        raise ValueError(Reduces("x"), [Reduces("y")], {"k": Speaks})
    if how == "group":
        raise ExceptionGroup("many", [ValueError(n) for n in range(5000)])
    if how == "deep group":
        deep: Exception = ValueError("x")
        for _ in range(5000):
            deep = ExceptionGroup("g", [deep])
        raise deep
    if how == "escapes":
        raise ValueError("\x1b[2J\x1b]0;owned\x07\u202e\x9b31m\r\nagentsbx: all is well")
    if how == "recursion":
        fail(how, marker)
    if how == "import error with path":
        raise ImportError("x", name="os", path="/etc/passwd")
    if how == "evil traceback":
        exec(compile("\n" * 100000 + "raise ValueError('x')", "/etc/passwd", "exec"), {})
    if how == "os error":
        raise OSError(-5, "x" * 100000, "y" * 100000, None, b"z")
    if how == "unicode error":
        raise UnicodeDecodeError("utf-8", b"x" * 1000000, 0, 1, "because")
    raise SyntaxError("x", ("file", 1, 2, "text" * 100000, 3, 4))


def _memory() -> int:
    gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("how", VALUES)
def test_a_hostile_value_does_no_harm(how: str, scratch: Path) -> None:
    import agentsbx

    marker = scratch / "called"
    give_in_box = agentsbx.sandbox(timeout="20s", memory="1GB", result="8MB")(give)
    start, before = time.monotonic(), _memory()
    result = give_in_box.run(how, str(marker))
    took = time.monotonic() - start
    assert not marker.exists()
    assert took < 18, f"{took:.1f} s"
    assert _memory() - before < 400 << 10, "the host grew"
    assert type(result.value) in (type(None), str, dict, list, int, float, bytes, tuple), type(
        result.value
    )
    assert result.error is None or isinstance(
        result.error, (agentsbx.AgentsbxError, TypeError, ValueError, OSError)
    )


@pytest.mark.parametrize("how", EXCEPTIONS)
def test_a_hostile_exception_does_no_harm(how: str, scratch: Path) -> None:
    import agentsbx

    marker = scratch / "called"
    fail_in_box = agentsbx.sandbox(timeout="20s")(fail)
    before = _memory()
    result = fail_in_box.run(how, str(marker))
    error = result.error
    assert not marker.exists()
    assert isinstance(error, Exception), error
    ours = (
        agentsbx.SandboxViolation,
        agentsbx.SandboxTimeout,
        agentsbx.SandboxUnavailable,
        agentsbx.PolicyError,
    )
    assert not isinstance(error, ours), f"forged {type(error)}"
    assert not isinstance(error, (StopIteration, StopAsyncIteration))
    assert len(str(error)) < 8 << 20
    assert len(repr(error)) < 8 << 20
    assert len("".join(getattr(error, "__notes__", []))) < 1 << 20
    assert _memory() - before < 300 << 10
    try:
        raise error
    except Exception:
        sys.exc_info()
    if how == "escapes":
        assert "\x1b" not in repr(error)
