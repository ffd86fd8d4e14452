"""Functions for a session's interpreter: shipped once, and again when what they capture changed.

All go on in one pickle, so that what two functions share is one object over there too. That holds
as long as nothing that was shipped has changed here: then everything is shipped anew, by and by.
`_receive_kept` is the other half.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

from agentsbx._ship import CallStream, Snapshot, _Output, _pickler, _small_only
from agentsbx._ship_modules import loaded_project_modules
from agentsbx._ship_pickle import Context, ShipPickler

__all__ = ["Given", "Shipper"]

MAX_FUNCTIONS = 256  # then everything is shipped anew: neither side shall grow without bound


class Given(NamedTuple):
    """A function as an interpreter is given it: see `_header.pack_kept_call`."""

    blob: bytes
    buffers: list[Any]
    is_anew: bool


class Shipper:
    """What one interpreter was given; for one thread at a time."""

    def __init__(self) -> None:
        self._slots: dict[int, tuple[int, Snapshot]] = {}
        self._base: ShipPickler | None = None
        self._context = Context()
        self._is_void = True  # what the interpreter has, if anything, is no longer meant

    def forget(self) -> None:
        """Something was not taken over there: ship everything anew."""
        self._is_void = True

    def mark(self) -> tuple[Any, ...]:
        """Return what `restore` takes, where a function did not go out after all."""
        return dict(self._slots), self._base, self._context, self._is_void

    def restore(self, mark: tuple[Any, ...]) -> None:
        """Undo the last `give`."""
        self._slots, self._base, self._context, self._is_void = mark

    def slot_of(self, snapshot: Snapshot) -> int | None:
        """Return where the interpreter has this very snapshot; None: it has not."""
        known = self._slots.get(id(snapshot))
        return None if known is None or self._is_void else known[0]

    def give(self, snapshot: Snapshot) -> tuple[int, Given]:
        """Pickle a function for the interpreter; return its slot and what travels."""
        shared = [known for _, known in self._slots.values()]
        anew = self._is_void or self._base is None or len(shared) >= MAX_FUNCTIONS
        if not anew:
            anew = any(not known.is_current() for known in shared)
        if anew:
            self._slots.clear()
            self._base = None
            own = snapshot._context
            self._context = Context(wrapper_reducer=own.wrapper_reducer)
        out = _Output()
        pickler = self._continue(out.file, out.take)
        # Namespaces of functions belong to all that follows, not to one call.
        pickler.own_namespaces = self._context.namespaces
        pickler.dump((snapshot.fn, loaded_project_modules(), None))
        self._base = pickler
        self._is_void = False
        slot = len(self._slots)
        self._slots[id(snapshot)] = slot, snapshot
        return slot, Given(out.file.getvalue(), list(out.buffers), anew)

    def begin_call(
        self, snapshot: Snapshot, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> CallStream:
        """Pickle the arguments of a call; raises `SerializationError` naming the argument."""
        out = _Output()
        self._context.secrets = snapshot._context.secrets  # as the host's environment stands now
        pickler = self._continue(out.file, out.take)
        try:
            pickler.dump((args, kwargs))
        except Exception as error:
            raise snapshot._explain_call(args, kwargs, error) from None
        return CallStream(snapshot, pickler, out.file.getvalue(), out.buffers, self._context)

    def quick_call(
        self, snapshot: Snapshot, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> CallStream | None:
        """Do the same for small arguments; None where it needs more (buffers, an error)."""
        file = io.BytesIO()
        pickler = self._continue(file, _small_only)
        try:
            pickler.dump((args, kwargs))
        except Exception:
            return None
        return CallStream(snapshot, pickler, file.getvalue(), [], self._context)

    def _continue(self, file: io.BytesIO, take: Any) -> ShipPickler:
        memo = None if self._base is None else self._base.memo
        return _pickler(self._context, memo, file, take)
