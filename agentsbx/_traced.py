"""What a traced run of a command saw: failed calls in the order in which they happened, in words.

Host process; reads frames that pid 1 of the sandbox wrote about its command. They are advice: the
most that a hostile command can do with them is to name a wrong path in a hint.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from agentsbx import _explain, _host
from agentsbx._benign import is_benign
from agentsbx._filter import explain_syscall
from agentsbx._wire import DENIAL
from agentsbx.policy import Policy
from agentsbx.result import Violation

__all__ = ["violations"]

_MAX = 64


def violations(frames: Sequence[bytes], policy: Policy, cwd: str) -> list[Violation]:
    """Denials of ours among the failed calls, each once; at most 64.

    Programs look for many files that are nowhere: only what the host has, or what a limit or the
    policy refused, is told; and not what every program looks for at its start.
    """
    found: dict[str, Violation] = {}
    for frame in frames:
        if len(frame) < DENIAL.size:
            continue
        nr, number, creates = DENIAL.unpack_from(frame)
        names = [_followed(os.fsdecode(n)) for n in frame[DENIAL.size :].split(b"\0") if n]
        context = _explain.Context(
            cwd=cwd, private=("/tmp", "/sandbox"), calling=explain_syscall(nr)[0],
            creates=bool(creates), host_readable=lambda p: _host.is_readable(p, policy),
        )  # fmt: skip
        first, second = [*names, None, None][:2]
        v = _explain.explain_oserror(
            "OSError", number, first, second, policy, os.path.lexists, context=context
        )
        if v is not None and not is_benign(v):
            found.setdefault(v.message, v)
            if len(found) == _MAX:
                break
    return list(found.values())


def _followed(path: str) -> str:
    """What a name of the host leads to: a link that is shown may point to what is hidden."""
    return os.path.realpath(path) if os.path.islink(path) else path
