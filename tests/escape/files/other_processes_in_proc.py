"""Reach another process's root, directory, files, memory and environment through /proc.

Source: proc(5); security.md section 4 row "/proc/PID/root", section 5 row "environment:
keys".
"""

from __future__ import annotations

ROUTES = (
    "root",
    "cwd",
    "fd",
    "environ",
    "mem",
    "cmdline",
    "any other process",
    "parent environ",
    "environ of 1",
)
NEEDS = {"environ of 1": "a readable /proc/1", "parent environ": "a readable parent"}


def attempt(canary: dict[str, str]) -> str | None:
    import os

    route, pid = canary["route"], canary["host_pid"]
    if route == "root":
        with open(f"/proc/{pid}/root{canary['secret']}") as file:
            return f"read {file.read()}"
    if route == "cwd":
        with open(f"/proc/{pid}/cwd/{os.path.basename(canary['secret'])}") as file:
            return f"read {file.read()}"
    if route == "fd":
        for name in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{name}") == canary["secret"]:
                with open(f"/proc/{pid}/fd/{name}") as file:
                    return f"read {file.read()}"
        return None
    if route == "mem":
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(int(canary["mem_address"]))
            return f"read {memory.read(48)!r}"
    if route == "cmdline":
        with open(f"/proc/{pid}/cmdline", "rb") as raw:
            text = raw.read()
        return f"read {text[:60]!r}" if b"AGENTSBX_TEST_SECRET" in text else None
    if route == "any other process":
        others = {name for name in os.listdir("/proc") if name.isdigit()} - {str(os.getpid()), "1"}
        return f"sees processes {sorted(others)[:8]}" if others else None
    whose = {"environ": pid, "parent environ": canary["test_pid"], "environ of 1": "1"}[route]
    with open(f"/proc/{whose}/environ", "rb") as raw:
        text = raw.read()
    return f"read {text[:80]!r}" if b"AGENTSBX_TEST_SECRET" in text or whose != "1" else None
