"""Nothing is enforced here: sandboxed calls in this process, for the unit tests of your tools.

`local()` and the pytest fixture `sandbox_local` run every call of a sandboxed function right here,
without a sandbox: fast, in your debugger, on any system. All that crosses is still checked and
copied as for a sandbox, so that a test sees the same `SerializationError` and `ResultError`, and no
mutation of an argument comes back. What a policy allows is not looked at: a test of *that* needs a
sandbox.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING

from agentsbx import _calls

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_local", "local"]

_lock = threading.Lock()
_depth = 0


@contextlib.contextmanager
def local() -> Iterator[None]:
    """Run all sandboxed calls of this process here while the block lasts; nothing is enforced.

    For the whole process, other threads included; may be nested, and used as a decorator. Commands
    (`agentsbx.run`) are not run here: they keep needing a sandbox. A call that changes what it
    captured gets a `RuntimeWarning`, as a sandbox would not bring that back.

    >>> from agentsbx import sandbox
    >>> @sandbox(timeout="5s")
    ... def add(items: list, x: int) -> list:
    ...     items.append(x)
    ...     return items
    >>> mine = [1]
    >>> with local():
    ...     add(mine, 2), mine
    ([1, 2], [1])
    """
    global _depth
    from agentsbx import _local

    with _lock:
        _depth += 1
        _calls.substitute = _local
        running = sys.modules.get("agentsbx._runtime")
        for site in list(running._sites) if running is not None else ():
            site.quick = None
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if not _depth:
                _calls.substitute = None


def is_local() -> bool:
    """Whether sandboxed calls run in this process now, unconfined.

    >>> with local():
    ...     is_local()
    True
    """
    return _calls.substitute is not None
