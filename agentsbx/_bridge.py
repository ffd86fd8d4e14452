"""The bridge: host functions that a job may call by name, run here, bounded and recorded.

What a job asks is hostile until it is checked: the frame is bounded before it is read, arguments
are decoded by the codec of results, bound to the signature, compared with the annotations. What
the host answers is shipped as arguments are. While a host function runs, the job's `timeout` stands
still: the time is the host's. The host's exceptions cross as class and plain arguments, without
traceback, attributes or chain; its control flow (Ctrl-C, cancellation) never crosses, it ends the
job.
"""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import errno
import inspect
import logging
import os
import reprlib
import sys
import time
from typing import TYPE_CHECKING, Any

from agentsbx import _await, _gate, _header, _transfer
from agentsbx._bridge_job import CALL, ERROR, GET, HEAD, METHOD, VALUE
from agentsbx._bridge_offers import Offer, Offers, is_async
from agentsbx._codec import CodecLimits, decode
from agentsbx._codec_encode import is_plain_data
from agentsbx._job import NO_CACHE, is_gone, send_body, unpacked
from agentsbx._wire import Frame
from agentsbx.errors import AgentsbxError, ResultError
from agentsbx.result import HostCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsbx._job import Cancel, Exchange

__all__ = ["Bridge", "portable"]

MAX_DEPTH = 8  # host functions that call sandboxed ones that call host functions ...
MAX_REFUSED = 1000  # calls beyond `host_calls` that are answered at all
BURST = 100  # calls at once before `host_rate` holds them back
MAX_SHOWN = 200
MAX_TEXT = 8192
_log = logging.getLogger("agentsbx.bridge")
_PLAIN = (int, float, bool, bytes, type(None))
_FLOW = (StopIteration, StopAsyncIteration)
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


class Bridge:
    """What one job may call, and what it has called. For the thread that serves the job."""

    def __init__(
        self, offers: Offers, kept: dict[str, Any], cancel: Cancel | None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:  # fmt: skip
        self.offers, self._kept, self._cancel = offers, kept, cancel
        self.calls: list[HostCall] = []
        self.n_calls = 0
        self._last = 0
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

    # -- one frame -------------------------------------------------------------------------------

    def serve(self, exchange: Exchange, body: bytes, memfd: int, n_body: int, n_memfd: int) -> bool:
        """Handle a HOST_CALL frame; True if the job shall not go on."""
        reply = exchange.reply
        reply.served += 1
        if exchange.is_late():
            if memfd >= 0:
                os.close(memfd)
            return True
        began = exchange.pause()
        head: tuple[int, int, int] | None = None
        packed: Any = b""
        buffers: list[memoryview] = []
        error: Exception | None = None
        try:
            most = self.offers.max_bytes
            packed, buffers, _ = unpacked(exchange, body, memfd, n_body, n_memfd, most + 4096)
            head = self._head(packed)
            if len(packed) - HEAD.size + sum(b.nbytes for b in buffers) > most:
                error = ValueError(f"the arguments are larger than host_bytes={most}")
        except _transfer.TooBig:
            reply.is_malformed = f"arguments of a host call far beyond host_bytes={most}"
        except ValueError as bad:
            reply.is_malformed = f"a host call: {bad}"
        finally:
            if memfd >= 0:
                os.close(memfd)
        if head is None:
            return True
        number, index, what = head
        if self.n_calls >= self.offers.max_calls + MAX_REFUSED:
            reply.is_malformed = f"host calls far beyond host_calls={self.offers.max_calls}"
            return True
        waited, refused = self.admit()
        began += waited
        error = refused or error
        kind, value = self.perform(index, what, packed[HEAD.size :], buffers, error)
        exchange.go(began)
        return self._answer(exchange, number, kind, value)

    def _head(self, packed: bytes) -> tuple[int, int, int]:
        if len(packed) < HEAD.size + 2:
            raise ValueError("too short")
        number, index, what = HEAD.unpack_from(packed)
        n = len(self.offers.functions)
        if number <= self._last:
            raise ValueError("one that was made before")
        if index >= n + len(self.offers.exposed) or what not in (CALL, GET):
            raise ValueError("of nothing that is offered")
        if what == GET and index < n:
            raise ValueError("of nothing that is offered")
        self._last = number
        return number, index, what

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

    def _answer(self, exchange: Exchange, number: int, kind: int, value: Any) -> bool:
        packed, views = self._packed(exchange.stream, number, kind, value)
        try:
            arena = send_body(exchange.box, Frame.HOST_ANSWER, packed, views, NO_CACHE)
        except OSError as e:
            if is_gone(e):
                return True  # it died meanwhile: the supervisor's record says why
            if e.errno != errno.EAGAIN:
                raise
            exchange.reply.is_malformed = "host calls whose answers it does not read"
            return True
        if arena is not None:
            arena.close()
        return False

    def _packed(
        self, stream: Any, number: int, kind: int, value: Any
    ) -> tuple[bytes, list[memoryview]]:
        """Pickle an answer: plain data by itself, else in the pickle of the call."""
        most = self.offers.max_bytes
        is_plain = is_plain_data(value) if kind != ERROR else _is_builtin(value[0])
        if is_plain:
            packed = _header.pack_answer(b"", [], (number, kind, value))
            if len(packed) <= most + 256:
                return packed, []
            value = ValueError, (f"the answer is larger than host_bytes={most}",)
            return _header.pack_answer(b"", [], (number, ERROR, value)), []
        if kind == ERROR:
            blob, buffers = stream.pickle_error(number, kind, value)
        else:
            what = f"what {self.calls[-1].name}() returned" if self.calls else "the answer"
            try:
                blob, buffers = stream.pickle_more((number, kind, value), what, most)
            except Exception as error:
                kind_of = ValueError if type(error) is ValueError else TypeError
                words = portable(kind_of(str(error)))
                blob, buffers = stream.pickle_error(number, ERROR, words)
        views = [memoryview(b).cast("B") for b in buffers]
        return _header.pack_answer(blob, [v.nbytes for v in views], None), views

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


def _is_builtin(kind: type) -> bool:
    return vars(builtins).get(kind.__name__) is kind


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
