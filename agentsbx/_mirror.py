"""What of this process is mirrored in a job: levels of loggers, lines measured, warnings shown.

Looked at before each call, so it costs a few look-ups while nothing changes.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from typing import Any

__all__ = ["measuring", "mirrored"]

Levels = tuple[tuple[tuple[str, int], ...], int]
_KEY: Any = "agentsbx"
_DEFAULT: Levels = ((), 0)


def mirrored() -> tuple[Any, ...] | None:
    """What a job is told (`_hooks.mirror`); None, so nothing, where nothing was configured.

    First (levels by name, disabled level, whether the root has handlers) or None; then whether arcs
    are measured, None if nothing is; then whether warnings matter that Python ignores by default.
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
    shown = _shows_all or _shows(warnings.filters)
    return (logs, lines, shown) if shown or logs is not None or lines is not None else None


def measuring() -> Any:
    """Return the `coverage.Coverage` that measures in this process, or None."""
    coverage = sys.modules.get("coverage")
    kind = getattr(coverage, "Coverage", None)
    return None if kind is None else kind.current()


# What Python ignores by default a job ignores too, as long as this process does: a forgotten
# `open(path).read()` must not cost a message. Once it does not, that stays: changing to and fro
# would make a new snapshot each time, and what is sent in vain is ignored here.
_IGNORED = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
_shows_all = False
_seen: list[Any] = []


def _shows(filters: Iterable[Any]) -> bool:
    """Whether a filter of this process may show what the default ones ignore."""
    global _shows_all, _seen
    if filters != _seen:
        _seen = list(filters)
        _shows_all = _may_show(_seen)
    return _shows_all


def _may_show(filters: list[Any]) -> bool:
    left = {*_IGNORED}
    for action, message, category, module, line in filters:
        if action == "ignore":
            if message is None and module is None and not line:
                left -= {kind for kind in left if issubclass(kind, category)}
        elif module == "__main__" and category is DeprecationWarning:
            continue  # one of the default ones
        elif any(issubclass(kind, category) or issubclass(category, kind) for kind in left):
            return True
    return bool(left)


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
