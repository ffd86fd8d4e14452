"""Read keys from the environment.

Source: AutoGen copies os.environ, seen with bubblewrap's pid 1; security.md section 5 row
"environment: keys".
"""

from __future__ import annotations

ROUTES = (
    "os.environ",
    "/proc/self/environ",
    "/proc/1/environ",
    "environ of every process",
    "own stack",
    "getenv in C",
)
NEEDS = {"/proc/1/environ": "a readable /proc/1", "own stack": ""}


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import os

    name, route = "AGENTSBX_" + "TEST_SECRET", canary["route"]
    if route == "os.environ":
        value = os.environ.get(name)
        return f"read {value}" if value else None
    if route == "getenv in C":
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_char_p
        raw = libc.getenv(name.encode())
        return f"read {raw!r}" if raw else None
    if route == "own stack":
        with open("/proc/self/maps") as table, open("/proc/self/mem", "rb", buffering=0) as memory:
            for line in table:
                if "[stack]" in line:
                    start, end = (int(word, 16) for word in line.split()[0].split("-"))
                    memory.seek(start)
                    return (
                        "the stack holds the variable"
                        if (name + "=").encode() in memory.read(end - start)
                        else None
                    )
        return None
    places = {
        "/proc/self/environ": ["self"],
        "/proc/1/environ": ["1"],
        "environ of every process": [entry for entry in os.listdir("/proc") if entry.isdigit()],
    }[route]
    for place in places:
        try:
            with open(f"/proc/{place}/environ", "rb") as file:
                if (name + "=").encode() in file.read():
                    return f"/proc/{place}/environ holds the variable"
        except OSError:
            continue
    return None
