"""Drive the real launcher by raw sockets, with the layouts of csrc/base/wire.h written out here.

Deliberately no code of the package: these tests say what the C program does, whoever speaks to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import socket
import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("supervisor", "base", "child", "job", "spawn", "reaper")
NEVER = 2**64 - 1
NO_MAP = 2**32 - 1

(MOUNT, TEMPLATE, POOL, GROW, START, KILL, WAIT, SNAPSHOT, DROP_POOL, DROP_TEMPLATE, STAT, STOP) = (
    range(1, 13)
)
REPLY, HELLO = 17, 18
CAUSES = ("exited", "signaled", "cancelled", "timeout", "cpu_time", "memory", "output", "lost")


class Err(NamedTuple):
    """struct sbx_err."""

    stage: int
    op: int
    errno: int
    detail: int


class Hello(NamedTuple):
    """struct sbx_hello."""

    err: Err
    is_root: int
    uid_base: int
    n_uids: int
    cgroup_version: int
    cgroup_have: int
    landlock_abi: int
    pid: int


class Pub(NamedTuple):
    """struct sbx_pub with its descriptors."""

    pool_id: int
    job_id: int
    version: int
    err: Err
    fds: list[int]


class Denied(NamedTuple):
    """struct sbx_denied."""

    nr: int
    count: int
    args: tuple[int, ...]


class Exit(NamedTuple):
    """struct sbx_exit."""

    job_id: int
    cause: str
    wait_status: int
    is_alive: int
    utime_us: int
    stime_us: int
    peak_memory: int
    peak_processes: int
    memory_source: int
    n_pids_refused: int
    wall_ns: int
    denied: list[Denied]


def build(out: Path, *, without: str = "", more: str = "") -> Path:
    """Compile the launcher from the tree (not static where the libc has no such pieces).

    `more` takes the place of the source `without`, for a part that was taken over.
    """
    files = [str(p) for d in SOURCES for p in sorted((ROOT / "csrc" / d).glob("*.c"))]
    files.append(str(ROOT / "csrc/plan/check.c"))
    files = [f for f in files if not without or not f.endswith(without)] + [more][: bool(more)]
    flags = ["-std=gnu17", "-O1", "-g", "-D_GNU_SOURCE", "-fPIE"]
    for link in ("-static-pie", "-pie"):
        done = subprocess.run([os.environ.get("CC", "cc"), *flags, link, *files, "-o", str(out)])
        if done.returncode == 0:
            return out
    raise RuntimeError("the launcher does not compile")


def sealed(data: bytes) -> int:
    fd = os.memfd_create("plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 15)
    return fd


class Plan:
    """struct sbx_plan, op by op (csrc/plan/plan.h)."""

    OPS = re.findall(r"^    SBX_OP_(\w+)", (ROOT / "csrc/plan/plan.h").read_text(), re.MULTILINE)

    def __init__(self, kind: int, flags: int = 0) -> None:
        self.kind, self.flags, self.n_mounts = kind, flags, 0
        self.ops: list[bytes] = []
        self.strings = b"\0"
        self.bpf: list[tuple[int, int, int, int]] = []

    def op(
        self,
        name: str,
        path: str = "",
        text: str = "",
        *,
        arg: int = 0,
        a: int = 0,
        b: int = 0,
        flags: int = 0,
    ) -> Self:
        offsets = [self._string(s) for s in (path, text)]
        self.ops.append(struct.pack("=HHIIIQQ", self.OPS.index(name), flags, arg, *offsets, a, b))
        if name == "BIND":
            self.n_mounts = max(self.n_mounts, arg + 1)
        return self

    def _string(self, s: str) -> int:
        if not s:
            return 0
        at = len(self.strings)
        self.strings += s.encode() + b"\0"
        return at

    def bytes(self) -> bytes:
        ops, bpf = b"".join(self.ops), b"".join(struct.pack("=HBBI", *line) for line in self.bpf)
        at = 64 + len(ops)
        n_bytes = at + len(bpf) + len(self.strings)
        head = struct.pack(
            "=10I3Q",
            *(0x31504253, self.kind, n_bytes, len(self.ops), at if bpf else 0, len(self.bpf)),
            *(at + len(bpf), len(self.strings), self.n_mounts, self.flags, 0, 0, 0),
        )
        return head + ops + bpf + self.strings


def command_template() -> Plan:
    plan = Plan(1, flags=1)
    plan.op("TMPFS", "/", a=1 << 20, b=1000).op("BIND", "/usr", arg=0)
    for name in ("bin", "lib", "lib64", "sbin"):
        plan.op("SYMLINK", f"/{name}", f"usr/{name}")
    plan.op("NODE", "/dev/null").op("NODE", "/dev/zero").op("TMPFS", "/.pools", a=1 << 20)
    plan.op("PROC", "/proc").op("PIVOT")
    return (
        plan.op("ARG", text="agentsbx-launcher")
        .op("ARG", text="zygote")
        .op("ENV", text="PATH=/usr/bin")
    )


def notifying_filter() -> list[tuple[int, int, int, int]]:
    """BPF: notify socket() and kill(_, 9), EDOM for the canary number, allow the rest."""
    load, equal, ret = 0x20, 0x15, 0x06
    notify, allow, edom = 0x7FC00000, 0x7FFF0000, 0x50021
    socket_nr, kill_nr = (41, 62) if platform.machine() == "x86_64" else (198, 129)
    return [
        (load, 0, 0, 0),
        (equal, 4, 0, socket_nr),
        (equal, 4, 0, 4095),
        (equal, 0, 4, kill_nr),
        (load, 0, 0, 24),  # second argument, low half
        (equal, 0, 2, 9),
        (ret, 0, 0, notify),
        (ret, 0, 0, edom),
        (ret, 0, 0, allow),
    ]


def command_job(*, binds: int = 0, is_notifying: bool = False) -> Plan:
    plan = Plan(2, flags=2 | 4 | 8).op("TMPFS", "/tmp", a=1 << 28)
    for i in range(binds):
        plan.op("BIND", f"/data{i}", arg=i)
    plan.op("DETACH", "/.pools").op("PROC", "/proc").op("IDS", a=1000, b=1000).op("CAPS")
    if is_notifying:
        plan.bpf = notifying_filter()
        plan.op("SECCOMP", flags=8)
    return plan.op("CHDIR", "/tmp")


class Launcher:
    """One broker with its supervisor, and the host's ends of its sockets."""

    def __init__(
        self, binary: Path, *, user: int | None = None, host_pid: int | None = None
    ) -> None:
        kind = socket.SOCK_SEQPACKET
        self.control, theirs_c = socket.socketpair(socket.AF_UNIX, kind)
        self.broker, theirs_b = socket.socketpair(socket.AF_UNIX, kind)
        pidfd = os.pidfd_open(os.getpid())
        fds = (theirs_c.fileno(), theirs_b.fileno(), pidfd)
        ids = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        self.process = subprocess.Popen(
            [str(binary), "broker", *map(str, fds)], pass_fds=fds, cwd="/", **ids
        )
        os.close(pidfd)
        theirs_c.close()
        theirs_b.close()
        for s in (self.control, self.broker):
            s.settimeout(20)
        self.next_id = 1
        self.owned: list[socket.socket | int] = []  # closed at the end, whatever a test left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for s in (self.control, self.broker, *self.owned):
            if isinstance(s, int):
                os.close(s)
            else:
                s.close()
        self.process.wait(20)

    def hello(self) -> Hello:
        m = self.control.recv(4096)
        v = struct.unpack("=II HHiI 7I", m)
        assert v[0] == HELLO
        return Hello(Err(*v[2:6]), *v[6:])

    def mount(
        self,
        path: str,
        *,
        ids: tuple[int, int] = (0, 0),
        attr: int = 0,
        recursive: bool = False,
        maps: tuple[int, int, int, int] = (0, 0, NO_MAP, NO_MAP),
    ) -> tuple[Err, int]:
        raw = path.encode()
        self.broker.send(
            struct.pack("=II3Q6I", MOUNT, len(raw), *ids, attr, recursive, *maps, 0) + raw
        )
        m, fds, _, _ = socket.recv_fds(self.broker, 4096, 4)
        return Err(*struct.unpack("=IIQHHiII", m)[3:7]), fds[0] if fds else -1

    def ask(self, message: bytes, fds: list[int]) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(30)
        socket.send_fds(self.control, [message], [*fds, theirs.fileno()])
        theirs.close()
        return ours

    @staticmethod
    def reply(sock: socket.socket) -> Err:
        with sock:
            return Err(*struct.unpack("=IIQHHiII", sock.recv(4096))[3:7])

    def template(
        self, plan: Plan, mounts: list[int], *, is_command: bool = True
    ) -> tuple[int, Err]:
        number, self.next_id = self.next_id, self.next_id + 1
        message = struct.pack("=IIQII", TEMPLATE, 0, number, len(mounts), is_command)
        with contextlib.ExitStack() as stack:
            fd = sealed(plan.bytes())
            stack.callback(os.close, fd)
            return number, self.reply(self.ask(message, [fd, *mounts]))

    def pool(self, template: int, plan: Plan, mounts: list[int], **limits: int) -> tuple[Pool, Err]:
        number, self.next_id = self.next_id, self.next_id + 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(30)
        self.owned.append(ours)
        message = struct.pack(
            "=IIQQ4I4QII",
            POOL,
            0,
            template,
            number,
            len(mounts),
            limits.get("n_waiting", 1),
            limits.get("uid_index", 0),
            limits.get("poll_memory", 0),
            limits.get("memory", NEVER),
            limits.get("cpu_time_ns", NEVER),
            limits.get("quota_us", NEVER),
            limits.get("processes", NEVER),
            limits.get("want_cgroup", 0),
            0,
        )
        fd = sealed(plan.bytes())
        err = self.reply(self.ask(message, [fd, *mounts, theirs.fileno()]))
        theirs.close()
        os.close(fd)
        return Pool(self, number, ours), err

    def wait(self, job_id: int, kind: int = WAIT) -> Exit:
        return self.exit_of(self.ask(struct.pack("=IIQ", kind, 0, job_id), []))

    @staticmethod
    def exit_of(sock: socket.socket) -> Exit:
        with sock:
            m = sock.recv(4096)
        v = struct.unpack("=IIQIiII4QIIQ", m[:80])
        rows = (struct.unpack("=II4Q", m[80 + 40 * i : 120 + 40 * i]) for i in range(v[6]))
        denied = [Denied(row[0], row[1], row[2:]) for row in rows]
        return Exit(v[2], CAUSES[v[3]], v[4], v[5], *v[7:11], *v[11:13], v[13], denied)

    def tell(self, kind: int, *numbers: int, fmt: str = "Q", fds: list[int] | None = None) -> None:
        socket.send_fds(self.control, [struct.pack("=II" + fmt, kind, 0, *numbers)], fds or [])

    def stop(self) -> int:
        self.control.send(struct.pack("=II", STOP, 0))
        return self.process.wait(20)


class Pool:
    """The host's end of one pool."""

    def __init__(self, launcher: Launcher, number: int, sock: socket.socket) -> None:
        self.launcher, self.number, self.sock = launcher, number, sock

    def take(self) -> Pub:
        m, fds, _, _ = socket.recv_fds(self.sock, 4096, 8)
        v = struct.unpack("=IIQQQHHiII", m)
        return Pub(*v[2:5], Err(*v[5:9]), fds)

    def leave(self) -> Pub:
        """Take one that the test will not use."""
        pub = self.take()
        self.launcher.owned += pub.fds
        return pub

    def run(
        self,
        *argv: str,
        deadline_ns: int = NEVER,
        env: tuple[str, ...] = ("PATH=/usr/bin",),
        is_announced: bool = True,
    ) -> Running:
        pub = self.take()
        assert pub.err.stage == 0, pub.err
        words = b"".join(w.encode() + b"\0" for w in (*argv, *env))
        body = struct.pack("=6IQ", len(argv), len(env), 0, 0, 0, 0, 0) + words
        channel = socket.socket(fileno=pub.fds[0])
        self.launcher.owned.append(channel)
        now = time.monotonic_ns()
        end = now + deadline_ns if deadline_ns != NEVER else NEVER
        if is_announced:
            self.launcher.tell(START, pub.job_id, now, end, fmt="QQQ")
        channel.send(struct.pack("=IIQQ", 3, len(body), 0, 0) + body)
        return Running(self.launcher, pub, channel)


class Running:
    """One command that was started in a sandbox of the pool."""

    def __init__(self, launcher: Launcher, pub: Pub, channel: socket.socket) -> None:
        self.launcher, self.job_id, self.channel = launcher, pub.job_id, channel
        self.out, self.err = pub.fds[1:]

    def kill(self, cause: int = 2) -> None:
        self.launcher.tell(KILL, self.job_id, cause, 0, fmt="QII")

    def stat(self) -> Exit:
        return self.launcher.wait(self.job_id, STAT)

    def end(self) -> tuple[Exit, bytes]:
        got = self.launcher.wait(self.job_id)
        with self.channel, open(self.out, "rb") as out, open(self.err, "rb") as err:
            return got, out.read() + err.read()
