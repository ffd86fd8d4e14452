"""The running interpreter of a session: its process, channel and output, as the host holds them."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Protocol

from agentsbx import _core
from agentsbx._ship_kept import Shipper

if TYPE_CHECKING:
    from agentsbx._host import Layout
    from agentsbx.policy import Policy
    from agentsbx.result import Exit

__all__ = ["Home", "Live", "Program", "command"]

# msgspec would load `typing_extensions`, and inspect with it: see `_zygote`.
_IMPORT = (
    "sys.modules['typing_extensions'] = None; from agentsbx._kernel import main; "
    "del sys.modules['typing_extensions']; "
)
_BOOT = f"import sys; sys.path[:] = sys.argv[1:]; {_IMPORT}main()"
# Another interpreter or other packages: our own come from the last folder, see `_zygote`.
_BOOT_ELSEWHERE = (
    f"import sys; path = sys.argv[1:]; sys.path[:] = path[-1:] + path; {_IMPORT}main(path)"
)
PATIENCE_S = 2  # of a send: an interpreter that does not read must not hold a thread for ever
CHANNEL_BYTES = 1 << 18


def command(layout: Layout) -> list[str]:
    """Return the words that start an interpreter of a layout."""
    boot = _BOOT_ELSEWHERE if layout.own else _BOOT
    return [layout.executable, "-I", "-S", "-B", "-c", boot, *layout.sys_path]


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
        self.shipper = Shipper()
        self._n_asked = 0
        self.setup: Any = None  # what it was told to look like
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

    def next_number(self) -> int:
        """Return the number of a request."""
        self._n_asked += 1
        return self._n_asked

    def is_answer(self, marks: tuple[str, ...]) -> bool:
        """Whether an answer is to the last request: a forged one leaves the true one for later."""
        return marks[:1] == (str(self._n_asked),)

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
