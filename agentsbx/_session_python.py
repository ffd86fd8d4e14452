"""The interpreter of a session as one of its programs: what `_interpreter` needs of a home."""

from __future__ import annotations

import math
import os
import signal
import threading
import time

from agentsbx import _core, _exits
from agentsbx._interpreter_live import command
from agentsbx._session import Session, hear
from agentsbx._session_program import ASK_KILL, NotStarted, start
from agentsbx._wire import ASK, EXITED, Event, Frame
from agentsbx.errors import SandboxUnavailable
from agentsbx.result import Exit

__all__ = ["Home"]

_MOMENT_MS = 200
OOM_MS = 500
_CAUSES = ("timeout", "cpu_time", "memory", "cancelled")  # why a whole session ends


class Home:
    """A session, for an interpreter that lives in it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.policy = session.policy
        self.cwd = session.cwd
        self.enforced = session.enforced

    def start_python(self, channel: int, out: int, err: int) -> _Program:
        """Start it with these descriptors as 3, 1 and 2; they stay the caller's."""
        session = self._session
        session.open()
        layout = session.layout
        assert layout is not None
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            reply, _ = start(
                session, command(layout), env=None, cwd=session.cwd, fds=(null, out, err, channel)
            )
        except (NotStarted, OSError) as e:
            raise SandboxUnavailable(
                f"the session's interpreter did not start: {str(e).strip()}",
                missing=["interpreter"],
            ) from None
        finally:
            os.close(null)
        return _Program(session, reply)


class _Program:
    """The interpreter's process."""

    def __init__(self, session: Session, reply: int) -> None:
        self._session, self._reply = session, reply
        self._lock = threading.Lock()
        self._end: Exit | None = None
        self._killed = False

    def kill(self) -> None:
        """Kill it with all that it started; idempotent, from any thread."""
        self._killed = True
        with self._lock:
            if self._reply >= 0:
                try:
                    _core.send(self._reply, ASK.pack(ASK_KILL, 0))
                except OSError:
                    return

    def ended(self, timeout_s: float) -> Exit | None:
        """How it ended; None: it lives after that time."""
        until = math.inf if timeout_s < 0 else time.monotonic() + timeout_s
        while self._end is None and self._reply >= 0:
            left = min(_MOMENT_MS, max(0, int((until - time.monotonic()) * 1000)))
            event, kind, body = hear(self._reply, left)
            if event == Event.FRAME and kind == Frame.EXITED and len(body) >= EXITED.size:
                self._end = _exits.command_exit_code(EXITED.unpack_from(body)[0])[1]
                if self._end.signal == signal.SIGKILL and not self._killed:
                    # Out of memory the kernel kills one process, and the supervisor then the rest.
                    whole = self._session.ended(OOM_MS)
                    self._end = whole if whole is not None else self._end
            elif event in (Event.FRAME, Event.CLOSED):
                # Its keeper is gone, alone or with all of the session.
                whole = self._session.ended(_MOMENT_MS)
                self._end = Exit(signal=9, cause="signaled")
                if whole is not None:
                    self._end = whole if whole.cause in _CAUSES else Exit(cause="lost")
            elif time.monotonic() >= until:
                return None
        return self._end

    def close(self) -> None:
        """Give back what the host holds of it; it ends if it has not."""
        with self._lock:
            fd, self._reply = self._reply, -1
        if fd >= 0:
            _core.close_all(fd)
