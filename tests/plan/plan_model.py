"""What a plan's bytes say, and a second opinion on which are well-formed (csrc/plan/plan.h)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from agentsbx._plan import JOB, MAGIC, TEMPLATE, Flag, Op, PlanFlag

HEAD = struct.Struct("=10I3Q")
OP = struct.Struct("=HHIIIQQ")
MAX_PLAN, MAX_OPS, MAX_BPF = 1 << 20, 1024, 4096

TREE = {
    Op.TMPFS, Op.MKDIR, Op.WRITE, Op.SYMLINK, Op.BIND, Op.NODE, Op.SELF, Op.MOVE, Op.PROC,
    Op.MASK, Op.RDONLY, Op.PIVOT, Op.DETACH,
}  # fmt: skip
GROUPS = (
    TREE,
    {Op.HOSTNAME, Op.IDS, Op.SYSCTL},
    {Op.RLIMIT, Op.CPUS},
    {Op.CAPS, Op.LANDLOCK, Op.SECCOMP, Op.CANARY},
    {Op.CHDIR, Op.ARG, Op.ENV},
)
ONLY = {
    TEMPLATE: {Op.NODE, Op.PIVOT, Op.HOSTNAME, Op.ARG, Op.ENV},
    JOB: {
        Op.MOVE,
        Op.DETACH,
        Op.IDS,
        Op.SYSCTL,
        Op.CPUS,
        Op.CAPS,
        Op.LANDLOCK,
        Op.CANARY,
        Op.CHDIR,
    },
}
HAS_PATH = TREE - {Op.PIVOT} | {
    Op.SYSCTL,
    Op.LANDLOCK,
    Op.CANARY,
    Op.CHDIR,
}  # all that name a place
HAS_TEXT = {Op.SYMLINK, Op.SELF, Op.MOVE, Op.HOSTNAME, Op.SYSCTL, Op.CPUS, Op.ARG, Op.ENV}
TEXT_IS_PATH = {Op.SELF, Op.MOVE}


class PlanOp(NamedTuple):
    """One operation, with its strings."""

    kind: int
    flags: int
    arg: int
    path: bytes
    text: bytes
    a: int
    b: int


class Plan(NamedTuple):
    """A parsed plan."""

    kind: int
    flags: int
    n_mounts: int
    landlock: tuple[int, int, int]
    n_bpf: int
    ops: list[PlanOp]


def parse(plan: bytes) -> Plan:
    """Read a well-formed plan."""
    (_, kind, _, n_ops, _, n_bpf, strings_off, n_strings, n_mounts, flags, *landlock) = (
        HEAD.unpack_from(plan)
    )
    strings = plan[strings_off : strings_off + n_strings]

    def string(at: int) -> bytes:
        return strings[at : strings.index(b"\0", at)]

    ops = []
    for i in range(n_ops):
        op, op_flags, arg, path, text, a, b = OP.unpack_from(plan, HEAD.size + i * OP.size)
        ops.append(PlanOp(op, op_flags, arg, string(path), string(text), a, b))
    return Plan(kind, flags, n_mounts, (landlock[0], landlock[1], landlock[2]), n_bpf, ops)


def _is_clean(path: bytes) -> bool:
    if not path.startswith(b"/"):
        return False
    parts = path[1:].split(b"/")
    return path == b"/" or not any(part in (b"", b".", b"..") for part in parts)


def is_well_formed(plan: bytes, kind: int) -> bool:
    """Say whether the C checker shall accept these bytes. Written from plan.h, not from check.c."""
    if not HEAD.size <= len(plan) <= MAX_PLAN:
        return False
    (magic, own, n_bytes, n_ops, bpf_off, n_bpf, strings_off, n_strings, n_mounts, *_) = (
        HEAD.unpack_from(plan)
    )
    ops_end = HEAD.size + n_ops * OP.size
    if (magic, own, n_bytes) != (MAGIC, kind, len(plan)):
        return False
    if n_ops > MAX_OPS or n_bpf > MAX_BPF or ops_end > n_bytes:
        return False
    if bpf_off + 8 * n_bpf > n_bytes or (n_bpf and (bpf_off < ops_end or bpf_off % 8)):
        return False
    if strings_off < ops_end or not n_strings or strings_off + n_strings > n_bytes:
        return False
    strings = plan[strings_off : strings_off + n_strings]
    if strings[0] or strings[-1]:
        return False
    group = 0
    for i in range(n_ops):
        number, _, arg, path, text, _, _ = OP.unpack_from(plan, HEAD.size + i * OP.size)
        if number not in list(Op) or number == Op.END or number in ONLY[3 - kind]:
            return False
        now = next(n for n, ops in enumerate(GROUPS) if number in ops)
        if now < group or path >= n_strings or text >= n_strings:
            return False
        group = now
        where, what = (strings[at : strings.index(b"\0", at)] for at in (path, text))
        if number in HAS_PATH and not _is_clean(where):
            return False
        if number in HAS_TEXT and text == 0:
            return False
        if number in TEXT_IS_PATH and not _is_clean(what):
            return False
        if (number == Op.BIND and arg >= n_mounts) or (number == Op.SECCOMP and not n_bpf):
            return False
    return True


def describe(plan: bytes) -> list[str]:
    """One line an operation, for golden files. Filters have golden files of their own."""
    parsed = parse(plan)
    flags = "|".join(flag.name or "?" for flag in PlanFlag if parsed.flags & flag)
    landlock = " ".join(f"{rights:x}" for rights in parsed.landlock)
    lines = [
        f"kind {('template', 'job')[parsed.kind - 1]}",
        f"flags {flags}",
        f"mounts {parsed.n_mounts}",
        f"Landlock {landlock}",
        f"filter {'yes' if parsed.n_bpf else 'no'}",
    ]
    for op in parsed.ops:
        is_mode = op.kind in (Op.MKDIR, Op.WRITE)
        words = [Op(op.kind).name, op.path.decode() or "-"]
        words += [repr(op.text.decode())] if op.text else []
        words += [f"arg={op.arg}"] if op.arg or op.kind == Op.BIND else []
        words += [f"a={op.a:#o}" if is_mode else f"a={op.a}"] if op.a else []
        words += [f"b={op.b}"] if op.b else []
        words += [flag.name or "?" for flag in Flag if op.flags & flag]
        lines.append(" ".join(words))
    return lines
