"""What a call does with notes of its job: `_notes`, loaded by the first one, and its verdict.

Most calls have none, so this is all of it that they load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentsbx._codec import ClassTable
    from agentsbx._reply import Reply
    from agentsbx._ship import CallStream

__all__ = ["taker"]


def taker(
    name: str, reply: Reply, stream: CallStream, classes: Callable[[], ClassTable]
) -> Callable[[bytes], None]:
    """Return what takes the notes of one call of the function `name`.

    It raises nothing: that a note is malformed, that a handler or filter of the host raised, and
    how many notes were dropped stands in `reply`.
    """
    notes: Any = None

    def take(body: bytes) -> None:
        nonlocal notes
        from agentsbx import _notes

        if notes is None:
            notes = _notes.Notes(name, stream.functions, stream.files, classes)
        try:
            notes.take(body)
        except _notes.Malformed as error:
            reply.is_malformed = str(error)
        except Exception as error:  # as it would come out of the line that logs or warns
            reply.raised = error
        reply.n_dropped = notes.dropped

    return take
