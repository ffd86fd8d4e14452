"""One session: a sandbox that is kept, from the host's side (csrc/reaper/session.h).

Host process, thread-safe. Each program and file operation has a socket of its own into the sandbox,
so nothing here is shared between them but the one socket that requests go out on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentsbx import _core, _engine, _exits, _transfer
from agentsbx._boxes import Box, PoolGone
from agentsbx._explain_limits import limit_table
from agentsbx._job import is_gone
from agentsbx._output import Output
from agentsbx._preload import NOTHING
from agentsbx._protect import Watch, planted_error
from agentsbx._reply import Reply
from agentsbx._supervisor import SupervisorGone
from agentsbx._wire import FRAME_INLINE, NO_LIMIT, Cause, ExitRecord, Frame
from agentsbx.errors import SandboxTimeout, SandboxUnavailable
from agentsbx.policy import Policy
from agentsbx.result import Exit, Usage

if TYPE_CHECKING:
    from agentsbx._host import Layout

__all__ = ["HOME", "Session", "hear"]

HOME = "/sandbox/home"
ATTEMPTS = 5
DEATH_MS = 2000


def hear(reply: int, timeout_ms: int, out: int = -1, err: int = -1) -> tuple[int, int, bytes]:
    """Return event, kind and body of what comes next on a reply socket, or on the outputs.

    No answer of a session has a descriptor: one that comes along is closed.
    """
    event, kind, body, memfd, _, _ = _core.wait_frame(reply, out, err, timeout_ms)
    if memfd >= 0:
        os.close(memfd)
    return event, kind, body


class Session:
    """A sandbox of its own from `open` to `close`; the first request opens it."""

    def __init__(self, policy: Policy, cwd: str | None, ttl_s: float) -> None:
        self.id = secrets.token_hex(8)
        self.policy = policy
        self.cwd = cwd or HOME
        self.last_use = time.monotonic()
        self._ttl_s = ttl_s
        self._lock = threading.RLock()
        self._box: Box | None = None
        self._rt: Any = None
        self._pid = os.getpid()
        self._watch: Watch | None = None
        self._over: BaseException | None = None
        self.enforced: dict[str, str] = {}
        self.layout: Layout | None = None

    # -- life -------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the sandbox where there is none yet; threads that come at once get the same."""
        if self._pid != os.getpid():
            raise SandboxUnavailable(
                "this session belongs to the process that this one was forked from",
                missing=["session"], hint="make a Sandbox here",
            )  # fmt: skip
        self.last_use = time.monotonic()
        if self._box is not None and self._over is None:
            return
        with self._lock:
            if self._over is not None:
                raise self._over.with_traceback(None)  # else it grows with each
            if self._box is None:
                try:
                    self._make()
                except SupervisorGone as e:
                    _engine.restart(self._rt)
                    raise SandboxUnavailable("the supervisor ended", missing=["supervisor"]) from e

    def _make(self) -> None:
        from agentsbx import _pythons

        rt = self._rt = _engine.current()
        self.layout = _pythons.for_functions(self.policy)
        for _ in range(ATTEMPTS):
            grants = rt.pools.find_grants(self.policy)
            template = rt.pools.template(None, NOTHING, shown=self.layout)
            try:
                pool = rt.pools.pool(None, self.policy, template, grants, "/", 1, terminal=True)
                box = _engine.take(rt, pool)
            except PoolGone as gone:
                if gone.template_id is not None:
                    rt.pools.forget_template(gone.template_id)
                continue
            if box.gate is not None:  # a session is no call: it may stay for hours
                box.gate.release()
                box.gate = None
            try:
                _core.send_frame(box.channel, Frame.SESSION, b"")
            except OSError as e:
                box.close()
                if not is_gone(e):
                    raise
                continue
            self._watch = Watch(grants) if self.policy.write else None
            self.enforced = pool.job.enforced
            now = time.monotonic_ns()
            ends = NO_LIMIT if self._ttl_s < 0 else now + int(self._ttl_s * 1e9)
            rt.pools.enter(pool)
            rt.sup.start(box.job_id, now, ends)
            self._box = box
            return
        raise SandboxUnavailable("sandboxes die before they are used", missing=["job"])

    @property
    def is_open(self) -> bool:
        """Whether its sandbox was made and not given up."""
        return self._box is not None and self._over is None

    def close(self, over: BaseException | None = None) -> None:
        """End the sandbox with all that runs in it; later requests raise `over`."""
        with self._lock:
            box, self._box = self._box, None
            if self._over is None:
                self._over = over or SandboxUnavailable(
                    "this session was closed", missing=["session"], hint="make another Sandbox"
                )
        if box is None or self._pid != os.getpid():
            return
        with contextlib.suppress(SupervisorGone):
            self._rt.sup.kill(box.job_id, Cause.CANCELLED)
        box.close()
        self._rt.pools.leave(box.pool)
        if self._watch is not None:
            with contextlib.suppress(SupervisorGone):
                self._rt.sup.wait_for(box.job_id, DEATH_MS)
            planted = self._watch.planted()
            if planted:
                raise planted_error(planted, None)[0]

    # -- requests ---------------------------------------------------------------------------------

    def request(self, kind: Frame, body: bytes, fds: Sequence[int]) -> int:
        """Send one request; returns our end of its reply socket."""
        self.open()
        mine, theirs = _core.socketpair()
        memfd = -1
        try:
            with self._lock:
                box = self._box
                if box is None:
                    raise self._over or SandboxUnavailable("no session", missing=["session"])
                if len(body) <= FRAME_INLINE:
                    _core.send_frame(box.channel, kind, body, (theirs, *fds))
                else:
                    memfd, size = _transfer.write_memfd("words", body, [], _transfer.HOST_SEALS)
                    all_fds = memfd, theirs, *fds
                    _core.send_frame(box.channel, kind, b"", all_fds, len(body), size)
        except BaseException as e:
            _core.close_all(mine)
            if isinstance(e, OSError) and is_gone(e):
                raise self.died() from None
            raise
        finally:
            _core.close_all(theirs, *([memfd] if memfd >= 0 else []))
        return mine

    def ended(self, timeout_ms: int) -> Exit | None:
        """How the sandbox ended; None: it has not within that time."""
        box = self._box
        if box is None:
            return Exit(cause="cancelled")
        try:
            record = self._rt.sup.wait_for(box.job_id, timeout_ms)
        except SupervisorGone:
            return Exit(cause="lost")
        if record is None:
            return None
        return _exits.exit_of(record, Reply(Output(0, None), Output(0, None)))

    def is_dead(self, timeout_ms: int = 0) -> bool:
        """Whether the sandbox has ended."""
        return self.ended(timeout_ms) is not None

    def died(self) -> BaseException:
        """Say how the sandbox ended, and give it up."""
        from agentsbx import _outcome
        from agentsbx._codec import ClassTable, CodecLimits

        box = self._box
        if box is None:
            return self._over or SandboxUnavailable("no session", missing=["session"])
        try:
            record = self._rt.sup.wait_for(box.job_id, DEATH_MS)
        except SupervisorGone:
            record = None
        record = record or ExitRecord.lost(box.job_id)
        if record.cause == Cause.TIMEOUT:
            words = f"this session ended: its ttl={self._ttl_s:g} s is over"
            return self._give_up(SandboxTimeout(f"{words}; make another Sandbox, or a longer ttl="))
        table = limit_table(self.policy.limits, self.enforced, Usage())
        reply = Reply(Output(0, None), Output(0, None))
        error, _ = _outcome.error_of(
            reply, record, self.policy, ClassTable.build(), table, self.cwd, CodecLimits()
        )
        return self._give_up(error)

    def _give_up(self, error: BaseException) -> BaseException:
        with contextlib.suppress(Exception):
            self.close(error)
        return error

    def kill(self) -> None:
        """End the sandbox: a program of it could not be ended otherwise."""
        self.close(
            SandboxUnavailable(
                "this session was killed: a program in it did not end in time",
                missing=["session"],
                hint="make another Sandbox",
            )
        )

    def look(self) -> None:
        """After a program: names that it planted in a write grant are moved aside, and raise."""
        watch = self._watch
        if watch is not None and (planted := watch.planted()):
            raise planted_error(planted, None)[0]

    def in_here(self, path: str | os.PathLike[str] | None) -> str:
        """Return a path of the sandbox from one that may be relative to its directory."""
        return os.path.join(self.cwd, os.fspath(path)) if path is not None else self.cwd
