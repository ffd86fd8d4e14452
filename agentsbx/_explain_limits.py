"""Limits in words: the table of a result, and the exception of a limit that was reached."""

from __future__ import annotations

import signal as _signal
from typing import TYPE_CHECKING

import msgspec

from agentsbx._explain_words import limit_violation, more, say
from agentsbx._units import format_duration
from agentsbx.errors import (
    AgentsbxError,
    JobDied,
    LimitExceeded,
    MemoryLimitExceeded,
    SandboxTimeout,
)
from agentsbx.result import Exit, Limit, Usage, Violation, format_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentsbx.policy import Limits, Policy

__all__ = ["explain_exit", "explain_limit", "explain_thread", "limit_table"]


def explain_thread(policy: Policy) -> Violation:
    """Explain a thread or process that could not start (`can't start new thread`, EAGAIN)."""
    amount = policy.limits.processes
    what = f"no more processes or threads can start: the limit is processes={amount}"
    return limit_violation("fork", "", what, more("processes", amount))


def _used(name: str, usage: Usage | None) -> float | None:
    if usage is None:
        return None
    if name == "timeout":
        return usage.wall_s
    if name == "cpu_time":
        return usage.cpu_s
    if name == "memory":
        return usage.peak_memory_bytes or None
    return usage.peak_processes if name == "processes" else None


def limit_table(
    limits: Limits, enforced_by: Mapping[str, str] | None = None, usage: Usage | None = None
) -> dict[str, Limit]:
    """Return `Result.limits`: every limit with what was asked, by what it is enforced, and used."""
    table: dict[str, Limit] = {}
    for name in limits.__struct_fields__:
        asked = getattr(limits, name)
        table[name] = Limit(
            name=name,
            asked=None if asked < 0 else asked,
            enforced_by=(enforced_by or {}).get(name, "none"),
            used=_used(name, usage),
        )
    return table


_LIMIT_WORDS = {
    "timeout": "the call ran past timeout={asked} and was killed",
    "cpu_time": "the call used more CPU time than cpu_time={asked} and was killed",
    "memory": "the call needed more than memory={asked} and was stopped",
    "output": "the call wrote more than output={asked} to stdout or stderr and was killed",
    "result": "the result is larger than result={asked}",
    "buffers": "the buffers of the result are larger than buffers={asked}",
    "processes": "the call wanted more processes and threads than processes={asked}",
    "open_files": "the call wanted more open files than open_files={asked}",
    "file_size": "a file would become larger than file_size={asked}",
    "disk": "private storage is full: disk={asked}",
    "inodes": "private storage holds no more files: inodes={asked}",
}


def explain_limit(
    cause: str, limits: Mapping[str, Limit], usage: Usage | None = None
) -> tuple[AgentsbxError, Limit]:
    """Turn the cause of a job's end (or the keyword of a limit) into its exception and its `Limit`.

    `limits` is the table of `limit_table`; the returned `Limit` says `hit=True` and what was used.
    """
    found = limits.get(cause, Limit(name=cause))
    used = found.used if usage is None else _used(cause, usage)
    limit = msgspec.structs.replace(found, hit=True, used=used)
    words = _LIMIT_WORDS.get(cause, f"the limit {cause}={{asked}} was reached")
    what = words.format(asked=format_limit(cause, limit.asked))
    if cause == "timeout" and usage is not None:
        what += f" ({format_duration(usage.cpu_s)} of it on the CPU)"
    elif used is not None and cause in ("memory", "cpu_time"):
        what += f" (used {format_limit(cause, used)}, enforced by {limit.enforced_by})"
    rule = more(cause, limit.asked)
    message = say(what, f"allow more with {rule}, or do less in one call")
    error: AgentsbxError
    if cause == "timeout":
        error = SandboxTimeout(message)
    elif cause == "memory":
        error = MemoryLimitExceeded(message)
    else:
        error = LimitExceeded(message, limit=cause)
    error.hint = rule
    return error, limit


_SIGNAL_WORDS = {
    "SIGSEGV": "crashed (invalid memory access)",
    "SIGBUS": "crashed (bus error; a mapped file may have shrunk, or private storage is full)",
    "SIGABRT": "aborted itself",
    "SIGILL": "crashed (illegal instruction)",
    "SIGFPE": "crashed (arithmetic error)",
    "SIGSYS": "was killed by the system call filter (a call of a foreign ABI)",
    "SIGKILL": "was killed from outside the sandbox (out of memory on the host?)",
    "SIGTERM": "was terminated",
}
_NATIVE = "no rule did this, native code did; Result.stderr_text may say more"
_SIGNAL_HINTS = {
    "SIGSEGV": _NATIVE,
    "SIGABRT": _NATIVE,
    "SIGILL": _NATIVE,
    "SIGFPE": _NATIVE,
    "SIGBUS": 'allow more private storage with disk="..." if it was full',
    "SIGKILL": "free memory on the host, or lower memory= so that the call's own limit comes first",
    "SIGTERM": "return or raise rather than end the own process",
    "SIGSYS": "use a program of this machine's own architecture",
}


def _is_spent(cpu_time: float | None, usage: Usage | None) -> bool:
    """Whether the limit on CPU time was near: a job may send itself SIGXCPU."""
    if cpu_time is None:
        return False
    return usage is None or usage.cpu_user_s + usage.cpu_system_s >= 0.8 * cpu_time


def explain_exit(
    exit: Exit,  # noqa: A002
    limits: Mapping[str, Limit],
    usage: Usage | None = None,
) -> AgentsbxError:
    """Explain a job that ended without a result."""
    if exit.cause in ("timeout", "cpu_time", "memory", "output"):
        return explain_limit(exit.cause, limits, usage)[0]
    if exit.signal is not None:
        try:
            name = _signal.Signals(exit.signal).name
        except ValueError:
            name = f"signal {exit.signal}"
        if name == "SIGXFSZ" and limits["file_size"].asked is not None:
            return explain_limit("file_size", limits, usage)[0]
        if name == "SIGXCPU" and _is_spent(limits["cpu_time"].asked, usage):
            return explain_limit("cpu_time", limits, usage)[0]
        words = _SIGNAL_WORDS.get(name, "was killed")
        hint = _SIGNAL_HINTS.get(name)
        return JobDied(f"the job {words}: {name}", signal=exit.signal, hint=hint)
    if exit.cause == "cancelled":
        return JobDied("the call was cancelled and its processes were killed")
    if exit.cause == "lost":
        return JobDied(
            "the sandbox was lost: one of the agentsbx processes ended",
            hint="call again; `agentsbx doctor` shows whether sandboxes can start",
        )
    code = exit.code if exit.code is not None else "unknown"
    return JobDied(
        f"the job left with exit code {code} and without a result",
        exit_code=exit.code,
        hint="return from the function rather than call os._exit()",
    )
