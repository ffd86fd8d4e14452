"""One call, from the host's side: send it, serve it, collect what comes back.

Host process only. Everything that a job sends is bounded before it is looked at; what does not
parse ends the job. Nothing here makes words: `_outcome` does.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agentsbx import _arena, _core, _header, _transfer
from agentsbx._boxes import Box
from agentsbx._reply import Reply
from agentsbx._supervisor import Supervisor
from agentsbx._wire import FRAME_INLINE, NO_LIMIT, Cause, Event, Frame

# A call that answers within this time never tells the supervisor that it started: one wake-up less.
SHORT_MS = 3
MAX_IMPORTS = 20_000  # module requests of one call
MAX_DENIALS = 4096  # frames of one traced run that are kept
LATE_S = 2.0  # how long after a deadline the host still waits for the supervisor to act on it


_REAPER = (Frame.FAILED, Frame.SIGNAL, Frame.EXITED)
_ANSWERS = (Frame.RESULT, Frame.ERROR, Frame.EXITED, Frame.HOST_CALL)  # or what bounds itself


class Stream(Protocol):
    """What serves a job's requests for project modules (`_ship.CallStream`)."""

    def module_reply(self, name: str) -> tuple[bytes, list[Any]]:
        """Answer one import."""


class Cancel:
    """A handle that kills one call's whole process tree from any thread.

    >>> c = Cancel()
    >>> c.cancel(); c.cancelled
    True
    """

    def __init__(self) -> None:
        self.cancelled = False
        self._kill: Callable[[], None] | None = None
        self._also: Callable[[], object] | None = None

    def cancel(self) -> None:
        """Kill it now, or as soon as it starts. Idempotent."""
        self.cancelled = True
        kill = self._kill
        if kill is not None:
            kill()
        also = self._also
        if also is not None:
            also()

    def also(self, end: Callable[[], object] | None) -> None:
        """Bridge: what cancelling ends besides, a host function that runs for the call."""
        self._also = end
        if self.cancelled and end is not None:
            end()

    def arm(self, kill: Callable[[], None] | None) -> None:
        """Runtime: what cancelling does from now on."""
        self._kill = kill
        if self.cancelled and kill is not None:
            kill()


class NotSent(Exception):
    """The waiting sandbox had died before the call reached it: no user code ran."""


def send_body(
    box: Box, kind: int, body: bytes, buffers: Sequence[memoryview], arenas: _arena.ArenaCache
) -> _arena.Arena | None:
    """Send a body with its buffers; returns the arena that the job may still read."""
    if not buffers and len(body) <= FRAME_INLINE:
        _core.send_frame(box.channel, kind, body)
        return None
    size = _transfer.total_size(len(body), [b.nbytes for b in buffers])
    if size >= _arena.ARENA_MIN:
        arena = arenas.get(size)
        arena.fill(body, buffers)
        # The job maps what was announced, not what the arena could hold.
        _core.send_frame(box.channel, kind, b"", (arena.fd,), len(body), size)
        return arena
    fd, size = _transfer.write_memfd("args", body, buffers, _transfer.HOST_SEALS)
    try:
        _core.send_frame(box.channel, kind, b"", (fd,), len(body), size)
    finally:
        os.close(fd)
    return None


class Exchange:
    """The conversation with one running job until its last frame."""

    def __init__(
        self,
        sup: Supervisor,
        box: Box,
        *,
        timeout_s: float,
        max_result: int,
        reply: Reply,
        stream: Stream | None,
        notes: Callable[[bytes], None] | None = None,
    ) -> None:
        self.sup, self.box, self.reply, self.stream = sup, box, reply, stream
        self.notes = notes  # takes one NOTE; what it is worth stands in `reply`
        self.max_result = max_result
        self.is_started = False
        self.begun: tuple[Any, ...] | None = None  # what the quick way of a call has got
        self.was_held = False
        self.left_ns = NO_LIMIT
        self.parts = bytearray()
        self.start_ns = time.monotonic_ns()
        self.deadline_ns = NO_LIMIT if timeout_s < 0 else self.start_ns + int(timeout_s * 1e9)

    def begin(self, body: bytes) -> bool:
        """Send an inline CALL and wait a moment; True if that was the whole call.

        OSError(EPIPE) if the waiting sandbox had died.
        """
        box = self.box
        got = _core.exchange(box.channel, box.out, box.err, Frame.CALL, body, SHORT_MS, box.fds)
        return self.resume(got)

    def resume(self, got: tuple[Any, ...]) -> bool:
        """Go on with what `_core.exchange` gave; True if that was the whole call."""
        event, kind, data, memfd, n_body, n_memfd, said, cried = got
        if event == Event.NOT_SENT:
            raise NotSent
        if said:
            self._output("out", said)
        if cried:
            self._output("err", cried)
        if event == Event.CLOSED:
            return True
        return event == Event.FRAME and self._frame(kind, data, memfd, n_body, n_memfd)

    def send_large(
        self, body: bytes, views: list[memoryview], arenas: _arena.ArenaCache
    ) -> _arena.Arena | None:
        """Send a CALL that does not fit a frame; returns the arena that the job may still read."""
        try:
            return send_body(self.box, Frame.CALL, body, views, arenas)
        except OSError as e:
            if is_gone(e):
                raise NotSent from None
            raise

    def _start(self) -> None:
        """Tell the supervisor, once: deadline, polling."""
        if not self.is_started:
            self.is_started = True
            self.sup.start(self.box.job_id, self.start_ns, self.deadline_ns)

    def hold(self) -> None:
        """A generator gave an item: its clock stands still until `go_on` (semantics 5.1)."""
        self.left_ns = max(self.deadline_ns - time.monotonic_ns(), 0)
        if self.deadline_ns == NO_LIMIT:
            self.left_ns = NO_LIMIT
        if self.is_started or not self.was_held:
            self.sup.start(self.box.job_id, self.start_ns, NO_LIMIT)
        self.was_held = True

    def go_on(self, body: bytes, views: list[memoryview]) -> _arena.Arena | None:
        """Send a RESUME frame and serve until the next answer; what it returns may be read yet.

        An answer within a moment costs no message to the supervisor.
        """
        reply, box = self.reply, self.box
        reply.kind, reply.body, reply.buffers = 0, b"", []
        self.parts.clear()
        self.is_started = False
        if self.left_ns != NO_LIMIT:
            self.deadline_ns = time.monotonic_ns() + self.left_ns
        arena = None
        if views or len(body) > FRAME_INLINE:
            try:
                arena = send_body(box, Frame.RESUME, body, views, NO_CACHE)
            except OSError as e:
                if not is_gone(e):
                    raise
        else:
            got = _core.exchange(
                box.channel, box.out, box.err, Frame.RESUME, body, SHORT_MS, box.fds
            )
            if got[0] == Event.NOT_SENT or self.resume(got):
                return None
        self.run()
        return arena

    def run(self) -> None:
        """Serve until the answer is there or the job is gone; drain its output."""
        box, reply = self.box, self.reply
        while True:
            patience = self._patience_ms() if self.is_started else SHORT_MS
            event, kind, body, memfd, n_body, n_memfd = _core.wait_frame(
                box.channel, box.out, box.err, patience, box.fds
            )
            if not self.is_started and self._goes_on(event, kind, body):
                self._start()
                if event == Event.TIMEOUT:
                    continue
            if event == Event.FRAME:
                if self._frame(kind, body, memfd, n_body, n_memfd):
                    break
            elif event == Event.STDOUT:
                self._output("out", body)
                reply.out.flush()
            elif event == Event.STDERR:
                self._output("err", body)
                reply.err.flush()
            elif event == Event.CLOSED:
                break
            else:  # the supervisor should have killed it by now
                reply.timed_out = True
                self.sup.kill(box.job_id, Cause.TIMEOUT)
                break
        self._drain()

    @staticmethod
    def _goes_on(event: int, kind: int, body: bytes) -> bool:
        """Whether the call may take long: all but its answer, and a closed stream before it."""
        if event == Event.FRAME:
            return kind not in _ANSWERS
        return event == Event.TIMEOUT or body != b""

    def _patience_ms(self) -> int:
        if self.deadline_ns == NO_LIMIT:
            return -1
        left = (self.deadline_ns - time.monotonic_ns()) / 1e9 + LATE_S
        return max(0, int(left * 1000))

    def _output(self, which: str, data: bytes) -> None:
        if not data:
            self.box.close_stream(which)
            return
        if not getattr(self.reply, which).add(data) and not self.reply.over:
            self.reply.over = "output"
            self.sup.kill(self.box.job_id, Cause.OUTPUT)

    def _drain(self) -> None:
        """All that was written before the answer is in the pipes by now."""
        for which in ("out", "err"):
            fd = getattr(self.box, which)
            if fd >= 0 and (data := _core.drain(fd)):
                self._output(which, data)

    def _frame(self, kind: int, body: bytes, memfd: int, n_body: int, n_memfd: int) -> bool:
        """Handle one frame; True if it is the last."""
        reply = self.reply
        if kind == Frame.IMPORT and memfd < 0 and self.stream is not None:
            if reply.served >= MAX_IMPORTS:
                reply.is_malformed = f"more than {MAX_IMPORTS} module requests"
                return True
            self._start()  # a job that asks and does not read must not hold us beyond its deadline
            blob, buffers = self.stream.module_reply(body.decode("utf-8", "replace"))
            views = [memoryview(b).cast("B") for b in buffers]
            packed = _header.pack_module(blob, [v.nbytes for v in views])
            try:
                arena = send_body(self.box, Frame.MODULE, packed, views, NO_CACHE)
            except OSError as e:
                if is_gone(e):
                    return True  # it died meanwhile: the supervisor's record says why
                if e.errno != errno.EAGAIN:
                    raise
                reply.is_malformed = "module requests whose answers it does not read"
                return True
            if arena is not None:
                arena.close()
            reply.served += 1
            return False
        if kind == Frame.HOST_CALL and reply.bridge is not None:
            done: bool = reply.bridge.serve(self, body, memfd, n_body, n_memfd)
            return done
        if kind == Frame.DENIED and memfd < 0 and reply.denials is not None:
            if len(reply.denials) < MAX_DENIALS:
                reply.denials.append(body)
            return False
        if kind == Frame.YIELD and not reply.is_stream:
            if memfd >= 0:
                self._close(memfd)
            reply.is_malformed = "an item of a generator"
            return True
        if kind == Frame.FILES and reply.keep is not None:
            return self._files(reply.keep, body, memfd, n_memfd)
        if kind == Frame.NOTE and memfd < 0 and self.notes is not None:
            self.notes(body)
            return bool(reply.is_malformed or reply.raised)
        if kind == Frame.PART and memfd < 0 and self.stream is not None:
            self.parts += body
            if len(self.parts) <= self.max_result:
                return False
            reply.kind, reply.over = Frame.RESULT, "buffers"
            return True
        reply.kind = kind
        if kind in (Frame.RESULT, Frame.ERROR, Frame.YIELD):
            try:
                self._take(body, memfd, n_body, n_memfd)
            except _transfer.TooBig:
                reply.over = "buffers"
            except ValueError as e:
                reply.is_malformed = str(e)
            finally:
                if memfd >= 0:
                    self._close(memfd)
        else:
            if memfd >= 0:
                self._close(memfd)
            reply.body = body
            # FAILED and EXITED are words of the reaper: a function's job cannot use them.
            if kind == Frame.TOO_BIG and body in (b"result", b"buffers", b"file_size"):
                reply.over = body.decode()
                return True
            if kind not in ((Frame.SIGNAL,) if self.stream is not None else _REAPER):
                reply.is_malformed = f"frame of kind {kind}"
        return True

    def _close(self, memfd: int) -> None:
        """Close what came with a frame: it belongs to the box, or else to us."""
        owner = self.box.fds
        if owner is None or not owner.close(memfd):
            os.close(memfd)

    def _files(self, keep: tuple[bytes, int], body: bytes, memfd: int, n_memfd: int) -> bool:
        """What the job left in private places; True if it is not fit to go on with."""
        from agentsbx._leftovers import Collector  # most calls leave nothing

        reply = self.reply
        try:
            if reply.left is None:
                reply.left = Collector(*keep)
            reply.left.add(body, memfd, n_memfd)
        except ValueError as e:
            reply.is_malformed = f"files: {e}"
        finally:
            if memfd >= 0:
                self._close(memfd)
        return bool(reply.is_malformed)

    def _take(self, body: bytes, memfd: int, n_body: int, n_memfd: int) -> None:
        reply = self.reply
        reply.body, reply.buffers, reply.lost = unpacked(
            self, body, memfd, n_body, n_memfd, self.max_result
        )

    def pause(self) -> int:
        """A host function runs now: the clock stands still until `go`, with what this gives."""
        if self.is_started or not self.was_held:
            self.sup.start(self.box.job_id, self.start_ns, NO_LIMIT)
        self.was_held, self.is_started = True, False  # told again where no next call comes soon
        return time.monotonic_ns()

    def is_late(self) -> bool:
        """Whether the deadline passed in a quick exchange that the supervisor was not told of."""
        if self.deadline_ns == NO_LIMIT or time.monotonic_ns() < self.deadline_ns:
            return False
        self.reply.timed_out = True
        self.sup.kill(self.box.job_id, Cause.TIMEOUT)
        return True

    def go(self, began_ns: int) -> None:
        """The host function has ended."""
        if self.deadline_ns != NO_LIMIT:
            self.deadline_ns += time.monotonic_ns() - began_ns


def unpacked(
    exchange: Exchange, body: bytes, memfd: int, n_body: int, n_memfd: int, most: int
) -> tuple[bytes, list[memoryview], tuple[str, ...]]:
    """Return body, buffers and names in a hostile frame, of `most` bytes in a memfd.

    ValueError if malformed, `TooBig`.
    """
    if exchange.parts:
        if len(exchange.parts) > most:
            raise _transfer.TooBig
        view, exchange.parts = memoryview(exchange.parts), bytearray()
        n_body = int.from_bytes(body[:8], "little")
    elif memfd >= 0:
        view = _transfer.map_hostile(memfd, n_memfd, most)
    else:
        made, lengths, lost = _header.unpack_result(memoryview(body))
        if lengths:
            raise ValueError("buffers announced without a memfd")
        return made, [], lost
    made, lengths, lost = _header.unpack_result(view[:n_body])
    return made, _transfer.split(view, n_body, lengths)[1], lost


class _NoCache(_arena.ArenaCache):
    """Module replies are rare: never keep their arenas."""

    def get(self, size: int) -> _arena.Arena:
        return _arena.Arena(_transfer.align(size))


NO_CACHE = _NoCache()


def is_gone(e: OSError) -> bool:
    """Whether a send failed because the waiting sandbox had died."""
    return e.errno in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
