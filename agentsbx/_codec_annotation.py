"""Reading type annotations and arguments for the classes in them (host side)."""

from __future__ import annotations

import collections.abc
import enum
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Annotated", "Fit", "find_annotated", "loaded_class", "walk_values"]

_MAX_ANNOTATIONS = 256  # remembered; beyond that the oldest half is forgotten
_MAX_VISITS = 20_000  # parts of arguments looked at for classes
_MAX_DEPTH = 8
_LEAVES = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, memoryview})


class Annotated:
    """The classes that a return annotation reaches, by (module, qualname)."""

    __slots__ = ("annotation", "classes")

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self.classes: dict[tuple[str, str], type] = {}


_CACHE: dict[int, Annotated] = {}
_NOTHING = Annotated(None)


def find_annotated(annotation: Any) -> Annotated:
    """Return the classes of `annotation`, remembered by identity: a call site has one."""
    if annotation is None:
        return _NOTHING
    known = _CACHE.get(id(annotation))
    if known is not None and known.annotation is annotation:
        return known
    found = Annotated(annotation)
    _walk_hint(annotation, found.classes, set())
    if len(_CACHE) >= _MAX_ANNOTATIONS:
        for key in list(_CACHE)[: _MAX_ANNOTATIONS // 2]:
            _CACHE.pop(key, None)
    _CACHE[id(annotation)] = found
    return found


def _walk_hint(hint: Any, found: dict[tuple[str, str], type], seen: set[int]) -> None:
    """Add each class that `hint` reaches, through fields and type arguments, to `found`."""
    todo = [hint]
    keep = []
    while todo:
        hint = todo.pop()
        if isinstance(hint, enum.Enum):  # Literal[Colour.RED]
            hint = type(hint)
        if id(hint) in seen or isinstance(hint, (str, bytes, int)):
            continue
        seen.add(id(hint))
        keep.append(hint)
        if isinstance(hint, typing.NewType):
            todo.append(hint.__supertype__)
        elif isinstance(hint, typing.TypeVar):
            todo += [hint.__bound__, *hint.__constraints__]
        elif _is_class(hint):
            if hint.__module__ == "builtins" or hint is object:
                continue
            found.setdefault((hint.__module__, hint.__qualname__), hint)
            todo += _field_hints(hint)
        elif type(hint).__name__ == "TypeAliasType":
            todo.append(hint.__value__)
        else:
            todo += [typing.get_origin(hint), *typing.get_args(hint)]


def _field_hints(kind: type) -> list[Any]:
    """Return the annotations of the fields of a class, and of its bases where it is generic."""
    hints: list[Any] = []
    if "__annotations__" in vars(kind) or any("__annotations__" in vars(b) for b in kind.__mro__):
        try:
            hints += typing.get_type_hints(kind, include_extras=True).values()
        except Exception:  # names that only type checkers know: take those that exist
            space = vars(sys.modules.get(kind.__module__, types))
            for text in list(getattr(kind, "__annotations__", {}).values()):
                if isinstance(text, str) and isinstance(space.get(text), type):
                    hints.append(space[text])
    for field in (getattr(kind, "__pydantic_fields__", None) or {}).values():
        hints.append(field.annotation)  # evaluated already, names of local classes too
    for base in getattr(kind, "__orig_bases__", ()):
        hints += typing.get_args(base)
    return hints


def walk_values(value: Any) -> dict[tuple[str, str], type]:
    """Return the classes of `value` and its parts, to a small depth."""
    found: dict[tuple[str, str], type] = {}
    seen: set[int] = set()
    level = [value]
    visits = 0
    for _ in range(_MAX_DEPTH):
        following: list[Any] = []
        for item in level:
            kind = type(item)
            if kind in _LEAVES or id(item) in seen:
                continue
            visits += 1
            if visits > _MAX_VISITS:
                return found
            seen.add(id(item))
            if isinstance(item, type):
                _walk_hint(item, found, set())
                continue
            if kind.__module__ != "builtins":
                if (kind.__module__, kind.__qualname__) not in found:
                    _walk_hint(kind, found, set())
                following += _attributes(item)
            if isinstance(item, dict):
                following += dict.keys(item)
                following += dict.values(item)
            elif isinstance(item, (list, tuple, set, frozenset, collections.deque)):
                following += list(item)[:_MAX_VISITS]
        level = following
    return found


def _attributes(item: Any) -> list[Any]:
    try:
        parts = list(object.__getattribute__(item, "__dict__").values())
    except AttributeError:
        parts = []
    for base in type(item).__mro__:
        for slot in vars(base).values():
            if type(slot) is types.MemberDescriptorType:
                try:
                    parts.append(slot.__get__(item))
                except AttributeError:
                    continue
    return parts


def loaded_class(module: str, name: str) -> type | None:
    """Return a class that a loaded module holds under that name, without running any code."""
    home = sys.modules.get(module)
    found = vars(home).get(name) if isinstance(home, types.ModuleType) else None
    return found if isinstance(found, type) else None


class Fit:
    """Checks values against annotations, each pair once: shared parts must not multiply the work.

    Says yes to what it does not understand. An int is a float and a float is a complex, as for
    type checkers. Calls no code of the values.

    >>> Fit().fits([1, None], list[int | None]), Fit().fits({"a": 1}, dict[str, str])
    (True, False)
    """

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], bool] = {}

    def fits(self, value: Any, hint: Any) -> bool:
        """Whether `value` is what `hint` says."""
        if hint is Any or hint is object:
            return True
        if hint is None or hint is type(None):
            return value is None
        if _is_class(hint):
            return _is_instance(value, hint)
        key = id(value), id(hint)
        known = self.seen.get(key)
        if known is None:
            self.seen[key] = True  # while it is checked: a value may contain itself
            known = self.seen[key] = self._fits(value, hint)
        return known

    def _fits(self, value: Any, hint: Any) -> bool:
        if isinstance(hint, typing.NewType):
            return self.fits(value, hint.__supertype__)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Union or origin is types.UnionType:
            return any(self.fits(value, arg) for arg in args)
        if origin is typing.Annotated:
            return self.fits(value, args[0]) and _meets(value, hint)
        if origin in (typing.Final, typing.Required, typing.NotRequired):
            return self.fits(value, args[0])
        if origin is typing.Literal:
            return any(type(value) is type(arg) and value == arg for arg in args)
        if isinstance(origin, type):
            return _is_instance(value, origin) and self._items_fit(value, origin, args)
        return True

    def _items_fit(self, value: Any, origin: type, args: tuple[Any, ...]) -> bool:
        if origin is tuple and args[-1:] != (...,):
            args = () if args == ((),) else args
            return len(value) == len(args) and all(map(self.fits, value, args))
        if isinstance(value, dict):
            if len(args) == 1:  # Counter[str]
                return self._each(dict.keys(value), args[0])
            if len(args) != 2:
                return True
            return self._each(dict.keys(value), args[0]) and self._each(dict.values(value), args[1])
        if args and isinstance(value, (list, tuple, set, frozenset)):
            return self._each(value, args[0])
        return True

    def _each(self, items: Iterable[Any], hint: Any) -> bool:
        if _is_class(hint) and set(map(type, items)) == {hint}:
            return True
        return all(self.fits(item, hint) for item in items)


def _is_class(hint: Any) -> bool:
    return isinstance(hint, type) and not isinstance(hint, types.GenericAlias)


def _is_instance(value: Any, kind: type) -> bool:
    if type(value).__module__ == "numpy" and kind in (int, float, complex, bool, str, bytes):
        return True
    if kind is float:
        return isinstance(value, (float, int))
    if kind is complex:
        return isinstance(value, (complex, float, int))
    if kind is bytes:
        return isinstance(value, (bytes, bytearray, memoryview))
    if typing.is_typeddict(kind):
        return isinstance(value, dict)
    if getattr(kind, "_is_protocol", False):
        return True
    try:
        return isinstance(value, kind)
    except Exception:
        return True


def _meets(value: Any, hint: Any) -> bool:
    """Whether `value` meets the `msgspec.Meta` bounds in an `Annotated` hint."""
    if not isinstance(value, (int, float, str, bytes)):
        return True  # converting a container copies it, and what it shares many times
    if not any(isinstance(part, msgspec.Meta) for part in hint.__metadata__):
        return True
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    except TypeError:  # a type that msgspec does not know
        return True
    return True
