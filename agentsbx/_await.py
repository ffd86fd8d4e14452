"""Blocking calls for asyncio: a few daemon threads of our own, and cancellation that kills.

Not the loop's default executor: its threads are few, shared with the user's DNS look-ups, and
joined at exit (a hanging call would hold the interpreter). A thread waits a while for the next
call, then ends; nothing starts at import.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Protocol, TypeVar

__all__ = ["Cancellable", "calling_loop", "each", "in_thread", "submit"]

IDLE_S = 10.0

T = TypeVar("T")
# The loop that waits for what this thread does (`in_thread`), for async host functions.
calling_loop: contextvars.ContextVar[asyncio.AbstractEventLoop | None] = contextvars.ContextVar(
    "agentsbx_calling_loop", default=None
)


class Cancellable(Protocol):
    """What stops the blocking call from another thread (`_runtime.Cancel`)."""

    def cancel(self) -> None:
        """Kill what runs, at once."""


class _Thread:
    """One daemon thread with an inbox of its own, so that hand-over wakes exactly one."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="agentsbx-call", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                task = self.inbox.get(timeout=IDLE_S)
            except queue.Empty:
                with _lock:
                    if self in _idle:
                        _idle.remove(self)
                        return
                # Taken from the list a moment ago: its task is on the way.
                task = self.inbox.get()
            task()
            del task  # holds the call's arguments
            with _lock:
                _idle.append(self)


_lock = threading.Lock()
_idle: list[_Thread] = []
on_fork: list[Callable[[], None]] = []  # run in a forked child, where no thread of ours is


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    _idle.clear()
    for reset in on_fork:
        reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def submit(task: Callable[[], None]) -> None:
    """Run `task` in one of our threads."""
    with _lock:
        thread = _idle.pop() if _idle else None
    (thread or _Thread()).inbox.put(task)


async def in_thread(call: Callable[[], T], cancel: Cancellable) -> T:
    """Run the blocking `call` in a thread with this task's context variables.

    Cancelling the task calls `cancel.cancel()`, waits until `call` has returned (the job is dead
    then, nothing of it runs on) and raises `CancelledError`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()
    context.run(calling_loop.set, loop)

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    def task() -> None:
        value: Any = None
        error: BaseException | None = None
        try:
            value = context.run(call)
        except StopIteration as stop:  # a Future refuses it
            error = RuntimeError(f"StopIteration from a sandboxed call: {stop.value!r}")
        except BaseException as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(settle, value, error)

    submit(task)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if future.done() and not future.cancelled():
            future.exception()  # mark as seen
            raise
        cancel.cancel()
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                cancel.cancel()
        future.exception()
        raise


async def each(items: Iterable[T]) -> AsyncIterator[T]:
    """Give the items of a plain iterable to `async for`."""
    for item in items:
        yield item
