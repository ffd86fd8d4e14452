"""From what came back to what the user sees: values, typed errors, limits, violations.

Host process. The words come from `_explain`; the facts from the supervisor's exit record. What a
job says about itself is never taken for one of our own messages (semantics 3.3).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from agentsbx import _compile, _explain, _explain_limits, _host, _policy_code
from agentsbx._benign import is_benign
from agentsbx._codec import ClassTable, CodecLimits, decode, decode_exception
from agentsbx._exits import exit_of, usage_of
from agentsbx._filter import explain_syscall
from agentsbx._reply import Reply
from agentsbx._wire import ExitRecord, Frame
from agentsbx.errors import (
    AgentsbxError,
    ErrRecord,
    JobDied,
    LimitExceeded,
    MemoryLimitExceeded,
    RemoteError,
    ResultError,
    SandboxUnavailable,
    SandboxViolation,
    unavailable,
)  # fmt: skip
from agentsbx.policy import Policy
from agentsbx.result import Limit, Violation


def _is_kill(nr: int) -> bool:
    """Pid 1 that sends itself SIGKILL asks the supervisor to do it: no denial."""
    return explain_syscall(nr)[0] in ("kill", "tgkill", "tkill")


def denied_syscalls(record: ExitRecord) -> list[Violation]:
    """Violations from the filter's notifications."""
    out = []
    for d in record.denied:
        name, group, reason = explain_syscall(d.nr)
        if _is_kill(d.nr):
            continue
        out.append(
            _explain.explain_denied_syscall(d.nr, name, d.args, group or reason, count=d.times)
        )
    return out


def value_of(reply: Reply, classes: ClassTable, annotation: Any, limits: CodecLimits) -> Any:
    """The decoded result. `ResultError` for anything odd."""
    return decode(reply.body, reply.buffers, classes=classes, annotation=annotation, limits=limits)


def error_of(
    reply: Reply,
    record: ExitRecord | None,
    policy: Policy,
    classes: ClassTable,
    limits: Mapping[str, Limit],
    cwd: str,
    codec_limits: CodecLimits,
    has_line: Callable[[str, int], bool] | None = None,
) -> tuple[BaseException, list[Violation]]:
    """What to raise for a call that gave no value, and what was denied on the way.

    `has_line` says of file and line whether the job was given it: then a traceback may show it.
    """
    if reply.raised is not None:
        return reply.raised, []
    if reply.is_malformed:
        return ResultError(f"the job's answer was refused: {reply.is_malformed}"), []
    if reply.over:
        usage = usage_of(record, reply) if record else None
        return _explain.explain_limit(reply.over, limits, usage)[0], []
    if reply.kind == Frame.ERROR:
        exc = decode_exception(
            reply.body, reply.buffers, classes=classes, limits=codec_limits, has_line=has_line
        )
        return _explained(exc, policy, limits, cwd, record)
    if reply.kind == Frame.FAILED and len(reply.body) == 12:
        return unavailable(ErrRecord.unpack(reply.body)), []
    if record is None:
        return JobDied("the job ended without a result"), []
    how = exit_of(record, reply)
    if how.signal == signal.SIGKILL and any(_is_kill(d.nr) for d in record.denied):
        hint = "return or raise rather than end the own process"
        return JobDied("the job killed itself: SIGKILL", signal=how.signal, hint=hint), []
    return _explain.explain_exit(how, limits, usage_of(record, reply)), []


def _explained(
    exc: BaseException,
    policy: Policy,
    limits: Mapping[str, Limit],
    cwd: str,
    record: ExitRecord | None,
) -> tuple[BaseException, list[Violation]]:
    """Say which rule stood behind an exception of the body, if one did (semantics 9)."""
    if isinstance(exc, AgentsbxError) and not isinstance(exc, RemoteError):
        _note_denied(exc, record)
        return exc, []
    if isinstance(exc, MemoryError):
        error = _explain.explain_limit("memory", limits)[0]
        return _chained(error, exc), []
    if isinstance(exc, ModuleNotFoundError) and (policy.python or policy.packages):
        exc.add_note(f"agentsbx: it was looked for in {_libraries(policy)}")
    seen = _seen(exc)
    violation = _told(exc, policy, cwd) if seen is None else denial(seen, policy, cwd, record)
    if violation is None:
        if isinstance(exc, PermissionError):
            words = _explain.explain_permission(exc.filename, policy, cwd=cwd)
            if words:
                exc.add_note(f"agentsbx: {words}")
                return exc, []
        _note_denied(exc, record)
        return exc, []
    raises = policy.on_violation == "raise"
    if (
        raises
        and isinstance(exc, OSError)
        and not isinstance(exc, FileNotFoundError | TimeoutError)
    ):
        if violation.denied_by == "limit" or isinstance(exc, BlockingIOError):
            exc.add_note(f"agentsbx: {violation.message}")
            return exc, [violation]
        error = SandboxViolation(violation=violation, errno=exc.errno)
        with contextlib.suppress(AttributeError, TypeError):
            error.filename, error.filename2 = exc.filename, exc.filename2
            error.strerror = exc.strerror
        return _chained(error, exc), [violation]
    exc.add_note(f"agentsbx: {violation.message}")
    return exc, [violation]


def _note_denied(exc: BaseException, record: ExitRecord | None) -> None:
    """Name the denied system calls on the way to an exception that does not speak of them.

    Libraries wrap what the kernel answered in classes of their own (`urllib.error.URLError`).
    """
    told = [v for v in denied_syscalls(record) if not is_benign(v)] if record is not None else []
    for message in list(dict.fromkeys(v.message for v in told))[:3]:
        exc.add_note(f"agentsbx: on the way {message}")


def _libraries(policy: Policy) -> str:
    words = [f"packages={', '.join(policy.packages)}"] if policy.packages else []
    return " and ".join([*words, f"python={policy.python}" if policy.python else "site-packages"])


def _private(policy: Policy, cwd: str) -> tuple[str, ...]:
    """Where the job may write without a grant."""
    try:
        libraries = _host.python_layout().mounts
    except SandboxUnavailable:
        libraries = ()
    granted = [g.path for g in (*policy.read, *policy.write)]
    return _compile.private_places([*libraries, *granted], cwd)


_DATABASE = ("unable to open database file", "attempt to write a readonly database")


def _told(exc: BaseException, policy: Policy, cwd: str) -> Violation | None:
    """What the words of another exception tell: libraries keep the kernel's answer, not its number.

    Its text is the job's: the most that it can do is to name a wrong path in a hint.
    """
    text = ""
    with contextlib.suppress(Exception):
        text = str(exc)
    if found := _explain.explain_named_variable(text, policy, lambda n: n in os.environ):
        return found
    if isinstance(exc, RemoteError):
        return None
    if text == _DATABASE[0]:
        return _explain.explain_database(policy, cwd, _innermost(exc)[1], os.path.lexists)
    if text in _DATABASE:  # sqlite3, which does not say where
        return _explain.unnamed_write(policy, cwd, "opening or changing a database")
    if "rror" not in text and "enied" not in text and "only" not in text and "such" not in text:
        return None
    from agentsbx._said import violations

    return next(iter(violations(text.encode("utf-8", "replace"), policy, cwd)), None)


class Seen(NamedTuple):
    """What is known about an exception of a job, whether it left the body or was swallowed there.

    `kind` is "KeyError" (`filename`: the key), "RuntimeError" (a thread that could not start), or
    the class of an `OSError`; `calling` and `source` are the innermost function and its line.
    """

    kind: str
    errno: int | None = None
    filename: object = None
    filename2: object = None
    calling: str | None = None
    source: str | None = None
    creates: bool = True


def _seen(exc: BaseException) -> Seen | None:
    if isinstance(exc, OSError):
        calling, source = _innermost(exc)
        return Seen(type(exc).__name__, exc.errno, exc.filename, exc.filename2, calling, source)
    if isinstance(exc, KeyError) and exc.args:
        return Seen("KeyError", filename=exc.args[0])
    if isinstance(exc, RuntimeError) and "can't start new thread" in str(exc):
        return Seen("RuntimeError")
    return None


def denial(seen: Seen, policy: Policy, cwd: str, record: ExitRecord | None) -> Violation | None:
    """Return the violation behind an exception of a job; None where no rule of ours stood there."""
    if seen.kind == "KeyError":
        return _explain.explain_keyerror(seen.filename, policy, lambda n: n in os.environ)
    if seen.kind == "RuntimeError":
        return _explain_limits.explain_thread(policy)
    context = _explain.Context(
        cwd=cwd, private=_private(policy, cwd), calling=seen.calling, source=seen.source,
        creates=seen.creates, host_readable=lambda p: _host.is_readable(p, policy),
        host_which=_which, host_exists=os.path.lexists, holds_code=_policy_code.holds_code,
    )  # fmt: skip
    found = _explain.explain_oserror(
        seen.kind, seen.errno, seen.filename, seen.filename2, policy, os.path.lexists,
        context=context,
    )  # fmt: skip
    if found is None and _is_fork_refused(seen, policy, record):
        return _explain_limits.explain_thread(policy)
    return found


def _which(name: str) -> str | None:
    import shutil

    return shutil.which(name)


def _is_fork_refused(seen: Seen, policy: Policy, record: ExitRecord | None) -> bool:
    """EAGAIN without a name, from a job that stood at its limit.

    `fork(2)` has no frame of its own.
    """
    if seen.errno != errno.EAGAIN or seen.filename is not None or record is None:
        return False
    if record.n_pids_refused or record.peak_processes >= policy.limits.processes - 1 > 0:
        return True
    if seen.source is not None:  # non-blocking I/O gives EAGAIN too
        return any(word in seen.source for word in ("fork", "Popen", "spawn", "start"))
    return seen.calling not in ("recv", "read", "accept", "send", "write")


def _chained(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def _innermost(exc: BaseException) -> tuple[str | None, str | None]:
    """Innermost function of the remote traceback and its source line, as its text tells."""
    lines = str(exc.__cause__).splitlines() if exc.__cause__ is not None else []
    for i in range(len(lines) - 1, -1, -1):
        if lines[i].lstrip().startswith("File ") and ", in " in lines[i]:
            after = lines[i + 1] if i + 1 < len(lines) else ""
            source = after.strip() if after.startswith("    ") else None  # exec'ed code has none
            return lines[i].rpartition(", in ")[2].strip().rpartition(".")[2], source
    return None, None


def mark_hit(
    table: dict[str, Limit],
    error: BaseException | None,
    record: ExitRecord | None,
    violations: list[Violation],
) -> dict[str, Limit]:
    """The limit table with what was hit."""
    for v in violations:
        if v.limit == "disk" and "inodes" in table:  # ENOSPC is both, and does not say which
            table = table | {"inodes": msgspec.structs.replace(table["inodes"], hit=True)}
        if v.limit in table:
            table = table | {v.limit: msgspec.structs.replace(table[v.limit], hit=True)}
    hit = ""
    if isinstance(error, LimitExceeded):
        hit = error.limit or ""
    elif isinstance(error, MemoryLimitExceeded):
        hit = "memory"
    elif isinstance(error, TimeoutError) and isinstance(error, AgentsbxError):
        hit = "timeout"
    if record is not None and record.n_pids_refused and "processes" in table:
        table = table | {"processes": msgspec.structs.replace(table["processes"], hit=True)}
    if hit in table:
        table = table | {hit: msgspec.structs.replace(table[hit], hit=True)}
    return table
