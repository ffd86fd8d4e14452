"""Which lines of project code a job runs, while `coverage` measures in the host.

Runs in the job only, and only then. Libraries are left alone by where they lie; which of the other
files are measured is the host's to say (`_notes`).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["follow_threads", "start"]

_LIBRARY = os.path.dirname(os.__file__) + os.sep
_OWN = os.path.dirname(__file__) + os.sep
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_CHUNK = 1024  # of lines or arcs in a note: it fits a frame

_found: dict[str, set[Any] | None] = {}
_arcs = False
_is_on = False


def start(*, arcs: bool) -> None:
    """Trace from here on; `arcs`: jumps between lines too (branch coverage)."""
    global _arcs, _is_on
    from agentsbx import _hooks

    _arcs = arcs
    if not _is_on:
        _is_on = True
        _hooks.at_end.append(_send)
        follow_threads(sys.modules.get("threading"))
        sys.settrace(_called)


def follow_threads(threading: Any) -> None:
    """Trace the threads that will be started too."""
    if _is_on and threading is not None:
        threading.settrace(_called)


def _called(frame: Any, event: str, arg: Any) -> Any:
    """Trace function of each new frame."""
    name = frame.f_code.co_filename
    try:
        lines = _found[name]
    except KeyError:
        is_library = name.startswith(("<", _LIBRARY, _OWN)) or any(p in name for p in _PACKAGES)
        lines = _found[name] = None if is_library else set()
    if lines is None:
        return None
    return _arc_tracer(frame, lines) if _arcs else _line_tracer(lines)


def _line_tracer(lines: set[int]) -> Any:
    def trace(frame: Any, event: str, arg: Any) -> Any:
        if event == "line":
            lines.add(frame.f_lineno)
        return trace

    return trace


_RESUME = 0


def _opcodes() -> int:
    import opcode

    return opcode.opmap["RESUME"]


def _arc_tracer(frame: Any, arcs: set[tuple[int, int]]) -> Any:
    """Trace one run of a frame; its entry and its end count as minus its first line."""
    global _RESUME
    _RESUME = _RESUME or _opcodes()
    code = frame.f_code
    first = code.co_firstlineno
    raw = code.co_code
    # The argument of RESUME is 0 where a function starts and not where a generator goes on.
    last = -first if raw[frame.f_lasti + 1] == 0 else frame.f_lineno

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal last
        if event == "line":
            arcs.add((last, frame.f_lineno))
            last = frame.f_lineno
        elif event == "return":
            at = frame.f_lasti + (0 if sys.version_info[:2] == (3, 13) else 2)
            if at >= len(raw) or raw[at] != _RESUME:  # else it yields
                arcs.add((last, -first))
        return trace

    return trace


def _send() -> None:
    """Send what was found since the last time."""
    from agentsbx import _report

    kind = _report.ARCS if _arcs else _report.LINES
    for name, lines in list(_found.items()):
        if lines:
            items = list(lines)
            lines.clear()
            for at in range(0, len(items), _CHUNK):
                _report.send(kind, _report.text(name, 1024), items[at : at + _CHUNK])
