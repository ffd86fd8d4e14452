"""The bridge: host functions that a job may call by name, run here, bounded and recorded.

What a job asks is hostile until it is checked: the frame is bounded before it is read, arguments
are decoded by the codec of results, bound to the signature, compared with the annotations. What
the host answers is shipped as arguments are. While a host function runs, the job's `timeout` stands
still: the time is the host's. The host's exceptions cross as class and plain arguments, without
traceback, attributes or chain; its control flow (Ctrl-C, cancellation) never crosses, it ends the
job.
"""

from __future__ import annotations

import builtins
import errno
import os
from typing import TYPE_CHECKING, Any

from agentsbx import _header, _transfer
from agentsbx._bridge_job import CALL, ERROR, GET, HEAD
from agentsbx._bridge_run import HostSide, portable
from agentsbx._codec_encode import is_plain_data
from agentsbx._job import NO_CACHE, is_gone, send_body, unpacked
from agentsbx._wire import Frame

if TYPE_CHECKING:
    from agentsbx._job import Exchange

__all__ = ["Bridge"]

MAX_REFUSED = 1000  # calls beyond `host_calls` that are answered at all


class Bridge(HostSide):
    """The frames of one job's host calls."""

    def serve(self, exchange: Exchange, body: bytes, memfd: int, n_body: int, n_memfd: int) -> bool:
        """Handle a HOST_CALL frame; True if the job shall not go on."""
        reply = exchange.reply
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
        if number <= self.last:
            raise ValueError("one that was made before")
        if index >= n + len(self.offers.exposed) or what not in (CALL, GET):
            raise ValueError("of nothing that is offered")
        if what == GET and index < n:
            raise ValueError("of nothing that is offered")
        self.last = number
        return number, index, what

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
                blob, buffers = stream.pickle_more((number, kind, value), what, most, value)
            except Exception as error:
                kind_of = ValueError if type(error) is ValueError else TypeError
                words = portable(kind_of(str(error)))
                blob, buffers = stream.pickle_error(number, ERROR, words)
        views = [memoryview(b).cast("B") for b in buffers]
        return _header.pack_answer(blob, [v.nbytes for v in views], None), views


def _is_builtin(kind: type) -> bool:
    return vars(builtins).get(kind.__name__) is kind
