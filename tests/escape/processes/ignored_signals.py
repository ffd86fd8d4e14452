"""Ignore every signal that can be ignored and go on past the deadline.

Source: signal(7); security.md section 5 row "SIGTERM ignored".
"""

from __future__ import annotations

ROUTES = ("python", "child", "stopped", "busy in C")
POLICY = {"timeout": 0.5}
NEEDS = {"stopped": ""}


def attempt(canary: dict[str, str]) -> str | None:
    import os
    import signal
    import time

    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            continue
    if canary["route"] == "child":
        os.fork()
    if canary["route"] == "stopped":
        os.kill(os.getpid(), signal.SIGTSTP)
    if canary["route"] == "busy in C":
        pow(7, 1 << 26, (1 << 60000) + 1)
    end = time.monotonic() + 6
    while time.monotonic() < end:
        try:
            time.sleep(0.1)
        except BaseException:
            continue
    return None


def check(canary: dict[str, str]) -> str | None:
    took = float(canary["elapsed_s"])
    return f"went on for {took:.1f} s" if took > 2.5 else None
