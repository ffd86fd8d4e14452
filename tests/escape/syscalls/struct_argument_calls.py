"""clone3 and openat2 take their flags in memory, where a filter cannot see them.

Source: Chromium issue 1213452; security.md section 2 row "clone3/openat2 take structs".
"""

from __future__ import annotations

ROUTES = ("clone3", "openat2")


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

    if canary["route"] == "openat2":
        how = (ctypes.c_uint64 * 3)(os.O_RDONLY, 0, 0)
        return f"openat2 answered descriptor {syscall(437, -100, b'/', how, 24)}"
    arguments = (ctypes.c_uint64 * 11)()
    arguments[0] = 0x10000000  # CLONE_NEWUSER
    arguments[4] = 17  # SIGCHLD
    child = syscall(435, arguments, 88)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "clone3 made a process in a new user namespace"
