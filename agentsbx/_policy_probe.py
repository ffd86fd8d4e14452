"""The job of `agentsbx policy test`: tries each row for real and says what came of it.

Runs in the sandbox, with the standard library alone; `_why_table` reads its answers as what any
job sends: a list of plain values that is checked. Nothing here is more than a try: files are opened
and closed again, a program is started under a filter that ends it at its first step.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys

__all__ = ["NOT_TRIED", "probe"]

ALLOW, DENY = "allow", "deny"
NOT_TRIED = 1000  # in place of an errno: the try itself failed
_CONNECT_S = 3.0
_SECCOMP, _FILTER = 1, 1  # SECCOMP_SET_MODE_FILTER
_KILL, _RET_ALLOW = 0x80000000, 0x7FFF0000
_LD_NR, _JEQ, _RET = 0x20, 0x15, 0x06


def probe(rows: list[tuple[str, str, int]], harmless: tuple[int, ...]) -> list[tuple[str, int]]:
    """Try each (op, target, number of the system call); (verdict, errno) of each.

    `harmless`: numbers of `seccomp`, and of what the child of an exec row may call.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    out = []
    for op, target, number in rows:
        try:
            if op == "syscall":
                code = _syscall(libc, number)
            elif op == "exec":
                code = _exec(libc, target, harmless)
            else:
                code = _TRIES[op](target)
        except OSError as error:
            code = error.errno or errno.EIO
        out.append((DENY if code else ALLOW, code))
    return out


def _read(path: str) -> int:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    return 0


def _write(path: str) -> int:
    """Open for writing; what is not there is made and taken away again, a folder gets no file."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    if os.path.isdir(path):
        with contextlib.suppress(IsADirectoryError):
            os.close(os.open(path, flags | os.O_TMPFILE, 0o600))
            return 0
        path = os.path.join(path, f".agentsbx-probe-{os.getpid()}")
    if os.path.lexists(path):
        os.close(os.open(path, flags))
        return 0
    os.close(os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)
    return 0


def _connect(target: str) -> int:
    host, _, port = target.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S):
        return 0


def _env(name: str) -> int:
    return 0 if name in os.environ else errno.ENOENT


def _fork(_target: str) -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return 0


_TRIES = {"read": _read, "write": _write, "connect": _connect, "env": _env, "fork": _fork}


def _syscall(libc: ctypes.CDLL, number: int) -> int:
    """Call it with arguments that no call accepts: allowed is what comes as far as the kernel."""
    wrong = (ctypes.c_long(-1),) * 6
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(number), *wrong)
    code = ctypes.get_errno() if done == -1 else 0
    return code if code in (errno.ENOSYS, errno.EPERM) else 0


def _exec(libc: ctypes.CDLL, path: str, harmless: tuple[int, ...]) -> int:
    """Start the program under a filter that kills it at its first call of the system.

    The pipe closes by itself when the program is executed; else its errno comes through it.
    """
    seccomp, *allowed = harmless
    lines = [struct.pack("=HBBI", _LD_NR, 0, 0, 0)]
    lines += [struct.pack("=HBBI", _JEQ, len(allowed) - i, 0, n) for i, n in enumerate(allowed)]
    lines += [struct.pack("=HBBI", _RET, 0, 0, _KILL), struct.pack("=HBBI", _RET, 0, 0, _RET_ALLOW)]
    code = ctypes.create_string_buffer(b"".join(lines))
    program = struct.pack("=HxxxxxxQ", len(lines), ctypes.addressof(code))
    path_raw = os.fsencode(path)
    argv = (ctypes.c_char_p * 2)(path_raw, None)
    envp = (ctypes.c_char_p * 1)(None)
    message = ctypes.create_string_buffer(4)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        filtered = libc.syscall(seccomp, _FILTER, 0, program) == 0
        if filtered:
            libc.execve(path_raw, argv, envp)
        code_now = ctypes.get_errno() or errno.EIO
        struct.pack_into("=i", message, 0, code_now if filtered else NOT_TRIED)
        libc.write(theirs, message, 4)
        libc._exit(1)
    os.close(theirs)
    try:
        said = os.read(ours, 4)
    finally:
        os.close(ours)
        os.waitpid(child, 0)
    return int.from_bytes(said, sys.byteorder) if said else 0
