"""Calls of sandboxed functions in this very process, for tests (`agentsbx.testing.local`).

Nothing is enforced. What would not cross is refused as ever: a snapshot of the function is taken,
the arguments are copied by the pickler of shipping, value and errors go through the codec with the
classes of the call. Needs no compiled part and no Linux.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx import _nested, _notices, _seeds, _ship
from agentsbx._await import each, in_thread
from agentsbx._bridge_offers import offers_of
from agentsbx._codec import (
    ClassTable,
    CodecLimits,
    decode,
    decode_exception,
    encode,
    encode_exception,
)
from agentsbx._explain_limits import explain_limit, limit_table
from agentsbx._host import hidden_env
from agentsbx._kinds import Kind, annotations_of
from agentsbx._local_bridge import LocalBridge
from agentsbx._local_output import Kept, kept_output
from agentsbx._signature import bind_call, evaluated_signature, return_annotation
from agentsbx.result import Exit, Result, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentsbx.policy import Policy

__all__ = ["acollect", "astream", "collect", "inside", "invoke", "invoke_async", "stream"]

_ENFORCED = {"nothing": "agentsbx.testing.local() ran it in this process"}
# The policy of the call that runs here, for those that it makes itself (rule 5.6).
_policy: contextvars.ContextVar[Policy | None] = contextvars.ContextVar(
    "agentsbx_local_policy", default=None
)


def inside(wrapper: Any) -> Callable[..., Any] | None:
    """Within a local call: the function to run right there, if that policy is strict enough.

    Raises `PolicyError` naming the difference where it is not, as in a job.
    """
    current = _policy.get()
    if current is None:
        return None
    _nested.check(current, wrapper.__agentsbx_site__.policy, wrapper)
    fn: Callable[..., Any] = wrapper.__wrapped__
    return fn


def invoke(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    """Run one call here; raises only what comes before user code (and Ctrl-C)."""
    call = _Call(wrapper, args, kwargs)
    call.refuse_loop()
    with call.running():
        try:
            value = call.fn(*call.args, **call.kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return call.failed(error)
        return call.returned(value)


async def invoke_async(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    """Run one call here: an `async` function in this task, any other in a thread."""
    call = _Call(wrapper, args, kwargs, asyncio.get_running_loop())
    with call.running():
        try:
            if call.kind.is_async:
                value = await call.fn(*call.args, **call.kwargs)
            else:
                value = await in_thread(lambda: call.fn(*call.args, **call.kwargs), _NoCancel())
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            return call.failed(error)
        return call.returned(value)


def stream(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the generator of a call that runs here; items are copies, as from a sandbox."""
    call = _Call(wrapper, args, kwargs)
    generator = _items(call)
    generator.__name__, generator.__qualname__ = wrapper.__name__, wrapper.__qualname__
    return generator


def _items(call: _Call) -> Any:
    generator = call.fn(*call.args, **call.kwargs)
    step, thrown = functools.partial(next, generator), None
    while True:
        try:
            with call.running():
                item = step()
            value = call.item(item)
        except StopIteration as stop:
            return call.returned(stop.value).unwrap()
        except BaseException as error:
            if error is thrown or isinstance(error, KeyboardInterrupt):
                raise
            return call.failed(error).unwrap()
        try:
            sent = yield value
            thrown = None
            step = functools.partial(generator.send, sent)
        except GeneratorExit:
            with call.running():
                generator.close()
            raise
        except BaseException as error:
            thrown = error
            step = functools.partial(generator.throw, error)


def astream(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the async generator of a call that runs here."""
    if not wrapper.__agentsbx_site__.kind.is_async:
        return each(stream(wrapper, args, kwargs))
    return _aitems(wrapper, args, kwargs)


async def _aitems(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    call = _Call(wrapper, args, kwargs, asyncio.get_running_loop())
    generator = call.fn(*call.args, **call.kwargs)
    step, thrown = functools.partial(anext, generator), None
    while True:
        try:
            with call.running():
                item = await step()
            value = call.item(item)
        except StopAsyncIteration:
            return
        except BaseException as error:
            if error is thrown or isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
                raise
            call.failed(error).unwrap()
            return
        try:
            sent = yield value
            thrown = None
            step = functools.partial(generator.asend, sent)
        except GeneratorExit:
            with call.running():
                await generator.aclose()
            raise
        except BaseException as error:
            thrown = error
            step = functools.partial(generator.athrow, error)


def collect(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    """`fn.run(...)` of a generator function: the list of its items."""
    call = _Call(wrapper, args, kwargs)
    with call.running():
        try:
            items = [call.item(item) for item in call.fn(*call.args, **call.kwargs)]
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return call.failed(error)
    return msgspec.structs.replace(call.returned(None), value=items)


async def acollect(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    """The same for an async generator function, in this task."""
    if not wrapper.__agentsbx_site__.kind.is_async:
        return collect(wrapper, args, kwargs)
    call = _Call(wrapper, args, kwargs)
    with call.running():
        try:
            items = [call.item(item) async for item in call.fn(*call.args, **call.kwargs)]
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise
        except BaseException as error:
            return call.failed(error)
    return msgspec.structs.replace(call.returned(None), value=items)


class _NoCancel:
    """Nothing kills a thread of this process: a cancelled task waits for it."""

    def cancel(self) -> None:
        pass


class _Call:
    """One call: checked and copied by its constructor, `running` around it, then its `Result`."""

    def __init__(
        self, wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:  # fmt: skip
        site = wrapper.__agentsbx_site__
        self.fn = fn = wrapper.__wrapped__
        bind_call(fn, args, kwargs)
        self.kind: Kind = site.kind
        self.policy: Policy = site.policy
        self._options: dict[str, Any] = site.options
        offers = offers_of(fn, self._options, evaluated_signature)
        if offers is not None:
            args, kwargs, kept = offers.keep(args, kwargs)
        self._snapshot = _ship.take_snapshot(
            fn,
            captures=self._options.get("captures"),
            hidden_env=hidden_env(self.policy),
            wrapper_reducer=_nested.reduce,
            offers=offers,
        )
        self.args, self.kwargs = self._snapshot.copy_call(args, kwargs)
        self._host: LocalBridge | None = None
        if offers is not None:
            host = self._host = LocalBridge(offers, kept, loop)
            host.snapshot = self._snapshot
            self.fn = offers.local(fn, host.ask)
            self.args = tuple(offers.stubbed(value, host.ask) for value in self.args)
            self.kwargs = {k: offers.stubbed(v, host.ask) for k, v in self.kwargs.items()}
        annotation = return_annotation(fn)
        self._item: Any = None
        self._annotation = annotation
        if self.kind.streams:
            self._item, self._annotation = annotations_of(annotation)
        self._classes = ClassTable.build(
            annotation=annotation, args=args, kwargs=kwargs,
            exceptions=self._options.get("raises", ()),
            globals_exceptions=self._snapshot.exceptions,
        )  # fmt: skip
        self._limits = CodecLimits.of(self.policy.limits)
        self._kept: tuple[Kept, Kept] | None = None
        self._start = time.monotonic()

    def refuse_loop(self) -> None:
        """Raise where an async host function of a plain call could not run."""
        if self._host is not None and self._host.bridge.offers.name_async:
            self._host.bridge.refuse_loop(self._host.bridge.offers.name_async)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Be what a call that is made now runs in."""
        token = _policy.set(self.policy)
        try:
            with (
                _seeded(self._options.get("seed")),
                kept_output(
                    self._options.get("output", "forward"), self._options.get("on_output")
                ) as self._kept,
            ):
                yield
        finally:
            _policy.reset(token)

    def returned(self, value: Any) -> Result:
        """Return the result of a call whose body came to its end."""
        try:
            body, buffers = encode(value, limits=self._limits)
        except Exception as error:
            which = getattr(error, "limit", None)
            if which not in ("result", "buffers"):
                return self.failed(error)
            which = self._limits.keyword(which, self.policy.limits)
            table = limit_table(self.policy.limits, {}, self._usage())
            return self._result(error=explain_limit(which, table, self._usage())[0])
        try:
            made = decode(
                body, _own(buffers), classes=self._classes, annotation=self._annotation,
                limits=self._limits,
            )  # fmt: skip
        except Exception as error:
            return self._result(error=error)
        return self._result(value=made)

    def item(self, value: Any) -> Any:
        """Return one item of a generator as it would arrive."""
        body, buffers = encode(value, limits=self._limits)
        return decode(
            body, _own(buffers), classes=self._classes, annotation=self._item, limits=self._limits
        )

    def failed(self, error: BaseException) -> Result:
        """Return the result of a call whose body raised."""
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next  # our own frames say nothing to the user
        error.__traceback__ = trace
        body, buffers = encode_exception(error, limits=self._limits)
        try:
            made = decode_exception(body, _own(buffers), classes=self._classes, limits=self._limits)
        except Exception as refused:
            return self._result(error=refused)
        return self._result(error=made)

    def _usage(self) -> Usage:
        return Usage(wall_s=time.monotonic() - self._start)

    def _result(self, value: Any = None, error: BaseException | None = None) -> Result:
        if self._host is not None:
            self._host.bridge.close()
        self._warn_changed()
        out, err = self._kept or (Kept(None, "stdout"), Kept(None, "stderr"))
        return Result(
            value=value, error=error, stdout=bytes(out.data), stderr=bytes(err.data),
            host_calls=tuple(self._host.bridge.calls) if self._host is not None else (),
            usage=self._usage(), enforced=dict(_ENFORCED), exit=Exit(code=0 if not error else 1),
        )  # fmt: skip

    def _warn_changed(self) -> None:
        """Say what a sandbox would not have brought back: here it happened for real."""
        name = self._snapshot.first_change()
        if name is not None:
            _notices.warn_at(
                getattr(self.fn, "__code__", None),
                f"{getattr(self.fn, '__qualname__', self.fn)} changed {name!r}, which it captured: "
                "what a sandboxed call does to it does not come back",
            )


def _own(buffers: list[memoryview]) -> list[memoryview]:
    """Return copies: a job's memory is not the host's."""
    return [memoryview(bytearray(b)) for b in buffers]


_STATES = {
    "random": ("getstate", "setstate"),
    "numpy.random": ("get_state", "set_state"),
    "torch": ("get_rng_state", "set_rng_state"),
}


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """`seed=`: the global generators that are loaded start from it, and go on as before after."""
    before = []
    if seed is not None:
        import random  # noqa: F401 - loaded for the table

        for name, (get, put) in _STATES.items():
            module = sys.modules.get(name)
            if module is not None:
                before.append((getattr(module, put), getattr(module, get)()))
        _seeds.reseed(seed)
    try:
        yield
    finally:
        for put_back, state in before:
            put_back(state)
