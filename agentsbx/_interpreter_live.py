"""The running interpreter of a session: its process, channel and output, as the host holds them."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Protocol

from agentsbx import _core, _header
from agentsbx._codec_decode import NOT_PLAIN, decode_plain
from agentsbx._ship_kept import Shipper
from agentsbx._wire import Event, Frame

if TYPE_CHECKING:
    from agentsbx._codec import CodecLimits
    from agentsbx._host import Layout
    from agentsbx._interpreter_request import Known
    from agentsbx._runtime import CallSite
    from agentsbx.policy import Policy
    from agentsbx.result import Exit

__all__ = ["Home", "Live", "Program", "command"]

# Our own packages are loaded by their places: in a sandbox the folder above them cannot be listed,
# so that no finder sees them. msgspec would load `typing_extensions`, see `_zygote`.
_BOOT = """
import sys, _frozen_importlib as b, _frozen_importlib_external as e
words, sys.path[:] = sys.argv[1:3], sys.argv[3:]
sys.modules["typing_extensions"] = None
for place in words[1].split("\\x1f"):
    name = place.rpartition("/")[2]
    spec = e.spec_from_file_location(
        name, place + "/__init__.py", submodule_search_locations=[place])
    sys.modules[name] = module = b.module_from_spec(spec)
    spec.loader.exec_module(module)
from agentsbx._kernel import main
del sys.modules["typing_extensions"]
main(has_own=words[0] == "own")
"""
MAX_KNOWN = 256
READ_SIZE = 65536  # more than that may not be all that a call printed
_ANSWER = (int(Event.FRAME), int(Frame.RESULT))
PATIENCE_S = 2  # of a send: an interpreter that does not read must not hold a thread for ever
CHANNEL_BYTES = 1 << 18


def command(layout: Layout) -> list[str]:
    """Return the words that start an interpreter of a layout."""
    places = [at for at, _ in layout.own] or [layout.package]
    words = ["own" if layout.own else "-", "\x1f".join(places), *layout.sys_path]
    return [layout.executable, "-I", "-S", "-B", "-c", _BOOT, *words]


class Program(Protocol):
    """The process of an interpreter, as its session sees it."""

    def kill(self) -> None:
        """Kill it with all that it started; idempotent, from any thread."""

    def ended(self, timeout_s: float) -> Exit | None:
        """How it ended; None: it lives after that time."""

    def close(self) -> None:
        """Give back what the host holds of it."""


class Home(Protocol):
    """The session that an interpreter lives in."""

    policy: Policy
    cwd: str
    enforced: dict[str, str]

    def start_python(self, channel: int, out: int, err: int) -> Program:
        """Start `_kernel` with these descriptors as 3, 1 and 2; `SandboxUnavailable` if it fails.

        They stay the caller's.
        """


class Live:
    """A running interpreter: what `_job` needs of a box and of a supervisor."""

    def __init__(self, home: Home) -> None:
        self.job_id = 0
        self.fds = None  # nobody owns what comes with a frame: who takes it closes it
        self.shipper = Shipper()
        self._n_asked = 0
        self.setup: Any = None  # what it was told to look like
        self.known: dict[CallSite, Known] = {}
        ends: list[int] = []
        try:
            ends += _core.socketpair()
            self.channel = ends[0]
            _bound(self.channel)
            ends += os.pipe2(os.O_CLOEXEC)
            ends += os.pipe2(os.O_CLOEXEC)
            _, theirs, self.out, out, self.err, err = ends
            self.program = home.start_python(theirs, out, err)
        except BaseException:
            _core.close_all(*ends)
            raise
        _core.close_all(theirs, out, err)

    def remember(self, site: CallSite, known: Known) -> None:
        """Keep what the last call of a site found; bounded."""
        if len(self.known) >= MAX_KNOWN:
            self.known.clear()
        self.known[site] = known

    def next_number(self) -> int:
        """Return the number of a request."""
        self._n_asked += 1
        return self._n_asked

    def is_answer(self, marks: tuple[str, ...]) -> bool:
        """Whether an answer is to the last request: a forged one leaves the true one for later."""
        return marks[:1] == (str(self._n_asked),)

    def plain_answer(self, got: tuple[Any, ...], limits: CodecLimits) -> Any:
        """Return the value of a small, plain answer to the last request; NOT_PLAIN: any other."""
        if got[:2] != _ANSWER or got[3] >= 0 or max(len(got[6]), len(got[7])) > READ_SIZE:
            return NOT_PLAIN
        body, head = got[2], _header.pack_result(b"", [], (str(self._n_asked),))
        return decode_plain(body[len(head) :], limits) if body.startswith(head) else NOT_PLAIN

    def start(self, *_: Any) -> None:
        """Nothing to tell: the host watches the time itself."""

    def kill(self, *_: Any) -> None:
        """End it now; idempotent."""
        self.program.kill()

    def close(self) -> None:
        """End it and give back all of it."""
        self.program.kill()
        self.abandon()
        self.program.close()

    def close_stream(self, which: str) -> None:
        """Close `out` or `err`, which has ended."""
        _core.close_all(getattr(self, which))
        setattr(self, which, -1)

    def abandon(self) -> None:
        """Give back the descriptors alone."""
        fds = self.channel, self.out, self.err
        self.channel = self.out = self.err = -1
        _core.close_all(*fds)


def _bound(channel: int) -> None:
    """Sends must end, and a frame must fit."""
    with socket.socket(fileno=os.dup(channel)) as view:
        view.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHANNEL_BYTES)
        patience = PATIENCE_S.to_bytes(8, "little") + bytes(8)  # struct timeval
        view.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
