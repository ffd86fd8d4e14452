"""Writer of plans: the binary contract of ``csrc/plan/plan.h``, and nothing else.

The layout stands in that header; ``tests/plan`` holds the two together through the C checker.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable

MAGIC = 0x31504253
TEMPLATE, JOB = 1, 2
POOL_DIR = "/.pools"

_HEAD = struct.Struct("=10I3Q")
_OP = struct.Struct("=HHIIIQQ")


class Op(enum.IntEnum):
    """Operations, numbered as ``enum sbx_op_kind``."""

    END = 0
    TMPFS = 1
    MKDIR = 2
    WRITE = 3
    SYMLINK = 4
    BIND = 5
    NODE = 6
    SELF = 7
    MOVE = 8
    PROC = 9
    MASK = 10
    RDONLY = 11
    PIVOT = 12
    DETACH = 13
    HOSTNAME = 14
    IDS = 15
    SYSCTL = 16
    RLIMIT = 17
    CPUS = 18
    CAPS = 19
    LANDLOCK = 20
    SECCOMP = 21
    CANARY = 22
    CHDIR = 23
    ARG = 24
    ENV = 25


class Flag(enum.IntFlag):
    """``enum sbx_op_flags``."""

    FILE = 1
    RDONLY = 2
    OPTIONAL = 4
    LISTENER = 8
    OWN = 16
    RECURSIVE = 32
    NOCREATE = 64


class PlanFlag(enum.IntFlag):
    """``enum sbx_plan_flags``."""

    NEW_NET = 1
    MOUNT_NS = 2
    IPC_NS = 4
    PID_NS = 8


class PlanBuilder:
    """Collects operations in order and packs them.

    >>> b = PlanBuilder(JOB)
    >>> b.add(Op.CHDIR, path="/")
    >>> len(b.pack()) > 0
    True
    """

    def __init__(self, kind: int, flags: int = 0) -> None:
        self.kind = kind
        self.flags = flags
        self.bpf = b""
        self.landlock = (0, 0, 0)
        self.n_mounts = 0
        self.places: list[str] = []  # per op: the object that an error record's op index names
        self._ops: list[bytes] = []
        self._strings = bytearray(b"\0")
        self._offsets: dict[bytes, int] = {b"": 0}

    def add(
        self,
        op: Op,
        *,
        path: str = "",
        text: str = "",
        arg: int = 0,
        a: int = 0,
        b: int = 0,
        flags: int = 0,
    ) -> None:
        """Append one operation; strings are file-system encoded."""
        self._ops.append(_OP.pack(op, flags, arg, self._string(path), self._string(text), a, b))
        self.places.append(path or text)

    def _string(self, s: str) -> int:
        raw = s.encode("utf-8", "surrogateescape")
        if b"\0" in raw:
            raise ValueError(f"NUL byte in {s!r}")
        at = self._offsets.get(raw)
        if at is None:
            at = self._offsets[raw] = len(self._strings)
            self._strings += raw + b"\0"
        return at

    def pack(self) -> bytes:
        """The plan's bytes."""
        ops = b"".join(self._ops)
        bpf_off = _HEAD.size + len(ops)
        strings_off = bpf_off + len(self.bpf)
        total = strings_off + len(self._strings)
        head = _HEAD.pack(
            MAGIC, self.kind, total, len(self._ops), bpf_off if self.bpf else 0,
            len(self.bpf) // 8, strings_off, len(self._strings), self.n_mounts, self.flags,
            *self.landlock,
        )  # fmt: skip
        return b"".join((head, ops, self.bpf, self._strings))


def parents(paths: Iterable[str]) -> set[str]:
    """All proper ancestors of the paths, "/" left out."""
    out: set[str] = set()
    for p in paths:
        while (p := p.rpartition("/")[0]) and p not in out:
            out.add(p)
    return out
