"""Cells: source text run in one namespace, the value of the last expression given back.

Runs in a session's interpreter only. Functions of a cell find their lines through `linecache`, so
that tracebacks show them; each cell has a file name of its own (`<cell 3>`).
"""

from __future__ import annotations
import __future__

import ast
import builtins
import linecache
import types

from agentsbx import _kernel_display

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Cells", "run_coroutine", "shown"]

MAX_TEXT = 100_000  # characters of the text of a value
_MAX_CELLS = 2000  # whose lines are kept
_MAX_ITEMS = 1000  # of a container that are shown
_FUTURES = [getattr(__future__, name).compiler_flag for name in __future__.all_feature_names]
_FUTURE = sum(set(_FUTURES))  # each is a bit of its own
_CO_COROUTINE = 0x80  # as `inspect` has it, which is long to import
_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

_loop: Any = None


def run_coroutine(coroutine: Any) -> Any:
    """Run it in the interpreter's one event loop: what was made in it works in later cells."""
    global _loop
    import asyncio

    if _loop is None or _loop.is_closed():
        _loop = asyncio.new_event_loop()
    asyncio.set_event_loop(_loop)
    return _loop.run_until_complete(coroutine)


class Cells:
    """The namespace of all cells, which is their `__main__`."""

    def __init__(self) -> None:
        self.module = types.ModuleType("__main__")
        self.module.__dict__["__builtins__"] = builtins
        self._names: list[str] = []
        self._flags = 0  # of `from __future__ import ...` in earlier cells

    def run(self, code: str, name: str) -> Any:
        """Run one cell; return the value of its last expression, None where it ends otherwise."""
        names = self.module.__dict__
        self._remember(code, name)
        tree: Any = self._compile(code, name, "exec", ast.PyCF_ONLY_AST)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        parts = [self._compile(tree, name, "exec")]
        self._flags |= parts[0].co_flags & _FUTURE
        if last is not None:
            parts.append(self._compile(last, name, "eval"))
        if any(part.co_flags & _CO_COROUTINE for part in parts):
            # All in the loop: what stands before the first `await` may make tasks.
            value = run_coroutine(_each(parts, names))
        else:
            for part in parts:
                value = eval(part, names)
        if value is not None:
            builtins._ = value  # type: ignore[attr-defined]
            _kernel_display.result(value)
        return value

    def _remember(self, code: str, name: str) -> None:
        """Keep the lines for tracebacks, those of the last cells."""
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        self._names.append(name)
        if len(self._names) > _MAX_CELLS:
            linecache.cache.pop(self._names.pop(0), None)

    def _compile(self, source: Any, name: str, mode: str, flags: int = 0) -> Any:
        return compile(source, name, mode, flags | self._flags | _AWAIT, dont_inherit=True)

    @staticmethod
    def without_ours(error: BaseException, name: str) -> BaseException:
        """Leave of its traceback what begins in the cell."""
        tb = error.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename != name:
            tb = tb.tb_next
        error.__traceback__ = tb
        return error


async def _each(parts: list[types.CodeType], names: dict[str, Any]) -> Any:
    for part in parts:
        value = eval(part, names)
        if part.co_flags & _CO_COROUTINE:
            value = await value
    return value


def shown(value: Any) -> str:
    """Return the text that a prompt would show, bounded, whatever the class does when asked."""
    try:
        text = _repr(value)
    except Exception as error:
        text = f"<repr failed: {type(error).__name__}>"
    if len(text) > MAX_TEXT:
        half = MAX_TEXT // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return text


def _repr(value: Any) -> str:
    """`repr`, of long builtin containers only the beginning."""
    kind = type(value)
    if kind in (list, tuple, set, frozenset, dict, str, bytes, bytearray):
        many = MAX_TEXT if kind in (str, bytes, bytearray) else _MAX_ITEMS
        if len(value) > many:
            from itertools import islice

            if kind in (str, bytes, bytearray):
                return f"{value[:many]!r} ..."
            part = islice(value.items() if kind is dict else value, many)
            start = repr(dict(part) if kind is dict else kind(part))
            return f"{start[:-1]}, ...{start[-1]}"
    text = repr(value)
    return text if type(text) is str else str.__str__(text)
