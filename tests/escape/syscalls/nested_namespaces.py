"""Make namespaces inside, whose creator has every capability over the kernel code behind them.

Source: CVE-2022-0185, CVE-2022-0492, CVE-2024-1086; security.md section 2 row "nested user
namespaces".
"""

from __future__ import annotations

ROUTES = (
    "unshare user",
    "unshare net",
    "unshare mnt",
    "unshare pid",
    "unshare time",
    "clone user",
    "clone net",
    "clone user with junk in the upper half",
)
LAYER = "user"


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

    verb, kind, *junk = canary["route"].split(maxsplit=2)
    flag = {
        "user": 0x10000000,
        "net": 0x40000000,
        "mnt": 0x00020000,
        "pid": 0x20000000,
        "time": 0x00000080,
    }[kind]
    if verb == "unshare":
        syscall(number(272, 97), flag)
    else:
        child = syscall(number(56, 220), flag | 17 | (2**33 if junk else 0), 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    return f"made a new {kind} namespace"
