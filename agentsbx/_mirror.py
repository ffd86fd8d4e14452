"""What of this process a job's observers mirror: levels of loggers, and whether lines are measured.

Looked at before each call, so it costs a few look-ups while nothing changes.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["measuring", "mirrored"]

Levels = tuple[tuple[tuple[str, int], ...], int]
_KEY: Any = "agentsbx"
_DEFAULT: Levels = ((), 0)


def mirrored() -> tuple[Any, ...] | None:
    """(log levels, disabled level, whether the root has handlers) or None; measured: see below.

    None in all where nothing was configured: then a job is told nothing.
    """
    logging = sys.modules.get("logging")
    logs: tuple[Any, ...] | None = None
    if logging is not None:
        root = logging.root
        levels = root._cache.get(_KEY) or _read(logging)
        if levels is not _DEFAULT or root.handlers:
            logs = (*levels, bool(root.handlers))
    coverage = sys.modules.get("coverage")
    lines = None
    if coverage is not None:
        measured = measuring()
        lines = None if measured is None else bool(measured.get_option("run:branch"))
    return None if logs is None and lines is None else (logs, lines)


def measuring() -> Any:
    """Return the `coverage.Coverage` that measures in this process, or None."""
    coverage = sys.modules.get("coverage")
    kind = getattr(coverage, "Coverage", None)
    return None if kind is None else kind.current()


def _read(logging: Any) -> Levels:
    """Read all levels, and leave them where `logging` itself forgets what it knew of levels.

    It keeps, for each logger, which levels are enabled; `setLevel` and `disable` empty that.
    """
    root = logging.root
    with logging._lock:
        known = list(root.manager.loggerDict.items())
        found = [
            (name, logger.level)
            for name, logger in known
            if isinstance(logger, logging.Logger) and logger.level
        ]
        if root.level != logging.WARNING:
            found.insert(0, ("", root.level))
        levels = (tuple(found), root.manager.disable) if found or root.manager.disable else _DEFAULT
        root._cache[_KEY] = levels
    return levels
