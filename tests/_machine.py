"""What this machine has, found by trying (never by version numbers)."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

_CREATE_RULESET = 444
_RULESET_VERSION = 1


@functools.cache
def landlock_abi() -> int:
    """Return the Landlock ABI number, 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi = int(
        libc.syscall(
            ctypes.c_long(_CREATE_RULESET),
            None,
            ctypes.c_size_t(0),
            ctypes.c_uint(_RULESET_VERSION),
        )
    )
    return max(abi, 0)


@functools.cache
def has_user_namespaces() -> bool:
    """Return whether this user may make a user namespace and mount proc in it."""
    code = "mount -t proc proc /proc"
    argv = ["unshare", "--user", "--map-root-user", "--pid", "--mount", "--fork", "sh", "-c", code]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@functools.cache
def cgroup_controllers() -> frozenset[str]:
    """Return the cgroup controllers (v1 or v2) in which this process may make groups."""
    found: set[str] = set()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if names:
            for name in names.split(","):
                place = Path("/sys/fs/cgroup") / name / path.lstrip("/")
                if place.is_dir() and os.access(place, os.W_OK):
                    found.add(name)
        else:
            place = Path("/sys/fs/cgroup") / path.lstrip("/")
            listed = place / "cgroup.controllers"
            if listed.is_file() and os.access(place, os.W_OK):
                found.update(listed.read_text().split())
    return frozenset(found)


def lacks(feature: str) -> str | None:
    """Return why this machine lacks `feature`, or None if it has it.

    Features: `landlock`, `landlock>=N`, `userns`, `root`, `user`, `cgroup:NAME`, `arch:NAME`,
    `module:NAME`, `program:NAME`, `linux`.
    """
    name, _, bound = feature.partition(">=")
    kind, _, what = name.partition(":")
    if kind == "linux":
        return None if sys.platform == "linux" else f"this is {sys.platform}"
    if kind == "landlock":
        abi = landlock_abi()
        return None if abi >= int(bound or 1) else f"Landlock ABI {abi}"
    if kind == "userns":
        return None if has_user_namespaces() else "user namespaces are refused"
    if kind == "root":
        return None if os.geteuid() == 0 else "run by an ordinary user"
    if kind == "user":
        return None if os.geteuid() != 0 else "run by root"
    if kind == "cgroup":
        return None if what in cgroup_controllers() else "no such controller to write to"
    if kind == "arch":
        return None if os.uname().machine == what else f"this is {os.uname().machine}"
    if kind == "program":
        return None if shutil.which(what) else "not installed"
    if kind == "module":
        found = subprocess.run(
            [sys.executable, "-c", f"import {what}"], capture_output=True, check=False
        )
        return None if found.returncode == 0 else "not installed"
    raise ValueError(f"unknown feature {feature!r}")
