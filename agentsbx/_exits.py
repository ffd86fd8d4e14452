"""How a job ended and what it used, from the supervisor's record: facts, no words."""

from __future__ import annotations

import os

from agentsbx._kept import Discarded, Files
from agentsbx._reply import Reply
from agentsbx._wire import Cause, ExitRecord, Frame
from agentsbx.result import Exit, Usage

_CAUSES = {
    Cause.EXITED: "exited", Cause.SIGNALED: "signaled", Cause.CANCELLED: "cancelled",
    Cause.TIMEOUT: "timeout", Cause.CPU_TIME: "cpu_time", Cause.MEMORY: "memory",
    Cause.OUTPUT: "output", Cause.LOST: "lost",
}  # fmt: skip
_SOURCES = ("maxrss", "poll", "cgroup")


def usage_of(record: ExitRecord, reply: Reply) -> Usage:
    """What the job used, as the supervisor counted; a short call's time as the host did."""
    return Usage(
        wall_s=max(record.wall_ns, reply.wall_ns) / 1e9,
        cpu_user_s=record.utime_us / 1e6,
        cpu_system_s=record.stime_us / 1e6,
        peak_memory_bytes=record.peak_memory,
        memory_source=_SOURCES[min(record.memory_source, 2)],  # type: ignore[arg-type]
        peak_processes=record.peak_processes or None,
    )


def exit_of(record: ExitRecord, reply: Reply) -> Exit:
    """How pid 1 ended; a signal that it caught itself counts as that signal."""
    cause = _CAUSES[record.cause]
    if reply.kind == Frame.SIGNAL and len(reply.body) >= 4 and record.cause <= Cause.CANCELLED:
        return Exit(signal=int.from_bytes(reply.body[:4], "little"), cause="signaled")
    if record.cause >= Cause.CANCELLED:
        return Exit(cause=cause)  # type: ignore[arg-type]
    if os.WIFSIGNALED(record.wait_status):
        return Exit(signal=os.WTERMSIG(record.wait_status), cause="signaled")
    return Exit(code=os.WEXITSTATUS(record.wait_status), cause="exited")


def command_exit_code(status: int) -> tuple[int, Exit]:
    """Exit code of a command as a shell tells it (128+n for a signal), and the `Exit`."""
    if os.WIFSIGNALED(status):
        sig = os.WTERMSIG(status)
        return 128 + sig, Exit(signal=sig, cause="signaled")
    code = os.WEXITSTATUS(status)  # of any number: a zygote that was taken over wrote it
    return code, Exit(code=code, cause="exited")


def files_of(reply: Reply) -> tuple[Discarded | None, Files]:
    """What was left in private places, None where nobody could tell; and what was kept of it."""
    if reply.is_malformed:
        return None, Files()
    has_answered = reply.kind not in (0, Frame.SIGNAL)
    if reply.left is None:
        return Discarded() if has_answered else None, Files()
    return reply.left.discarded if has_answered else None, reply.left.files
