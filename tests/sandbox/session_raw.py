"""A session spoken to in frames: what stands between pid 1 of it and what it runs, alone."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator

from agentsbx import _core, _engine
from agentsbx._boxes import Box
from agentsbx._preload import NOTHING
from agentsbx._wire import Cause, Event
from agentsbx.policy import Policy

SESSION, SPAWN, FILE, STARTED, FILE_REPLY = 5, 6, 7, 28, 29
FAILED, EXITED = 19, 21
KEEP = 2  # SBX_SPAWN_KEEP
STAT, READ, WRITE, LIST = 1, 2, 3, 4
_SPAWN = struct.Struct("@IIII")
_ASK = struct.Struct("@II")
_FILE = struct.Struct("@IIIIQ")
_REPLY = struct.Struct("@iIQqQII")
_EXITED = struct.Struct("@iIQQQ")


class NotStarted(Exception):
    """A frame other than STARTED came, or the end (0)."""


class Program:
    """A program of a session, behind its own reply socket."""

    def __init__(self, reply: int, out: int) -> None:
        self.reply, self.out = reply, out

    def frame(self, timeout_ms: int = 10_000) -> tuple[int, bytes]:
        """Return the next frame: (kind, body); kind 0: closed, -1: nothing in time."""
        event, kind, body, memfd, _, _ = _core.wait_frame(self.reply, -1, -1, timeout_ms)
        assert memfd < 0
        if event == Event.FRAME:
            return kind, body
        return (0 if event == Event.CLOSED else -1), b""

    def line(self) -> str:
        """Return the next line that it prints."""
        text = b""
        while not text.endswith(b"\n") and (part := os.read(self.out, 1)):
            text += part
        return text.decode()

    def kill(self) -> None:
        """Ask for its end."""
        with contextlib.suppress(OSError):
            _core.send(self.reply, _ASK.pack(2, 0))

    def status(self, timeout_ms: int = 10_000) -> int:
        """Return its wait status, as its keeper says."""
        kind, body = self.frame(timeout_ms)
        assert kind == EXITED, kind
        return int(_EXITED.unpack_from(body)[0])

    def close(self) -> None:
        """Give up both of its descriptors."""
        fds = self.reply, self.out
        self.reply = self.out = -1
        _core.close_all(*fds)


class Raw:
    """The host's end of a session."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self._all: list[Program] = []

    def spawn(self, *argv: str, flags: int = 0) -> Program:
        """Start a program; its output can be read with `line`."""
        mine, theirs = _core.socketpair()
        out, end = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        words = b"\0".join([*map(os.fsencode, argv), b"PATH=/usr/bin:/bin", b"/tmp", b""])
        body = _SPAWN.pack(len(argv), 1, 3, flags) + words
        try:
            _core.send_frame(self.box.channel, SPAWN, body, (theirs, null, end, end))
        finally:
            _core.close_all(theirs, null, end)
        program = Program(mine, out)
        self._all.append(program)
        kind, _ = program.frame()
        if kind != STARTED:
            raise NotStarted(kind)
        return program

    def run(self, *argv: str) -> str:
        """Run a program to its end and return what it printed."""
        program = self.spawn(*argv)
        text = b""
        while part := os.read(program.out, 4096):
            text += part
        assert program.frame()[0] == EXITED
        program.close()
        return text.decode()

    def file(self, op: int, path: str, data: bytes = b"", most: int = 1 << 20) -> tuple[int, bytes]:
        """Do one file operation; returns its errno and what it put in the memfd."""
        mine, theirs = _core.socketpair()
        memfd = os.memfd_create("file")
        os.pwrite(memfd, data, 0)
        words = b"\0".join([os.fsencode(path), b"", b"/tmp", b""])
        try:
            body = _FILE.pack(op, 0, 0o644, 5, most) + words
            _core.send_frame(self.box.channel, FILE, body, (theirs, memfd))
            _core.close_all(theirs)
            event, kind, body, _, _, _ = _core.wait_frame(mine, -1, -1, 10_000)
            assert (event, kind) == (Event.FRAME, FILE_REPLY), (event, kind)
            err, _, _, _, n_bytes, _, _ = _REPLY.unpack(body)
            return err, os.pread(memfd, n_bytes, 0)
        finally:
            _core.close_all(mine, memfd)

    def close(self) -> None:
        """Give up the programs' descriptors."""
        for program in self._all:
            program.close()


@contextlib.contextmanager
def opened(policy: Policy | None = None) -> Iterator[Raw]:
    """Open a session of its own."""
    rt, policy = _engine.current(), policy or Policy()
    template = rt.pools.template(None, NOTHING)
    box = _engine.take(rt, rt.pools.pool(None, policy, template, (), "/", 1))
    _core.send_frame(box.channel, SESSION, b"")
    raw = Raw(box)
    try:
        yield raw
    finally:
        raw.close()
        rt.sup.kill(box.job_id, Cause.CANCELLED)
        box.close()
