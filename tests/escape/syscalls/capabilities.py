"""Capabilities that remain in a set come back with the next exec or file capability.

Source: capabilities(7); security.md section 2 row "NO_NEW_PRIVS and set-uid files".
"""

from __future__ import annotations

ROUTES = (
    "bounding",
    "effective",
    "permitted",
    "inheritable",
    "ambient",
    "no_new_privs",
    "setgroups",
    "uid 0",
)
LAYER = "user"
NEEDS = {
    "inheritable": "inheritable capabilities",
    "ambient": "ambient capabilities",
    "setgroups": "real root",
}


def attempt(canary: dict[str, str]) -> str | None:
    import os

    route = canary["route"]
    if route == "setgroups":
        os.setgroups([0, 1])
        return "changed the supplementary groups"
    with open("/proc/self/status") as file:
        fields = dict(line.rstrip("\n").split(":", 1) for line in file)
    if route == "no_new_privs":
        return "no_new_privs is off" if fields["NoNewPrivs"].strip() == "0" else None
    if route == "uid 0":
        with open("/proc/self/uid_map") as file:
            ours = {int(line.split()[0]): int(line.split()[1]) for line in file}
        mapped = canary["root_uid"] == "1" and ours.get(os.getuid()) == 0
        return f"runs as uid {os.getuid()}" if mapped or os.getuid() == 0 else None
    names = {
        "bounding": "CapBnd",
        "effective": "CapEff",
        "permitted": "CapPrm",
        "inheritable": "CapInh",
        "ambient": "CapAmb",
    }
    left = int(fields[names[route]], 16)
    return f"{route} capabilities: {left:#x}" if left else None
