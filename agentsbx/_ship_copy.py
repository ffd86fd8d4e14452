"""Arguments as a job would get them, without a job: for calls that tests run in this process.

They go through the very pickler of shipping, so that what a copy keeps and loses is the same. But
functions, classes, modules and what the function captures stand for themselves: all of it is in
this process already.
"""

from __future__ import annotations

import io
import pickle
import types
from typing import TYPE_CHECKING, Any

from agentsbx._ship_pickle import PROTOCOL, Context, ShipPickler, dispatch_table

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["copy_call"]

_THEMSELVES = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


class _Pickler(ShipPickler):
    kept: dict[int, Any]
    captured: dict[int, Any]

    def persistent_id(self, obj: Any) -> int | None:
        key = id(obj)
        if key in self.captured or isinstance(obj, _THEMSELVES):
            self.kept[key] = obj
            return key
        return None


class _Unpickler(pickle.Unpickler):
    kept: dict[int, Any]

    def persistent_load(self, pid: Any) -> Any:
        return self.kept[pid]


def copy_call(
    context: Context, captured: Iterable[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return copies of the arguments of a call; what they share stays shared.

    Raises what pickling raises.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, PROTOCOL)
    pickler.context = context
    pickler.dispatch_table = dispatch_table()
    pickler.kept = {}
    pickler.captured = {id(value): value for value in captured}
    pickler.dump((args, kwargs))
    file.seek(0)
    unpickler = _Unpickler(file)
    unpickler.kept = pickler.kept
    copies: tuple[tuple[Any, ...], dict[str, Any]] = unpickler.load()
    return copies
