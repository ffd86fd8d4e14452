"""Open the kernel's knobs for writing: core_pattern runs a program as root, sysrq stops the
machine.

Source: CVE-2022-0492 and the privileged-container escapes; security.md section 4 row
"/proc/sys, sysrq, core_pattern".
"""

from __future__ import annotations

ROUTES = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sysrq-trigger",
    "/proc/sys/vm/overcommit_memory",
    "/proc/irq/default_smp_affinity",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/fs/binfmt_misc/register",
    "/sys/kernel/uevent_helper",
    "/sys/fs/cgroup/memory/release_agent",
    "/proc/sys/kernel/hostname",
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/self/uid_map",
    "/proc/sys/vm/memfd_noexec",
    "/proc/self/setgroups",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/mtrr",
    "/sys/power/state",
    "/proc/self/attr/current",
    "/sys/kernel/mm/transparent_hugepage/enabled",
)
NEEDS = "real root, or a kernel with this file"


def attempt(canary: dict[str, str]) -> str | None:
    import os

    place = canary["route"]
    os.close(os.open(place, os.O_WRONLY))
    return f"opened {place} for writing"
