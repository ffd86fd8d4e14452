"""Look into, write to or take descriptors from another process.

Source: CVE-2016-9962 class; security.md section 2 row "ptrace, process_vm_*, pidfd_getfd,
kcmp".
"""

from __future__ import annotations

ROUTES = (
    "traceme",
    "seize",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "kcmp",
    "process_madvise",
)
NEEDS = {"process_madvise": "CAP_SYS_NICE"}


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
    if route == "traceme":
        syscall(number(101, 117), 0, 0, 0, 0)
        return "became traceable"
    wait_read, _wait_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(wait_read, 1)
        os._exit(0)
    try:
        buffer = ctypes.create_string_buffer(b"0123456789abcdef", 16)
        vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 16)
        if route == "seize":
            syscall(number(101, 117), 0x4206, child, 0, 0)
        elif route == "process_vm_readv":
            syscall(number(310, 270), child, vector, 1, vector, 1, 0)
        elif route == "process_vm_writev":
            syscall(number(311, 271), child, vector, 1, vector, 1, 0)
        elif route == "kcmp":
            syscall(number(312, 272), os.getpid(), child, 0, 0, 0)
        else:
            pidfd = syscall(434, child, 0)
            if route == "pidfd_getfd":
                syscall(438, pidfd, 0, 0)
            else:
                page = ctypes.addressof(buffer) & ~4095
                syscall(440, pidfd, (ctypes.c_uint64 * 2)(page, 4096), 1, 20, 0)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return f"{route} on another process worked"
