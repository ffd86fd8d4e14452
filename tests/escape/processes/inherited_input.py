"""Read the user's input or reach the terminal.

Source: seen with sandlock; security.md section 5 row "stdin/tty inherited".
"""

from __future__ import annotations

import os

ROUTES = ("stdin", "terminal", "session of the host", "other inherited descriptors")
NEEDS = {"terminal": "a controlling terminal", "session of the host": ""}


def attempt(canary: dict[str, str]) -> str | None:
    import os
    import select

    route = canary["route"]
    if route == "terminal":
        return f"opened the terminal: {os.open('/dev/tty', os.O_RDWR)}"
    if route == "session of the host":
        session, group = os.getsid(0), os.getpgid(0)
        if session == 0 or group == 0:
            return f"session {session} and group {group} lie outside"
        if canary["pid_ns"] == str(os.stat("/proc/self/ns/pid").st_ino):
            return f"session {session} on the host"
        return None
    if route == "other inherited descriptors":
        for name in sorted(os.listdir("/proc/self/fd"), key=int):
            fd = int(name)
            if fd <= 2:
                continue
            try:
                target = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                continue
            if target.startswith("/") and not target.startswith("/proc"):
                return f"descriptor {fd} is {target}"
        return None
    if select.select([0], [], [], 0)[0]:
        data = os.read(0, 100)
        return f"read {data!r} from the user's input" if data else None
    return None


def setup(canary: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"typed by the user")
    os.dup2(reading, 0)
    os.close(reading)
    os.close(writing)
