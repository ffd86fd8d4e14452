"""Waiting sandboxes as the host holds them: pools, what is taken from them, shared descriptors.

Host process only, thread-safe. Nothing here speaks to the supervisor; `_supervisor` does.
"""

from __future__ import annotations

import contextlib
import threading

from agentsbx import _core
from agentsbx._compile import Job
from agentsbx._gate import Gate
from agentsbx.errors import AgentsbxError, SandboxUnavailable

try:  # hashlib loads OpenSSL, which costs a command's start 2 ms
    from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]  # 3.12
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]  # 3.11
    except ImportError:
        from hashlib import sha256


class PoolGone(AgentsbxError):
    """A pool was dropped before its sandbox was used.

    With `template_id`: its zygote is dead too.
    """

    def __init__(
        self,
        message: str,
        *,
        template_id: int | None = None,
        error: SandboxUnavailable | None = None,
    ) -> None:
        super().__init__(message)
        self.template_id = template_id
        self.error = error  # what to raise when a new template does not help


class SharedFd:
    """A descriptor that several threads use: its number is freed only when nobody uses it.

    A number that is closed under a thread which waits on it names another file the next moment.
    """

    __slots__ = ("_closing", "_fd", "_users", "lock")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._users = 0
        self._closing = False
        self.lock = threading.Lock()

    def hold(self) -> int:
        """The descriptor, kept open until `release`; -1 when it is closed already."""
        with self.lock:
            if self._closing:
                return -1
            self._users += 1
            return self._fd

    def release(self) -> None:
        """The counterpart of a `hold` that gave a descriptor."""
        with self.lock:
            self._users -= 1
            last = self._closing and not self._users
        if last:
            _core.close_all(self._fd)

    def close(self) -> None:
        """Close it, now or when the last user is done."""
        with self.lock:
            idle = not self._closing and not self._users
            self._closing = True
        if idle:
            _core.close_all(self._fd)

    def abandon(self) -> None:
        """In a forked child: close our copy; the locks belong to threads that are not here."""
        if not self._closing:
            self._closing = True
            _core.close_all(self._fd)

    @property
    def number(self) -> int:
        """The descriptor, for who holds `lock` and has seen that it is not closed."""
        return self._fd

    @property
    def is_closed(self) -> bool:
        """Whether it was given up."""
        return self._closing


class Pool:
    """A queue of waiting single-use sandboxes: the kernel's own socket queue is the pool."""

    def __init__(self, pool_id: int, sock: int, job: Job, template_id: int, uid_index: int) -> None:
        self.id = pool_id
        self.sock = SharedFd(sock)
        self.job = job
        self.template_id = template_id
        self.uid_index = uid_index
        self.version = 0
        self._policy_id: str | None = None
        self.lock = threading.Lock()
        self.n_waiting = 0  # threads that wait for a sandbox they asked for
        self.spare: list[Box] = []  # taken from the queue by `wait_ready`

    def policy_id(self) -> str:
        """SHA-256 of the plan: what was enforced, in every audit record."""
        if self._policy_id is None:
            self._policy_id = sha256(self.job.plan).hexdigest()
        return self._policy_id

    def close(self) -> None:
        """Give up the queue; sandboxes in it see their channel close and end."""
        self.sock.close()
        with self.lock:
            spare, self.spare = self.spare, []
        for box in spare:
            box.close()

    def abandon(self) -> None:
        """In a forked child: close our copies, take no lock."""
        self.sock.abandon()
        for box in self.spare:
            box.close()

    @property
    def is_closed(self) -> bool:
        """Whether it was given up."""
        return self.sock.is_closed


class Box:
    """One waiting sandbox, taken from a pool: its channel and output pipes."""

    __slots__ = ("channel", "err", "fds", "gate", "job_id", "out", "pool", "version")

    def __init__(
        self,
        job_id: int,
        version: int,
        fds: _core.Descriptors,
        pool: Pool,
        gate: Gate | None = None,
    ) -> None:
        self.fds = fds  # closes them, whatever becomes of this object
        self.channel, self.out, self.err = fds.numbers()
        self.pool = pool
        self.job_id = job_id
        self.version = version
        self.gate = gate  # where it has a place to give back

    def close(self) -> None:
        """Close what is still open, give its place back."""
        self.fds.close()
        self.channel = self.out = self.err = -1
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.release()

    def close_stream(self, which: str) -> None:
        """Close `out` or `err`, which has ended."""
        self.fds.close(getattr(self, which))
        setattr(self, which, -1)

    def __del__(self) -> None:
        """Taken and never used (Ctrl-C in between): closing ends the job."""
        with contextlib.suppress(AttributeError):  # not even made to its end
            if self.gate is not None or self.channel >= 0:
                self.close()
