"""What can go wrong, as exceptions.

    AgentsbxError                          every error of ours; .stage .errno .hint
     +- PolicyError          (ValueError)       a keyword or policy file is wrong; .file .line .path
     +- SandboxUnavailable   (RuntimeError)     this machine cannot enforce the policy; .missing
     |   +- SandboxBusy                         as many sandboxes run as may, for too long
     +- SerializationError   (TypeError)        something cannot cross into the sandbox; .where
     +- SandboxViolation     (PermissionError)  the job was denied something; .violation
     +- SandboxTimeout       (TimeoutError)     the job ran past `timeout`
     +- MemoryLimitExceeded  (MemoryError)      the job needed more than `memory`
     +- LimitExceeded        (RuntimeError)     another limit was reached; .limit
     +- RemoteError                             what the job raised, of a type not rebuilt
     +- JobDied                                 the job ended without a result; .signal .exit_code
     +- ResultError                             the reply could not be decoded (hostile, or too big)

Cancellation stays what it is everywhere else: `asyncio.CancelledError` and `KeyboardInterrupt`.

`str(error)` is at most 300 characters and fit for a model: what happened, which rule, the smallest
change. The rest stands in the notes (`__notes__`, shown with the traceback). All of them pickle.
A job cannot raise any of them: what looks like one arrives as `RemoteError`.
"""

from __future__ import annotations

import enum
import os
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentsbx.result import Violation

__all__ = [
    "MAX_MESSAGE",
    "AgentsbxError",
    "ErrRecord",
    "JobDied",
    "LimitExceeded",
    "MemoryLimitExceeded",
    "PolicyError",
    "RemoteError",
    "ResultError",
    "SandboxBusy",
    "SandboxTimeout",
    "SandboxUnavailable",
    "SandboxViolation",
    "SerializationError",
    "Stage",
    "unavailable",
]

MAX_MESSAGE = 300


class Stage(enum.IntEnum):
    """Every step that can fail, in order of set-up: the members of `csrc/base/stage.def`.

    >>> Stage(2).label, Stage.USERNS.text
    ('userns', 'creating a user namespace')
    """

    label: str
    text: str

    def __new__(cls, value: int, label: str = "", text: str = "") -> Self:
        """Make a member that is its number and carries its name and its words."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.label = label
        member.text = text
        return member

    NONE = 0, "none", "no error"
    LAUNCH = 1, "launch", "starting the supervisor program"
    USERNS = 2, "userns", "creating a user namespace"
    IDMAP = 3, "idmap", "writing the user and group maps"
    NAMESPACES = 4, "namespaces", "creating mount, pid, ipc, net, uts and cgroup namespaces"
    PROC = 5, "proc", "mounting a fresh /proc"
    CGROUP = 6, "cgroup", "creating or joining a control group"
    GRANT = 7, "grant", "looking up a granted path"
    GRANT_IDMAP = 8, "grant_idmap", "mapping the owner of a granted path (idmapped mount)"
    PLAN = 9, "plan", "checking the plan"
    ROOT = 10, "root", "building the root file system"
    MOUNT = 11, "mount", "mounting into the sandbox"
    TMPFS = 12, "tmpfs", "mounting private storage"
    DEV = 13, "dev", "making /dev"
    PIVOT = 14, "pivot", "leaving the host's root"
    MASK = 15, "mask", "masking kernel files"
    SESSION = 16, "session", "starting a session of its own"
    FORK = 17, "fork", "forking the sandboxed process"
    IDS = 18, "ids", "changing user and group"
    SYSCTL = 19, "sysctl", "writing the per-sandbox kernel limits (user.max_*)"
    RLIMIT = 20, "rlimit", "setting resource limits"
    CAPS = 21, "caps", "dropping capabilities"
    NNP = 22, "no_new_privs", "setting no_new_privs"
    LANDLOCK = 23, "landlock", "restricting with Landlock"
    FDS = 24, "fds", "closing file descriptors"
    SECCOMP = 25, "seccomp", "loading the system call filter"
    SELFTEST = 26, "selftest", "proving that the walls stand"
    CHDIR = 27, "chdir", "entering the working directory"
    EXEC = 28, "exec", "executing the program"
    PROTOCOL = 29, "protocol", "speaking between agentsbx processes"
    WORKER = 30, "worker", "starting the Python worker"
    TRACE = 31, "trace", "tracing the command"


_RECORD = struct.Struct("=HHiI")


class ErrRecord(NamedTuple):
    """The twelve bytes by which C reports a failure (`struct sbx_err`).

    >>> ErrRecord.unpack(ErrRecord(2, 0, 1, 0).pack()).where
    'userns'
    """

    stage: int
    op: int
    errno: int
    detail: int

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> ErrRecord:
        """Read a record; raises `ValueError` unless `data` is exactly twelve bytes."""
        if len(data) != _RECORD.size:
            raise ValueError(f"an error record has {_RECORD.size} bytes, not {len(data)}")
        return cls(*_RECORD.unpack(data))

    def pack(self) -> bytes:
        """Return the twelve bytes."""
        return _RECORD.pack(*self)

    @property
    def failed(self) -> bool:
        """Whether the record tells of a failure at all."""
        return self.stage != 0

    @property
    def where(self) -> str:
        """The stage's name; `stage 99` for a number that this build does not know."""
        try:
            return Stage(self.stage).label
        except ValueError:
            return f"stage {self.stage}"


def _split_message(message: str, hint: str | None) -> tuple[str, list[str]]:
    """Return a message of at most `MAX_MESSAGE` characters and what did not fit, as notes."""
    notes: list[str] = []
    if hint and hint not in message:
        glue = " " if message.endswith("?") else "; "
        joined = f"{message.rstrip('. ')}{glue}{hint}" if message else hint
        if len(joined) <= MAX_MESSAGE:
            message = joined
        else:
            notes.append(hint)
    if len(message) <= MAX_MESSAGE:
        return message, notes
    notes.insert(0, message)
    room = MAX_MESSAGE - len(" ...")
    cut = message.rfind(" ", room - 60, room)
    return message[: cut if cut > 0 else room].rstrip() + " ...", notes


class AgentsbxError(Exception):
    """Base of every error of ours.

    `message` says what happened and which rule; `hint` is the smallest change that would help and
    is appended where it fits. `stage` names the set-up step, `errno` the kernel's answer; `notes`
    hold what is worth knowing beyond 300 characters.
    """

    stage: str | None = None
    errno: int | None = None
    hint: str | None = None

    def __init__(
        self,
        message: str = "",
        *,
        stage: str | None = None,
        errno: int | None = None,
        hint: str | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        """Keep `str(self)` within 300 characters; what is cut off becomes a note."""
        text, more = _split_message(message, hint)
        super().__init__(text)
        self.stage = stage
        self.errno = errno
        self.hint = hint
        for note in (*more, *notes):
            self.add_note(note)

    def __str__(self) -> str:
        """Return the message (never the `[Errno n]` form of `OSError`)."""
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as (type, message) and attributes, whatever the second base class would do."""
        return type(self), (str(self),), dict(self.__dict__)


class PolicyError(AgentsbxError, ValueError):
    """A keyword, a unit, a rule or a policy file is wrong.

    `file`, `line` and `column` (from 1) say where in a file; `path` names the key
    (`limits.memory`).
    """

    file: str | None = None
    line: int | None = None
    column: int | None = None
    path: str | None = None

    def __init__(
        self,
        message: str = "",
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        path: str | None = None,
        hint: str | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        """Prefix the message with `file:line:column` as far as these are known."""
        if file is not None:
            place = [file, *(str(n) for n in (line, column) if n is not None)]
            message = f"{':'.join(place)}: {message}"
        super().__init__(message, hint=hint, notes=notes)
        self.file = file
        self.line = line
        self.column = column
        self.path = path


class SandboxUnavailable(AgentsbxError, RuntimeError):
    """The machine cannot enforce what the policy asks; no user code ran.

    `missing` lists what is missing, in the words of `agentsbx doctor`.
    """

    missing: list[str]

    def __init__(
        self,
        message: str = "",
        *,
        missing: Iterable[str] = (),
        stage: str | None = None,
        errno: int | None = None,
        hint: str | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        """Remember what is `missing` besides the words."""
        super().__init__(message, stage=stage, errno=errno, hint=hint, notes=notes)
        self.missing = list(missing)


class SandboxBusy(SandboxUnavailable):
    """As many sandboxes run as may at once, and none ended in time; no user code ran."""


class SerializationError(AgentsbxError, TypeError):
    """Something cannot cross into the sandbox; `where` names it (`global 'client'.pool._lock`)."""

    where: str | None = None
    limit: str | None = None  # in a job: the limit that a result would break

    def __init__(
        self,
        message: str = "",
        *,
        where: str | None = None,
        hint: str | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        """Remember `where` besides the words."""
        super().__init__(message, hint=hint, notes=notes)
        self.where = where


class SandboxViolation(AgentsbxError, PermissionError):
    """The job was denied something; `violation` holds the operation, the target and the rule."""

    violation: Violation | None = None

    def __init__(
        self,
        message: str = "",
        *,
        violation: Violation | None = None,
        errno: int | None = None,
        hint: str | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        """Take the words from `violation` where no message is given."""
        if not message and violation is not None:
            message = violation.message
        super().__init__(message, errno=errno, hint=hint, notes=notes)
        self.violation = violation


class SandboxTimeout(AgentsbxError, TimeoutError):
    """The job ran past `timeout` (wall-clock time from its start) and was killed."""


class MemoryLimitExceeded(AgentsbxError, MemoryError):
    """The job needed more than `memory` and was stopped."""


class LimitExceeded(AgentsbxError, RuntimeError):
    """Another limit was reached; `limit` is its keyword (`cpu_time`, `output`, `processes` ...)."""

    limit: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        limit: str = "",
        errno: int | None = None,
        hint: str | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        """Remember the keyword of the limit besides the words."""
        super().__init__(message, errno=errno, hint=hint, notes=notes)
        self.limit = limit


class RemoteError(AgentsbxError):
    """What the job raised, where its type is not one that we rebuild.

    `type_name` is the qualified name that the job gave, `args_repr` its arguments as text: both are
    words of the job and prove nothing.
    """

    type_name: str = ""
    args_repr: str = ""

    def __init__(
        self,
        message: str = "",
        *,
        type_name: str = "",
        args_repr: str = "",
        hint: str | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        """Say `type_name(args_repr)` where no message is given."""
        if not message and type_name:
            message = f"{type_name}({args_repr.removeprefix('(').removesuffix(')')})"
        super().__init__(message, hint=hint, notes=notes)
        self.type_name = type_name
        self.args_repr = args_repr


class JobDied(AgentsbxError):
    """The job ended without a result: by `signal` or with `exit_code`."""

    signal: int | None = None
    exit_code: int | None = None

    def __init__(
        self,
        message: str = "",
        *,
        signal: int | None = None,
        exit_code: int | None = None,
        hint: str | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        """Remember how the job ended besides the words."""
        super().__init__(message, hint=hint, notes=notes)
        self.signal = signal
        self.exit_code = exit_code


class ResultError(AgentsbxError):
    """The reply of the job could not be decoded: malformed, hostile, or larger than `result`."""


def unavailable(
    record: ErrRecord,
    *,
    object: str | None = None,  # noqa: A002
    notes: Iterable[str] = (),
) -> SandboxUnavailable:
    """Turn an error record of the set-up into words: what failed, why, and what to do.

    `object` is what the step was about (a path, a sysctl); it is named in the message.

    >>> error = unavailable(ErrRecord(Stage.USERNS, 0, 1, 0))
    >>> error.stage, error.errno
    ('userns', 1)
    """
    from agentsbx._remedies import remedy

    try:
        stage = Stage(record.stage)
    except ValueError:
        stage = Stage.NONE
    doing = stage.text if stage else f"{record.where} of the set-up"
    of = f" ({object})" if object else ""
    answer = os.strerror(record.errno) if record.errno else "no reason given"
    why, todo, missing = remedy(stage, record.errno)
    message = f"cannot sandbox here: {doing}{of} failed: {why or answer}"
    details = (
        f"stage {record.where}, op {record.op}, errno {record.errno} ({answer}), "
        f"detail {record.detail}"
    )
    return SandboxUnavailable(
        message,
        missing=[missing or record.where],
        stage=record.where,
        errno=record.errno,
        hint=todo,
        notes=(*notes, details, "`agentsbx doctor` shows what this machine can enforce"),
    )
