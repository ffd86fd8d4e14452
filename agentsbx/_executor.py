"""`SandboxExecutor`: `concurrent.futures.Executor` whose every call runs in a fresh sandbox."""

from __future__ import annotations

import concurrent.futures
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any, Unpack

from agentsbx import _futures
from agentsbx._decorator import is_wrapper, resolve, sandbox

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from agentsbx._types import Keywords, P, T
    from agentsbx.policy import Policy

__all__ = ["SandboxExecutor"]


class SandboxExecutor(concurrent.futures.Executor):
    """An executor whose every call runs in a fresh, single-use sandbox.

    `policy` and `keywords` are those of `sandbox`; a function that is sandboxed already keeps its
    own. `max_workers` calls run at once (default: as many as this process allows, see
    `configure`). Unlike a process pool nothing survives from one call to the next, functions need
    not be importable by name, and `Future.cancel()` also ends a call that runs.

    Raises `PolicyError` for a wrong policy, `ValueError` for `max_workers` below 1.

    >>> with SandboxExecutor(memory="256MB") as executor:  # doctest: +SKIP
    ...     executor.submit(pow, 2, 10).result()
    1024
    """

    def __init__(
        self,
        policy: Policy | str | os.PathLike[str] | None = None,
        *,
        max_workers: int | None = None,
        **keywords: Unpack[Keywords],
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._policy, self._options = resolve(policy, dict(keywords))
        self._calls = _futures.Dispatcher(max_workers)
        self._made: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._is_shut = False
        self._pending: set[concurrent.futures.Future[Any]] = set()

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Call `fn(*args, **kwargs)` in a sandbox of its own; the future of its value."""
        inner, own = _plain(fn)
        with self._lock:
            if self._is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future = _futures.submit(self._wrapper(inner), (*own, *args), kwargs, self._calls)
            self._pending.add(future)
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._pending.discard(future)

    def _wrapper(self, fn: Any) -> Any:
        if is_wrapper(fn):
            return fn
        try:
            made = self._made.get(fn)
            if made is None:
                made = self._made[fn] = sandbox(self._policy, **self._options)(fn)
        except TypeError:  # not weakly referable, or not hashable
            made = sandbox(self._policy, **self._options)(fn)
        return made

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; `cancel_futures` drops those that have not started."""
        with self._lock:
            self._is_shut = True
            pending = list(self._pending)
        if cancel_futures:
            self._calls.cancel_waiting()
        if wait:
            concurrent.futures.wait(pending)


def _plain(fn: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a function that lives as long as its code, and the arguments that it takes first.

    A bound method is a new object each time: a sandboxed copy of each would keep its object alive.
    """
    if isinstance(fn, types.MethodType):
        return fn.__func__, (fn.__self__,)
    if isinstance(fn, type):
        return _construct, (fn,)
    return fn, ()


def _construct(cls: Any, /, *args: Any, **kwargs: Any) -> Any:
    return cls(*args, **kwargs)
