"""`strict_violations=True`: a denial counts also where the code swallowed it (semantics 9).

Host process. A job under such a policy sends what it saw raised (`_watch`), ahead of its answer:
hostile bytes that can at most name a wrong path in a message, as an exception of the body could.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from agentsbx import _outcome
from agentsbx._benign import is_benign
from agentsbx._wire import ExitRecord
from agentsbx.errors import AgentsbxError, SandboxViolation
from agentsbx.policy import Policy
from agentsbx.result import Violation

__all__ = ["merge", "raise_for", "violations"]

MAX_FRAMES = 256  # `_watch.MAX_NOTES`; a job may send more
MAX_TOLD = 64


def violations(
    frames: Sequence[bytes], policy: Policy, cwd: str, record: ExitRecord | None
) -> list[Violation]:
    """Denials of ours among the exceptions that a job noted, each once; at most 64."""
    found: dict[str, Violation] = {}
    for frame in frames[:MAX_FRAMES]:
        fields = frame.split(b"\0", 5)
        if len(fields) != 5 or not (fields[1].isdigit() and len(fields[1]) < 10):
            continue
        kind, calling, first, second = (os.fsdecode(f) for f in (fields[0], *fields[2:]))
        seen = _outcome.Seen(
            kind=kind, errno=int(fields[1]) or None, filename=first or None,
            filename2=second or None, calling=calling, creates=False,
        )  # fmt: skip
        v = _outcome.denial(seen, policy, cwd, record)
        if v is not None:
            found.setdefault(v.message, v)
            if len(found) == MAX_TOLD:
                break
    return list(found.values())


def merge(violations: list[Violation], more: Sequence[Violation]) -> list[Violation]:
    """Add what is not there yet to `violations`, which is returned."""
    known = {v.message for v in violations}
    violations += [v for v in more if v.message not in known]
    return violations


def raise_for(violations: Sequence[Violation], error: BaseException | None) -> BaseException | None:
    """Return what to raise: the first denial that is no benign probe, else what there was.

    An error of ours (a limit, a lost sandbox) says more than a denial and stays.
    """
    if isinstance(error, AgentsbxError):
        return error
    counted = [v for v in violations if not is_benign(v)]
    if not counted:
        return error
    new = SandboxViolation(violation=counted[0], notes=[v.message for v in counted[1:9]])
    new.__cause__ = error
    return new
