"""Take processor time from others: real-time class, negative nice, protection from the OOM
killer, locked memory.

Source: sched(7), setrlimit(2); security.md section 5 row "RT priority, nice, oom_score_adj,
mlock".
"""

from __future__ import annotations

ROUTES = (
    "fifo",
    "round robin",
    "deadline",
    "nice -5",
    "setpriority of the group",
    "setpriority of the user",
    "ioprio realtime",
    "oom_score_adj",
    "mlock",
    "mlockall",
    "raise NOFILE",
    "raise CORE",
    "raise NPROC",
    "limits of another",
    "priority of the host process",
    "affinity of the host process",
    "raise MEMLOCK",
    "autogroup",
)
NEEDS = {
    "fifo": "CAP_SYS_NICE",
    "round robin": "CAP_SYS_NICE",
    "deadline": "CAP_SYS_NICE",
    "nice -5": "CAP_SYS_NICE",
    "setpriority of the group": "CAP_SYS_NICE",
    "setpriority of the user": "CAP_SYS_NICE",
    "ioprio realtime": "CAP_SYS_NICE",
    "raise NOFILE": "CAP_SYS_RESOURCE",
    "raise NPROC": "CAP_SYS_RESOURCE",
    "raise CORE": "a core limit above 1",
    "raise MEMLOCK": "CAP_SYS_RESOURCE",
    "autogroup": "CONFIG_SCHED_AUTOGROUP",
    "mlockall": "a process that fits into RLIMIT_MEMLOCK",
}


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import mmap
    import os
    import resource

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
    if route in ("fifo", "round robin"):
        policy = os.SCHED_FIFO if route == "fifo" else os.SCHED_RR
        os.sched_setscheduler(0, policy, os.sched_param(10))
    elif route == "deadline":
        words = (48).to_bytes(4, "little") + (6).to_bytes(4, "little") + bytes(16)
        times = b"".join(value.to_bytes(8, "little") for value in (10**7, 3 * 10**7, 3 * 10**7))
        syscall(number(314, 274), 0, ctypes.create_string_buffer(words + times, 48), 0)
    elif route == "nice -5":
        os.nice(-5)
    elif route == "setpriority of the group":
        os.setpriority(os.PRIO_PGRP, 0, os.getpriority(os.PRIO_PROCESS, 0) - 1)
    elif route == "setpriority of the user":
        os.setpriority(os.PRIO_USER, 0, os.getpriority(os.PRIO_PROCESS, 0) - 1)
    elif route == "priority of the host process":
        os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))
    elif route == "affinity of the host process":
        os.sched_setaffinity(pid, os.sched_getaffinity(pid))
    elif route == "ioprio realtime":
        syscall(number(251, 30), 1, 0, 1 << 13 | 4)
    elif route == "oom_score_adj":
        with open("/proc/self/oom_score_adj", "r+") as file:
            before = int(file.read())
            if before == 0:
                file.seek(0)
                file.write("500")
                file.flush()
                before = 500
            file.seek(0)
            file.write(str(before - 1))
    elif route == "autogroup":
        with open("/proc/self/autogroup", "w") as file:
            file.write("-1")
    elif route == "mlock":
        memory = mmap.mmap(-1, 1 << 20)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        syscall(number(149, 228), start, 1 << 20)
    elif route == "mlockall":
        syscall(number(151, 230), 1)
    elif route == "limits of another":
        resource.prlimit(pid, resource.RLIMIT_NOFILE, resource.prlimit(pid, resource.RLIMIT_NOFILE))
    else:
        number = {
            "raise NOFILE": resource.RLIMIT_NOFILE,
            "raise CORE": resource.RLIMIT_CORE,
            "raise NPROC": resource.RLIMIT_NPROC,
            "raise MEMLOCK": resource.RLIMIT_MEMLOCK,
        }[route]
        hard = resource.getrlimit(number)[1]
        if route == "raise CORE":
            if hard in (0, 1):
                raise OSError(f"core limit is {hard}")
            resource.setrlimit(number, (hard, hard))
        else:
            if hard == resource.RLIM_INFINITY:
                return f"{route}: no limit at all"
            try:
                resource.setrlimit(number, (hard + 1, hard + 1))
            except ValueError as error:
                raise OSError(str(error)) from error
    return f"{route} was allowed"
