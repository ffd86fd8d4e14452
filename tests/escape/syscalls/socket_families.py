"""Sockets that no rule about TCP covers; each family is kernel code of its own.

Source: CVE-2026-31431 (AF_ALG through default profiles), codex-security#160; security.md
section 2 row "AF_ALG ...", section 7 row "MPTCP, SMC"; CVE-2019-10063 for the junk.
"""

from __future__ import annotations

ROUTES = (
    "inet stream",
    "inet dgram",
    "inet raw",
    "inet icmp",
    "inet6 stream",
    "unix stream",
    "unix dgram",
    "unix seqpacket",
    "netlink",
    "packet",
    "alg",
    "vsock",
    "smc",
    "tipc",
    "rds",
    "xdp",
    "key",
    "bluetooth",
    "can",
    "qipcrtr",
    "mptcp",
    "sctp",
    "udplite",
    "inet with junk",
    "socketpair dgram",
    "socketpair with junk",
)
LAYER = "user net"
NEEDS = dict.fromkeys(
    (
        "inet icmp",
        "alg",
        "vsock",
        "smc",
        "tipc",
        "rds",
        "xdp",
        "key",
        "bluetooth",
        "can",
        "qipcrtr",
        "mptcp",
        "sctp",
        "udplite",
    ),
    "a kernel with this socket family",
)


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)

    def syscall(number: int, *words: object) -> int:
        wide = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
        result = int(libc.syscall(ctypes.c_long(number), *wide))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def number(x86_64: int, aarch64: int) -> int:
        return x86_64 if os.uname().machine == "x86_64" else aarch64

    known = {
        "inet stream": (2, 1, 0),
        "inet dgram": (2, 2, 0),
        "inet raw": (2, 3, 1),
        "inet icmp": (2, 2, 1),
        "inet6 stream": (10, 1, 0),
        "unix stream": (1, 1, 0),
        "unix dgram": (1, 2, 0),
        "unix seqpacket": (1, 5, 0),
        "netlink": (16, 3, 0),
        "packet": (17, 3, 0),
        "alg": (38, 5, 0),
        "vsock": (40, 1, 0),
        "smc": (43, 1, 0),
        "tipc": (30, 5, 0),
        "rds": (21, 5, 0),
        "xdp": (44, 3, 0),
        "key": (15, 3, 2),
        "bluetooth": (31, 3, 1),
        "can": (29, 3, 1),
        "qipcrtr": (42, 2, 0),
        "mptcp": (2, 1, 262),
        "sctp": (2, 1, 132),
        "udplite": (2, 2, 136),
        "inet with junk": (2 + 2**32, 1 + 2**33, 0),
    }
    route = canary["route"]
    if route.startswith("socketpair"):
        pair = (ctypes.c_int * 2)()
        kind = 2 if "dgram" in route else 2 + 2**32
        syscall(number(53, 199), 1, kind, 0, pair)
        return "made a pair of datagram sockets, which can send to any path"
    return f"{route}: descriptor {syscall(number(41, 198), *known[route])}"
