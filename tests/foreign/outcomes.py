"""What a call gave, in a form that two calls can be compared in: value, exception, files left."""

from __future__ import annotations

import asyncio
import builtins
import importlib
import inspect
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from foreign.tool_rows import WORLD, Row

__all__ = ["Outcome", "lay_out", "outcome", "prepare", "rules_of", "same"]

_MOST = 1000  # items of a generator


class Outcome(NamedTuple):
    """One call: its value, or its exception; and the files of the row's folder afterwards."""

    value: Any
    error: BaseException | None
    files: dict[str, bytes]

    def seen_by(self, row: Row) -> Any:
        """Return what is compared: the value or the exception, or what the row says of it."""
        return eval(row.seen, {"it": self.value if self.error is None else self.error})

    @property
    def said(self) -> str:
        """Return `"TypeName: message"` of the exception, or the value's repr."""
        if self.error is None:
            return repr(self.value)
        return f"{type(self.error).__name__}: {self.error}"


def lay_out(here: Path) -> None:
    """Make the row's folder anew."""
    for path in here.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, text in WORLD.items():
        path = here / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def prepare(row: Row, here: Path) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the tool as it stands in its package, and the arguments."""
    names = _Names(importlib.import_module(row.module), here)
    exec(row.uses, names)  # imports of what the arguments are made of
    args, kwargs = eval(f"take{row.call}", names)
    return eval(row.tool, names), args, kwargs


class _Names(dict[str, Any]):
    """The names of a module, also those that it loads when they are asked for."""

    def __init__(self, module: Any, here: Path) -> None:
        super().__init__(here=here, take=lambda *a, **k: (a, k))
        self._module = module

    def __missing__(self, name: str) -> Any:
        if name in vars(builtins) and name not in vars(self._module):
            raise KeyError(name)
        return getattr(self._module, name)


def rules_of(row: Row, here: Path) -> dict[str, Any]:
    """Return the policy keywords of a row."""
    return {
        name: [str(v).format(here=here) for v in value] if isinstance(value, list) else value
        for name, value in row.rules.items()
    }


def outcome(tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any], here: Path) -> Outcome:
    """Call `tool` to its end, whatever its kind: awaited, or a list of its first items."""
    value, error = None, None
    try:
        value = tool(*args, **kwargs)
        if inspect.isawaitable(value):
            value = asyncio.run(_awaited(value))
        elif isinstance(value, AsyncIterator):
            value = asyncio.run(_listed(value))
        elif isinstance(value, Iterator):
            value = [item for item, _ in zip(value, range(_MOST), strict=False)]
    except Exception as raised:
        value, error = None, raised
    files = {
        str(path.relative_to(here)): path.read_bytes()
        for path in sorted(here.rglob("*"))
        if path.is_file() and ".git/" not in str(path) and path.suffix != ".pyc"
    }
    return Outcome(value, error, files)


async def _awaited(value: Any) -> Any:
    return await value


async def _listed(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal, of one type, part by part."""
    if type(a) is not type(b):
        return False
    if isinstance(a, BaseException):
        return same(a.args, b.args)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if type(a).__module__ == "numpy" and hasattr(a, "dtype"):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if hasattr(a, "equals"):  # pandas
        return bool(a.equals(b))
    if hasattr(a, "__dict__") and type(a).__eq__ is object.__eq__:
        return same(vars(a), vars(b))
    return bool(a == b) or (a != a and b != b)
