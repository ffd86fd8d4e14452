"""A generator that runs in a job, from the host's side: what `yield from` needs.

One sandbox from the first item to the last, made when the first is asked for. While the consumer
holds an item the generator's body stands still, and so does `timeout` (semantics 5.1). The sandbox
dies with the generator: at once where that is abandoned, after its `finally` blocks where it is
closed.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx import _engine, _generator, _header, _runtime, _settle
from agentsbx._codec import decode
from agentsbx._codec_decode import NOT_PLAIN, decode_plain
from agentsbx._job import Cancel, NotSent
from agentsbx._kinds import annotations_of
from agentsbx._supervisor import SupervisorGone
from agentsbx._wire import ExitRecord, Frame
from agentsbx.errors import ResultError
from agentsbx.result import Result

if TYPE_CHECKING:
    from agentsbx._runtime import CallSite, Ready

__all__ = ["Stream", "collect"]


class Stream:
    """One call of a generator function; `next`, `send`, `throw`, `close` as a generator has them.

    For one thread at a time (the generator around it sees to that). `kill` may come from anywhere.
    """

    def __init__(
        self, site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any], *, detail: bool = False
    ) -> None:
        self.detail = detail  # whether usage and limits are wanted
        self._rt: _engine.Runtime | None = None
        self.around: weakref.ref[Any] | None = None  # the generator that the consumer holds
        self._reply = _runtime.reply_to(site, site.looks_for(detail))
        self._reply.is_stream = True
        self.cancel = Cancel()
        if site.offers is not None:
            opened = _runtime.open_bridge(site, args, kwargs, self.cancel)
            self._reply.bridge, args, kwargs = opened
        self._site, self._args, self._kwargs = site, args, kwargs
        self._call: Ready | None = None
        self._talk: _engine.Conversation | None = None
        self._sent: Any = None  # memory that the job may still read
        self._item, self._returned = annotations_of(site.annotation)
        self.result: Result | None = None  # when it has ended

    # -- what `yield from` calls -----------------------------------------------------------------

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        return self._step(_generator.NEXT, None)

    def send(self, value: Any) -> Any:
        """Resume it with the value of its `yield`."""
        return self._step(_generator.SEND, value)

    def throw(self, error: Any, value: Any = None, _traceback: Any = None) -> Any:
        """Raise an exception at its `yield`; also in the old form of three arguments."""
        if not isinstance(error, BaseException):
            made = value is None or isinstance(value, error)
            error = (value or error()) if made else error(value)
        return self._step(_generator.THROW, error)

    def close(self) -> None:
        """Let it run its `finally` blocks (within what is left of `timeout`), then end it.

        A generator that nobody holds any more is not asked: its sandbox dies now.
        """
        if self._talk is None or self.is_abandoned():
            self.kill()
            return
        try:
            done, _ = self.advance(_generator.CLOSE, None)
        finally:
            self.kill()
        if not done:
            raise RuntimeError("generator ignored GeneratorExit")

    def is_abandoned(self) -> bool:
        """Whether the generator around this is being collected.

        Its weak references are cleared before it is closed for the last time.
        """
        return self.around is not None and self.around() is None

    def kill(self) -> None:
        """End its sandbox now. Idempotent."""
        if self._reply.bridge is not None:
            self._reply.bridge.close()
        talk, self._talk = self._talk, None
        if talk is not None and self._call is not None:
            talk.abort(self._call.watch)

    # -- one step --------------------------------------------------------------------------------

    def _step(self, word: int, value: Any) -> Any:
        __tracebackhide__ = True
        done, got = self.advance(word, value)
        if done:
            raise StopIteration(got)
        return got

    def advance(self, word: int, value: Any) -> tuple[bool, Any]:
        """Do one step: (False, item) or (True, what it returned); raises what its body raises."""
        __tracebackhide__ = True
        try:
            if self._talk is None:
                self._begin()
            else:
                self._go_on(word, value)
            if self._reply.kind == Frame.YIELD and not self._reply.is_malformed:
                return False, self._take()
            if word == _generator.THROW and self._is_same():
                raise value
            result = self._settle()
        except BaseException as error:
            self.kill()
            if isinstance(error, OSError) and error is not value:
                _engine.reraise(error)
            raise
        if result.error is None:
            return True, result.value
        raise result.error

    def _begin(self) -> None:
        rt = self._rt = _engine.current()
        for call in _runtime.attempts(rt, self._site, self._args, self._kwargs, self._reply):
            talk = _engine.Conversation(rt, call.box, call.exchange, self.cancel)
            try:
                talk.send(call.body, call.views)
            except NotSent:
                talk.abort(None)
                continue
            except BaseException:
                talk.abort(call.watch)
                raise
            self._call, self._talk = call, talk
            return

    def _go_on(self, word: int, value: Any) -> None:
        assert self._call is not None
        blob: bytes = b""
        buffers: list[Any] = []
        if word in (_generator.SEND, _generator.THROW):
            blob, buffers = self._call.stream.pickle_more(value)
        views = [memoryview(b).cast("B") for b in buffers]
        body = _header.pack_resume(word, blob, [v.nbytes for v in views])
        self._sent = self._call.exchange.go_on(body, views)

    def _take(self) -> Any:
        """Decode the item; the clock stands still from here."""
        call, reply, site = self._call, self._reply, self._site
        assert call is not None
        call.exchange.hold()
        value = decode_plain(reply.body, site.codec_limits) if not reply.buffers else NOT_PLAIN
        if value is not NOT_PLAIN:
            return value
        classes = site.classes(call.snapshot, self._args, self._kwargs, self._item)
        try:
            return decode(
                reply.body, reply.buffers, classes=classes, annotation=self._item,
                limits=site.codec_limits,
            )  # fmt: skip
        except ResultError as error:  # the job's own fault
            self.result = Result(error=error)
            raise

    def _is_same(self) -> bool:
        """Whether the job says that it let pass what it was thrown."""
        return self._reply.kind == Frame.ERROR and not self._reply.body

    def _settle(self) -> Result:
        """It has ended: make the result."""
        call, talk, site = self._call, self._talk, self._site
        assert call is not None
        assert talk is not None
        detail = self.detail or call.watch is not None or site.policy.strict_violations
        self._reply.out.finish()
        self._reply.err.finish()
        self._talk = None
        if self._reply.bridge is not None:
            self._reply.bridge.close()
        talk.end(detail)
        try:
            record = talk.record(detail)
        except SupervisorGone:
            record = ExitRecord.lost(talk.job_id)
        self.result = _settle.settle(
            site, call.stream, call.pool, self._reply, record, self._args, self._kwargs,
            call.watch, detail, self._returned,
        )  # fmt: skip
        if site.policy.fresh and self._rt is not None:
            self._rt.pools.forget_template(call.pool.template_id)
        return self.result


def collect(stream: Stream) -> Result:
    """Run it to its end: the `Result` whose value is the list of its items.

    Raises only what comes before user code.
    """
    items: list[Any] = []
    try:
        done, got = stream.advance(_generator.NEXT, None)
        while not done:
            items.append(got)
            done, got = stream.advance(_generator.NEXT, None)
    except BaseException:
        if stream.result is None:
            raise
    result = stream.result
    assert result is not None
    return result if result.error is not None else msgspec.structs.replace(result, value=items)
