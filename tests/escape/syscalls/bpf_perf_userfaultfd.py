"""Kernel interfaces with a long record of privilege escalation.

Source: OpenShell#740; security.md section 2 row "bpf, perf_event_open, userfaultfd".
"""

from __future__ import annotations

ROUTES = ("bpf", "perf_event_open", "userfaultfd")
NEEDS = {
    "bpf": "CAP_BPF or kernel.unprivileged_bpf_disabled=0",
    "perf_event_open": "kernel.perf_event_paranoid<=2",
}


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

    if canary["route"] == "bpf":
        attributes = ctypes.create_string_buffer(
            b"".join(word.to_bytes(4, "little") for word in (2, 4, 4, 1)) + bytes(112)
        )
        return f"made a bpf map, descriptor {syscall(number(321, 280), 0, attributes, 128)}"
    if canary["route"] == "userfaultfd":
        return f"userfaultfd answered descriptor {syscall(number(323, 282), 1)}"
    attributes = ctypes.create_string_buffer(
        (1).to_bytes(4, "little")
        + (128).to_bytes(4, "little")
        + bytes(32)
        + (1 | 1 << 5 | 1 << 6).to_bytes(8, "little")
        + bytes(80),
        128,
    )
    return f"perf answered descriptor {syscall(number(298, 241), attributes, 0, -1, -1, 0)}"
