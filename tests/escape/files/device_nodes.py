"""Make or use a device node: the disk, kernel memory, or a whiteout that a later copy-out takes
for a deletion.

Source: sandlock's "deny S_IFBLK/S_IFCHR in mknod"; security.md section 4 rows "device nodes",
"overlay whiteouts".
"""

from __future__ import annotations

ROUTES = (
    "block in write grant",
    "character in write grant",
    "block in temporary files",
    "whiteout",
    "with junk in the mode",
    "device in read grant",
    "strange names in /dev",
    "whiteout by rename",
)
NEEDS = {
    "block in write grant": "real root",
    "character in write grant": "real root",
    "with junk in the mode": "real root",
    "block in temporary files": "real root",
    "device in read grant": "real root",
    "whiteout by rename": "CAP_MKNOD in the file system's user namespace",
}


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import os
    import stat
    import tempfile

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
    place = os.path.join(canary["rw"], "node")
    if route == "device in read grant":
        with open(os.path.join(canary["ro"], "device"), "rb", buffering=0) as file:
            return f"read {file.read(8)!r} from a device"
    if route == "strange names in /dev":
        usual = {"null", "zero", "full", "random", "urandom"}
        strange = []
        for name in os.listdir("/dev"):
            status = os.lstat(f"/dev/{name}")
            is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
            if is_device and name not in usual:
                strange.append(name)
        return f"devices {strange[:8]}" if strange else None
    if route == "whiteout by rename":
        old, new = os.path.join(canary["rw"], "plain.txt"), os.path.join(canary["rw"], "moved.txt")
        syscall(number(316, 276), -100, old.encode(), -100, new.encode(), 4)
        return "left a whiteout in the grant"
    if route == "whiteout":
        os.mknod(place, stat.S_IFCHR | 0o600, 0)
        return "made a character device 0:0"
    if route == "block in temporary files":
        place = os.path.join(tempfile.mkdtemp(), "node")
    mode, device = stat.S_IFBLK | 0o666, int(canary["disk"])
    if route == "character in write grant":
        mode, device = stat.S_IFCHR | 0o666, os.makedev(1, 1)
    if route == "with junk in the mode":
        syscall(number(259, 33), -100, place.encode(), mode | 2**32, device)
    else:
        os.mknod(place, mode, device)
    made = f"made a node for device {device}"
    os.unlink(place)
    return made
