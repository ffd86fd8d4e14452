"""Install a notify listener of one's own: the newest filter wins, so the attacker answers for
the sandbox.

Source: uapi comment of SECCOMP_RET_USER_NOTIF; security.md section 2 row "child installs its
own filter/listener".
"""

from __future__ import annotations

ROUTES = ("plain", "junk in the upper half", "with TSYNC")


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

    flags = {"plain": 8, "junk in the upper half": 8 + 2**32, "with TSYNC": 8 | 1 | 16}[
        canary["route"]
    ]
    code = (ctypes.c_uint64 * 1)(0x7FFF000000000006)  # BPF_RET, SECCOMP_RET_ALLOW
    program = (ctypes.c_uint64 * 2)(1, ctypes.addressof(code))
    libc.prctl(38, 1, 0, 0, 0)
    return f"listener descriptor {syscall(number(317, 277), 1, flags, program)}"
