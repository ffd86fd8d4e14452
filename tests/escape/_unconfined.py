"""Program of the unconfined half: enter the throw-away layer, run the technique, tell what it got.

argv: technique's file, layer words, descriptor for the answer, canary as JSON.
"""

from __future__ import annotations

# Loaded before root's rights are dropped: another user may not be able to read the interpreter.
import array  # noqa: F401
import ctypes
import fcntl  # noqa: F401
import importlib.util
import json
import mmap  # noqa: F401
import os
import pickle  # noqa: F401
import re  # noqa: F401
import resource  # noqa: F401
import signal  # noqa: F401
import socket  # noqa: F401
import stat  # noqa: F401
import struct  # noqa: F401
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
import termios  # noqa: F401
import threading  # noqa: F401
import time  # noqa: F401

UNPRIVILEGED = 65521
NAMESPACES = {
    "mnt": 0x00020000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


def check(result: int) -> None:
    """Raise the OSError of a libc call that failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def enter(words: list[str]) -> None:
    """Make the namespaces that the words name and, if asked, drop root."""
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = [word for word in words if word in NAMESPACES]
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and "user" in wanted:
        wanted.remove("user")
    flags = 0
    for word in wanted:
        flags |= NAMESPACES[word]
    if flags:
        check(libc.unshare(flags))
    if "user" in wanted:
        with open("/proc/self/setgroups", "w") as file:
            file.write("deny")
        for name, outside in (("uid", uid), ("gid", gid)):
            with open(f"/proc/self/{name}_map", "w") as file:
                file.write(f"0 {outside} 1")
    if "mnt" in wanted:
        check(libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None))  # MS_REC | MS_PRIVATE
    if "pid" in wanted:
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0x7F)
        if "mnt" in wanted:
            check(libc.mount(b"proc", b"/proc", b"proc", 0, None))
    if "drop" in words and uid == 0:
        os.setgroups([])
        os.setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
        os.setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)


def main() -> None:
    """Run one technique."""
    path, layer, answer_fd, canary = sys.argv[1], sys.argv[2].split(), int(sys.argv[3]), sys.argv[4]
    spec = importlib.util.spec_from_file_location("technique", path)
    assert spec is not None
    assert spec.loader is not None
    technique = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(technique)
    os.set_inheritable(answer_fd, False)  # noqa: FBT003
    told: dict[str, str | None]
    try:
        enter(layer)
        told = {"success": technique.attempt(json.loads(canary))}
    except (OSError, MemoryError) as error:
        told = {"stopped": repr(error)}
    except BaseException as error:
        import traceback

        told = {"broken": repr(error) + traceback.format_exc()}
    os.write(answer_fd, json.dumps(told).encode())
    os._exit(0)


main()
