"""The engine of one process: its supervisor, pools and arenas; started by the first use.

One supervisor per process, outliving the thread that made it; a forked host gets one of its own
(semantics 5.5). Commands (`_command`) and functions (`_runtime`) stand on it; it knows neither
pickles nor the result codec, so that `agentsbx run` starts quickly. Thread-safe.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentsbx import _arena, _compile, _gate, _host, _preload
from agentsbx._boxes import Box, Pool, PoolGone
from agentsbx._job import Cancel, Exchange
from agentsbx._pools import Pools
from agentsbx._reply import Reply
from agentsbx._shortage import reraise
from agentsbx._supervisor import Supervisor, SupervisorGone
from agentsbx._wire import FRAME_INLINE, Cause, ExitRecord, Frame
from agentsbx.policy import Policy

if TYPE_CHECKING:
    from agentsbx._protect import Watch

__all__ = [
    "Conversation",
    "Runtime",
    "converse",
    "current",
    "environ",
    "job_env",
    "next_call_id",
    "orphans",
    "probe",
    "reraise",
    "restart",
    "shutdown",
    "take",
]  # fmt: skip

READY_TIMEOUT_MS = 20_000
LAST_BREATH_MS = 100
DEATH_MS = 2000  # after SIGKILL to its first process
SAFE_ENV = ("LANG", "LANGUAGE", "TZ", "TERM", "COLUMNS", "LINES", "NO_COLOR", "LC_ALL", "LC_CTYPE",
            "LC_COLLATE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME")  # fmt: skip
_call_prefix = os.urandom(6).hex()
_call_numbers = itertools.count(1)


def next_call_id() -> str:
    """An id that no other call of this machine has."""
    return f"{_call_prefix}-{next(_call_numbers):x}"


# Owners of pools that are gone: finalizers, which may run anywhere, only leave a note here.
orphans: deque[object] = deque()


class Runtime:
    """Supervisor, pools and arenas of this process."""

    def __init__(self) -> None:
        self.sup = Supervisor()
        hello = self.sup.hello
        self.caps = _host.Caps(
            bool(hello.is_root), hello.uid_base, hello.n_uids, hello.cgroup_version,
            hello.cgroup_have, hello.landlock_abi, os.uname().release,
            bool(hello.is_root) or not _host.is_kernel_root(),
        )  # fmt: skip
        self.pools = Pools(self.sup, self.caps, lambda: job_env(Policy()), orphans)
        self.arenas = _arena.ArenaCache()

    def close(self) -> None:
        """End the supervisor and all that it runs."""
        self.pools.close()
        self.sup.close()
        self.arenas.clear()

    def abandon(self) -> None:
        """In a forked child: close our copies of the parent's descriptors, take no lock."""
        self.pools.abandon()
        self.sup.abandon()


_lock = threading.RLock()
_current: Runtime | None = None
_has_hook = False
on_fork: list[Callable[[], None]] = []  # run in a forked child: locks may be held by absent threads


def _after_fork_in_child() -> None:
    global _lock, _current
    _lock = threading.RLock()
    _gate.after_fork()
    _host.after_fork()
    old, _current = _current, None
    if old is not None:
        old.abandon()
    for reset in on_fork:
        reset()


def current() -> Runtime:
    """The runtime of this process, started where there is none."""
    global _current, _has_hook
    rt = _current
    if rt is not None:
        return rt
    with _lock:
        if _current is None:
            _current = Runtime()
            atexit.register(shutdown)
            if not _has_hook:
                _has_hook = True
                os.register_at_fork(after_in_child=_after_fork_in_child)
        return _current


def prestart(fn: object, policy: Policy) -> None:
    """Start the zygote that a first call will probably need, without waiting for it.

    Whatever fails here fails again, with words, in the call itself.
    """
    if _current is None and not policy.fresh:
        with contextlib.suppress(Exception):
            rt = current()
            want = _preload.guess(fn) if not policy.env else _preload.NOTHING
            if not policy.packages and not policy.python:
                rt.pools.template(_host.python_layout(), want)


def shutdown() -> None:
    """Kill every running and waiting sandbox of this process and end its supervisor."""
    global _current
    with _lock:
        rt, _current = _current, None
    if rt is not None:
        rt.close()
    atexit.unregister(shutdown)


def restart(rt: Runtime) -> None:
    """The supervisor is gone: the next use starts another."""
    global _current
    with _lock:
        if _current is rt:
            _current = None
    with contextlib.suppress(OSError, SupervisorGone):
        rt.close()


def probe() -> _host.Caps:
    """What the supervisor found by trying."""
    return current().caps


def environ() -> dict[Any, Any]:
    """The dictionary behind `os.environ`, to compare as a whole; a copy where there is none."""
    found = getattr(os.environ, "_data", None)
    return found if type(found) is dict else dict(os.environ)


def job_env(policy: Policy, extra: dict[str, str] | None = None) -> dict[str, str]:
    env = {k: v for k in SAFE_ENV if (v := os.environ.get(k)) is not None}
    path = []
    if sys.prefix != sys.base_prefix:
        path = [os.path.dirname(_host.without_dots(sys.executable))]
    if policy.python:
        from agentsbx import _pythons

        path = [_pythons.bin_folder(policy.python)]
    env["PATH"] = ":".join([*path, "/usr/local/bin", "/usr/bin", "/bin"])
    env |= {
        "HOME": _compile.HOME,
        "TMPDIR": _compile.TMPDIR,
        "USER": "sandbox",
        "LOGNAME": "sandbox",
    }
    env |= {k: v for k in policy.env_names if (v := os.environ.get(k)) is not None}
    return env | policy.env_values | (extra or {})


def take(rt: Runtime, pool: Pool, version: int = 0) -> Box:
    """A waiting sandbox that holds snapshot `version`, or none.

    Waits for a place among those that may run at once. `PoolGone`: look the pool up again.
    """
    gate = _gate.gate()
    if _gate.depth.get():
        gate.force()
    else:
        gate.acquire()
    try:
        for _ in range(8):
            box = rt.sup.take(pool, READY_TIMEOUT_MS)
            if box.version in (0, version):
                box.gate = gate
                return box
            rt.sup.kill(box.job_id, Cause.CANCELLED)
            box.close()
    except BaseException:
        gate.release()
        raise
    gate.release()
    raise PoolGone("the function changes faster than sandboxes are made for it")


class Conversation:
    """One call in its sandbox, from the first message to the job's death."""

    def __init__(self, rt: Runtime, box: Box, exchange: Exchange, cancel: Cancel | None) -> None:
        self.rt, self.box, self.exchange, self.cancel = rt, box, exchange, cancel
        self.job_id = box.job_id
        self._arena: _arena.Arena | None = None
        rt.pools.enter(box.pool)
        if cancel is not None:
            cancel.arm(self._kill)

    def _kill(self) -> None:
        with contextlib.suppress(SupervisorGone):  # so is the job
            self.rt.sup.kill(self.job_id, Cause.CANCELLED)

    def send(self, body: bytes, views: list[memoryview]) -> None:
        """Send the call and serve it until its next answer.

        An empty body: it was sent already. `NotSent`: the waiting sandbox had died, no user code
        ran.
        """
        exchange = self.exchange
        if views or len(body) > FRAME_INLINE:
            self._arena = exchange.send_large(body, views, self.rt.arenas)
            exchange.run()
        elif exchange.begun is not None:
            if not exchange.resume(exchange.begun):
                exchange.run()
        elif not body or not exchange.begin(body):
            exchange.run()

    def end(self, detail: bool) -> None:
        """Take leave: the job is dead or dying when this returns."""
        rt, reply, job_id = self.rt, self.exchange.reply, self.job_id
        reply.wall_ns = time.monotonic_ns() - self.exchange.start_ns
        reply.out.end()
        reply.err.end()
        if self.cancel is not None:
            self.cancel.arm(None)
        try:
            with contextlib.suppress(SupervisorGone):
                # It ends by itself, and how is worth knowing; what is left after that is killed.
                is_asked = detail or not (
                    _is_fine(reply) or reply.kind in (Frame.RESULT, Frame.ERROR)
                )
                is_asked = is_asked and reply.raised is None
                if not (is_asked and self._has_ended()):
                    rt.sup.kill(job_id, Cause.CANCELLED)
        finally:
            if self._arena is not None:
                rt.arenas.put(self._arena, lambda: _is_alive(rt, self.job_id))
            self.box.close()
            rt.pools.leave(self.box.pool)

    def _has_ended(self) -> bool:
        try:
            return self.rt.sup.wait_for(self.job_id, LAST_BREATH_MS) is not None
        except OSError:  # no descriptor left to ask
            return False

    def abort(self, watch: Watch | None) -> None:
        """End it in the middle; what it planted in a write grant is moved aside all the same."""
        self._kill()
        self.end(detail=False)
        if watch is not None:
            with contextlib.suppress(SupervisorGone, OSError):
                self.rt.sup.wait_for(self.job_id, DEATH_MS)
            watch.planted()

    def record(self, detail: bool) -> ExitRecord | None:
        """How it ended; None where the answer says all and `detail` is not asked for."""
        if _is_fine(self.exchange.reply) and not detail:
            return None
        return self.rt.sup.wait(self.job_id)


def converse(
    rt: Runtime,
    box: Box,
    exchange: Exchange,
    body: bytes,
    views: list[memoryview],
    cancel: Cancel | None,
    detail: bool,
    watch: Watch | None = None,
) -> ExitRecord | None:
    """Send the call and serve it to its end (see `Conversation`)."""
    talk = Conversation(rt, box, exchange, cancel)
    detail = detail or watch is not None
    try:
        talk.send(body, views)
        exchange.reply.out.finish()
        exchange.reply.err.finish()
    except SupervisorGone:  # user code may have run: never again by itself
        talk.end(detail)
        return ExitRecord.lost(box.job_id)
    except BaseException:
        talk.abort(watch)
        raise
    talk.end(detail)
    return talk.record(detail)


def _is_fine(reply: Reply) -> bool:
    """Whether the answer says all: a value, or a command that ended with 0."""
    if reply.is_malformed or reply.over:
        return False
    return reply.kind == Frame.RESULT or (
        reply.kind == Frame.EXITED and reply.body[:4] == b"\0\0\0\0"
    )


def _is_alive(rt: Runtime, job_id: int) -> bool:
    try:
        return rt.sup.wait_for(job_id, 2000) is None
    except SupervisorGone:
        return False
    except OSError:  # no descriptor left to ask: not used again
        return True
