"""The usual call in few steps: a plain function, nothing changed, a sandbox waits, a small answer.

On a machine with cold caches each Python call on the way costs microseconds, and the way of
`_runtime` has seventy of them. Whatever is not usual returns `None` before anything was sent, or is
handed over in mid-call to the general way: never is anything checked less here than there.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from agentsbx import _core, _gate, _header, _setup
from agentsbx._boxes import Box
from agentsbx._codec import decode
from agentsbx._codec_decode import NOT_PLAIN, decode_plain
from agentsbx._job import SHORT_MS
from agentsbx._output import forward
from agentsbx._pools import is_same
from agentsbx._shortage import reraise
from agentsbx._wire import FRAME_INLINE, KILL, PUB, Cause, Event, Frame, Msg
from agentsbx.errors import ResultError

if TYPE_CHECKING:
    from agentsbx._boxes import Pool
    from agentsbx._engine import Runtime
    from agentsbx._prepare import Place
    from agentsbx._runtime import CallSite

__all__ = ["Begun", "Quick"]

READ_SIZE = 65536  # more than that may not be all that it printed
_ANSWER = (int(Event.FRAME), int(Frame.RESULT))
_PLAIN = _header.pack_result(b"", [])


class Begun:
    """A call that was sent and did not end the usual way: `_runtime` goes on with it."""

    __slots__ = ("box", "event", "keep", "start_ns", "stream")

    def __init__(
        self, box: Box, stream: Any, event: tuple[Any, ...], start_ns: int, keep: bytes | None
    ) -> None:
        self.box = box
        self.keep = keep
        self.stream = stream
        self.event = event
        self.start_ns = start_ns


class Quick:
    """What one site's last call found, to be compared; replaced as a whole."""

    __slots__ = ("at", "control", "environ", "gate", "limits", "max_output", "pool", "process",
                 "shape", "site", "snapshot", "sock", "tail", "version")  # fmt: skip

    def __init__(
        self, rt: Runtime, site: CallSite, snapshot: Any, version: int, at: Place,
        shape: tuple[int, tuple[str, ...]],
    ) -> None:  # fmt: skip
        self.at = at
        self.pool: Pool = at.pool
        self.sock = at.pool.sock
        self.control = rt.sup.control
        self.gate = _gate.gate()
        self.snapshot = snapshot
        self.version = version
        self.environ = site.prepared.environ
        self.process = site.prepared.seen[1:]
        self.site = site
        self.limits = site.codec_limits
        bound = site.policy.limits.output
        self.max_output = READ_SIZE if bound < 0 else min(bound, READ_SIZE)
        self.shape = shape  # of arguments that are known to fit
        self.tail = site.kind, site.seed, site.looks_for(detail=False)

    def is_current(self) -> bool:
        """Whether all that the last call was prepared from still stands."""
        at = self.at
        return (
            self.version == self.pool.version
            and os.environ._data == self.environ  # type: ignore[attr-defined]
            and _setup.process() == self.process
            and self.snapshot.is_current()
            and (not at.grants or is_same(at.grants))
            and self._is_here()
        )

    def _is_here(self) -> bool:
        try:
            return os.getcwd() == self.at.cwd
        except OSError:  # it was removed
            return False

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any] | Begun | None:
        """Return (value,) of a call that went the usual way; None: nothing was sent."""
        if (len(args), tuple(kwargs)) != self.shape or not self.is_current():
            return None
        made = self.snapshot.quick_call(args, kwargs)
        if made is None or len(made[0]) > FRAME_INLINE - 256:
            return None
        gate = self.gate
        if not gate.try_acquire():
            return None  # the general way waits for a place
        done = None
        try:
            done = self._send(made, args, kwargs)
            return done
        except OSError as e:
            reraise(e)
        finally:
            if type(done) is not Begun:
                gate.release()

    def _send(
        self, made: tuple[bytes, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any] | Begun | None:
        sock = self.sock
        with sock.lock:
            if sock.is_closed or self.pool.spare or self.pool.n_waiting:
                return None  # no jumping the queue: each waiting thread has asked for one
            # Does not wait: the lock is held for one system call.
            got = _core.recv(sock.number, PUB.size, 3, 0)
        if got is None or len(got[1]) != 3:
            return None  # an error record is told again by the queue's next answer
        _, _, pool_id, job_id, version, _, _ = PUB.unpack(got[0])
        fds = got[1]  # an object: closed with this frame, whatever ends it
        channel, out, err = fds.numbers()
        if pool_id != self.pool.id or version != self.version:
            return None  # an older snapshot: the closed channel ends it
        start_ns = time.monotonic_ns()
        body = _header.pack_call(None, made[0], [], *self.tail)
        try:
            event = _core.exchange(channel, out, err, Frame.CALL, body, SHORT_MS, fds)
        except BaseException:
            self._end(job_id, fds)
            raise
        if event[0] == Event.NOT_SENT:
            return None
        raw = event[2]
        if (
            event[:2] == _ANSWER and event[3] < 0
            and raw[: len(_PLAIN)] == _PLAIN  # no buffers, nothing alive
            and max(len(event[6]), len(event[7])) <= self.max_output
        ):  # fmt: skip
            value = decode_plain(raw[len(_PLAIN) :], self.limits)
            if value is NOT_PLAIN:
                value = self._decode(raw[len(_PLAIN) :], args, kwargs)
            if value is not NOT_PLAIN:
                self._end(job_id, fds)
                if event[6] or event[7]:
                    forward(self.site.output, event[6], event[7])
                return (value,)
        stream = self.snapshot.begun_call(made[1])
        box = Box(job_id, version, fds, self.pool, self.gate)
        return Begun(box, stream, event, start_ns, self.tail[-1])

    def _decode(self, body: bytes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Any other small answer; NOT_PLAIN where it is refused, which the general way explains."""
        site = self.site
        classes = site.classes(self.snapshot, args, kwargs, site.annotation)
        try:
            return decode(body, [], classes=classes, annotation=site.annotation, limits=self.limits)
        except ResultError:
            return NOT_PLAIN

    def _end(self, job_id: int, fds: _core.Descriptors) -> None:
        """Kill the job, close its descriptors."""
        control = self.control
        message = KILL.pack(Msg.KILL, 0, job_id, Cause.CANCELLED, _core.cpu_current())
        with control.lock:
            if not control.is_closed:
                with contextlib.suppress(OSError):  # gone: so is the job
                    _core.send(control.number, message)
        fds.close()
