"""Hold a lease on a file that was granted for reading: the host's next open for writing waits 45
s.

Source: fcntl(2), tried; security.md section 4 row "lease, lock or FIFO on a read-only grant".
"""

from __future__ import annotations

ROUTES = ("F_SETLEASE", "F_NOTIFY", "F_SETLEASE with junk in the upper half", "F_SETSIG")


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import fcntl
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
    if route == "F_NOTIFY":
        fcntl.fcntl(os.open(canary["ro"], os.O_RDONLY), 1026, 0x1F)
        return "watches the grant by signals"
    reading = os.open(os.path.join(canary["ro"], "data.txt"), os.O_RDONLY)
    if route == "F_SETSIG":
        fcntl.fcntl(reading, 10, 9)
        return "asked for SIGKILL as the signal of a descriptor"
    syscall(number(72, 25), reading, 1024 + (2**32 if "junk" in route else 0), 0)
    return "holds a lease on the host's file"
