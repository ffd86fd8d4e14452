"""The progress of `fn.map(..., progress=True)`: a bar of rich where it is installed, else one line.

Shown on standard error, and only where that is a terminal (rich: or a notebook). Calls end in
threads of their own; the drawing is done by whoever counts, under a lock.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

__all__ = ["Progress", "total_of"]

EVERY_S = 0.1  # a terminal is written to at most so often, but for the last state


class _View(Protocol):
    def show(self, n_done: int, n_failed: int, n_cancelled: int, *, is_last: bool) -> None:
        """Draw the state."""


def words(n_failed: int, n_cancelled: int) -> str:
    """Say what did not go well.

    >>> words(0, 0), words(1, 2)
    ('', '1 failed, 2 cancelled')
    """
    pairs = (n_failed, "failed"), (n_cancelled, "cancelled")
    return ", ".join(f"{n} {what}" for n, what in pairs if n)


def total_of(iterables: Iterable[Any]) -> int | None:
    """Return how many calls there will be, None where one of them does not say.

    >>> total_of(([1, 2, 3], "ab")), total_of((iter([1]),))
    (2, None)
    """
    sizes = [len(i) if hasattr(i, "__len__") else None for i in iterables]
    known = [n for n in sizes if n is not None]
    return min(known) if known and len(known) == len(sizes) else None


class Line:
    r"""One line on a terminal, written over itself.

    >>> import io
    >>> out = io.StringIO()
    >>> Line("thumbs", 3, out).show(2, 1, 0, is_last=True)
    >>> out.getvalue()
    '\r\x1b[Kthumbs: 2/3, 1 failed\n'
    """

    def __init__(self, label: str, total: int | None, stream: IO[str]) -> None:
        self._label, self._total, self._stream = label, total, stream
        self._next_s = 0.0

    def show(self, n_done: int, n_failed: int, n_cancelled: int, *, is_last: bool) -> None:
        now = time.monotonic()
        if now < self._next_s and not is_last:
            return
        self._next_s = now + EVERY_S
        of = "" if self._total is None else f"/{self._total}"
        bad = words(n_failed, n_cancelled)
        text = f"{self._label}: {n_done}{of}{', ' if bad else ''}{bad}"
        with contextlib.suppress(OSError, ValueError):  # closed: the calls go on
            self._stream.write(f"\r\x1b[K{text}" + ("\n" if is_last else ""))
            self._stream.flush()


class _Rich:
    """A bar of `rich.progress`."""

    def __init__(self, rich: Any, console: Any, label: str, total: int | None) -> None:
        self._bar = rich.Progress(
            rich.TextColumn("{task.description}", markup=False), rich.BarColumn(),
            rich.MofNCompleteColumn(), rich.TimeElapsedColumn(),
            rich.TextColumn("{task.fields[bad]}", markup=False), console=console,
        )  # fmt: skip
        self._task = self._bar.add_task(label, total=total, bad="")
        self._bar.start()

    def show(self, n_done: int, n_failed: int, n_cancelled: int, *, is_last: bool) -> None:
        self._bar.update(self._task, completed=n_done, bad=words(n_failed, n_cancelled))
        if is_last:
            self._bar.stop()  # the cursor is shown again


def _view(label: str, total: int | None) -> _View | None:
    """What there is to draw on; None: nothing."""
    try:
        from rich import progress as rich
        from rich.console import Console
    except ImportError:
        stream = sys.stderr
        isatty = getattr(stream, "isatty", None)
        return Line(label, total, stream) if isatty is not None and isatty() else None
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        return None
    return _Rich(rich, console, label, total)


class Progress:
    """Counts calls that end; `close()` draws the last state. Thread-safe."""

    def __init__(self, label: str, total: int | None) -> None:
        self.n_done = self.n_failed = self.n_cancelled = 0
        # A signal or a finaliser may come in while this very thread counts.
        self._lock = threading.RLock()
        self._view = _view(label, total)

    def watch(self, future: Future[Any]) -> None:
        """Count this call when it ends."""
        future.add_done_callback(self._ended)

    def _ended(self, future: Future[Any]) -> None:
        with self._lock:
            if self._view is None:
                return
            if future.cancelled():
                self.n_cancelled += 1
            else:
                self.n_done += 1
                self.n_failed += future.exception() is not None
            self._view.show(self.n_done, self.n_failed, self.n_cancelled, is_last=False)

    def close(self) -> None:
        """Draw the last state and leave the terminal as it was. Idempotent."""
        with self._lock:
            view, self._view = self._view, None
            if view is not None:
                view.show(self.n_done, self.n_failed, self.n_cancelled, is_last=True)
