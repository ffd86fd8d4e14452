"""One program of a session: started, served, killed. Host process.

What comes is hostile: output is bounded, frames are looked at by size first, and a keeper that does
not answer in time costs the session.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Literal

from agentsbx import _core, _engine, _exits
from agentsbx._command import _words
from agentsbx._output import Output
from agentsbx._session import Session, hear
from agentsbx._session_result import ExecResult
from agentsbx._wire import ASK, EXITED, SPAWN, Event, Frame
from agentsbx.errors import ErrRecord, SandboxUnavailable, Stage, unavailable
from agentsbx.result import Usage

__all__ = ["Running", "start"]

START_MS = 20_000
END_S = 4.0  # a keeper has 2 s to end a tree
MOMENT_S = 0.5
LATE_BYTES = 1 << 20  # more than a pipe or terminal holds: read after the program's end
TTY, KEEP = 1, 2
ASK_SIGNAL, ASK_KILL = 1, 2  # enum sbx_ask_op
Stream = Literal["stdout", "stderr"]


class NotStarted(Exception):
    """The program could not be executed: its exit code as a shell tells it, and the words."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


def start(
    session: Session,
    argv: Sequence[str],
    *,
    env: dict[str, str] | None,
    cwd: str,
    fds: Sequence[int],
    flags: int = 0,
    timeout_s: float = -1.0,
) -> tuple[int, int]:
    """Start a program with these descriptors as 0, 1, 2 ...; returns reply socket and its pid.

    They stay the caller's. A program that did not start `END_S` after its time costs the session:
    another may hold it stopped just before its first instruction, to let it go on unseen.
    """
    patience_ms = START_MS if timeout_s < 0 else min(START_MS, int((timeout_s + END_S) * 1000))
    variables = _words(_engine.job_env(session.policy, env))
    head = SPAWN.pack(len(argv), len(variables), len(fds), flags)
    words = b"\0".join([*map(os.fsencode, argv), *variables, os.fsencode(cwd), b""])
    reply = session.request(Frame.SPAWN, head + words, fds)
    try:
        event, kind, body = hear(reply, patience_ms)
        if event == Event.FRAME and kind == Frame.STARTED and len(body) == 4:
            return reply, int.from_bytes(body, "little", signed=True)
        if event == Event.FRAME and kind == Frame.FAILED and len(body) == 12:
            raise _failure(ErrRecord.unpack(body), argv[0], cwd)
        if session.is_dead(200):
            raise session.died()
        if event == Event.TIMEOUT:
            session.kill()
            raise SandboxUnavailable(
                f"the session did not start {argv[0]!r} in time and was killed",
                missing=["session"], hint="make another Sandbox",
            )  # fmt: skip
        raise SandboxUnavailable(
            f"the session did not start {argv[0]!r}", missing=["program"],
            hint="its profile starts no program (strict), it runs too many already, processes= is "
            "reached, or the program ended the process that keeps it",
        )  # fmt: skip
    except BaseException:
        _core.close_all(reply)
        raise


def _failure(record: ErrRecord, program: str, cwd: str) -> Exception:
    words = os.strerror(record.errno)
    if record.stage == Stage.EXEC and record.op == 1:
        return OSError(record.errno, words, cwd)
    if record.stage == Stage.EXEC:
        return NotStarted(127 if record.errno == 2 else 126, f"agentsbx: {program}: {words}\n")
    return unavailable(record, object=program)


class Running:
    """A started program with its output; `finish` may be called by one thread at a time."""

    def __init__(
        self, session: Session, reply: int, pid: int, out: int, err: int, limit: int
    ) -> None:
        self._lock = threading.Lock()  # of the reply socket's number
        self._fds = {"stdout": out, "stderr": err}
        self._reply = reply  # last: what `__del__` looks at
        self.session, self.pid = session, pid
        self.out, self.err = Output(limit, None), Output(limit, None)
        self.result: ExecResult | None = None
        self._serving = threading.Lock()
        self._start = time.monotonic()
        self._end: bytes | None = None
        self._timed_out = self._truncated = False
        self._late = dict.fromkeys(self._fds, LATE_BYTES)
        self._kill_by = 0.0  # it was killed: when that must have worked

    # -- asking -----------------------------------------------------------------------------------

    def _ask(self, op: int, value: int) -> bool:
        with self._lock:
            if self._reply < 0:
                return False
            try:
                _core.send(self._reply, ASK.pack(op, value))
            except OSError:
                return False
            return True

    def signal(self, number: int) -> bool:
        """Send a signal to the program's process group; False when it has ended."""
        return self._ask(ASK_SIGNAL, signal.Signals(number))

    def kill(self) -> None:
        """End it with its whole tree. Idempotent, from any thread."""
        self._kill_by = self._kill_by or time.monotonic() + END_S
        self._ask(ASK_KILL, 0)

    # -- serving ----------------------------------------------------------------------------------

    def events(self, timeout_s: float) -> Iterator[tuple[Stream, bytes]]:
        """Give what it prints as it comes, until its end; negative time: no limit."""
        until = math.inf if timeout_s < 0 else time.monotonic() + timeout_s
        while True:
            with self._serving:  # not while the caller has what it got: it may wait(), kill() ...
                if self.result is not None:
                    return
                got = self._step(until)
            if got is not None:
                yield got

    def _step(self, until: float, wait_s: float = MOMENT_S) -> tuple[Stream, bytes] | None:
        """Wait for one thing, a moment at most: another thread may kill it."""
        left = max(0.0, min(wait_s, (self._kill_by or until) - time.monotonic()))
        if self._end is not None:
            if (late := self._drain()) is None:
                self._finish()
            return late
        try:
            event, kind, body = hear(
                self._reply, math.ceil(left * 1000), self._fds["stdout"], self._fds["stderr"]
            )
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            self._close("stdout")  # a terminal that nobody holds any more
            return None
        if event in (Event.STDOUT, Event.STDERR):
            # Who reads slowly finds the pipe full each time: the clock runs all the same.
            self._look_at_the_clock(until)
            return self._take("stdout" if event == Event.STDOUT else "stderr", body)
        if event == Event.FRAME and kind == Frame.EXITED and len(body) >= EXITED.size:
            self._end = body
        elif event in (Event.FRAME, Event.CLOSED):
            self._lost()
        elif event == Event.TIMEOUT:
            self._look_at_the_clock(until)
        return None

    def _take(self, name: Stream, data: bytes) -> tuple[Stream, bytes] | None:
        if not data:
            self._close(name)
            return None
        output = self.out if name == "stdout" else self.err
        room = max(output.limit - len(output.kept), 0) if output.limit >= 0 else len(data)
        if not output.add(data) and not self._truncated:
            self._truncated = True
            self.kill()
        part = data[:room]
        return (name, part) if part else None

    def _drain(self) -> tuple[Stream, bytes] | None:
        """Take the next of what was written before its end: it is in the pipes by now.

        Another program may have been given the pipe, and write on: no more than a pipe holds.
        """
        for name in ("stdout", "stderr"):
            with contextlib.suppress(OSError):  # EIO: a terminal's end
                while self._fds[name] >= 0 and self._late[name] > 0:
                    if not (data := _core.drain(self._fds[name])):
                        break
                    self._late[name] -= len(data)
                    if got := self._take(name, data):
                        return got
        return None

    def _look_at_the_clock(self, until: float) -> None:
        now = time.monotonic()
        if self._kill_by and now >= self._kill_by:  # its keeper did not end it
            self.session.kill()
            self._end = EXITED.pack(signal.SIGKILL, 0, 0, 0, 0)
        elif now >= until and not self._kill_by:
            self._timed_out = True
            self.kill()

    def _lost(self) -> None:
        """The keeper is gone: killed by the program, or with all of the sandbox."""
        if self.session.is_dead(200):
            error = self.session.died()
            self._finish(137)
            raise error
        self._end = EXITED.pack(signal.SIGKILL, 0, 0, 0, 0)

    def _finish(self, code: int | None = None) -> None:
        status, _, utime, stime, maxrss = EXITED.unpack_from(self._end or bytes(EXITED.size))
        usage = Usage(
            wall_s=time.monotonic() - self._start, cpu_user_s=utime / 1e6,
            cpu_system_s=stime / 1e6, peak_memory_bytes=maxrss * 1024,
        )  # fmt: skip
        self.close()
        self.result = ExecResult(
            exit_code=_exits.command_exit_code(status)[0] if code is None else code,
            stdout=bytes(self.out.kept), stderr=bytes(self.err.kept),
            timed_out=self._timed_out, truncated=self._truncated, usage=usage,
        )  # fmt: skip

    def take_waiting(self) -> None:
        """Take what is there, without waiting; nothing where another thread is at it."""
        if self._serving.acquire(blocking=False):
            try:
                for _ in range(64):
                    if self.result is not None or not self._step(math.inf, 0.0):
                        break
            finally:
                self._serving.release()

    def finish(self, timeout_s: float) -> ExecResult:
        """Serve it to its end. Whatever ends this early ends the program too."""
        try:
            for _ in self.events(timeout_s):
                pass
        except BaseException:
            self.kill()
            self.close()
            raise
        assert self.result is not None
        self.session.look()
        return self.result

    # -- descriptors ------------------------------------------------------------------------------

    def _close(self, name: str) -> None:
        fd, self._fds[name] = self._fds[name], -1
        _core.close_all(fd)

    def close(self) -> None:
        """Give up what the host holds: a program that still runs ends with its tree."""
        with self._lock:
            fd, self._reply = self._reply, -1
        fds = [fd, *self._fds.values()]
        self._fds = dict.fromkeys(self._fds, -1)
        _core.close_all(*(f for f in fds if f >= 0))

    def __del__(self) -> None:
        """Nobody will read it any more."""
        if getattr(self, "_reply", -1) >= 0:
            self.close()
