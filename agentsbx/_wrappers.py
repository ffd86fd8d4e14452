"""The plain functions that stand for sandboxed ones, one form for each kind of function.

A wrapper finds all that it needs on itself at each call, not in a closure (rule 1.1); the only name
that it closes over is its own.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

from agentsbx import _calls
from agentsbx._kinds import Kind

__all__ = ["WRAPPERS", "is_wrapper"]


def _sync_wrapper() -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        done = None
        made = wrapper.__agentsbx_site__._made  # type: ignore[attr-defined]
        if made is not None and made[0] is wrapper.__wrapped__:  # type: ignore[attr-defined]
            quick = made[1].quick
            if quick is not None:
                done = quick.call(args, kwargs)
                if type(done) is tuple:
                    return done[0]
        job = _calls.inside(wrapper)
        if job is not None:
            return job(*args, **kwargs)
        result, error = _calls.invoke(wrapper, args, kwargs, begun=done)
        if error is None:
            return result.value
        try:
            raise error
        finally:
            del error, result, job  # the traceback holds this frame: no cycle

    return wrapper


def _async_wrapper() -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        job = _calls.inside(wrapper)
        if job is not None:
            return await job(*args, **kwargs)
        result, error = await _calls.invoke_async(wrapper, args, kwargs)
        if error is None:
            return result.value
        try:
            raise error
        finally:
            del error, result, job

    return wrapper


def _generator_wrapper() -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        job = _calls.inside(wrapper)
        return _calls.stream(wrapper, args, kwargs) if job is None else job(*args, **kwargs)

    return _marked(wrapper, inspect.CO_GENERATOR)


def _async_generator_wrapper() -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        job = _calls.inside(wrapper)
        return _calls.astream(wrapper, args, kwargs) if job is None else job(*args, **kwargs)

    return _marked(wrapper, inspect.CO_ASYNC_GENERATOR)


def _marked(wrapper: Any, flag: int) -> Callable[..., Any]:
    """Mark a function that returns generators, for `inspect.isgeneratorfunction` and its like.

    A generator function proper would bind its arguments only at the first item, and could not tell
    a generator that is closed from one that is abandoned. Since 3.11 the flag is for readers only:
    the interpreter goes by the code.
    """
    code = wrapper.__code__.replace(co_flags=wrapper.__code__.co_flags | flag)
    made = types.FunctionType(code, wrapper.__globals__, closure=wrapper.__closure__)
    (cell,) = wrapper.__closure__  # it looks things up on itself
    cell.cell_contents = made
    return made


WRAPPERS = {
    Kind.FUNCTION: _sync_wrapper,
    Kind.COROUTINE: _async_wrapper,
    Kind.GENERATOR: _generator_wrapper,
    Kind.ASYNC_GENERATOR: _async_generator_wrapper,
}
_CODES = frozenset(make().__code__ for make in WRAPPERS.values())


def is_wrapper(obj: object) -> bool:
    """Whether `obj` is a function that `sandbox` made.

    Other decorators copy `__dict__` along, so that `__agentsbx_site__` alone proves nothing.

    >>> from agentsbx import sandbox
    >>> is_wrapper(sandbox(len)), is_wrapper(len)
    (True, False)
    """
    return isinstance(obj, types.FunctionType) and obj.__code__ in _CODES
