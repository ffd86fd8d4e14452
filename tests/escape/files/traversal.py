"""Reach a file outside the grants by another spelling of its path.

Source: CWE-22; security.md section 4 row "plain traversal".
"""

from __future__ import annotations

ROUTES = (
    "absolute",
    "dotdot from a grant",
    "symlink in a grant",
    "/proc/self/root",
    "dotdot from a descriptor",
    "/proc/self/cwd",
    "hard link",
    "own symlink",
    "stat",
    "home of the user",
    "inotify",
    "statfs of parent",
)
NEEDS = {"home of the user": "a home with dot files"}


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import os

    route, secret, granted = canary["route"], canary["secret"], canary["ro"]
    up = os.path.relpath(secret, granted)
    if route == "absolute":
        place = secret
    elif route == "dotdot from a grant":
        place = os.path.join(granted, up)
    elif route == "symlink in a grant":
        place = os.path.join(granted, "link")
    elif route == "/proc/self/root":
        place = "/proc/self/root" + secret
    elif route == "/proc/self/cwd":
        os.chdir(granted)
        place = "/proc/self/cwd/" + up
    elif route == "hard link":
        place = os.path.join(canary["rw"], "hard")
        os.link(secret, place)
    elif route == "own symlink":
        place = os.path.join(canary["rw"], "soft")
        os.symlink(secret, place)
    elif route == "stat":
        return f"the hidden file has {os.stat(secret).st_size} bytes"
    elif route == "statfs of parent":
        return f"free blocks of the hidden folder: {os.statvfs(os.path.dirname(secret)).f_bfree}"
    elif route == "home of the user":
        names = [name for name in os.listdir(canary["home"]) if name.startswith(".")]
        return f"the host's home holds {names[:5]}" if names else None
    elif route == "inotify":
        libc = ctypes.CDLL(None, use_errno=True)
        watch = libc.inotify_add_watch(
            libc.inotify_init1(0), os.path.dirname(secret).encode(), 0xFFF
        )
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        return "watches a hidden folder"
    else:
        place = os.path.basename(secret)
        start = os.open(granted, os.O_RDONLY)
        inside = os.open(os.path.dirname(up), os.O_RDONLY, dir_fd=start)
        with open(os.open(place, os.O_RDONLY, dir_fd=inside)) as file:
            return f"read {file.read()}"
    with open(place) as file:
        return f"read {file.read()}"
