"""What a snapshot notes while it is pickled, so that "is it still so?" costs microseconds.

Functions, cells, globals and class attributes are compared by identity. Captured objects that can
change in place are the *roots*: they are pickled once more by themselves, with code by identity,
and the bytes are compared.
"""

from __future__ import annotations

import contextlib
import copyreg
import datetime
import decimal
import enum
import fractions
import io
import logging
import pathlib
import pickle
import re
import sys
import types
import typing
import uuid
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

from agentsbx._ship_modules import Chain, references
from agentsbx._ship_pickle import Context, Recorder, ShipPickler, dispatch_table
from agentsbx._ship_reduce import is_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["Record", "State", "StatePickler"]

# The bytes of each root's pickle and a copy of its big buffers.
State = tuple[list[bytes], list[bytes]]

_FIXED = frozenset(
    {
        int, float, complex, bool, str, bytes, type(None), type(...), type(NotImplemented), range,
        slice, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, types.CodeType,
        types.GenericAlias, types.UnionType, types.MethodDescriptorType,
        types.WrapperDescriptorType, types.MemberDescriptorType, types.GetSetDescriptorType,
        types.ClassMethodDescriptorType, staticmethod, classmethod, property, re.Pattern,
        datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone,
        decimal.Decimal, fractions.Fraction, uuid.UUID, logging.Logger, typing.TypeVar,
        typing.ParamSpec, pathlib.PosixPath, pathlib.PurePosixPath, pathlib.PureWindowsPath,
        object,
    }
)  # fmt: skip
_CLASS_INNER = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__annotations__",
        "_abc_impl",
        "__dataclass_fields__",
        "__dataclass_params__",
    }
)
_FUNCTION_PARTS = attrgetter("__code__", "__defaults__", "__kwdefaults__")


def _is_fixed(context: Context, value: Any) -> bool:
    """Whether a value cannot change in place (code is noted elsewhere)."""
    kind = type(value)
    if kind in _FIXED or isinstance(value, (type, enum.Enum)):
        return True
    if kind in (tuple, frozenset):
        return all(_is_fixed(context, item) for item in value)
    return (
        kind.__module__ == "typing"
        or kind.__name__ == "CField"
        or context.library_name(value) is not None
    )


class Record(Recorder):
    """The notes of one snapshot."""

    def __init__(self, fn: Any, context: Context) -> None:
        self.fn = fn
        self.context = context
        self.functions: dict[int, types.FunctionType] = {}
        self.classes: dict[type, tuple[Any, ...]] = {}
        self._globals: dict[int, tuple[dict[str, Any], dict[str, Any], set[str]]] = {}
        self._cells: dict[int, tuple[types.CellType, tuple[Any, ...]]] = {}
        self._data: dict[int, tuple[Any, str, str]] = {}
        self._code: dict[int, tuple[Any, str, str]] = {}
        self.sizes: dict[int, int] = {}
        self.state: State = ([], [])

    # -- notes of the pickler -----------------------------------------------------------------

    def function(self, fn: types.FunctionType) -> None:
        self.functions[id(fn)] = fn
        kind = "default" if fn is self.fn else f"default of {fn.__qualname__}"
        defaults = fn.__defaults__ or ()
        names = fn.__code__.co_varnames[: fn.__code__.co_argcount]
        for name, value in zip(names[len(names) - len(defaults) :], defaults, strict=False):
            self._value(value, name, kind)
        if fn.__kwdefaults__:
            self.dictionary(fn.__kwdefaults__, kind)

    def names(
        self, fn: types.FunctionType, found: Mapping[str, Any], absent: Iterable[str]
    ) -> None:
        _, known, missing = self._globals.setdefault(
            id(fn.__globals__), (fn.__globals__, {}, set())
        )
        known.update(found)
        missing.update(absent)
        kind = "global" if fn is self.fn else f"global of {fn.__qualname__}"
        for name, value in found.items():
            self._value(value, name, kind)

    def attributes(self, module: types.ModuleType, found: Mapping[str, Any]) -> None:
        own = vars(module)
        _, known, _ = self._globals.setdefault(id(own), (own, {}, set()))
        known.update(found)
        for name, value in found.items():
            self._value(value, f"{module.__name__}.{name}", "module attribute")

    def cells(self, fn: types.FunctionType) -> None:
        kind = "closure" if fn is self.fn else f"closure of {fn.__qualname__}"
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            try:
                content = (cell.cell_contents,)
            except ValueError:
                content = ()  # type: ignore[assignment]
            self._cells[id(cell)] = (cell, content)
            if content:
                self._value(content[0], name, kind)

    def klass(self, cls: type) -> None:
        self.classes[cls] = tuple(vars(cls).values())
        for name, value in list(vars(cls).items()):
            if name not in _CLASS_INNER and not name.startswith("__pydantic_"):
                self._value(value, f"{cls.__qualname__}.{name}", "class attribute")

    def dictionary(self, names: dict[str, Any], kind: str = "attribute") -> None:
        _, known, _ = self._globals.setdefault(id(names), (names, {}, set()))
        known.update(names)
        for name, value in names.items():
            if name != "__agentsbx_site__":
                self._value(value, name, kind)

    def _value(self, value: Any, name: str, kind: str) -> None:
        if not is_data(value):
            self._code.setdefault(id(value), (value, name, kind))
        elif kind != "class attribute" or not _is_fixed(self.context, value):
            self._data.setdefault(id(value), (value, name, kind))

    # -- after the pickle ---------------------------------------------------------------------

    def finish(self) -> None:
        """Pickle the roots by themselves; their sizes are those of the captures."""
        pickler = StatePickler.make(self.context)
        for key, (value, _, _) in self._data.items():
            if not _is_fixed(self.context, value):
                self.sizes[key] = pickler.add(value)
            elif isinstance(value, (str, bytes)):
                self.sizes[key] = len(value)
            else:
                self.sizes[key] = sys.getsizeof(value)
        self.state = pickler.state

    def root_values(self) -> list[Any]:
        """Return the captured objects that can change in place."""
        return [value for value, _, _ in self._data.values() if not _is_fixed(self.context, value)]

    def data(self) -> list[tuple[Any, str, str, int]]:
        """Return captured data: value, name, kind, size in bytes."""
        return [(*entry, self.sizes.get(key, 0)) for key, entry in self._data.items()]

    def captured(self) -> list[tuple[str, str, str, int]]:
        """Return name, kind, type and size of all that is captured."""
        rows = [(name, kind, _type_name(v), size) for v, name, kind, size in self.data()]
        for value, name, kind in self._code.values():
            if value is not self.fn:
                rows.append((name, kind, _type_name(value), 0))
        return rows

    def exceptions(self) -> tuple[type[BaseException], ...]:
        """Return the exception classes among the globals of the code (rule 3.1)."""
        found: dict[type[BaseException], None] = {}
        for _, names, _ in self._globals.values():
            for value in names.values():
                if isinstance(value, type) and issubclass(value, BaseException):
                    found[value] = None
        for fn in self.functions.values():
            for name, chain in references(fn.__code__).items():
                found.update(dict.fromkeys(_exceptions_of(fn.__globals__.get(name), chain)))
        for cls in self.classes:
            if issubclass(cls, BaseException):
                found[cls] = None
        return tuple(found)

    # -- what to compare ----------------------------------------------------------------------

    def checks(self) -> list[tuple[Callable[[Any], Any], Any, tuple[Any, ...]]]:
        """Return (getter, object, the very values it must give)."""
        found: list[tuple[Callable[[Any], Any], Any, tuple[Any, ...]]] = [
            (_FUNCTION_PARTS, fn, _FUNCTION_PARTS(fn)) for fn in self.functions.values()
        ]
        for own, known, _ in self._globals.values():
            if known:
                # itemgetter gives a tuple only for two names or more.
                names = [*known, next(iter(known))] if len(known) == 1 else [*known]
                found.append((itemgetter(*names), own, tuple(known[name] for name in names)))
        filled = [(cell, content) for cell, content in self._cells.values() if content]
        if filled:
            cells = tuple(cell for cell, _ in filled)
            found.append((_contents, cells, tuple(content[0] for _, content in filled)))
        return found

    def class_checks(self) -> list[tuple[type, tuple[Any, ...]]]:
        """Return the classes with the values of their dictionaries."""
        for cls in self.classes:
            # Fill now what Python caches in a class at first use, lest it look like a change.
            with contextlib.suppress(Exception):
                copyreg._slotnames(cls)  # type: ignore[attr-defined]
                cls.__annotations__  # noqa: B018
        return [(cls, tuple(vars(cls).values())) for cls in self.classes]

    def absent_checks(self) -> list[tuple[dict[str, Any], frozenset[str]]]:
        """Return namespaces with the names that must stay absent (they mean builtins)."""
        return [(own, frozenset(missing)) for own, _, missing in self._globals.values() if missing]

    def first_change(self) -> str:
        """Return the name of what is not as it was noted, for words."""
        for own, known, missing in self._globals.values():
            for name, value in known.items():
                if own.get(name, self) is not value:
                    return name
            for name in missing & own.keys():
                return name
        for fn in self.functions.values():
            for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
                before = self._cells.get(id(cell), (cell, ()))[1]
                if not before or _contents((cell,))[0] is not before[0]:
                    return name
        pickler = StatePickler.make(self.context)
        states = iter(self.state[0])
        for value, name, _ in self._data.values():
            if not _is_fixed(self.context, value):
                pickler.add(value)
                if pickler.state[0][-1] != next(states):
                    return name
        return "something"

    def empty_cells(self) -> list[types.CellType]:
        """Return the cells that were empty."""
        return [cell for cell, content in self._cells.values() if not content]


def _contents(cells: tuple[types.CellType, ...]) -> list[Any]:
    return [cell.cell_contents for cell in cells]


def _type_name(value: Any) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else (f"{kind.__module__}.{kind.__qualname__}")
    )


def _exceptions_of(value: Any, chain: Chain) -> Iterator[type[BaseException]]:
    """Yield the exception classes that code reads off a module (`csv.Error`)."""
    if not isinstance(value, types.ModuleType):
        return
    for name, inner in chain.items():
        part = vars(value).get(name)
        if isinstance(part, type) and issubclass(part, BaseException):
            yield part
        yield from _exceptions_of(part, inner)


class StatePickler(ShipPickler):
    """Pickles what can change in place; functions, classes and modules stand for themselves."""

    file: io.BytesIO
    state: State

    @classmethod
    def make(cls, context: Context) -> StatePickler:
        """Make one that gathers into `.state`."""
        file = io.BytesIO()
        buffers: list[bytes] = []

        def take(buffer: pickle.PickleBuffer) -> bool:
            try:
                buffers.append(bytes(buffer.raw()))
            except BufferError:
                return True
            return False

        made = cls(file, 5, buffer_callback=take)
        made.context = context
        made.dispatch_table = dispatch_table()
        made.file = file
        made.state = ([], buffers)
        return made

    @classmethod
    def state_of(cls, context: Context, roots: Sequence[Any]) -> State:
        """Return the state of captured objects."""
        made = cls.make(context)
        for root in roots:
            made.add(root)
        return made.state

    def reducer_override(self, obj: Any) -> Any:
        if obj is int:  # stands in what we return below
            return NotImplemented
        kind = type(obj)
        if kind is types.FunctionType or kind is types.ModuleType or isinstance(obj, type):
            return int, (id(obj),)
        return super().reducer_override(obj)

    def add(self, root: Any) -> int:
        """Pickle one root; return its size in bytes."""
        blobs, buffers = self.state
        before = len(buffers)
        self.dump(root)
        blobs.append(self.file.getvalue())
        self.file.seek(0)
        self.file.truncate()
        return len(blobs[-1]) + sum(map(len, buffers[before:]))
