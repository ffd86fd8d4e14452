"""Reading type annotations and arguments for the classes in them (host side)."""

from __future__ import annotations

import collections.abc
import sys
import types
import typing
from typing import Any

import msgspec

__all__ = ["Annotated", "find_annotated", "fits", "walk_values"]

_MAX_ANNOTATIONS = 256  # remembered; beyond that the oldest half is forgotten
_MAX_VISITS = 20_000  # parts of arguments looked at for classes
_MAX_DEPTH = 8
_MAX_CHECKS = 64  # items of a container that are checked against its annotation
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
        if id(hint) in seen or isinstance(hint, (str, bytes, int)):
            continue
        seen.add(id(hint))
        keep.append(hint)
        if isinstance(hint, typing.NewType):
            todo.append(hint.__supertype__)
        elif isinstance(hint, typing.TypeVar):
            todo += [hint.__bound__, *hint.__constraints__]
        elif isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
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


def fits(value: Any, hint: Any, depth: int = 0) -> bool:
    """Whether `value` is what `hint` says, as far as that can be seen without calling its code.

    Says yes to what it does not understand. An int is a float and a float is a complex, as for
    type checkers; of a long container the first items are checked.
    """
    if hint is Any or hint is object or depth > 16:
        return True
    if hint is None or hint is type(None):
        return value is None
    if isinstance(hint, typing.NewType):
        return fits(value, hint.__supertype__, depth + 1)
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        return _is_instance(value, hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union or origin is types.UnionType:
        return any(fits(value, arg, depth + 1) for arg in args)
    if origin is typing.Annotated:
        return fits(value, args[0], depth + 1) and _meets(value, hint)
    if origin in (typing.Final, typing.Required, typing.NotRequired):
        return fits(value, args[0], depth + 1)
    if origin is typing.Literal:
        return any(type(value) is type(arg) and value == arg for arg in args)
    if isinstance(origin, type):
        return _is_instance(value, origin) and _items_fit(value, origin, args, depth)
    return True


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
        return type.__instancecheck__(kind, value) or isinstance(value, kind)
    except Exception:
        return True


def _items_fit(value: Any, origin: type, args: tuple[Any, ...], depth: int) -> bool:
    if origin is tuple and args and args[-1] is not ...:
        if args == ((),):
            args = ()
        return len(value) == len(args) and all(map(fits, value, args, [depth + 1] * len(args)))
    if not args or not isinstance(value, (list, tuple, set, frozenset, dict)):
        return True
    if isinstance(value, dict):
        if len(args) != 2:
            return True
        for n, (key, item) in enumerate(dict.items(value)):
            if n == _MAX_CHECKS:
                break
            if not (fits(key, args[0], depth + 1) and fits(item, args[1], depth + 1)):
                return False
        return True
    if issubclass(origin, (list, tuple, set, frozenset, collections.abc.Iterable)):
        for n, item in enumerate(value):
            if n == _MAX_CHECKS:
                break
            if not fits(item, args[0], depth + 1):
                return False
    return True


def _meets(value: Any, hint: Any) -> bool:
    """Whether `value` meets the `msgspec.Meta` bounds in an `Annotated` hint."""
    if not any(isinstance(part, msgspec.Meta) for part in hint.__metadata__):
        return True
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    except TypeError:  # a type that msgspec does not know
        return True
    return True
