"""Ask for names: a query leaves the machine even where connections do not.

Source: CVE-2025-55284 (exfiltration by DNS), AgentCore reports; security.md section 7 row
"UDP/DNS/ICMP".
"""

from __future__ import annotations

ROUTES = ("query to a resolver", "nscd", "ping", "raw query by TCP", "netlink", "multicast")
NEEDS = {
    "nscd": "a running nscd",
    "ping": "a group that may ping",
    "raw query by TCP": "a resolver",
    "query to a resolver": "",
    "multicast": "a route for multicast",
}


def attempt(canary: dict[str, str]) -> str | None:
    import socket

    route = canary["route"]
    if route == "query to a resolver":
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        query = (
            bytes.fromhex("123401000001000000000000") + b"\x04leak\x07invalid\x00\x00\x01\x00\x01"
        )
        client.sendto(query, ("127.0.0.1", int(canary["udp"])))
        return "sent a query"
    if route == "nscd":
        client = socket.socket(socket.AF_UNIX)
        client.connect("/run/nscd/socket")
        return "reached the name cache"
    if route == "ping":
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        client.sendto(bytes.fromhex("0800f7ff00000000"), ("127.0.0.1", 0))
        return "sent a ping"
    if route == "raw query by TCP":
        with open("/etc/resolv.conf") as file:
            servers = [line.split()[1] for line in file if line.startswith("nameserver")]
        if not servers:
            return None
        socket.create_connection((servers[0], 53), 2)
        return "reached the resolver"
    if route == "netlink":
        client = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        client.bind((0, 0))
        return "asks the kernel about the network"
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.sendto(b"attack", ("224.0.0.251", 5353))
    return "sent to everyone"
