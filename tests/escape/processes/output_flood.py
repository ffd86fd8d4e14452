"""Write more than anyone wants to hold.

Source: security.md section 5 row "output flood blocks or fills the parent".
"""

from __future__ import annotations

ROUTES = ("stdout", "stderr", "children")
POLICY = {"output": "1MB"}
NEEDS = {"stderr": ""}


def attempt(canary: dict[str, str]) -> str | None:
    import os

    fd = 2 if canary["route"] == "stderr" else 1
    in_child = canary["route"] == "children" and os.fork() == 0
    piece = b"flood" * 13107
    written = 0
    while written < 48 << 20:
        written += os.write(fd, piece)
    if in_child:
        os._exit(0)
    return "wrote 48 MB to standard error" if fd == 2 else None


def check(canary: dict[str, str]) -> str | None:
    held = int(canary["stdout_bytes"])
    return f"the host holds {held} bytes" if held > 2 << 20 else None
