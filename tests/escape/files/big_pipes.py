"""Blow up pipes: sixty-three of 1 MB leave every new pipe of the user at 8 KB.

Source: pipe(7), tried; security.md section 4 row "pipes and fds in flight eat the user's
quota".
"""

from __future__ import annotations

ROUTES = ("F_SETPIPE_SZ", "with junk in the upper half")


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

    reading, _ = os.pipe()
    command = 1031 + (2**32 if "junk" in canary["route"] else 0)
    return f"pipe of {syscall(number(72, 25), reading, command, 1 << 20)} bytes"
