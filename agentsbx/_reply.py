"""What one job answered, undecoded."""

from __future__ import annotations

from typing import Any

from agentsbx._output import Output

__all__ = ["Reply"]


class Reply:
    """What one job answered, undecoded."""

    __slots__ = (
        "body",
        "bridge",
        "buffers",
        "denials",
        "err",
        "is_malformed",
        "is_stream",
        "keep",
        "kind",
        "left",
        "lost",
        "n_dropped",
        "out",
        "over",
        "raised",
        "served",
        "timed_out",
        "wall_ns",
    )

    def __init__(self, out: Output, err: Output) -> None:
        self.kind = 0  # a Frame, or 0: the channel closed without an answer
        self.body = b""
        self.buffers: list[memoryview] = []
        self.out, self.err = out, err
        self.is_malformed = ""
        self.is_stream = False  # a generator's: items may come before the answer
        self.over = ""  # name of a limit that the host saw exceeded
        self.timed_out = False
        self.served = 0
        self.wall_ns = 0
        self.lost: tuple[str, ...] = ()  # what the job says was alive when it answered
        self.denials: list[bytes] | None = None  # of a traced run: what failed
        # Patterns and bytes of the files that the job was asked for, and what came (FILES frames).
        self.keep: tuple[bytes, int] | None = None
        self.left: Any = None  # a `_leftovers.Collector`
        self.raised: Exception | None = None  # by the host's own handlers and filters, on a note
        self.n_dropped = 0  # notes beyond the bounds
        self.bridge: Any = None  # a `_bridge.Bridge`: what the job may call here
