"""Hold more memory than the policy allows, of the kinds that RLIMIT_AS does not see too.

Source: measured, security.md section 1; security.md section 5 rows "RLIMIT_CPU, RLIMIT_AS are
per process", "memory outside RLIMIT_AS".
"""

from __future__ import annotations

ROUTES = (
    "heap",
    "children",
    "memfd",
    "temporary files",
    "shared",
    "pipe buffers",
    "socket buffers",
    "SysV",
    "/dev/shm",
    "secretmem",
)
# Without a control group the tree's PSS is polled, which does not see these.
WALL = dict.fromkeys(
    ("memfd", "temporary files", "pipe buffers", "socket buffers", "/dev/shm"), "cgroup:memory"
)
POLICY = {"memory": "96MB", "disk": "1GB", "processes": 64}
NEEDS = {
    "secretmem": "secretmem.enable",
    "SysV": "room for SysV segments",
    "/dev/shm": "a writable /dev/shm",
    "pipe buffers": "a large pipe quota",
}


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import mmap
    import os
    import socket
    import tempfile
    import time

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

    route, goal, piece = canary["route"], 240 << 20, 4 << 20
    held: list[object] = []
    done = 0
    fill = b"x" * piece
    if route in ("heap", "shared"):
        while done < goal:
            if route == "heap":
                held.append(bytearray(fill))
            else:
                memory = mmap.mmap(-1, piece, flags=mmap.MAP_SHARED)
                memory.write(fill)
                held.append(memory)
            done += piece
    elif route in ("memfd", "temporary files", "/dev/shm", "secretmem"):
        if route == "memfd":
            file = os.memfd_create("held", 8)
        elif route == "secretmem":
            file = syscall(447, 0)
            os.ftruncate(file, goal)
            held.append(mmap.mmap(file, goal))
            return "holds secret memory"
        elif route == "/dev/shm":
            file = os.open("/dev/shm/agentsbx-held", os.O_RDWR | os.O_CREAT)
            os.unlink("/dev/shm/agentsbx-held")
        else:
            file = tempfile.mkstemp()[0]
        while done < goal:
            done += os.write(file, fill)
    elif route == "SysV":
        for _ in range(goal // (16 << 20)):
            segment = syscall(number(29, 194), 0, 16 << 20, 0o1600)
            where = syscall(number(30, 196), segment, None, 0)
            syscall(number(31, 195), segment, 0, None)
            ctypes.memset(where, 1, 16 << 20)
            done += 16 << 20
    else:
        # Kernel buffers, held by several processes since each has few descriptors.
        reading, writing = os.pipe()
        for _ in range(40):
            if os.fork() == 0:
                mine: list[object] = []
                try:
                    for _ in range(55):
                        if route == "pipe buffers":
                            ends: tuple[int, int] = os.pipe()
                            os.set_blocking(ends[1], False)
                            os.write(ends[1], b"x" * 65536)
                        elif route == "socket buffers":
                            pair = socket.socketpair()
                            mine.append(pair)
                            pair[0].settimeout(0)
                            pair[0].send(b"x" * 100000)
                        else:
                            mine.append(bytearray(b"x" * (128 << 10)))
                        os.write(writing, b"x")
                except OSError:
                    pass
                time.sleep(4)
                os._exit(0)
        time.sleep(2.0)
        os.set_blocking(reading, False)
        try:
            done = len(os.read(reading, 60000)) * (65536 if "buffers" in route else 128 << 10)
        except BlockingIOError:
            done = 0
        return f"held {done >> 20} MB" if done > 110 << 20 else None
    time.sleep(1.0)
    return f"held {done >> 20} MB" if done >= goal else None
