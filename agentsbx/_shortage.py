"""What this process has too little of for a sandbox: descriptors, memory; a typed error says so."""

from __future__ import annotations

import errno
import os
import time
from typing import NoReturn

from agentsbx import _core
from agentsbx.errors import SandboxUnavailable

__all__ = ["no_room", "pair", "reraise"]

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS)
_TRIES, _PAUSE_S = 200, 0.005


def no_room(error: OSError) -> Exception:
    """Return what to raise for an OSError of the host's own side of a call.

    >>> no_room(OSError(errno.EMFILE, "Too many open files")).missing
    ('file descriptors',)
    """
    if error.errno not in _NO_ROOM:
        return error
    if error.errno in (errno.ENOMEM, errno.ENOBUFS):
        what, hint = "memory", "free memory, or run fewer sandboxes at once"
    else:
        what = "file descriptors"
        hint = "close what it holds open, or raise its limit (ulimit -n); a sandbox takes about six"
    return SandboxUnavailable(
        f"this process has no {what} left for a sandbox: {os.strerror(error.errno)}",
        missing=[what], errno=error.errno, hint=hint,
    )  # fmt: skip


def reraise(error: OSError) -> NoReturn:
    """Raise what `no_room` says; the error itself where it is none of these."""
    made = no_room(error)
    if made is error:
        raise error
    raise made from error


def pair() -> tuple[int, int]:
    """Return a pair of sockets; waits up to a second where no descriptor is left for them."""
    for left in range(_TRIES, -1, -1):
        try:
            return _core.socketpair()
        except OSError as e:
            if e.errno not in _NO_ROOM or not left:
                raise
        time.sleep(_PAUSE_S)
    raise AssertionError("unreachable")
