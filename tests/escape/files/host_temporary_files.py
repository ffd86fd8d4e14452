"""Look into places that every program of the machine shares.

Source: snekbox#106, #113 (/dev/shm); security.md section 4 row "shared /tmp, /dev/shm, /run,
$HOME".
"""

from __future__ import annotations

from pathlib import Path

ROUTES = ("named files", "anything", "write where the host sees it")


def attempt(canary: dict[str, str]) -> str | None:
    import os

    route = canary["route"]
    if route == "named files":
        for place in canary["loose"].split(":"):
            try:
                with open(place) as file:
                    return f"read {place}: {file.read()}"
            except OSError:
                continue
        return None
    if route == "anything":
        for place in ("/tmp", "/dev/shm", "/run", "/var/tmp"):
            try:
                names = [name for name in os.listdir(place) if name.startswith("agentsbx-loose")]
            except OSError:
                continue
            if names:
                return f"{place} holds {names}"
        return None
    for place in ("/tmp", "/dev/shm", "/var/tmp", "/run"):
        try:
            with open(f"{place}/agentsbx-left-behind", "w") as file:
                file.write("x")
        except OSError:
            continue
    return None


def check(canary: dict[str, str]) -> str | None:
    seen = None
    for place in ("/tmp", "/dev/shm", "/var/tmp", "/run"):
        left = Path(place) / "agentsbx-left-behind"
        if left.exists():
            left.unlink()
            seen = f"{left} appeared on the host"
    return seen
