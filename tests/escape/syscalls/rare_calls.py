"""Calls that no tool needs and that have been the way in before.

Source: group denies of moby, podman and systemd, CVE-2022-0847 (splice family); security.md
section 2 row "vmsplice ...".
"""

from __future__ import annotations

ROUTES = (
    "vmsplice",
    "remap_file_pages",
    "modify_ldt",
    "move_pages",
    "migrate_pages",
    "fanotify_init",
    "memfd_secret",
    "mbind",
    "quotactl",
    "swapon",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "syslog",
    "iopl",
    "acct",
    "clock_settime",
    "settimeofday",
    "reboot",
    "sethostname",
    "chroot",
    "vhangup",
    "get_mempolicy",
    "lookup_dcookie",
    "process_mrelease",
    "ustat",
    "sysfs",
)
LAYER = "user mnt uts"
NEEDS = dict.fromkeys(
    (
        "memfd_secret",
        "modify_ldt",
        "move_pages",
        "migrate_pages",
        "mbind",
        "get_mempolicy",
        "quotactl",
        "swapon",
        "init_module",
        "finit_module",
        "delete_module",
        "kexec_load",
        "syslog",
        "iopl",
        "acct",
        "clock_settime",
        "settimeofday",
        "reboot",
        "vhangup",
        "lookup_dcookie",
        "fanotify_init",
        "ustat",
        "sysfs",
        "remap_file_pages",
    ),
    "real root, or a kernel with this call",
)


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import errno
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
    numbers = {  # x86-64, aarch64
        "vmsplice": (278, 75),
        "remap_file_pages": (216, 234),
        "modify_ldt": (154, 0),
        "move_pages": (279, 239),
        "migrate_pages": (256, 238),
        "fanotify_init": (300, 262),
        "memfd_secret": (447, 447),
        "mbind": (237, 235),
        "quotactl": (179, 60),
        "swapon": (167, 224),
        "init_module": (175, 105),
        "finit_module": (313, 273),
        "delete_module": (176, 106),
        "kexec_load": (246, 104),
        "syslog": (103, 116),
        "iopl": (172, 0),
        "acct": (163, 89),
        "clock_settime": (227, 112),
        "settimeofday": (164, 170),
        "reboot": (169, 142),
        "sethostname": (170, 161),
        "chroot": (161, 51),
        "vhangup": (153, 58),
        "get_mempolicy": (239, 236),
        "lookup_dcookie": (212, 18),
        "process_mrelease": (448, 448),
        "ustat": (136, 0),
        "sysfs": (139, 0),
    }
    nr = numbers[route][0 if os.uname().machine == "x86_64" else 1]
    if not nr:
        raise OSError(errno.ENOSYS, "no such call on this architecture")
    page = ctypes.create_string_buffer(4096)
    wrong: dict[str, tuple[object, ...]] = {  # arguments that reach the call's code and do no harm
        "remap_file_pages": (0, 0, 0, 0, 0),
        "modify_ldt": (0, page, 16),
        "move_pages": (0, 0, None, None, None, 0),
        "migrate_pages": (0, 0, None, None),
        "fanotify_init": (0x200, 0),
        "memfd_secret": (0,),
        "mbind": (0, 0, 0, None, 0, 0),
        "quotactl": (-1, None, 0, None),
        "swapon": (None, 0),
        "init_module": (None, 0, None),
        "finit_module": (-1, None, 0),
        "delete_module": (None, 0),
        "kexec_load": (0, 100, None, 0),
        "syslog": (3, page, 100),
        "iopl": (3,),
        "acct": (b"/nonexistent",),
        "clock_settime": (0, None),
        "settimeofday": (None, page),
        "reboot": (1, 2, 3, None),
        "sethostname": (b"attacked", 8),
        "chroot": (b"/",),
        "vhangup": (),
        "get_mempolicy": (None, None, 0, None, 0),
        "lookup_dcookie": (0, page, 1),
        "process_mrelease": (-1, 0),
        "ustat": (-1, page),
        "sysfs": (3,),
    }
    if route == "vhangup" and os.getuid() == 0:
        raise OSError(errno.EPERM, "would hang up a terminal of the host")
    if route == "vmsplice":
        _, writing = os.pipe()
        vector = (ctypes.c_uint64 * 2)(ctypes.addressof(page), 16)
        return f"vmsplice took {syscall(nr, writing, vector, 1, 0)} bytes"
    try:
        result = syscall(nr, *wrong[route])
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS, errno.EACCES):
            raise
        return f"{route} reached the kernel's code ({error.strerror})"
    return f"{route} answered {result}"
