"""Change mode, owner, times or attributes of what was granted for reading: Landlock knows none
of these.

Source: measured, security.md section 1; security.md section 4 row "Landlock gaps per ABI ...
never: chmod, chown, utime, xattr".
"""

from __future__ import annotations

import contextlib
import os

ROUTES = (
    "chmod",
    "fchmod",
    "fchmodat2",
    "chown",
    "fchown",
    "utime",
    "futimens",
    "setxattr",
    "fsetxattr",
    "setxattrat",
    "removexattr",
    "chmod the grant",
    "file_setattr",
    "FS_IOC_SETFLAGS",
)
NEEDS = {
    "setxattr": "user xattrs",
    "fsetxattr": "user xattrs",
    "setxattrat": "Linux 6.13",
    "removexattr": "user xattrs",
    "file_setattr": "Linux 6.17",
    "FS_IOC_SETFLAGS": "a file system with flags",
}


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import fcntl
    import os

    libc = ctypes.CDLL(None, use_errno=True)

    def syscall(number: int, *words: object) -> int:
        wide = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
        result = int(libc.syscall(ctypes.c_long(number), *wide))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    route = canary["route"]
    data = os.path.join(canary["ro"], "data.txt")
    reading = os.open(data, os.O_RDONLY)
    me = os.stat(data)
    if route == "chmod":
        os.chmod(data, 0o600)
    elif route == "chmod the grant":
        os.chmod(canary["ro"], 0o777)
    elif route == "fchmod":
        os.fchmod(reading, 0o600)
    elif route == "fchmodat2":
        syscall(452, -100, data.encode(), 0o600, 0)
    elif route == "chown":
        os.chown(data, me.st_uid, me.st_gid)
    elif route == "fchown":
        os.fchown(reading, me.st_uid, me.st_gid)
    elif route == "utime":
        os.utime(data, (1, 1))
    elif route == "futimens":
        os.utime(reading, (1, 1))
    elif route == "setxattr":
        os.setxattr(data, "user.attacked", b"1")
    elif route == "fsetxattr":
        os.setxattr(reading, "user.attacked", b"1")
    elif route == "removexattr":
        os.removexattr(data, "user.present")
    elif route == "setxattrat":
        value = ctypes.create_string_buffer(b"1")
        words = (ctypes.c_uint64 * 2)(ctypes.addressof(value), 1)
        syscall(463, -100, data.encode(), 0, b"user.attacked", words, 16)
    elif route == "file_setattr":
        attributes = ctypes.create_string_buffer(24)
        syscall(468, -100, data.encode(), attributes, 24, 0)
        syscall(469, -100, data.encode(), attributes, 24, 0)
    else:
        flags = ctypes.c_long(0)
        fcntl.ioctl(reading, 0x80086601, flags)
        fcntl.ioctl(reading, 0x40086602, ctypes.c_long(flags.value | 0x80))  # FS_NOATIME_FL
    return f"{route} on a read-only grant worked"


def setup(canary: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        os.setxattr(os.path.join(canary["ro"], "data.txt"), "user.present", b"1")
