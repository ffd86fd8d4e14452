"""The structs of ``csrc/base/wire.h`` and ``call.h`` as `struct` formats, in native layout.

`tests/contract` compares sizes and numbers with the C headers.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from agentsbx.errors import ErrRecord

MAX_MOUNTS = 96
FRAME_INLINE = 32 * 1024
BUFFER_ALIGN = 4096
NO_LIMIT = 2**64 - 1
NO_ID = 2**32 - 1


class Msg(enum.IntEnum):
    """``enum sbx_msg_type``."""

    MOUNT = 1
    TEMPLATE = 2
    POOL = 3
    GROW = 4
    START = 5
    KILL = 6
    WAIT = 7
    SNAPSHOT = 8
    DROP_POOL = 9
    DROP_TEMPLATE = 10
    STAT = 11
    STOP = 12
    FORK = 13
    FORKED = 14
    EXITED = 15
    READY = 16
    REPLY = 17
    HELLO = 18


class Frame(enum.IntEnum):
    """``enum sbx_frame_kind``."""

    CALL = 1
    MODULE = 2
    EXEC = 3
    RESUME = 4
    SESSION = 5
    SPAWN = 6
    FILE = 7
    CELL = 8
    HOST_ANSWER = 9
    RESULT = 16
    ERROR = 17
    IMPORT = 18
    FAILED = 19
    SIGNAL = 20
    EXITED = 21
    PART = 22
    TOO_BIG = 23
    DENIED = 24
    NOTE = 25
    FILES = 26
    YIELD = 27
    STARTED = 28
    FILE_REPLY = 29
    DISPLAY = 30
    ENDED = 31
    HOST_CALL = 32


class Event(enum.IntEnum):
    """First item of what ``_core.wait_frame`` and ``_core.exchange`` return."""

    TIMEOUT = 0
    FRAME = 1
    STDOUT = 2
    STDERR = 3
    CLOSED = 4
    NOT_SENT = 5


class Cause(enum.IntEnum):
    """``enum sbx_cause``: why a job ended."""

    EXITED = 0
    SIGNALED = 1
    CANCELLED = 2
    TIMEOUT = 3
    CPU_TIME = 4
    MEMORY = 5
    OUTPUT = 6
    LOST = 7


MOUNT = struct.Struct("@IIQQQIIIIII")
TEMPLATE = struct.Struct("@IIQII")
POOL = struct.Struct("@IIQQIIIIQQQQII")
SNAPSHOT = struct.Struct("@IIQQ")
GROW = struct.Struct("@IIQII")
START = struct.Struct("@IIQQQ")
KILL = struct.Struct("@IIQII")
ID = struct.Struct("@IIQ")  # WAIT, STAT, DROP_*
PUB = struct.Struct("@IIQQQ12sI")
REPLY = struct.Struct("@IIQ12sI")
HELLO = struct.Struct("@II12sIIIIIII")
EXIT = struct.Struct("@IIQIiIIQQQQIIQ")
DENIED = struct.Struct("@IIQQQQ")
MAX_DENIED = 16
EXIT_SIZE = EXIT.size + MAX_DENIED * DENIED.size
EXEC = struct.Struct("@IIIIIIQ")
EXITED = struct.Struct("@iIQQQ")
DENIAL = struct.Struct("@III")
SPAWN = struct.Struct("@IIII")
ASK = struct.Struct("@II")
FILE = struct.Struct("@IIIIQ")
FILE_REPLY = struct.Struct("@iIQqQII")
ENTRY = struct.Struct("@QqII")
FILES = struct.Struct("@IIQQ")
LEFT_FILE = struct.Struct("@QHBBB3x")
MAX_KEPT = 1000
MAX_LISTED = 1000
MAX_NAME = 4096
FILES_INLINE = 16 * 1024


class Hello(NamedTuple):
    """What the supervisor found by trying."""

    err: ErrRecord
    is_root: int
    uid_base: int
    n_uids: int
    cgroup_version: int
    cgroup_have: int
    landlock_abi: int
    supervisor_pid: int

    @classmethod
    def unpack(cls, raw: bytes) -> Hello:
        """From one HELLO message."""
        _, _, err, *rest = HELLO.unpack(raw)
        return cls(ErrRecord.unpack(err), *rest)


class Denied(NamedTuple):
    """One distinct refused system call of a job."""

    nr: int
    times: int
    args: tuple[int, int, int, int]


class ExitRecord(NamedTuple):
    """How a job ended (or, for STAT, how it stands): ``struct sbx_exit``."""

    job_id: int
    cause: Cause
    wait_status: int
    is_alive: bool
    utime_us: int
    stime_us: int
    peak_memory: int
    peak_processes: int
    memory_source: int
    n_pids_refused: int
    wall_ns: int
    denied: tuple[Denied, ...]

    @classmethod
    def unpack(cls, raw: bytes) -> ExitRecord:
        """From one ``sbx_exit``."""
        (_, _, job, cause, status, alive, n_denied, utime, stime, peak, procs, source, refused,
         wall) = EXIT.unpack_from(raw)  # fmt: skip
        denied = []
        for i in range(min(n_denied, MAX_DENIED)):
            nr, times, a, b, c, d = DENIED.unpack_from(raw, EXIT.size + i * DENIED.size)
            denied.append(Denied(nr, times, (a, b, c, d)))
        return cls(job, Cause(cause), status, bool(alive), utime, stime, peak, procs, source,
                   refused, wall, tuple(denied))  # fmt: skip

    @classmethod
    def ended(cls, utime_us: int, stime_us: int, maxrss_kb: int) -> ExitRecord:
        """Of a command that ended with 0, as its reaper counted."""
        used = utime_us, stime_us, maxrss_kb * 1024
        return cls(0, Cause.EXITED, 0, False, *used, 0, 0, 0, 0, ())  # noqa: FBT003

    @classmethod
    def lost(cls, job_id: int) -> ExitRecord:
        """Stand-in where the supervisor itself is gone."""
        blank = cls.unpack(bytes(EXIT_SIZE))
        return blank._replace(job_id=job_id, cause=Cause.LOST)
