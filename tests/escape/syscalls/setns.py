"""Enter another namespace through a descriptor of it.

Source: setns(2); security.md section 2 row "nested user namespaces".
"""

from __future__ import annotations

ROUTES = ("net", "mnt", "ipc", "pidfd of parent")
LAYER = "user mnt net ipc"


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

    if canary["route"] == "pidfd of parent":
        pid = os.getppid() if os.path.exists(f"/proc/{os.getppid()}/status") else os.getpid()
        child = os.fork()
        if child == 0:
            import time

            time.sleep(5)
            os._exit(0)
        pidfd = syscall(434, child, 0)
        try:
            syscall(number(308, 268), pidfd, 0x40000000)
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)
        return f"entered the net namespace of a pidfd (parent {pid})"
    place = os.open(f"/proc/self/ns/{canary['route']}", os.O_RDONLY)
    syscall(number(308, 268), place, 0)
    return f"setns into {canary['route']} was allowed"
