"""How many sandboxes of this process run at once (semantics 5.2): places, and the wait for one.

A place is taken before a waiting sandbox is, and given back when its descriptors are closed. The
usual call takes one in a single step; only who finds none waits.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque

from agentsbx._units import format_duration
from agentsbx.errors import PolicyError, SandboxBusy

__all__ = ["Gate", "default_places", "gate"]

_PER_CPU = 16  # tools wait more than they compute
_BYTES_EACH = 128 << 20
_FEWEST, _MOST = 4, 512
QUEUE_TIMEOUT_S = 300.0


def default_places() -> int:
    """Return 16 for each CPU that this process may use, fewer where memory is short.

    One for each 128 MiB of memory at most; never fewer than 4 or more than 512.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(_FEWEST, min(_PER_CPU * cpus, memory // _BYTES_EACH, _MOST))


class Gate:
    """Places for running sandboxes. Thread-safe.

    >>> g = Gate(1, 0.01)
    >>> g.try_acquire(), g.try_acquire()
    (True, False)
    >>> g.release(); g.running
    0
    """

    def __init__(self, places: int, timeout_s: float) -> None:
        self.places = places
        self.timeout_s = timeout_s
        self._free: deque[None] = deque([None] * places)
        self._debt = 0  # places that shall not come back: the number was lowered
        self._waiting = 0
        self._changed = threading.Condition()

    @property
    def running(self) -> int:
        """How many places are taken."""
        return self.places + self._debt - len(self._free)

    def try_acquire(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self._waiting:
            return False
        return self._pop()

    def _pop(self) -> bool:
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def acquire(self) -> None:
        """Take a place, waiting for one; `SandboxBusy` when the wait is over."""
        if self.try_acquire():
            return
        with self._changed:
            self._waiting += 1
            try:
                got = self._changed.wait_for(self._pop, self.timeout_s)
            finally:
                self._waiting -= 1
        if not got:
            raise SandboxBusy(
                f"{self.places} sandboxes of this process run, and none ended within "
                f"queue_timeout={format_duration(self.timeout_s)}",
                missing=["a place"],
                hint="wait for some calls first, close generators that are done with, or allow "
                "more with agentsbx.configure(max_concurrency=..., queue_timeout=...)",
            )

    def force(self) -> None:
        """Take a place beyond the number, for a call that another running call waits for.

        Were it to wait, calls that hold all places could wait for each other for ever.
        """
        if not self._pop():
            with self._changed:
                self._debt += 1

    def release(self) -> None:
        """Give a place back."""
        if self._debt:
            with self._changed:
                if self._debt:
                    self._debt -= 1
                    return
        self._free.append(None)
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def resize(self, places: int) -> None:
        """Allow another number from now on; what runs goes on."""
        with self._changed:
            more = places - self.places
            self.places = places
            while more > 0 and self._debt:
                self._debt -= 1
                more -= 1
            self._free.extend([None] * max(more, 0))
            for _ in range(-more):
                if not self._pop():
                    self._debt += 1
            self._changed.notify_all()


def _number(name: str, otherwise: float) -> float:
    text = os.environ.get(name)
    if text is None:
        return otherwise
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value >= 1:
        raise PolicyError(f"{name}={text!r} is not a number of at least 1", path=name)
    return value


# How many host functions (`_bridge`) this thread or task stands in.
depth: contextvars.ContextVar[int] = contextvars.ContextVar("agentsbx_depth", default=0)
_gate: Gate | None = None
_lock = threading.Lock()


def gate() -> Gate:
    """Return the gate of this process, made by the first use."""
    global _gate
    if _gate is None:
        with _lock:
            if _gate is None:
                places = int(_number("AGENTSBX_MAX_CONCURRENCY", default_places()))
                _gate = Gate(places, _number("AGENTSBX_QUEUE_TIMEOUT", QUEUE_TIMEOUT_S))
    return _gate


def after_fork() -> None:
    """In a forked child: nothing runs here yet; the settings stay."""
    global _gate, _lock
    _lock = threading.Lock()
    if _gate is not None:
        _gate = Gate(_gate.places, _gate.timeout_s)
