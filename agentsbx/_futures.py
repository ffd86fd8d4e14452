"""Calls as futures: `fn.submit`, `fn.map`, and what `SandboxExecutor` is made of.

Each call runs in a thread that waits for its sandbox; there are as many threads as calls may run at
once, and no more. Cancelling a future kills the sandbox that runs for it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from agentsbx import _await, _calls
from agentsbx._load import load

if TYPE_CHECKING:
    from agentsbx._job import Cancel
    from agentsbx._progress import Progress

__all__ = ["CallFuture", "Dispatcher", "amap", "map_calls", "submit"]


class CallFuture(concurrent.futures.Future[Any]):
    """A future whose `cancel()` also ends a call that runs: its whole process tree is killed."""

    def __init__(self) -> None:
        super().__init__()
        self._kill: Cancel | None = None

    def cancel(self) -> bool:
        """Cancel it, waiting or running; False when it has ended."""
        if super().cancel():
            return True
        with self._condition:
            if self._state != "RUNNING":
                return False
            self._state = "CANCELLED"
            self._condition.notify_all()
        if self._kill is not None:
            self._kill.cancel()
        self.set_running_or_notify_cancel()  # tells `wait` and `as_completed`
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    def run(self, call: Callable[[Cancel], Any]) -> None:
        """Make the call, unless it was cancelled meanwhile."""
        cancel: Cancel = load("_job").Cancel()
        self._kill = cancel
        if not self.set_running_or_notify_cancel():
            return
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # cancelled on the way
            try:
                value = call(cancel)
            except BaseException as error:
                self.set_exception(error)
            else:
                self.set_result(value)


class Dispatcher:
    """Hands waiting futures to at most `n` threads; `n` None: as many as calls may run at once."""

    def __init__(self, n: int | None = None) -> None:
        self._n = n
        self._lock = threading.Lock()
        self._waiting: deque[tuple[CallFuture, Callable[[], None]]] = deque()
        self._threads = 0

    def _most(self) -> int:
        places: int = load("_gate").gate().places
        return places if self._n is None else self._n

    def put(self, call: Callable[[Cancel], Any]) -> CallFuture:
        """Return the future of a call that starts when there is a thread for it."""
        future = CallFuture()
        context = contextvars.copy_context()
        most = self._most()
        with self._lock:
            self._waiting.append((future, lambda: context.run(future.run, call)))
            starts = self._threads < most
            self._threads += starts
        if starts:
            _await.submit(self._serve)
        return future

    def _serve(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                future, task = self._waiting.popleft()
            task()
            del future, task  # they hold arguments and results

    def cancel_waiting(self) -> None:
        """Cancel what has not started."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        for future, _ in waiting:
            future.cancel()
            future.set_running_or_notify_cancel()


_dispatcher = Dispatcher()


def _after_fork() -> None:
    """In a forked child: the threads are not here."""
    global _dispatcher
    _dispatcher = Dispatcher()


_await.on_fork.append(_after_fork)


def call_of(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Cancel], Any]:
    """Return what makes the call in a thread: it returns the value or raises."""

    def call(cancel: Cancel) -> Any:
        __tracebackhide__ = True
        result, error = _calls.invoke(wrapper, args, kwargs, cancel=cancel)
        if error is not None:
            raise error
        return result.value

    return call


def submit(
    wrapper: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dispatcher: Dispatcher | None = None,
) -> concurrent.futures.Future[Any]:
    """`fn.submit(...)`; inside a job the call is made right here."""
    __tracebackhide__ = True
    _refuse_streams(wrapper, "submit")
    if _calls.inside(wrapper) is not None:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        result = _calls.run(wrapper, args, kwargs)
        if result.error is not None:
            future.set_exception(result.error)
        else:
            future.set_result(result.value)
        return future
    return (dispatcher or _dispatcher).put(call_of(wrapper, args, kwargs))


def _refuse_streams(wrapper: Any, verb: str) -> None:
    if wrapper.__agentsbx_site__.kind.streams:
        name = wrapper.__qualname__
        raise TypeError(
            f"{name}.{verb}() is for functions that return one value; {name} is a generator "
            f"function: take its items from the call {name}(...), or all at once from "
            f"{name}.run(...)"
        )


class _Ahead:
    """Futures in the order of their arguments, a bounded number ahead of who takes them."""

    def __init__(
        self,
        wrapper: Any,
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        progress: bool | str = False,
    ) -> None:
        _refuse_streams(wrapper, "map")
        self._progress = _shown(wrapper, iterables, progress)
        self._wrapper = wrapper
        self._args = zip(*iterables, strict=False)
        self._futures: deque[concurrent.futures.Future[Any]] = deque()
        self._until = None if timeout is None else time.monotonic() + timeout
        self._size = 2 * load("_gate").gate().places if _calls.inside(wrapper) is None else 1
        self._fill()

    def _fill(self) -> None:
        while len(self._futures) < self._size:
            try:
                args = next(self._args)
            except StopIteration:
                return
            future = submit(self._wrapper, args, {})
            self._futures.append(future)
            if self._progress is not None:
                self._progress.watch(future)

    def take(self) -> concurrent.futures.Future[Any] | None:
        """The next future; None at the end."""
        if not self._futures:
            self.close()
            return None
        future = self._futures.popleft()
        self._fill()
        return future

    def left(self) -> float | None:
        """Seconds until the time of the whole is over."""
        return None if self._until is None else self._until - time.monotonic()

    def close(self) -> None:
        """End what still runs."""
        self._args = iter(())  # type: ignore[assignment]
        while self._futures:
            self._futures.pop().cancel()
        if self._progress is not None:
            self._progress.close()


def _shown(
    wrapper: Any, iterables: tuple[Iterable[Any], ...], progress: bool | str
) -> Progress | None:
    if not isinstance(progress, (bool, str)):
        raise TypeError(f"progress={progress!r} is neither True, False nor a label")
    if progress is False or _calls.inside(wrapper) is not None:
        return None
    from agentsbx._progress import Progress, total_of

    label = wrapper.__name__ if progress is True else progress
    return Progress(label, total_of(iterables))


class _Values(Iterator[Any]):
    """What `fn.map(...)` returns: values in order; abandoned or failed, it ends what still runs."""

    def __init__(self, ahead: _Ahead) -> None:
        self._ahead = ahead

    def __next__(self) -> Any:
        __tracebackhide__ = True
        future = self._ahead.take()
        if future is None:
            raise StopIteration
        try:
            return future.result(self._ahead.left())
        except BaseException:
            future.cancel()
            self._ahead.close()
            raise

    def close(self) -> None:
        """End what still runs."""
        self._ahead.close()

    def __del__(self) -> None:
        self._ahead.close()


class _AsyncValues(AsyncIterator[Any]):
    """The same for `async for`."""

    def __init__(self, ahead: _Ahead) -> None:
        self._ahead = ahead

    async def __anext__(self) -> Any:
        __tracebackhide__ = True
        future = self._ahead.take()
        if future is None:
            raise StopAsyncIteration
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._ahead.left())
        except BaseException:
            future.cancel()
            self._ahead.close()
            raise

    async def aclose(self) -> None:
        """End what still runs."""
        self._ahead.close()

    def __del__(self) -> None:
        self._ahead.close()


def map_calls(
    wrapper: Any,
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    progress: bool | str = False,
) -> Iterator[Any]:
    """`fn.map(...)` of a function."""
    return _Values(_Ahead(wrapper, iterables, timeout, progress))


def amap(
    wrapper: Any,
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    progress: bool | str = False,
) -> AsyncIterator[Any]:
    """`fn.map(...)` of an `async def` function."""
    return _AsyncValues(_Ahead(wrapper, iterables, timeout, progress))
