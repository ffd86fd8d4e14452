"""More processes, threads or descriptors than the policy allows.

Source: NemoClaw#809 (RLIMIT_NPROC is per uid and void for root), sunwalker-box#10;
security.md section 5 rows "fork/thread bomb", "descriptor exhaustion".
"""

from __future__ import annotations

ROUTES = (
    "processes",
    "threads",
    "processes of children",
    "sessions",
    "descriptors",
    "vfork",
    "descriptors of children",
)
POLICY = {"processes": 24, "open_files": 128}


def attempt(canary: dict[str, str]) -> str | None:
    import os
    import signal
    import threading
    import time

    route = canary["route"]
    if route == "descriptors":
        made = 0
        while made < 400:
            os.open("/dev/null", os.O_RDONLY)
            made += 1
        return f"opened {made} descriptors"
    if route == "threads":
        stop = threading.Event()
        threads = []
        try:
            while len(threads) < 60:
                thread = threading.Thread(target=stop.wait, daemon=True)
                thread.start()
                threads.append(thread)
        except RuntimeError:
            pass
        stop.set()
        return f"started {len(threads)} threads" if len(threads) >= 24 else None
    reading, writing = os.pipe()
    if route == "descriptors of children":
        child = os.fork()
        if child == 0:
            try:
                for _ in range(400):
                    os.dup(reading)
                os.write(writing, b"x")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.set_blocking(reading, False)
        return "a child opened 400 descriptors" if os.read(reading, 1) else None
    # Every process that comes to life writes a byte and waits.
    os.getpid()

    def live() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if route == "sessions":
            os.setsid()
        os.write(writing, b"x")
        if route == "processes of children":
            for _ in range(3):
                try:
                    if os.fork() == 0:
                        os.write(writing, b"x")
                        break
                except OSError:
                    break
        time.sleep(3)
        os._exit(0)

    refused = None
    for _ in range(60):
        try:
            if os.fork() == 0:
                live()
        except OSError as error:
            refused = error
            break
    time.sleep(0.5)
    os.set_blocking(reading, False)
    try:
        alive = len(os.read(reading, 4096))
    except BlockingIOError:
        alive = 0
    if alive >= 26:
        return f"{alive} processes at once"
    if refused is not None:
        raise refused
    return None
