"""Change how programs are laid out: no randomisation, readable means executable.

Source: moby's argument rules; security.md section 2 row "personality".
"""

from __future__ import annotations

ROUTES = ("ADDR_NO_RANDOMIZE", "READ_IMPLIES_EXEC", "READ_IMPLIES_EXEC with junk in the upper half")


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
    value = 0x0040000 if route == "ADDR_NO_RANDOMIZE" else 0x0400000
    value |= 2**32 if "junk" in route else 0
    before = syscall(number(135, 92), 0xFFFFFFFF)
    syscall(number(135, 92), value)
    after = syscall(number(135, 92), 0xFFFFFFFF)
    return f"personality changed from {before:#x} to {after:#x}" if after != before else None
