"""Reach services of the host: loopback, other address families of TCP, datagrams, and the ways
round `connect`.

Source: dify#36637, landlock-lsm/linux#54 and #41, seen with sandlock; security.md section 7
rows "host loopback", "MPTCP, SMC, TCP Fast Open", "UDP/DNS/ICMP".
"""

from __future__ import annotations

ROUTES = (
    "tcp",
    "tcp by name",
    "tcp6",
    "mapped address",
    "any address",
    "udp",
    "udp connected",
    "mptcp",
    "fast open",
    "fast open connect",
    "sendmsg fast open",
    "name of machine",
)
NEEDS = {
    "tcp6": "IPv6 loopback",
    "mptcp": "MPTCP",
    "name of machine": "a name that resolves to a reachable address",
    "mapped address": "IPv6",
}


def attempt(canary: dict[str, str]) -> str | None:
    import socket

    route, port = canary["route"], int(canary["tcp"])
    server = ("127.0.0.1", port)
    if route in ("udp", "udp connected"):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(3)
        if route == "udp":
            client.sendto(b"attack", ("127.0.0.1", int(canary["udp"])))
        else:
            client.connect(("127.0.0.1", int(canary["udp"])))
            client.send(b"attack")
        return f"the host answered {client.recv(100)!r}"
    if route in ("tcp6", "mapped address"):
        client = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        client.settimeout(3)
        client.connect(
            ("::1", int(canary["tcp6"])) if route == "tcp6" else ("::ffff:127.0.0.1", port)
        )
    elif route in ("fast open", "sendmsg fast open"):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes([3]) + bytes(15))
        if route == "fast open":
            client.sendto(b"attack", 0x20000000, server)
        else:
            client.sendmsg([b"attack"], [], 0x20000000, server)
    elif route == "fast open connect":
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.settimeout(3)
        client.setsockopt(socket.IPPROTO_TCP, 30, 1)
        client.connect(server)
        client.send(b"attack")
    elif route == "mptcp":
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
        client.settimeout(3)
        client.connect(server)
    elif route == "tcp by name":
        client = socket.create_connection(("localhost", port), 3)
    elif route == "name of machine":
        client = socket.create_connection((socket.gethostname(), port), 3)
    elif route == "any address":
        client = socket.create_connection(("0.0.0.0", port), 3)
    else:
        client = socket.socket()
        client.settimeout(3)
        client.connect(server)
    return f"the host answered {client.recv(100)!r}"
