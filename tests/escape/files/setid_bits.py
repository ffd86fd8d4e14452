"""Leave set-id bits, capabilities or access lists on files of the host.

Source: systemd's RestrictSUIDSGID; security.md section 4 row "set-id bits, file caps, ACLs
left on host files".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

ROUTES = (
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "open",
    "creat",
    "mkdir setgid",
    "mknod",
    "setgid",
    "chmod with junk",
    "file capability",
    "access list",
    "umask and open",
    "trusted xattr",
    "sticky directory",
)
NEEDS = {
    "file capability": "real root",
    "access list": "access lists",
    "trusted xattr": "real root",
    "mkdir setgid": "",
    "sticky directory": "",
}


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import os
    import stat

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
    place = os.path.join(canary["rw"], "tool")
    if route not in ("open", "creat", "mkdir setgid", "mknod", "umask and open"):
        with open(place, "w") as file:
            file.write("#!/bin/sh\n")
    os.umask(0)
    if route == "chmod":
        os.chmod(place, 0o4755)
    elif route == "setgid":
        os.chmod(place, 0o2755)
    elif route == "fchmod":
        os.fchmod(os.open(place, os.O_RDONLY), 0o4755)
    elif route == "fchmodat":
        syscall(number(268, 53), -100, place.encode(), 0o4755)
    elif route == "fchmodat2":
        syscall(452, -100, place.encode(), 0o4755, 0)
    elif route == "chmod with junk":
        syscall(number(268, 53), -100, place.encode(), 0o4755 + 2**32)
    elif route in ("open", "umask and open"):
        os.open(place, os.O_WRONLY | os.O_CREAT, 0o4755 if route == "open" else 0o6777)
    elif route == "creat":
        if os.uname().machine == "x86_64":
            syscall(85, place.encode(), 0o4755)
        else:
            os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o4755)
    elif route == "mkdir setgid":
        os.mkdir(place, 0o755)
        os.chmod(place, 0o2755)
    elif route == "sticky directory":
        os.chmod(canary["rw"], 0o6755)
    elif route == "mknod":
        os.mknod(place, stat.S_IFREG | 0o4755)
    elif route == "file capability":
        os.setxattr(
            place, "security.capability", bytes.fromhex("0100000200000000000000000000000000000000")
        )
    elif route == "trusted xattr":
        os.setxattr(place, "trusted.overlay.opaque", b"y")
    else:
        entries = b"".join(
            tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + owner.to_bytes(4, "little")
            for tag, rights, owner in (
                (1, 7, 2**32 - 1),
                (2, 7, 12345),
                (4, 0, 2**32 - 1),
                (16, 7, 2**32 - 1),
                (32, 0, 2**32 - 1),
            )
        )
        os.setxattr(place, "system.posix_acl_access", (2).to_bytes(4, "little") + entries)
    return None


def check(canary: dict[str, str]) -> str | None:
    for place in (Path(canary["rw"]), *Path(canary["rw"]).rglob("*")):
        mode = place.lstat().st_mode
        if mode & (stat.S_ISUID | stat.S_ISGID):
            return f"{place} has mode {mode:o}"
        names = [
            name
            for name in os.listxattr(place, follow_symlinks=False)
            if name != "security.selinux"
        ]
        if names:
            return f"{place} has attributes {names}"
    return None
