"""Set the x32 bit in the number: a filter that compares for equality with denied numbers lets it
through.

Source: seccomp(2) Notes; security.md section 2 row "x32 bit".
"""

from __future__ import annotations

NEEDS = "a kernel with CONFIG_X86_X32_ABI"


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

    return f"x32 getpid answered {syscall(0x40000000 | 39)}"
