"""Signal processes outside: one by number, all at once, the process group, by descriptor.

Source: kill(2), nono#207; security.md section 5 rows "process group reaches across",
"kill(-1)". Signal 0 only asks whether a signal could be sent, so the attack does no harm
where it works.
"""

from __future__ import annotations

ROUTES = (
    "host process",
    "every process",
    "parent",
    "by scanning",
    "pidfd",
    "group of the host",
    "tgkill",
    "queued",
    "test itself",
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

    route, pid = canary["route"], int(canary["host_pid"])
    if route == "host process":
        os.kill(pid, 0)
    elif route == "test itself":
        os.kill(int(canary["test_pid"]), 0)
    elif route == "every process":
        os.kill(-1, 0)
    elif route == "parent":
        if os.getppid() in (0, 1):
            raise OSError("no parent that is not our own init")
        os.kill(os.getppid(), 0)
    elif route == "group of the host":
        os.killpg(int(canary["host_group"]), 0)
    elif route == "tgkill":
        syscall(number(234, 131), pid, pid, 0)
    elif route == "queued":
        information = ctypes.create_string_buffer(
            (0).to_bytes(8, "little") + (-1).to_bytes(4, "little", signed=True), 128
        )
        syscall(number(129, 138), pid, 0, information)
    elif route == "pidfd":
        syscall(424, syscall(434, pid, 0), 0, None, 0)
    else:
        found = []
        for other in range(2, 40000):
            if other == os.getpid():
                continue
            try:
                os.kill(other, 0)
                found.append(other)
            except OSError:
                continue
        return f"could signal {found[:8]}" if found else None
    return f"could signal: {route}"
