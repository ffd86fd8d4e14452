"""What is sent for a call in a session: the function where it is new there, arguments, set-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agentsbx import _engine, _header, _setup
from agentsbx._prepare import prepare, views_of

if TYPE_CHECKING:
    from agentsbx._interpreter_live import Live
    from agentsbx._runtime import CallSite
    from agentsbx._ship_kept import Shipper

__all__ = ["Known", "Request", "request_of"]


class Request(NamedTuple):
    """One call, complete up to sending it."""

    snapshot: Any
    setup: Any
    slot: int
    stream: Any
    body: bytes
    views: list[memoryview]


class Known:
    """What the last call of a function found, to be compared (as `_fast` does)."""

    __slots__ = ("environ", "process", "request", "shape")

    def __init__(
        self, site: CallSite, request: Request, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.request = request._replace(stream=None, body=b"", views=[])
        self.environ = site.prepared.environ
        self.process = site.prepared.seen[1:]
        self.shape = len(args), tuple(kwargs)  # of arguments that are known to fit

    def fits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether such arguments were seen."""
        return (len(args), tuple(kwargs)) == self.shape

    def is_current(self, live: Live) -> bool:
        """Whether all that the last call was made from still stands."""
        request = self.request
        return (
            live.shipper.slot_of(request.snapshot) == request.slot
            and live.setup == request.setup
            and _engine.environ() == self.environ
            and _setup.process() == self.process
            and request.snapshot.is_current()
        )


def request_of(
    live: Live, site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Request:
    """Make the request of a call; raises `SerializationError` as `_ship` does."""
    with site.lock:
        p = prepare(site)
        snapshot, setup = p.snapshot, _kept_setup(p.setup)
    slot, given, own, stream = _shipped(live.shipper, snapshot, args, kwargs)
    views = own + views_of(stream.buffers)
    told = None if setup == live.setup else setup
    lengths = [v.nbytes for v in views]
    body = _header.pack_kept_call(
        live.next_number(), told, slot, given, stream.body, lengths, site.kind
    )
    return Request(snapshot, setup, slot, stream, body, views)


def _kept_setup(setup: _setup.Setup | None) -> Any:
    """Return the set-up of a call without what an interpreter keeps to itself.

    Its environment is its own since its start; its root logger has the handlers that it made.
    """
    assert setup is not None
    told = setup.mirrored
    if told is not None:
        logs = None if told[0] is None else (*told[0][:2], False)
        told = logs, None, told[2]
    return setup._replace(env=None, mirrored=told, watches=False, blas_threads=0)


def _shipped(
    shipper: Shipper, snapshot: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[int, tuple[bytes, int, bool] | None, list[memoryview], Any]:
    """Slot of the function; pickle and buffers, where it is new there; the call's stream."""
    slot = shipper.slot_of(snapshot)
    if slot is not None:
        return slot, None, [], shipper.begin_call(snapshot, args, kwargs)
    mark = shipper.mark()
    try:
        slot, function = shipper.give(snapshot)
        own = views_of(function.buffers)
        stream = shipper.begin_call(snapshot, args, kwargs)
    except BaseException:
        shipper.restore(mark)
        raise
    return slot, (function.blob, len(own), function.is_anew), own, stream
