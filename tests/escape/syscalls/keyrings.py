"""Keyrings are not namespaced: the host's session keyring is inherited by whatever it starts.

Source: keyrings(7); seen with bubblewrap; security.md section 2 row "keyctl", section 5 row
"session keyring".
"""

from __future__ import annotations

ROUTES = (
    "add_key",
    "read by id",
    "search",
    "request_key",
    "describe session",
    "/proc/keys",
    "new keyring",
)
NEEDS = {
    "search": "possession of the session keyring",
    "request_key": "possession of the session keyring",
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

    route = canary["route"]
    add_key, request_key, keyctl = number(248, 217), number(249, 218), number(250, 219)
    if route == "add_key":
        return f"made key {syscall(add_key, b'user', b'agentsbx-attack', b'x', 1, -2)}"
    if route == "new keyring":
        return f"joined keyring {syscall(keyctl, 1, None)}"
    if route == "/proc/keys":
        with open("/proc/keys") as file:
            for line in file:
                if "agentsbx-canary" in line:
                    return f"saw a key of the host: {line.strip()}"
        return None
    buffer = ctypes.create_string_buffer(256)
    if route == "read by id":
        key = int(canary["key"])
    elif route == "search":
        key = syscall(keyctl, 10, -3, b"user", b"agentsbx-canary", 0)
    elif route == "request_key":
        key = syscall(request_key, b"user", b"agentsbx-canary", None, 0)
    else:
        syscall(keyctl, 6, -3, buffer, 256)
        return f"described the session keyring: {buffer.value!r}"
    length = syscall(keyctl, 11, key, buffer, 256)
    return f"read a key of the host: {buffer.raw[:length]!r}"
