"""Listen for whoever connects, on the network or by a socket in a granted folder.

Source: landlock-lsm/linux#57; security.md section 7 row "child listens, outsider connects",
section 1 "listen() without bind".
"""

from __future__ import annotations

ROUTES = (
    "tcp",
    "listen without bind",
    "unix in write grant",
    "abstract",
    "udp",
    "unix datagram",
)


def attempt(canary: dict[str, str]) -> str | None:
    import os
    import socket

    route = canary["route"]
    place = os.path.join(canary["rw"], "socket")
    if route in ("unix in write grant", "abstract", "unix datagram"):
        kind = socket.SOCK_DGRAM if "datagram" in route else socket.SOCK_STREAM
        server = socket.socket(socket.AF_UNIX, kind)
        server.bind(place if route != "abstract" else f"\0agentsbx-{os.getpid()}-attack")
    else:
        server = socket.socket(
            socket.AF_INET, socket.SOCK_DGRAM if route == "udp" else socket.SOCK_STREAM
        )
        if route != "listen without bind":
            server.bind(("127.0.0.1", 0))
    if "datagram" not in route and route != "udp":
        server.listen(1)
    return f"listens on {server.getsockname()!r}"
