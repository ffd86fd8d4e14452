"""Loader: `python filter_live.py FILTER PROGRAM ARGS...` sets no_new_privs, loads the raw BPF of
file FILTER into itself and executes PROGRAM. With "-" as PROGRAM it makes the system calls that
stdin lists as JSON and prints their answers. Needs the standard library only."""

from __future__ import annotations

import ctypes
import json
import os
import sys

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_NR = {"x86_64": 317, "aarch64": 277}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load(bpf: bytes) -> None:
    """Load the filter into the calling thread; raise OSError where the kernel refuses it."""
    program = Program(len(bpf) // 8, bpf)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    nr = SECCOMP_NR[os.uname().machine]
    if libc.syscall(ctypes.c_long(nr), 1, 0, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "seccomp")


def call(nr: int, *args: int) -> int:
    """Make a system call; return the result or -errno."""
    ctypes.set_errno(0)
    result: int = libc.syscall(ctypes.c_long(nr), *[ctypes.c_ulong(a) for a in args])
    return -ctypes.get_errno() if result == -1 else result


def main(argv: list[str]) -> int:
    """Run a program, or a list of calls read from stdin, under the filter."""
    with open(argv[0], "rb") as file:
        bpf = file.read()
    if argv[1] != "-":
        load(bpf)
        os.execv(argv[1], argv[1:])
    calls = json.load(sys.stdin)
    load(bpf)
    print(json.dumps([call(nr, *args) for nr, args in calls]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
