"""Undo or bend what protects the process, by prctl.

Source: sandlock's prctl filter; security.md section 2 row "prctl".
"""

from __future__ import annotations

ROUTES = (
    "PR_SET_PTRACER",
    "PR_SET_MM",
    "PR_SET_DUMPABLE",
    "PR_SET_SECUREBITS",
    "PR_SET_KEEPCAPS",
    "PR_CAP_AMBIENT",
    "PR_SET_IO_FLUSHER",
    "PR_SCHED_CORE",
    "PR_CAPBSET_DROP",
    "PR_SET_DUMPABLE with junk in the upper half",
    "PR_SET_SPECULATION_CTRL",
)
LAYER = "user"
NEEDS = dict.fromkeys(
    (
        "PR_SET_PTRACER",
        "PR_SET_IO_FLUSHER",
        "PR_SCHED_CORE",
        "PR_SET_MM",
        "PR_CAP_AMBIENT",
        "PR_SET_SPECULATION_CTRL",
    ),
    "a kernel with this option",
)


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
    size = ctypes.c_uint(0)
    options: dict[str, tuple[object, ...]] = {
        "PR_SET_PTRACER": (0x59616D61, 1, 0, 0, 0),
        "PR_SET_MM": (35, 15, ctypes.byref(size), 0, 0),
        "PR_SET_DUMPABLE": (4, 0, 0, 0, 0),
        "PR_SET_SECUREBITS": (28, 1, 0, 0, 0),
        "PR_SET_KEEPCAPS": (8, 1, 0, 0, 0),
        "PR_CAP_AMBIENT": (47, 4, 0, 0, 0),
        "PR_SET_IO_FLUSHER": (57, 1, 0, 0, 0),
        "PR_SCHED_CORE": (62, 1, 0, 0, 0),
        "PR_CAPBSET_DROP": (24, 5, 0, 0, 0),
        "PR_SET_SPECULATION_CTRL": (53, 0, 2, 0, 0),
        "PR_SET_DUMPABLE with junk in the upper half": (4 + 2**32, 0, 0, 0, 0),
    }
    syscall(number(157, 167), *options[route])
    return f"{route} was allowed"
