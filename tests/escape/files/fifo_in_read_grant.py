"""Write into a FIFO that lies in a read-only grant: a read-only mount does not stop that.

Source: tried; security.md section 4 row "lease, lock or FIFO on a read-only grant".
"""

from __future__ import annotations

import os

ROUTES = ("grant", "grant below /tmp")


def attempt(canary: dict[str, str]) -> str | None:
    import os

    place = canary["ro" if canary["route"] == "grant" else "ro_tmp"]
    writing = os.open(os.path.join(place, "fifo"), os.O_WRONLY | os.O_NONBLOCK)
    os.write(writing, b"attacked")
    return "wrote into the host's FIFO"


_READERS: list[int] = []


def setup(canary: dict[str, str]) -> None:
    place = canary["ro" if canary["route"] == "grant" else "ro_tmp"]
    _READERS.append(os.open(os.path.join(place, "fifo"), os.O_RDONLY | os.O_NONBLOCK))


def check(canary: dict[str, str]) -> str | None:
    reading = _READERS.pop()
    try:
        return f"the host read {os.read(reading, 100)!r}" if os.read(reading, 1) else None
    except BlockingIOError:
        return None
    finally:
        os.close(reading)
