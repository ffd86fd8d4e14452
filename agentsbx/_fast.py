"""The usual call in few steps: a plain function, nothing changed, a sandbox waits, a small answer.

On a machine with cold caches each Python call on the way costs microseconds, and the way of
`_runtime` has seventy of them. Whatever is not usual returns `None` before anything was sent, or is
handed over in mid-call to the general way: never is anything checked less here than there.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from agentsbx import _core, _header
from agentsbx._boxes import Box
from agentsbx._codec import ClassTable, decode
from agentsbx._job import SHORT_MS
from agentsbx._pools import is_same
from agentsbx._wire import FRAME_INLINE, PUB, Cause, Event, Frame
from agentsbx.errors import ResultError

if TYPE_CHECKING:
    from agentsbx._boxes import Pool
    from agentsbx._engine import Runtime
    from agentsbx._runtime import CallSite, Place

__all__ = ["Begun", "Quick", "call"]

_NOT_SENT = 6  # event of _core.exchange
_ANSWER = (int(Event.FRAME), int(Frame.RESULT))
_PLAIN = _header.pack_result(b"", [])


class Quick:
    """What one site's last call found, to be compared; replaced as a whole."""

    __slots__ = ("argv", "at", "environ", "fn", "main_file", "pool", "rt", "snapshot", "sys_path",
                 "version")  # fmt: skip

    def __init__(
        self, rt: Runtime, site: CallSite, snapshot: Any, version: int, at: Place
    ) -> None:
        self.rt = rt
        self.at = at
        self.pool: Pool = at.pool
        self.snapshot = snapshot
        self.version = version
        self.environ = site.prepared.environ
        self.argv = sys.argv.copy()
        self.main_file = getattr(sys.modules.get("__main__"), "__file__", None)
        self.sys_path = sys.path.copy()
        self.fn = site.fn


class Begun:
    """A call that was sent and did not end the usual way: `_runtime` goes on with it."""

    __slots__ = ("box", "event", "start_ns", "stream")

    def __init__(self, box: Box, stream: Any, event: tuple[Any, ...], start_ns: int) -> None:
        self.start_ns = start_ns
        self.box = box
        self.stream = stream
        self.event = event


def _box(pool: Pool) -> tuple[bytes, tuple[int, ...]] | None:
    """A sandbox that waits in the queue, if there is one."""
    sock = pool.sock
    with sock.lock:
        if sock.is_closed or pool.spare:
            return None
        # Does not wait: the lock is held for one system call.
        return _core.recv(sock.number, PUB.size, 3, 0)


def call(
    site: CallSite, q: Quick, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any] | Begun | None:
    """(value,) of a call that went the usual way; None: nothing was sent, take the general way."""
    snapshot, pool = q.snapshot, q.pool
    if (
        q.fn is not site.fn
        or q.version != pool.version
        or os.environ._data != q.environ  # type: ignore[attr-defined]
        or sys.argv != q.argv
        or sys.path != q.sys_path
        or getattr(sys.modules.get("__main__"), "__file__", None) != q.main_file
        or not snapshot.is_current()
        or (q.at.grants and not is_same(q.at.grants))
        or os.getcwd() != q.at.cwd
    ):
        return None
    stream = snapshot.begin_call(args, kwargs)
    if stream.buffers or len(stream.body) > FRAME_INLINE - 256:
        return None
    got = _box(pool)
    if got is None or len(got[1]) != 3:
        return None  # an error record is told again by the queue's next answer
    _, _, pool_id, job_id, version, _, _ = PUB.unpack(got[0])
    channel, out, err = got[1]
    if pool_id != pool.id or version != q.version:
        _core.close_all(channel, out, err)  # it holds an older snapshot: its channel ends it
        return None
    start_ns = time.monotonic_ns()
    head = _header.CallHead(None, stream.body, [], site.is_async, site.seed, 0)
    try:
        event = _core.exchange(channel, out, err, Frame.CALL, _header.encode(head), SHORT_MS, 0)
    except BaseException:
        q.rt.sup.kill(job_id, Cause.CANCELLED)
        _core.close_all(channel, out, err)
        raise
    if event[0] == _NOT_SENT:
        _core.close_all(channel, out, err)
        return None
    try:
        if event[:2] == _ANSWER and event[3] < 0 and not event[6] and not event[7]:
            raw = event[2]
            if raw[: len(_PLAIN)] == _PLAIN:  # no buffers, nothing alive
                classes = ClassTable.build(
                    annotation=site.annotation, args=args, kwargs=kwargs,
                    exceptions=site.raises, globals_exceptions=snapshot.exceptions,
                )  # fmt: skip
                value = decode(
                    raw[len(_PLAIN) :], [], classes=classes, annotation=site.annotation,
                    limits=site.codec_limits,
                )  # fmt: skip
                q.rt.sup.kill(job_id, Cause.CANCELLED)
                _core.close_all(channel, out, err)
                return (value,)
    except ResultError:
        pass  # the general way says it in full
    return Begun(Box(job_id, version, got[1], pool), stream, event, start_ns)
