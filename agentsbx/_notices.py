"""Warnings about what a call left behind, once per function, at its first line.

Host process. What a job wrote (names) is escaped before it comes here.
"""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentsbx._kept import Discarded, LeftFile
    from agentsbx._runtime import CallSite

__all__ = ["files", "lost"]


def lost(site: CallSite, names: tuple[str, ...]) -> None:
    """Something was alive at its return and died with the sandbox."""
    _warn(site, "lost", f"alive at its return, and killed: {', '.join(names[:5])}")


def files(site: CallSite, discarded: Discarded, *, is_plain: bool) -> None:
    """Something was left in files: nobody sees that of a plain call, which has no `Result`."""
    if is_plain:
        _gone(site, discarded)
    elif site.keep:
        _left_out(site, discarded)


def _gone(site: CallSite, discarded: Discarded) -> None:
    visible = [file for file in discarded if _is_meant(file)]
    if visible:
        first = visible[0]
        where, _, name = first.shown.rpartition("/")
        others = f" (and {n} more)" if (n := len(visible) - 1 + discarded.n_more) else ""
        site.quick = None  # it asked for this, and need not again
        remedy = f"keep=[{_pattern(name)!r}] and {site.name}.run(...) bring it back"
        if site.keep:
            remedy = f"what keep= names comes back with {site.name}.run(...)"
        _warn(site, "gone", f"{name}{others} was written to {where} and is gone: {remedy}")


def _left_out(site: CallSite, discarded: Discarded) -> None:
    missing = [file for file in discarded if file.why]
    if missing:
        words = f"{missing[0].shown}: {missing[0].why}"
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        _warn(site, "left_out", f"not kept: {words}{others}; see Result.discarded")
    elif not discarded.is_complete or discarded.n_more:
        _warn(site, "left_out", "more files than keep= can look at; see Result.discarded")


def _is_meant(file: LeftFile) -> bool:
    """Whether somebody will miss it: caches, settings and shared memory are nobody's result."""
    parts = file.shown.split("/")
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    return file.kind == "file" and not hidden and not file.name.startswith("/dev/shm/")


def _pattern(name: str) -> str:
    """A pattern that names it: by its ending, or itself."""
    _, dot, ending = name.rpartition(".")
    return f"*.{ending}" if dot and ending.isalnum() else name


def _warn(site: CallSite, what: str, words: str) -> None:
    with site.lock:
        if what in site.warned:
            return
        site.warned.add(what)
    code = getattr(inspect.unwrap(site.fn), "__code__", None)
    warnings.warn_explicit(
        f"{site.name}: {words}", RuntimeWarning,
        code.co_filename if code else "agentsbx", code.co_firstlineno if code else 1,
    )  # fmt: skip
