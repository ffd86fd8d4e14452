"""Host functions of calls that run in this process (`_local`): the same checks, the same copies."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from agentsbx._bridge_job import ERROR, METHOD, check_size
from agentsbx._bridge_run import HostSide
from agentsbx._codec import encode
from agentsbx._receive_make import make_exception

if TYPE_CHECKING:
    import asyncio

    from agentsbx._bridge_offers import Offers
    from agentsbx._ship import Snapshot

__all__ = ["LocalBridge"]


class LocalBridge:
    """What stubs ask in a local call."""

    def __init__(
        self, offers: Offers, kept: dict[str, Any], loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self.bridge = HostSide(offers, kept, None, loop)
        self.snapshot: Snapshot | None = None
        self._lock = threading.Lock()  # one at a time, as in a job

    def ask(self, name: str, offer: int, what: int, args: Any, kwargs: Any) -> tuple[int, Any]:
        """Answer a stub, as `_bridge_job._ask` does."""
        most = self.bridge.offers.max_bytes
        body, buffers = encode([list(args), kwargs])
        check_size(name, body, buffers, most)
        copies = [memoryview(bytearray(b)) for b in buffers]
        with self._lock:
            _, refused = self.bridge.admit()
            kind, value = self.bridge.perform(offer, what, body, copies, refused)
        if kind == ERROR:
            raise make_exception(*value)
        if kind == METHOD or self.snapshot is None:
            return kind, value
        return kind, self.snapshot.copy_call((value,), {})[0][0]
