"""Make or inspect mounts, by the old call and by the ones that lists of names tend to miss.

Source: CVE-2021-41133 (Flatpak and the new mount calls); security.md section 2 row "list by
name".
"""

from __future__ import annotations

ROUTES = (
    "mount",
    "umount2",
    "open_tree",
    "fsopen",
    "mount_setattr",
    "statmount",
    "listmount",
    "open_tree_attr",
    "pivot_root",
    "fspick",
)
LAYER = "user mnt"
NEEDS = {"open_tree_attr": "Linux 6.15"}


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
    here = b"/proc"
    if route == "mount":
        syscall(number(165, 40), b"none", here, b"tmpfs", 0, None)
    elif route == "umount2":
        syscall(number(165, 40), b"none", here, b"tmpfs", 0, None)
        syscall(number(166, 39), here, 2)
    elif route == "open_tree":
        syscall(428, -100, b"/", 1 | 0x8000)
    elif route == "fsopen":
        syscall(430, b"tmpfs", 0)
    elif route == "fspick":
        syscall(433, -100, here, 0)
    elif route == "mount_setattr":
        attributes = (ctypes.c_uint64 * 4)(2, 0, 0, 0)
        syscall(number(165, 40), b"none", here, b"tmpfs", 0, None)
        syscall(442, -100, here, 0, attributes, 32)
    elif route == "open_tree_attr":
        attributes = (ctypes.c_uint64 * 4)(2, 0, 0, 0)
        syscall(467, -100, b"/", 1 | 0x8000, attributes, 32)
    elif route == "pivot_root":
        syscall(number(165, 40), b"none", here, b"tmpfs", 0, None)
        os.mkdir("/proc/old")
        syscall(number(155, 41), here, b"/proc/old")
    else:
        # struct mnt_id_req: size, spare, mount id (LSMT_ROOT), what statmount shall tell
        request = (ctypes.c_uint64 * 3)(24, 0xFFFFFFFFFFFFFFFF, 0)
        answer = (ctypes.c_uint64 * 512)()
        count = syscall(458, request, answer, 64, 0)
        if route == "statmount":
            request[1], request[2] = answer[0], 0x3F
            syscall(457, request, answer, 4096, 0)
        else:
            return f"listmount told of {count} mounts"
    return f"{route} worked"
