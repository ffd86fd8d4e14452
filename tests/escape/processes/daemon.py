"""Leave a process behind that goes on after the call: two forks, a session of its own, every
descriptor closed.

Source: daemon(7); security.md section 5 row "daemon outlives the call".
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

ROUTES = ("double fork", "stopped parent", "ignores signals", "thread")
NEEDS = {"thread": "a program that does not end with its function"}


def attempt(canary: dict[str, str]) -> str | None:
    import os
    import signal
    import threading
    import time

    place = os.path.join(canary["rw"], "daemon.log")

    def live(seconds: float) -> None:
        end = time.time() + seconds
        while time.time() < end:
            with open(place, "a") as file:
                file.write("alive\n")
            time.sleep(0.02)

    if canary["route"] == "thread":
        threading.Thread(target=live, args=(3,)).start()
        return None
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            if canary["route"] == "ignores signals":
                for number in range(1, 32):
                    if number not in (signal.SIGKILL, signal.SIGSTOP):
                        signal.signal(number, signal.SIG_IGN)
            for fd in range(256):
                with contextlib.suppress(OSError):
                    os.close(fd)
            live(3)
        if canary["route"] == "stopped parent":
            os.closerange(0, 3)
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    time.sleep(0.2)
    return None


def check(canary: dict[str, str]) -> str | None:
    place = Path(canary["rw"]) / "daemon.log"
    before = place.stat().st_size if place.exists() else 0
    time.sleep(0.4)
    after = place.stat().st_size if place.exists() else 0
    return f"the daemon wrote {after - before} bytes after the call" if after > before else None
