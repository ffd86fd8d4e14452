"""Host functions run for a job: arguments decoded and checked, calls counted and recorded.

Knows nothing of frames (`_bridge`), so that calls in this process (`_local_bridge`) use it too.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import reprlib
import sys
import time
from typing import TYPE_CHECKING, Any

from agentsbx import _await, _gate
from agentsbx._bridge_job import ERROR, GET, METHOD, VALUE
from agentsbx._bridge_offers import Offer, Offers, is_async
from agentsbx._codec import CodecLimits, decode
from agentsbx.errors import AgentsbxError, ResultError
from agentsbx.result import HostCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsbx._job import Cancel

__all__ = ["HostSide", "portable"]

MAX_DEPTH = 8  # host functions that call sandboxed ones that call host functions ...
BURST = 100  # calls at once before `host_rate` holds them back
MAX_SHOWN = 200
MAX_TEXT = 8192
_log = logging.getLogger("agentsbx.bridge")
_PLAIN = (int, float, bool, bytes, type(None))
_FLOW = (StopIteration, StopAsyncIteration)
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


class HostSide:
    """What one job may call, and what it has called. For the thread that serves it."""

    def __init__(
        self, offers: Offers, kept: dict[str, Any], cancel: Cancel | None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:  # fmt: skip
        self.offers, self._kept, self._cancel = offers, kept, cancel
        self.calls: list[HostCall] = []
        self.n_calls = 0
        self.last = 0  # number of the last call
        self._methods: dict[int, Offer] = {}
        self._tokens, self._filled = float(BURST), time.monotonic()
        self._loop = loop  # where async host functions run; None: that of who awaits, if any
        self._runner: asyncio.Runner | None = None
        self._depth = _gate.depth.get() + 1
        if self._depth > MAX_DEPTH:
            raise RecursionError(
                f"host functions and sandboxed functions call each other {MAX_DEPTH} levels deep"
            )

    @staticmethod
    def refuse_loop(name: str) -> None:
        """Raise RuntimeError where the loop that an async host function needs cannot run."""
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(
                f"host function {name} is async, and this thread's event loop waits for the call "
                "to end: call with `await fn.aio(...)`"
            )

    def close(self) -> None:
        """End the loop that async host functions of a plain call ran in."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def admit(self) -> tuple[int, Exception | None]:
        """Count a call; returns the nanoseconds that `host_rate` held it back, and a refusal."""
        self.n_calls += 1
        if self.n_calls <= self.offers.max_calls:
            return self._throttle(), None
        most = self.offers.max_calls
        return 0, RuntimeError(f"more than host_calls={most} calls of host functions")

    def _throttle(self) -> int:
        """Wait where calls come faster than `host_rate`; returns the nanoseconds."""
        now = time.monotonic()
        rate = self.offers.rate
        self._tokens = min(BURST, self._tokens + (now - self._filled) * rate) - 1
        self._filled = now
        if self._tokens >= 0:
            return 0
        time.sleep(-self._tokens / rate)
        return int((time.monotonic() - now) * 1e9)

    # -- one call --------------------------------------------------------------------------------

    def perform(
        self, index: int, what: int, packed: bytes, buffers: list[memoryview],
        error: Exception | None = None,
    ) -> tuple[int, Any]:  # fmt: skip
        """Run what is asked for: (VALUE, value), (METHOD, is async) or (ERROR, class and args)."""
        name, shown, start = self._name(index), "", time.monotonic()
        told: str | None = None
        try:
            if error is not None:
                raise error
            if what == GET:
                kind, value = self._get(index)
            else:
                offer = self._offer(index)
                args, kwargs = self._arguments(offer, packed, buffers)
                shown = _shown(args, kwargs)
                offer.check(args, kwargs)
                sys.audit("agentsbx.bridge", name, shown)
                kind, value = VALUE, self._run(name, offer.fn, args, kwargs)
        except Exception as raised:
            told = f"{type(raised).__name__}: {_text(raised)}"[:MAX_SHOWN]
            kind, value = ERROR, portable(raised)
        except BaseException as raised:
            self._note(name, shown, type(raised).__name__, start)
            raise
        self._note(name, shown, told, start)
        return kind, value

    def _note(self, name: str, shown: str, error: str | None, start: float) -> None:
        took = time.monotonic() - start
        if len(self.calls) < self.offers.max_calls:
            self.calls.append(HostCall(name=name, arguments=shown, error=error, duration_s=took))
        _log.info("%s(%s) %s in %.6f s", name, shown, error or "ok", took)

    def _name(self, index: int) -> str:
        n = len(self.offers.functions)
        if index < n:
            return self.offers.functions[index].name
        return ".".join(self.offers.exposed[index - n])

    def _offer(self, index: int) -> Offer:
        n = len(self.offers.functions)
        if index < n:
            return self.offers.functions[index]
        found = self._methods.get(index)
        if found is None:
            method = self._attribute(index)
            if not callable(method):
                raise TypeError(f"{self._name(index)} is not a method")
            found = self._methods[index] = Offer(self._name(index), method, self.offers.read)
        return found

    def _attribute(self, index: int) -> Any:
        parameter, attribute = self.offers.exposed[index - len(self.offers.functions)]
        if parameter not in self._kept:
            raise AttributeError(f"this call was given no {parameter}")
        return getattr(self._kept[parameter], attribute)

    def _get(self, index: int) -> tuple[int, Any]:
        sys.audit("agentsbx.bridge", self._name(index), "")
        value = self._attribute(index)
        return (METHOD, is_async(value)) if callable(value) else (VALUE, value)

    def _arguments(
        self, offer: Offer, packed: bytes, buffers: list[memoryview]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Decode what a job sent."""
        most = self.offers.max_bytes
        try:
            made = decode(
                packed, buffers, classes=offer.classes, annotation=offer.hint,
                limits=CodecLimits(most, most),
            )  # fmt: skip
        except ResultError as bad:
            words = str(bad).replace("the result", "an argument", 1)
            raise TypeError(f"{offer.name}(): {words}") from None
        if type(made) is not list or [type(part) for part in made] != [list, dict]:
            raise TypeError(f"{offer.name}(): no arguments came")
        args, kwargs = made
        if not all(type(key) is str for key in kwargs):
            raise TypeError(f"{offer.name}() keywords must be strings")
        return args, kwargs

    def _run(self, name: str, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        context = contextvars.copy_context()
        context.run(_gate.depth.set, self._depth)
        context.run(_await.calling_loop.set, None)
        value = context.run(fn, *args, **kwargs)
        if not inspect.isawaitable(value):
            return value
        return self._wait(name, value, context)

    def _wait(self, name: str, value: Any, context: contextvars.Context) -> Any:
        """Run an awaitable: in the loop of who awaits the call, else in a loop of our own."""
        cancel, loop = self._cancel, self._loop or _await.calling_loop.get()

        async def main() -> Any:
            if loop is None and cancel is not None:
                here, task = asyncio.get_running_loop(), asyncio.current_task()
                cancel.also(lambda: here.call_soon_threadsafe(task.cancel))  # type: ignore[union-attr]
            return await value

        try:
            if loop is None:
                self.refuse_loop(name)
                if self._runner is None:
                    self._runner = asyncio.Runner()
                return self._runner.run(main(), context=context)
            future = context.run(asyncio.run_coroutine_threadsafe, main(), loop)
            if cancel is not None:
                cancel.also(future.cancel)
            return future.result()
        except BaseException:
            if inspect.iscoroutine(value):
                value.close() if inspect.getcoroutinestate(value) == "CORO_CREATED" else None
            raise
        finally:
            if cancel is not None:
                cancel.also(None)


def portable(error: Exception) -> tuple[type, tuple[Any, ...]]:
    """Return class and arguments of an exception as a job gets them: plain data and nothing else.

    >>> portable(KeyError("a", object()))
    (<class 'KeyError'>, ('a', '<object>'))
    """
    kind: type = type(error)
    if isinstance(error, (AgentsbxError, ExceptionGroup, *_FLOW)) or not isinstance(kind, type):
        return RuntimeError, (f"{kind.__name__}: {_text(error)}",)
    args: tuple[Any, ...] = error.args
    if isinstance(error, OSError) and type(error).__reduce__ is OSError.__reduce__:
        args = tuple(error.__reduce__()[1])  # with its file names
    made = tuple(_plain(part) for part in args[:16])
    try:
        kind.__new__(kind, *made)
    except Exception:
        return RuntimeError, (f"{kind.__name__}: {_text(error)}",)
    return kind, made


def _plain(part: Any) -> Any:
    if type(part) is str:
        return part[:MAX_TEXT]
    if type(part) is bytes:
        return part[:MAX_TEXT]
    return part if type(part) in _PLAIN else f"<{type(part).__name__}>"


def _text(error: BaseException) -> str:
    try:
        return str(error)[:MAX_TEXT]
    except Exception:
        return "(its text cannot be made)"


def _shown(args: list[Any], kwargs: dict[str, Any]) -> str:
    """Return the arguments as a bounded text."""
    parts = [_clip(value) for value in args[:16]]
    parts += [f"{key}={_clip(value)}" for key, value in list(kwargs.items())[:16]]
    text = ", ".join(parts)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _clip(value: Any) -> str:
    try:
        return _short.repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
