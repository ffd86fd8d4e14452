"""Denials that the body swallows: the exceptions of one call, noted in the job as they are raised.

Runs in the job, and only under `strict_violations=True`. What it sends is advice like all that a
job says: code that means to hide a denial can; what the system call filter answered is recorded
outside (`csrc/supervisor/notify.c`). The host's side is `_swallowed`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

__all__ = ["Watch"]

MAX_NOTES = 256  # different ones; a probing library has dozens
_MAX_NAME = 4096
_TOOL = 3  # of sys.monitoring: 0 to 2 and 5 have names of their own


class Watch:
    """Notes exceptions that may be denials, until `close`; `frames` are what the host is sent."""

    def __init__(self) -> None:
        self.frames: dict[bytes, None] = {}
        self._environ: Any = getattr(type(os.environ).__getitem__, "__code__", None)
        self._close = self._monitor() if hasattr(sys, "monitoring") else self._trace()

    def close(self) -> None:
        """Stop watching: what follows is our own code."""
        self._close()

    def _monitor(self) -> Callable[[], None]:
        monitoring: Any = getattr(sys, "monitoring")  # noqa: B009 - Python 3.12 and later

        def raised(code: Any, _offset: int, exc: BaseException) -> None:
            self._note(exc, code)

        monitoring.use_tool_id(_TOOL, "agentsbx")
        monitoring.register_callback(_TOOL, monitoring.events.RAISE, raised)
        monitoring.set_events(_TOOL, monitoring.events.RAISE)

        def close() -> None:
            monitoring.set_events(_TOOL, 0)
            monitoring.free_tool_id(_TOOL)

        return close

    def _trace(self) -> Callable[[], None]:
        """Python 3.11: the trace function sees exceptions too, at a price for each call."""
        import threading

        def trace(frame: FrameType, event: str, arg: Any) -> Any:
            if event == "exception":
                self._note(arg[1], frame.f_code)
            frame.f_trace_lines = False
            return trace

        threading.settrace(trace)
        sys.settrace(trace)

        def close() -> None:
            sys.settrace(None)
            threading.settrace(None)

        return close

    def _note(self, exc: Any, code: Any) -> None:
        if len(self.frames) >= MAX_NOTES:
            return
        try:
            if isinstance(exc, OSError):
                kind = type(exc).__name__ if exc.filename is None else "OSError"
                self._add(kind, exc.errno, code.co_name, exc.filename, exc.filename2)
            elif isinstance(exc, KeyError) and code is self._environ:
                self._add("KeyError", None, code.co_name, exc.args[0], None)
            elif isinstance(exc, RuntimeError) and "can't start new thread" in str(exc):
                self._add("RuntimeError", None, code.co_name, None, None)
        except Exception:
            return  # a class of the user's that answers oddly: its error, not ours

    def _add(self, kind: str, errno: object, calling: str, first: object, second: object) -> None:
        number = errno if isinstance(errno, int) else 0
        names = [_bytes(kind), b"%d" % number, _bytes(calling), _bytes(first), _bytes(second)]
        self.frames.setdefault(b"\0".join(names))


def _bytes(value: object) -> bytes:
    if isinstance(value, (str, bytes, os.PathLike)):
        return os.fsencode(value)[:_MAX_NAME].replace(b"\0", b"")
    return b""
