"""What one sandboxed call left behind: `Result` and its parts.

Plain frozen data: values of the host, made by the host. Nothing here is written by a job, except
`Result.value`, `stdout`, `stderr` and the words inside a `RemoteError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal

import msgspec

from agentsbx._kept import Discarded, Files, KeptFile, LeftFile
from agentsbx._units import format_bytes, format_duration

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T_co = TypeVar("T_co", covariant=True, default=Any)
else:  # defaults of type variables are of Python 3.13
    from typing import TypeVar

    T_co = TypeVar("T_co", covariant=True)

__all__ = [
    "Discarded",
    "Exit",
    "Files",
    "HostCall",
    "KeptFile",
    "LeftFile",
    "Limit",
    "Result",
    "Usage",
    "Violation",
]

Cause = Literal[
    "exited", "signaled", "cancelled", "timeout", "cpu_time", "memory", "output", "lost"
]
MemorySource = Literal["cgroup", "poll", "maxrss"]


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the job was denied.

    `operation` is a verb (`"read"`, `"write"`, `"connect"`, `"syscall"`, `"getenv"`), `target` what
    it was tried on, `denied_by` the layer that said no (`"mount"`, `"landlock"`, `"seccomp"`,
    `"seccomp+netns"`, `"policy"`, `"limit"` ...), `rule` the smallest keyword that would allow it
    (`read=['/srv/data']`) or None where no rule can, `syscall` the system call where one is known,
    `count` how often. `message` is the whole, in words for a person or a model.

    >>> Violation(operation="read", target="/etc/shadow", denied_by="mount", message="no").count
    1
    """

    operation: str
    target: str
    denied_by: str
    message: str
    rule: str | None = None
    syscall: str | None = None
    count: int = 1

    @property
    def limit(self) -> str | None:
        """The keyword of the limit that was reached, where it was a limit."""
        return self.rule.partition("=")[0] if self.denied_by == "limit" and self.rule else None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What the call used. Times are seconds, memory is bytes.

    `memory_source` says how `peak_memory_bytes` was found: `"cgroup"` (all memory of the tree),
    `"poll"` (highest polled PSS of the tree) or `"maxrss"` (largest process). CPU times are of the
    tree where a cgroup counts, else of the processes that were reaped.

    >>> Usage(wall_s=0.5).cpu_s
    0.0
    """

    wall_s: float = 0.0
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    peak_memory_bytes: int = 0
    memory_source: MemorySource = "maxrss"
    peak_processes: int | None = None

    @property
    def cpu_s(self) -> float:
        """User and system CPU time together, in seconds."""
        return self.cpu_user_s + self.cpu_system_s


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit: what was asked, what enforced it, how much was used, whether it was hit.

    `asked` and `used` are bytes, seconds or counts by the limit's name; `asked` is None for
    "unlimited", `used` None where nothing measures it. `enforced_by` is `"cgroup"`,
    `"rlimit+poll"`, `"rlimit"`, `"tmpfs"`, `"supervisor"`, `"host"` or `"none"`.
    """

    name: str
    asked: float | None = None
    enforced_by: str = "none"
    used: float | None = None
    hit: bool = False


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How the job's first process ended, and why.

    >>> Exit(code=0).ok, Exit(signal=9, cause="timeout").ok
    (True, False)
    """

    code: int | None = None
    signal: int | None = None
    cause: Cause = "exited"

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with code 0."""
        return self.cause == "exited" and self.code == 0


class HostCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a host function by a job (`host=`, `host_args=`).

    `name` is the function's, or `parameter.attribute`; `arguments` their text, of at most 200
    characters; `error` what the job was told (`"TypeError: ..."`), None where it went well;
    `duration_s` seconds on the host.

    >>> HostCall(name="search", arguments="'x'").ok
    True
    """

    name: str
    arguments: str = ""
    error: str | None = None
    duration_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the job was given a value."""
        return self.error is None


class Result(msgspec.Struct, Generic[T_co], frozen=True, kw_only=True, eq=False, dict=False):
    """Everything about one call; `fn.run(...)` returns it and never raises for the body.

    `value` is what the function returned (the exit code for a command), `error` what it raised or
    what stopped it. `stdout` and `stderr` are exact per stream and bounded, also after a kill.
    `limits` says for each limit what was asked, what enforced it and how much was used; `enforced`
    names the layers that stood (`{"files": "mounts+landlock", ...}`); `violations` what was denied.
    `policy_id` is the SHA-256 of the enforced plan. `lost` names threads and processes that were
    still alive at return and were killed. `discarded` lists what was left in private places
    (`$HOME`, `$TMPDIR`, `/tmp`, `/dev/shm`) and is gone: empty where nothing was, None where nobody
    could look, since the job was killed. `files` holds what `keep=` brought back. `notes_dropped`
    counts the log records and warnings beyond 10,000 or 8 MiB, which did not reach the host's
    loggers and filters. `host_calls` records each call of a host function.

    >>> result = Result(value=42, call_id="c1")
    >>> result.ok, result.unwrap()
    (True, 42)
    >>> Result(error=ValueError("no")).ok
    False
    """

    value: Any = None
    error: BaseException | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    usage: Usage = Usage()
    limits: dict[str, Limit] = msgspec.field(default_factory=dict)
    enforced: dict[str, str] = msgspec.field(default_factory=dict)
    violations: list[Violation] = msgspec.field(default_factory=list)
    exit: Exit = Exit()
    policy_id: str = ""
    call_id: str = ""
    lost: tuple[str, ...] = ()
    discarded: Discarded | None = None
    files: Files = Files()
    notes_dropped: int = 0
    host_calls: tuple[HostCall, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the call gave a value: no error of the body, no limit, no denial that raises."""
        return self.error is None

    @property
    def text(self) -> str:
        """`stdout` as text; bytes that are not UTF-8 appear as backslash escapes."""
        return self.stdout.decode("utf-8", "backslashreplace")

    @property
    def stderr_text(self) -> str:
        """`stderr` as text; bytes that are not UTF-8 appear as backslash escapes."""
        return self.stderr.decode("utf-8", "backslashreplace")

    def unwrap(self) -> T_co:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        value: T_co = self.value
        return value

    def __repr__(self) -> str:
        """Return one short line: outcome, cause where it is not plain, time, peak memory."""
        if self.error is None:
            outcome = f"value={_clip(repr(self.value))}"
        else:
            outcome = f"error={type(self.error).__name__}({_clip(str(self.error))!r})"
        parts = [outcome]
        if self.exit.cause != "exited":
            parts.append(f"cause={self.exit.cause}")
        parts.append(f"wall={format_duration(self.usage.wall_s)}")
        if self.usage.peak_memory_bytes:
            parts.append(f"memory={format_bytes(self.usage.peak_memory_bytes)}")
        if self.violations:
            parts.append(f"violations={len(self.violations)}")
        return f"<Result {' '.join(parts)}>"

    def summary(self) -> str:
        """Return a text table: outcome, usage, limits, what was denied."""
        lines = [f"outcome     {self._outcome()}"]
        usage = self.usage
        lines.append(
            f"time        {format_duration(usage.wall_s)} wall, {format_duration(usage.cpu_s)} CPU"
        )
        memory = format_bytes(usage.peak_memory_bytes)
        lines.append(f"memory      {memory} peak ({usage.memory_source})")
        if self.stdout or self.stderr:
            lines.append(f"output      {len(self.stdout)} + {len(self.stderr)} bytes")
        rows: list[tuple[str, ...]] = [("limit", "asked", "used", "enforced by", "")]
        for limit in self.limits.values():
            rows.append(
                (
                    limit.name,
                    format_limit(limit.name, limit.asked, none="unlimited"),
                    format_limit(limit.name, limit.used, none="-"),
                    limit.enforced_by,
                    "HIT" if limit.hit else "",
                )
            )
        if len(rows) > 1:
            lines += ["", *_table(rows)]
        if self.enforced:
            lines += ["", *_table([("layer", "by"), *self.enforced.items()])]
        if self.violations:
            lines += ["", "denied"]
            lines += [f"  {v.count} x {v.message}" for v in self.violations]
        if self.lost:
            lines += ["", "alive at return, killed: " + ", ".join(self.lost)]
        if self.files:
            kept = ", ".join(f"{f.name} ({format_bytes(f.size)})" for f in self.files.values())
            lines += ["", f"kept: {kept}"]
        if self.discarded:
            lines += ["", f"left and gone: {self.discarded.summary(20)}"]
        if self.host_calls:
            lines += ["", "host calls"]
            lines += [f"  {c.name}({c.arguments}) {c.error or 'ok'}" for c in self.host_calls[:20]]
        if self.notes_dropped:
            lines += ["", f"log records and warnings dropped: {self.notes_dropped}"]
        return "\n".join(lines)

    def _outcome(self) -> str:
        if self.error is not None:
            return f"{type(self.error).__name__}: {self.error}"
        if self.exit.cause != "exited":
            return f"value, then {self.exit.cause}"
        return f"value of type {type(self.value).__name__}"


_BYTE_LIMITS = frozenset({"memory", "file_size", "disk", "output", "result", "buffers"})
_TIME_LIMITS = frozenset({"timeout", "cpu_time"})


def format_limit(name: str, amount: float | None, *, none: str = "unlimited") -> str:
    """Write an amount of the limit `name` in its unit; `none` for None and for -1.

    >>> format_limit("memory", 512_000_000), format_limit("timeout", 30), format_limit("cpus", None)
    ('512MB', '30s', 'unlimited')
    """
    if amount is None or amount < 0:
        return none
    if name in _BYTE_LIMITS:
        return format_bytes(int(amount))
    if name in _TIME_LIMITS:
        return format_duration(amount)
    return f"{amount:g}" if isinstance(amount, float) else str(amount)


def _clip(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
