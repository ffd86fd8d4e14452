"""What code inside a job can ask about its own sandbox; all unset in the host.

`policy` is the enforced policy (nested calls compare against it, semantics 5.6); a module of its
own so that neither worker nor decorator needs the host's machinery in a job.
"""

from __future__ import annotations

from typing import Any

from agentsbx._codec import CodecLimits

is_job = False
policy: Any = None
_bounds = (0, 0)  # of the result: bytes of the body and of the buffers
_raw_policy = b""
watches = False  # whether exceptions that the body swallows are noted (`_watch`)


def enter(raw_policy: bytes, body_bytes: int, buffer_bytes: int, is_watched: bool) -> None:
    """Worker: this process is a job from now on."""
    global is_job, _raw_policy, _bounds, watches
    _bounds = body_bytes, buffer_bytes
    watches = is_watched
    is_job = True
    _raw_policy = raw_policy


def limits() -> CodecLimits:
    """Of the result of this job."""
    return CodecLimits(*_bounds)


def current_policy() -> Any:
    """The policy that this job runs under; decoded at the first nested call."""
    global policy
    if policy is None:
        import msgspec

        from agentsbx.policy import Policy

        policy = msgspec.msgpack.decode(_raw_policy, type=Policy)
    return policy
