"""Canaries: secrets, sockets, files and processes of the host that no sandboxed call may reach."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

_NEIGHBOUR = """
import ctypes, os, sys, time
secret = ctypes.create_string_buffer(os.environ["AGENTSBX_TEST_SECRET"].encode())
held = open(sys.argv[1])
os.chdir(os.path.dirname(sys.argv[1]))
print(ctypes.addressof(secret), flush=True)
time.sleep(100000)
"""


def tiny_program(*, tells_root: bool = False) -> bytes:
    """Return a static ELF program: exit status 42, or 43 if asked and its effective uid is 0."""
    if os.uname().machine == "x86_64":
        machine = 62
        code = bytes.fromhex("bf2a000000b83c0000000f05")
        if tells_root:
            code = bytes.fromhex("b86b0000000f0585c0bf2b0000007405bf2a000000b83c0000000f05")
    else:
        machine = 183
        code = bytes.fromhex("400580d2a80b80d2010000d4")  # mov x0,42; mov x8,93; svc 0
        if tells_root:  # mov x8,175; svc 0; cmp x0,0; mov x0,42; cinc x0,x0,eq; exit
            code = bytes.fromhex(
                "e81580d2010000d41f0000f1400580d2001480 9aa80b80d2010000d4".replace(" ", "")
            )
    base = 0x400000
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + (2).to_bytes(2, "little")
        + machine.to_bytes(2, "little")
        + (1).to_bytes(4, "little")
        + (base + 120).to_bytes(8, "little")
        + (64).to_bytes(8, "little")
        + bytes(8)
        + bytes(4)
        + (64).to_bytes(2, "little")
        + (56).to_bytes(2, "little")
        + (1).to_bytes(2, "little")
        + bytes(6)
    )
    size = (120 + len(code)).to_bytes(8, "little")
    segment = (
        (1).to_bytes(4, "little")
        + (5).to_bytes(4, "little")
        + bytes(8)
        + base.to_bytes(8, "little") * 2
        + size * 2
        + (4096).to_bytes(8, "little")
    )
    return header + segment + code


def _is_fresh(git: Path) -> bool:
    hooks, config = git / "hooks", git / "config"
    if {entry.name for entry in git.iterdir()} != {"hooks", "config"} or any(hooks.iterdir()):
        return False
    return config.is_file() and config.read_text() == "[core]\n"


class World:
    """Everything is made before the first sandbox starts, so that it could be inherited."""

    def __init__(self) -> None:
        self.token = "agentsbx-canary-" + secrets.token_hex(16)
        os.environ["AGENTSBX_TEST_SECRET"] = self.token
        self.heap_secret = ("HOSTHEAP:" + secrets.token_hex(16)).encode()
        places = [
            place for place in ("/srv", "/opt", str(Path.home())) if os.access(place, os.W_OK)
        ]
        self.base = Path(tempfile.mkdtemp(prefix="agentsbx-escape-", dir=(*places, "/tmp")[0]))
        self.base.chmod(0o755)
        self.private = self.base / "private"
        self.private.mkdir(mode=0o755)
        self.secret = self.private / "secret.txt"
        self.secret.write_text(self.token)
        self.ro, self.rw = self.base / "granted-read", self.base / "granted-write"
        for place in (self.ro, self.rw):
            place.mkdir()
        # A job's private /tmp is writable, and so, for Landlock, is what is mounted below it.
        self.ro_tmp = Path(tempfile.mkdtemp(prefix="agentsbx-escape-"))
        self.ro_tmp.chmod(0o755)
        os.mkfifo(self.ro_tmp / "fifo")
        (self.ro_tmp / "fifo").chmod(0o666)
        self._sockets: list[socket.socket] = []
        self.heard: list[bytes] = []
        self._make_sockets()
        self._leave_descriptors_open()
        self._make_key()
        self._make_ipc()
        self.neighbour = subprocess.Popen(
            [sys.executable, "-I", "-c", _NEIGHBOUR, str(self.secret)], stdout=subprocess.PIPE
        )
        assert self.neighbour.stdout is not None
        self.neighbour_address = self.neighbour.stdout.readline().decode().strip()
        self.loose = [
            Path("/tmp") / f"agentsbx-loose-{os.getpid()}",
            Path("/dev/shm") / f"agentsbx-loose-{os.getpid()}",
        ]
        for path in self.loose:
            path.write_text(self.token)

    def _listen(self, family: int, kind: int, address: str | tuple[str, int]) -> socket.socket:
        made = socket.socket(family, kind)
        made.bind(address)
        if isinstance(address, str) and not address.startswith("\0"):
            os.chmod(address, 0o777)
        if kind != socket.SOCK_DGRAM:
            made.listen(64)
        self._sockets.append(made)
        threading.Thread(target=self._serve, args=(made, kind), daemon=True).start()
        return made

    def _serve(self, listener: socket.socket, kind: int) -> None:
        try:
            while True:
                if kind == socket.SOCK_DGRAM:
                    data, address = listener.recvfrom(4096)
                    self.heard.append(data)
                    if address:
                        listener.sendto(self.token.encode(), address)
                    continue
                connection, _ = listener.accept()
                self.heard.append(b"connection")
                connection.sendall(self.token.encode())
                connection.close()
        except OSError:
            return

    def _make_sockets(self) -> None:
        place = self.base / "s"
        place.mkdir()
        self.names = {
            "abstract": f"agentsbx-{os.getpid()}-s",
            "abstract_dgram": f"agentsbx-{os.getpid()}-d",
        }
        self._listen(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + self.names["abstract"])
        self._listen(socket.AF_UNIX, socket.SOCK_DGRAM, "\0" + self.names["abstract_dgram"])
        self.stream = str(place / "stream")
        self.dgram = str(place / "dgram")
        self.seqpacket = str(place / "seqpacket")
        self._listen(socket.AF_UNIX, socket.SOCK_STREAM, self.stream)
        self._listen(socket.AF_UNIX, socket.SOCK_DGRAM, self.dgram)
        self._listen(socket.AF_UNIX, socket.SOCK_SEQPACKET, self.seqpacket)
        self.tcp = self._listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)).getsockname()[
            1
        ]
        self.udp = self._listen(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)).getsockname()[
            1
        ]
        try:
            self.tcp6 = self._listen(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)).getsockname()[
                1
            ]
        except OSError:
            self.tcp6 = 0

    def _leave_descriptors_open(self) -> None:
        self.open_file = os.open(self.secret, os.O_RDONLY)
        self.open_dir = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        for fd in (self.open_file, self.open_dir):
            os.set_inheritable(fd, True)  # noqa: FBT003
        reading, writing = os.pipe()
        os.write(writing, self.token.encode())
        self.stdin_before = os.dup(0)
        os.dup2(reading, 0)
        os.close(reading)
        os.close(writing)

    def _make_key(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        x86 = os.uname().machine == "x86_64"
        add_key, keyctl = (248, 250) if x86 else (217, 219)
        libc.syscall(ctypes.c_long(keyctl), ctypes.c_long(1), None)  # KEYCTL_JOIN_SESSION_KEYRING
        data = self.token.encode()
        self.key = int(
            libc.syscall(
                ctypes.c_long(add_key),
                b"user",
                b"agentsbx-canary",
                data,
                ctypes.c_size_t(len(data)),
                ctypes.c_long(-3),
            )
        )

    def _make_ipc(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.shmat.restype = ctypes.c_void_p
        self.ipc_key = 0x41000000 + os.getpid()
        self.segment = int(libc.shmget(ctypes.c_int(self.ipc_key), ctypes.c_size_t(4096), 0o1666))
        if self.segment >= 0:
            where = libc.shmat(self.segment, None, 0)
            ctypes.memmove(where, self.token.encode(), len(self.token))
        self.queue = f"/agentsbx-{os.getpid()}"
        library = ctypes.CDLL("librt.so.1", use_errno=True)
        self.queue_fd = int(
            library.mq_open(self.queue.encode(), os.O_RDWR | os.O_CREAT, 0o666, None)
        )

    def _drop_ipc(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.shmctl(self.segment, 0, None)
        os.close(self.queue_fd)
        ctypes.CDLL("librt.so.1", use_errno=True).mq_unlink(self.queue.encode())

    def reset(self) -> dict[str, str]:
        """Put the grants back as they were and return what an attack is told."""
        self.heard.clear()
        for place in (self.ro, self.rw):
            place.chmod(0o755)
            for entry in list(place.iterdir()):
                if entry.name == ".git" and _is_fresh(entry):
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        (self.ro / "data.txt").write_text("as granted\n")
        (self.ro / "link").symlink_to(self.secret)
        os.mkfifo(self.ro / "fifo")
        (self.ro / "fifo").chmod(0o666)
        for name in ("stream", "dgram", "seqpacket"):
            os.link(self.base / "s" / name, self.ro / name)
        (self.ro / "tool").write_bytes(tiny_program())
        (self.ro / "tool").chmod(0o755)
        (self.ro / "setuid").write_bytes(tiny_program(tells_root=True))
        (self.ro / "setuid").chmod(0o4755)
        if os.geteuid() == 0:
            os.mknod(self.ro / "device", 0o20666, os.makedev(1, 9))
            (self.ro / "device").chmod(0o666)
        hooks = self.rw / ".git" / "hooks"
        hooks.mkdir(parents=True, exist_ok=True)
        (self.rw / ".git" / "config").write_text("[core]\n")
        (self.rw / "plain.txt").write_text("plain\n")
        status = os.stat(self.secret)
        return {
            "route": "",
            "secret": str(self.secret),
            "secret_dev": str(status.st_dev),
            "secret_ino": str(status.st_ino),
            "ro": str(self.ro),
            "ro_tmp": str(self.ro_tmp),
            "rw": str(self.rw),
            "host_pid": str(self.neighbour.pid),
            "test_pid": str(os.getpid()),
            "mem_address": self.neighbour_address,
            "pid_ns": str(os.stat("/proc/self/ns/pid").st_ino),
            "key": str(self.key),
            "unix_stream": self.stream,
            "unix_dgram": self.dgram,
            "unix_seqpacket": self.seqpacket,
            "tcp": str(self.tcp),
            "udp": str(self.udp),
            "tcp6": str(self.tcp6),
            "disk": str(os.stat("/").st_dev),
            "root_uid": str(int(os.geteuid() == 0)),
            "loose": ":".join(map(str, self.loose)),
            "started": str(time.time()),
            "home": str(Path.home()),
            "host_group": str(os.getpgid(0)),
            "ipc_key": str(self.ipc_key),
            "mq": self.queue.lstrip("/"),
        } | self.names

    def close(self) -> None:
        """Take everything down."""
        os.dup2(self.stdin_before, 0)
        for made in self._sockets:
            made.close()
        for fd in (self.open_file, self.open_dir, self.stdin_before):
            os.close(fd)
        self._drop_ipc()
        self.neighbour.kill()
        self.neighbour.wait()
        assert self.neighbour.stdout is not None
        self.neighbour.stdout.close()
        for path in self.loose:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.base, ignore_errors=True)
        shutil.rmtree(self.ro_tmp, ignore_errors=True)
