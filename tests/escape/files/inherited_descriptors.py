"""Use a descriptor that the host left open.

Source: CVE-2024-21626 (runc), CVE-2016-9962; security.md section 4 row "inherited dirfd/fd".
"""

from __future__ import annotations

ROUTES = ("file", "directory", "working directory", "any directory at all", "ruleset or namespace")


def attempt(canary: dict[str, str]) -> str | None:
    import os
    import stat

    route = canary["route"]
    secret = (int(canary["secret_dev"]), int(canary["secret_ino"]))
    if route == "working directory":
        here = os.getcwd()
        if here.startswith("(unreachable)"):
            return f"working directory {here}"
        names = [
            name for name in os.listdir("..") + os.listdir(".") if name in ("csrc", ".git", "tests")
        ]
        return f"sees {names} from the working directory" if names else None
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            status = os.fstat(fd)
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if route == "file" and (status.st_dev, status.st_ino) == secret:
            return f"read {os.pread(fd, 100, 0)!r} from descriptor {fd}"
        namespace = target.startswith(("mnt:", "net:", "user:", "pid:"))
        if route == "ruleset or namespace" and (namespace or "landlock" in target):
            return f"holds {target}"
        if not stat.S_ISDIR(status.st_mode):
            continue
        if target.startswith("/proc/") and target.endswith("/fd"):
            continue
        if route == "directory":
            inside = os.open(canary["secret"].lstrip("/"), os.O_RDONLY, dir_fd=fd)
            return f"read {os.read(inside, 100)!r} by descriptor {fd}"
        if route == "any directory at all":
            return f"holds the directory {target}"
    if route == "ruleset or namespace" and os.path.exists(f"/proc/{canary['test_pid']}/ns"):
        return f"opened {os.open('/proc/' + canary['test_pid'] + '/ns/mnt', os.O_RDONLY)}"
    return None
