"""Change what was granted for reading.

Source: CWE-22, Landlock before ABI 3 has no truncate; security.md section 4 row "plain
traversal, writes and truncation".
"""

from __future__ import annotations

from pathlib import Path

ROUTES = (
    "append",
    "O_TRUNC",
    "truncate",
    "O_RDONLY with O_TRUNC",
    "create",
    "unlink",
    "rename",
    "mkdir",
    "link",
    "symlink",
    "reopen by /proc/self/fd",
    "mmap",
    "rename over",
    "exchange",
    "fallocate",
    "move to write grant",
    "mknod",
    "rmdir the grant",
    "O_TMPFILE",
)
NEEDS = {"O_TMPFILE": "a file system with O_TMPFILE"}


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import mmap
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

    route, granted = canary["route"], canary["ro"]
    data = os.path.join(granted, "data.txt")
    new = os.path.join(granted, "new")
    if route == "append":
        with open(data, "a") as file:
            file.write("attacked")
    elif route == "O_TRUNC":
        os.close(os.open(data, os.O_WRONLY | os.O_TRUNC))
    elif route == "O_RDONLY with O_TRUNC":
        os.close(os.open(data, os.O_RDONLY | os.O_TRUNC))
        if os.stat(data).st_size:
            return None
    elif route == "truncate":
        os.truncate(data, 1)
    elif route == "create":
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT))
    elif route == "O_TMPFILE":
        os.close(os.open(granted, os.O_WRONLY | os.O_TMPFILE))
    elif route == "unlink":
        os.unlink(data)
    elif route == "rename":
        os.rename(data, new)
    elif route == "rename over":
        os.rename(os.path.join(granted, "tool"), data)
    elif route == "exchange":
        # renameat2 with RENAME_EXCHANGE
        syscall(
            number(316, 276), -100, data.encode(), -100, os.path.join(granted, "tool").encode(), 2
        )
    elif route == "move to write grant":
        os.rename(data, os.path.join(canary["rw"], "taken"))
    elif route == "mkdir":
        os.mkdir(new)
    elif route == "mknod":
        os.mknod(new, 0o100644)
    elif route == "link":
        os.link(data, new)
    elif route == "symlink":
        os.symlink(data, new)
    elif route == "rmdir the grant":
        os.rename(granted, granted + "-moved")
    elif route == "fallocate":
        reading = os.open(data, os.O_RDWR)
        os.posix_fallocate(reading, 0, 100)
    elif route == "mmap":
        with open(data, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[0:1] = b"X"
    else:
        reading = os.open(data, os.O_RDONLY)
        os.write(os.open(f"/proc/self/fd/{reading}", os.O_WRONLY), b"attacked")
    return f"{route} on a read-only grant worked"


def check(canary: dict[str, str]) -> str | None:
    if canary["route"] == "rmdir the grant" and Path(canary["ro"] + "-moved").exists():
        Path(canary["ro"] + "-moved").rename(canary["ro"])
        return "the grant was renamed"
    place = Path(canary["ro"]) / "data.txt"
    if not place.is_file() or place.read_bytes() != b"as granted\n":
        return "the host's file changed"
    return "a new name in the grant" if (Path(canary["ro"]) / "new").exists() else None
