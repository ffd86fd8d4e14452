"""The four kinds of functions; each is called, streamed and awaited in its own way.

The numbers travel with a call, so that the job treats its function as the host does.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from enum import IntEnum
from typing import Any

__all__ = ["Kind", "annotations_of", "kind_of", "unpartial"]


class Kind(IntEnum):
    """How a function gives its values."""

    FUNCTION = 0
    COROUTINE = 1  # async def
    GENERATOR = 2
    ASYNC_GENERATOR = 3

    @property
    def is_async(self) -> bool:
        """Whether its values are awaited."""
        return self in (Kind.COROUTINE, Kind.ASYNC_GENERATOR)

    @property
    def streams(self) -> bool:
        """Whether it gives values one by one."""
        return self in (Kind.GENERATOR, Kind.ASYNC_GENERATOR)


def kind_of(fn: Any) -> Kind:
    """Return the kind of a function, a partial object or an object with `__call__`.

    >>> kind_of(len).name, kind_of(lambda: (yield)).name
    ('FUNCTION', 'GENERATOR')
    """
    inner = unpartial(fn)
    if inspect.iscoroutinefunction(inner):
        return Kind.COROUTINE
    if inspect.isasyncgenfunction(inner):
        return Kind.ASYNC_GENERATOR
    return Kind.GENERATOR if inspect.isgeneratorfunction(inner) else Kind.FUNCTION


def unpartial(fn: Any) -> Any:
    """Return the function under partial objects; for a callable object its `__call__`."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not hasattr(fn, "__code__") and not isinstance(fn, types.MethodType):
        call = inspect.getattr_static(type(fn), "__call__", None)
        if isinstance(call, types.FunctionType):
            return call
    return fn


_ITEMS = (collections.abc.Iterable, collections.abc.AsyncIterable)


def annotations_of(annotation: Any) -> tuple[Any, Any]:
    """Return the annotations of an item and of the returned value of `Iterator[T]` and the like.

    >>> annotations_of(collections.abc.Generator[int, None, str]), annotations_of(None)
    ((<class 'int'>, <class 'str'>), (None, None))
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if not isinstance(origin, type) or not issubclass(origin, _ITEMS) or not args:
        return None, None
    is_generator = issubclass(origin, collections.abc.Generator) and len(args) == 3
    return args[0], args[2] if is_generator else None
