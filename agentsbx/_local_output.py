"""What a call in this process prints: passed on as `output=` says, and kept for its `Result`.

`sys.stdout` and `sys.stderr` are exchanged only while such calls run. Which call a write belongs to
is told by a context variable, so that threads and tasks do not mix.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Kept", "kept_output"]


class Kept:
    """stdout or stderr of one call; `forward` is where it goes besides."""

    def __init__(self, forward: Any, name: str, tell: Any = None) -> None:
        self.data = bytearray()
        self._forward = forward
        self._name = name
        self._tell = tell

    def write(self, text: str) -> int:
        self.data += text.encode("utf-8", "surrogateescape")
        if self._forward is not None:
            self._forward.write(text)
        if self._tell is not None and text:
            self._tell(self._name, text)
        return len(text)


class _Router:
    """Stands for a stream while local calls run."""

    def __init__(self, stream: Any, which: int) -> None:
        self.stream = stream
        self._which = which

    def write(self, text: str) -> int:
        kept = _kept.get()
        written: int = (self.stream if kept is None else kept[self._which]).write(text)
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_kept: contextvars.ContextVar[tuple[Kept, Kept] | None] = contextvars.ContextVar(
    "agentsbx_local_output", default=None
)
_lock = threading.Lock()
_routers: list[_Router] = []
_n_calls = 0


@contextlib.contextmanager
def kept_output(mode: str, tell: Any = None) -> Iterator[tuple[Kept, Kept]]:
    """Keep what the block prints; `mode` is a word of `output=`, `tell` is `on_output=`."""
    out, err = _enter()
    targets = {"forward": (out, err), "stderr": (err, err)}.get(mode, (None, None))
    kept = Kept(targets[0], "stdout", tell), Kept(targets[1], "stderr", tell)
    token = _kept.set(kept)
    try:
        yield kept
    finally:
        _kept.reset(token)
        _leave()


def _enter() -> tuple[Any, Any]:
    global _n_calls
    with _lock:
        _n_calls += 1
        if _n_calls == 1:
            _routers[:] = _Router(sys.stdout, 0), _Router(sys.stderr, 1)
            sys.stdout, sys.stderr = _routers
        return _routers[0].stream, _routers[1].stream


def _leave() -> None:
    global _n_calls
    with _lock:
        _n_calls -= 1
        if _n_calls:
            return
        if sys.stdout is _routers[0]:  # else somebody has put another there
            sys.stdout = _routers[0].stream
        if sys.stderr is _routers[1]:
            sys.stderr = _routers[1].stream
        _routers.clear()
