"""Submit operations by a ring, which no seccomp filter sees.

Source: io_uring(7); moby and Codex deny it; security.md section 2 row "io_uring".
"""

from __future__ import annotations

ROUTES = ("setup", "enter", "register")


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import errno
    import os

    libc = ctypes.CDLL(None, use_errno=True)

    def syscall(number: int, *words: object) -> int:
        wide = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
        result = int(libc.syscall(ctypes.c_long(number), *wide))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    if canary["route"] == "setup":
        parameters = ctypes.create_string_buffer(120)
        return f"io_uring_setup answered descriptor {syscall(425, 8, parameters)}"
    try:
        if canary["route"] == "enter":
            syscall(426, -1, 0, 0, 0, None, 0)
        else:
            syscall(427, -1, 1, None, 0)
    except OSError as error:
        if error.errno in (errno.EBADF, errno.EINVAL):
            return "reached the kernel's ring code"
        raise
    return "ring call answered"
