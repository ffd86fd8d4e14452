"""One exchange with a session's interpreter: the conversation of `_job`, and displays."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx import _core, _displays, _header, _transfer
from agentsbx._job import SHORT_MS, Exchange
from agentsbx._python_result import Display
from agentsbx._reply import Reply
from agentsbx._wire import BUFFER_ALIGN, NO_LIMIT, Cause, Event, Frame

if TYPE_CHECKING:
    from agentsbx._codec import CodecLimits
    from agentsbx.result import Limit

__all__ = ["Talk", "tidy"]

MAX_STRAYS = 1000  # frames and reads between two cells
MAX_BACKGROUND = 1 << 20  # bytes printed between two cells that are kept
_ANSWERS = (Frame.RESULT, Frame.ERROR)
_REAPERS = (Frame.SIGNAL, Frame.EXITED, Frame.FAILED)  # words of a first process
_SAID_LATE = (Frame.NOTE, Frame.DISPLAY)  # by threads that go on


class _NoModules:
    """Project modules are served to calls, never to cells (semantics 1.3)."""

    def module_reply(self, name: str) -> tuple[bytes, list[Any]]:
        return b"N", []


class Talk(Exchange):
    """One cell or call. `stream` serves the call's modules; a cell has none, but may show."""

    def __init__(
        self, live: Any, reply: Reply, timeout_s: float, limits: CodecLimits, stream: Any = None
    ) -> None:
        super().__init__(
            live, live, timeout_s=timeout_s, max_result=limits.body_bytes + limits.buffer_bytes,
            reply=reply, stream=stream or _NoModules(), notes=lambda body: None,
        )  # fmt: skip
        self.is_cell = stream is None
        self.timeout_s = timeout_s
        self.displays: list[Display] = []
        self.displays_dropped = 0
        self._left = limits.body_bytes

    def table(self, limits: Mapping[str, Limit]) -> dict[str, Limit]:
        """Return the limits with the time that this exchange had."""
        asked = msgspec.structs.replace(limits["timeout"], asked=self.timeout_s)
        return {**limits, "timeout": asked}

    def begin_with(self, kind: int, body: bytes) -> bool:
        """Send a small request and wait a moment; True if that was all, or it is gone."""
        box = self.box
        got = _core.exchange(box.channel, box.out, box.err, kind, body, SHORT_MS)
        return self.go_on_with(got)

    def go_on_with(self, got: tuple[Any, ...]) -> bool:
        """Go on with what `_core.exchange` gave; True if that was all, or it is gone."""
        return got[0] == Event.NOT_SENT or self.resume(got)

    def start_at(self, start_ns: int) -> None:
        """It was sent then."""
        if self.deadline_ns != NO_LIMIT:
            self.deadline_ns += start_ns - self.start_ns
        self.start_ns = start_ns

    def _patience_ms(self) -> int:
        """No longer than to the deadline: it is the host itself that acts on it."""
        if self.deadline_ns == NO_LIMIT:
            return -1
        return max(0, -((time.monotonic_ns() - self.deadline_ns) // 1_000_000))

    def _end_in_time(self) -> None:
        """Kill what is late: one that sends and sends is never silent long enough to be noticed."""
        if not self.reply.timed_out and time.monotonic_ns() > self.deadline_ns:
            self.reply.timed_out = True
            self.sup.kill(self.box.job_id, Cause.TIMEOUT)

    def _output(self, which: str, data: bytes) -> None:
        self._end_in_time()
        super()._output(which, data)

    def _frame(self, kind: int, body: bytes, memfd: int, n_body: int, n_memfd: int) -> bool:
        if kind not in _ANSWERS:
            self._end_in_time()
        if kind == Frame.DISPLAY:
            return self._display(body, memfd, n_body, n_memfd)
        if kind == Frame.ENDED and self.is_cell and memfd < 0 and len(body) == 4:
            self.reply.kind, self.reply.body = kind, body
            return True
        if kind in _REAPERS:
            self.reply.is_malformed = f"frame of kind {kind}"
        return super()._frame(kind, body, memfd, n_body, n_memfd)

    def _close(self, memfd: int) -> None:
        os.close(memfd)

    def _display(self, body: bytes, memfd: int, n_body: int, n_memfd: int) -> bool:
        """Take one display within the bounds; True if it is not fit to go on with."""
        size = n_memfd if memfd >= 0 else len(body)
        try:
            if not self.is_cell or len(self.displays) >= _displays.MAX_DISPLAYS:
                self.displays_dropped += 1
                return False
            if size > self._left + BUFFER_ALIGN:
                self.displays_dropped += 1
                return False
            self._left -= size
            whole = memoryview(body)
            if memfd >= 0:
                whole = _transfer.map_hostile(memfd, n_memfd, size)[:n_body]
            is_result, data = _displays.unpack(_header.unpack_result(whole)[0])
            self.displays.append(Display(data=data, is_result=is_result))
        except ValueError as error:
            self.reply.is_malformed = str(error)
            return True
        finally:
            if memfd >= 0:
                os.close(memfd)
        return False


def tidy(live: Any) -> bytes | None:
    """Take what came since the last answer; None: it is dead, or has sent what it never may."""
    background = bytearray()
    for _ in range(MAX_STRAYS):
        event, kind, body, memfd, _, _ = _core.wait_frame(live.channel, live.out, live.err, 0)
        if memfd >= 0:
            os.close(memfd)
        if event == Event.TIMEOUT:
            return bytes(background[:MAX_BACKGROUND])
        if event == Event.CLOSED or (event == Event.FRAME and kind not in _SAID_LATE):
            return None
        if event != Event.FRAME:
            if not body:  # nobody can print any more
                live.close_stream("out" if event == Event.STDOUT else "err")
            background += body
            del background[2 * MAX_BACKGROUND :]
    return bytes(background[:MAX_BACKGROUND])
