"""A background child keeps standard output open, so that whoever waits for its end waits long.

Source: subprocess documentation; security.md section 5 row "background child keeps pipes
open".
"""

from __future__ import annotations


def attempt(canary: dict[str, str]) -> str | None:
    import os
    import time

    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)
    return None


def check(canary: dict[str, str]) -> str | None:
    took = float(canary["elapsed_s"])
    return f"the call took {took:.1f} s" if took > 2.5 else None
