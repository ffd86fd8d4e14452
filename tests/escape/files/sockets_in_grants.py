"""Talk to a service of the host by its socket, which a read-only mount does not stop.

Source: greywall#55, cplt#240 (systemd-run by D-Bus), nono#781; security.md section 4 row
"read-only grant contains a socket", section 7 rows "abstract unix sockets", "docker.sock".
"""

from __future__ import annotations

ROUTES = (
    "stream in read grant",
    "datagram in read grant",
    "seqpacket in read grant",
    "datagram pair to read grant",
    "stream by path",
    "abstract stream",
    "abstract datagram",
    "pair reconnected",
    "sendmsg on a pair",
    "seqpacket pair reconnected",
)
NEEDS = {
    "pair reconnected": "a kernel that reconnects a stream pair",
    "seqpacket pair reconnected": "a kernel that reconnects a pair",
    "sendmsg on a pair": "a kernel that sends by address on a connected pair",
}


def attempt(canary: dict[str, str]) -> str | None:
    import os
    import socket

    route, granted = canary["route"], canary["ro"]
    if route in (
        "stream in read grant",
        "stream by path",
        "abstract stream",
        "seqpacket in read grant",
    ):
        address = {
            "stream in read grant": os.path.join(granted, "stream"),
            "stream by path": canary["unix_stream"],
            "abstract stream": "\0" + canary["abstract"],
            "seqpacket in read grant": os.path.join(granted, "seqpacket"),
        }[route]
        kind = socket.SOCK_SEQPACKET if "seqpacket" in route else socket.SOCK_STREAM
        client = socket.socket(socket.AF_UNIX, kind)
        client.settimeout(3)
        client.connect(address)
        return f"the host's service said {client.recv(100)!r}"
    if route in ("datagram in read grant", "abstract datagram"):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        client.sendto(
            b"attack",
            os.path.join(granted, "dgram") if "read" in route else "\0" + canary["abstract_dgram"],
        )
        return "sent to the host's service"
    if route == "datagram pair to read grant":
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.sendto(b"attack", os.path.join(granted, "dgram"))
        return f"sent to the host's service by a pair ({far.fileno()})"
    kind = socket.SOCK_SEQPACKET if "seqpacket" in route else socket.SOCK_STREAM
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    if route == "sendmsg on a pair":
        near.sendmsg([b"attack"], [], 0, os.path.join(granted, "dgram"))
        if far.recv(100, socket.MSG_DONTWAIT):
            raise OSError("went to the other end")
        return "sent to the host's service"
    near.connect(os.path.join(granted, "seqpacket" if "seqpacket" in route else "stream"))
    return f"the host's service said {near.recv(100)!r} ({far.fileno()})"
