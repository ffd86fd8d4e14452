"""The filter in a real kernel: a child loads it and makes the calls."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import filter_live
import pytest
from filter_bpf import Meaning

from agentsbx import _filter

LOADER = Path(__file__).with_name("filter_live.py")
ANSWERS = {
    ("getpid", ()): None,  # None: anything but an error
    ("socketpair", (2, 1, 0)): errno.EAFNOSUPPORT,
    ("socketpair", (1, 2, 0)): errno.EPROTOTYPE,
    ("socketpair", (1, 1, 6)): errno.EPROTONOSUPPORT,
    ("socketpair", (1, 0x80801, 0)): errno.EFAULT,  # allowed: the kernel looks at the pointer
    ("socket", (1, 1, 0)): errno.EAFNOSUPPORT,
    ("socket", (2, 1, 0)): errno.EAFNOSUPPORT,
    ("socket", (38, 5, 0)): errno.EAFNOSUPPORT,
    ("connect", (0, 0, 0)): errno.EPERM,
    ("clone3", (0, 0)): errno.ENOSYS,
    ("openat2", (0, 0, 0, 0)): errno.ENOSYS,
    ("io_uring_setup", (1, 0)): errno.ENOSYS,
    ("userfaultfd", (0,)): errno.ENOSYS,
    ("statmount", (0, 0, 0, 0)): errno.ENOSYS,
    ("open_tree_attr", (0, 0, 0, 0, 0)): errno.EPERM,
    ("unshare", (0x10000000,)): errno.EPERM,
    ("clone", (0x10000011, 0, 0, 0, 0)): errno.EPERM,
    ("ptrace", (0, 0, 0, 0)): errno.EPERM,
    ("keyctl", (0, 0, 0)): errno.EPERM,
    ("bpf", (0, 0, 0)): errno.EPERM,
    ("mount", (0, 0, 0, 0, 0)): errno.EPERM,
    ("ioctl", (0, 0x5412, 0)): errno.ENOTTY,
    ("ioctl", (0, 0x5412 + (1 << 32), 0)): errno.ENOTTY,
    ("fcntl", (1, 1024, 0)): errno.EPERM,
    ("fcntl", (1, 1031, 1 << 20)): errno.EPERM,
    ("fcntl", (1, 1, 0)): None,
    ("prctl", (4, 0, 0, 0, 0)): errno.EPERM,
    ("prctl", (0x59616D61, 1, 0, 0, 0)): errno.EPERM,
    ("prctl", (39, 0, 0, 0, 0)): None,
    ("personality", (0x40000,)): errno.EPERM,
    ("personality", (0xFFFFFFFF,)): None,
    ("fchmod", (99, 0o4755)): errno.EPERM,
    ("fchmod", (99, 0o755)): errno.EBADF,
    ("mknodat", (99, 0, 0o020666, 0)): errno.EPERM,
    ("memfd_create", (0, 0x10)): errno.EACCES,
    ("prlimit64", (1, 7, 1, 0)): errno.EPERM,
    ("prlimit64", (0, 4, 1, 0)): errno.EINVAL,
    ("setrlimit", (4, 0)): errno.EINVAL,
    ("setrlimit", (7, 0)): errno.EFAULT,
    ("sched_setscheduler", (0, 1, 0)): errno.EPERM,
    ("setuid", (12345,)): errno.EPERM,
    ("seccomp", (1, 8, 0)): errno.EPERM,
}  # fmt: skip


@pytest.fixture
def filter_file(tmp_path: Path) -> Path:
    path = tmp_path / "python.bpf"
    path.write_bytes(_filter.build_filter("python", notify=False))
    return path


def _calls(filter_file: Path, calls: list[tuple[int, list[int]]]) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-I", str(LOADER), str(filter_file), "-"],
        input=json.dumps(calls), capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    answers: list[int] = json.loads(done.stdout)
    return answers


def test_kernel_answers_as_the_table_says(filter_file: Path) -> None:
    numbers = Meaning(_filter.native_arch()).numbers
    calls = [(numbers[name], list(args)) for name, args in ANSWERS]
    for (key, expected), got in zip(ANSWERS.items(), _calls(filter_file, calls), strict=True):
        if expected is None:
            assert got >= 0, key
        else:
            assert got == -expected, (key, errno.errorcode.get(-got, got))


def test_unknown_numbers_and_canary(filter_file: Path) -> None:
    answers = _calls(filter_file, [(4095, []), (470, []), (600, []), (4094, [])])
    assert answers == [-33, -errno.ENOSYS, -errno.ENOSYS, -errno.ENOSYS]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="machine lacks: x32 numbers")
def test_x32_number_kills_by_sigsys(filter_file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(LOADER), str(filter_file), "-"],
        input=json.dumps([(0x40000000 + 39, [])]), capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGSYS


@pytest.mark.parametrize("profile", ["python", "build", "strict"])
@pytest.mark.parametrize("notify", [True, False])
def test_kernel_accepts_every_profile(profile: str, notify: bool, tmp_path: Path) -> None:
    path = tmp_path / "filter"
    path.write_bytes(_filter.build_filter(profile, notify=notify, memfd_noexec_seal=True))
    assert _calls(path, [(4095, [])]) == [-33]


NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101


def _child_with_listener(bpf: bytes, channel: socket.socket) -> None:
    """Load the filter with a listener, send that away, make denied calls, tell the answers."""
    program = filter_live.Program(len(bpf) // 8, bpf)
    filter_live.libc.prctl(38, 1, 0, 0, 0)
    nr = ctypes.c_long(filter_live.SECCOMP_NR[os.uname().machine])
    listener = filter_live.libc.syscall(nr, 1, 8, ctypes.byref(program))
    socket.send_fds(channel, [b"L"], [listener])
    os.close(listener)
    numbers = Meaning(_filter.native_arch()).numbers
    answers = [
        filter_live.call(numbers["socket"], 2, 1, 0),
        filter_live.call(numbers["unshare"], 0x10000000),
        filter_live.call(numbers["getppid"]) > 0,
    ]
    channel.send(json.dumps(answers).encode())


def test_listener_hears_number_and_arguments_of_a_denied_call() -> None:
    bpf = _filter.build_filter("python", notify=True)
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            _child_with_listener(bpf, there)
        finally:
            os._exit(0)
    there.close()
    here.settimeout(20)
    _, (listener,), _, _ = socket.recv_fds(here, 1, 1)
    heard = []
    for error in (errno.EAFNOSUPPORT, errno.EPERM):
        record = bytearray(80)
        fcntl.ioctl(listener, NOTIF_RECV, record)
        cookie, _pid, _flags, nr, arch, _ip, *args = struct.unpack("=QIIiIQ6Q", record)
        heard.append((_filter.explain_syscall(nr)[:2], args[0], arch))
        fcntl.ioctl(listener, NOTIF_SEND, struct.pack("=QqiI", cookie, 0, -error, 0))
    arch = _filter.AUDIT_ARCH[_filter.native_arch()]
    assert heard == [
        (("socket", "socket"), 2, arch),
        (("unshare", "namespace"), 0x10000000, arch),
    ]
    assert json.loads(here.recv(1000)) == [-errno.EAFNOSUPPORT, -errno.EPERM, True]
    os.waitpid(child, 0)
    os.close(listener)
    here.close()
