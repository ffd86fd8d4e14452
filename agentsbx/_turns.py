"""One at a time, in the order of arrival: for what has one conversation and many threads.

Unlike a lock, waiting for a turn can be given up from another thread.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from agentsbx._job import Cancel

__all__ = ["Turn", "Turns"]


class Turns:
    """A queue of threads.

    >>> turns = Turns()
    >>> with turns.take(None) as mine:
    ...     mine.has_come
    True
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Turn] = deque()

    def take(self, cancel: Cancel | None) -> Turn:
        """Return a turn: entering it waits, until it has come or `cancel` was cancelled."""
        return Turn(self._changed, self._waiting, cancel)

    def try_take(self) -> Turn | None:
        """Return a turn that has come, to be left with `leave`; None: others are before it."""
        with self._changed:
            if self._waiting:
                return None
            turn = Turn(self._changed, self._waiting, None)
            self._waiting.append(turn)
            turn.has_come = True
            return turn


class Turn:
    """One place in the queue; `has_come` is false where the wait was given up."""

    def __init__(
        self, changed: threading.Condition, waiting: deque[Turn], cancel: Cancel | None
    ) -> None:
        self._changed, self._waiting, self._cancel = changed, waiting, cancel
        self.has_come = False

    def __enter__(self) -> Self:
        with self._changed:
            self._waiting.append(self)
            if self._waiting[0] is self:
                self.has_come = True
                return self
        try:
            self._wait()
        except BaseException:
            self.leave()
            raise
        return self

    def _wait(self) -> None:
        cancel = self._cancel
        if cancel is not None:
            cancel.arm(self._wake)
        try:
            with self._changed:
                while self._waiting[0] is not self and not (cancel and cancel.cancelled):
                    self._changed.wait()
                self.has_come = self._waiting[0] is self
        finally:
            if cancel is not None:
                cancel.arm(None)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def leave(self) -> None:
        """Make way for the next."""
        with self._changed:
            self._waiting.remove(self)
            self._changed.notify_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self.leave()
