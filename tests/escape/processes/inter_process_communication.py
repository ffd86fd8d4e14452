"""Leave or find messages in places of the kernel that have names but no file.

Source: sysvipc(7), mq_overview(7); security.md section 2 row "socketcall/ipc", section 9 row
"SysV IPC, POSIX mq".
"""

from __future__ import annotations

ROUTES = (
    "SysV shared memory",
    "SysV queue",
    "SysV semaphore",
    "POSIX queue",
    "host's SysV segment",
    "host's POSIX queue",
)
NEEDS = {"POSIX queue": "POSIX message queues", "host's POSIX queue": "POSIX message queues"}


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)

    def syscall(number: int, *words: object) -> int:
        wide = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
        result = int(libc.syscall(ctypes.c_long(number), *wide))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def number(x86_64: int, aarch64: int) -> int:
        return x86_64 if os.uname().machine == "x86_64" else aarch64

    route = canary["route"]
    shmget, _shmat = number(29, 194), number(30, 196)
    if route == "host's SysV segment":
        segment = syscall(shmget, int(canary["ipc_key"]), 0, 0)
        libc.shmat.restype = ctypes.c_void_p
        where = libc.shmat(segment, None, 0o10000)
        if where in (None, 2**64 - 1):
            raise OSError(ctypes.get_errno(), "shmat")
        return f"read {ctypes.string_at(where, 40)!r}"
    if route == "host's POSIX queue":
        opened = syscall(number(240, 180), canary["mq"].encode(), os.O_RDONLY, 0, None)
        return f"opened the host's queue, descriptor {opened}"
    if route == "POSIX queue":
        made = syscall(number(240, 180), b"agentsbx-attack", os.O_RDWR | os.O_CREAT, 0o666, None)
        syscall(number(241, 181), b"agentsbx-attack")
        return f"made a queue, descriptor {made}"
    if route == "SysV shared memory":
        made = syscall(shmget, 0, 4096, 0o1600)
        syscall(number(31, 195), made, 0, None)
    elif route == "SysV queue":
        made = syscall(number(68, 186), 0, 0o1600)
        syscall(number(71, 187), made, 0, None)
    else:
        made = syscall(number(64, 190), 0, 1, 0o1600)
        syscall(number(66, 191), made, 0, 0, None)
    return f"made {route} {made}"
