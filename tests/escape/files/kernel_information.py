"""Read what the kernel tells about the whole machine: addresses, logs, memory, other people's
timers.

Source: the masked paths of moby; security.md section 4 row "kernel info leaks".
"""

from __future__ import annotations

ROUTES = (
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/slabinfo",
    "/proc/vmallocinfo",
    "/proc/kpagecount",
    "/proc/scsi/scsi",
    "/proc/acpi",
    "/sys/firmware",
    "/dev/kmsg",
    "/dev/mem",
    "/proc/modules",
    "/sys/class/net",
    "/sys/block",
    "/proc/latency_stats",
    "/proc/net/unix",
    "/proc/net/tcp",
    "/proc/mounts host paths",
    "/proc/interrupts",
    "/proc/key-users",
    "/proc/self/cgroup host path",
    "/proc/locks",
    "/proc/cmdline",
    "/proc/pagetypeinfo",
)
NEEDS = "real root, or a kernel with this file"


def attempt(canary: dict[str, str]) -> str | None:
    import os

    place = canary["route"]
    if place == "/proc/mounts host paths":
        with open("/proc/self/mountinfo") as file:
            for line in file:
                root, point = line.split()[3:5]
                if (
                    root != "/"
                    and not root.startswith("/..")
                    and "granted" not in root
                    and point == root
                ):
                    continue
                if "/private" in line:
                    return f"mount table names {line}"
                if point == "/" and " ext4 " in line:
                    return f"the host's disk is the root: {line}"
        return None
    if place == "/proc/self/cgroup host path":
        with open("/proc/self/cgroup") as file:
            lines = [line.strip() for line in file if not line.strip().endswith(":/")]
        return f"names of the host's groups: {lines[:3]}" if lines else None
    if os.path.isdir(place):
        names = os.listdir(place)
        if place == "/sys/class/net":
            names = [name for name in names if name != "lo"]
        return f"listed {names[:5]}" if names else None
    reading = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    if place == "/proc/kcore":
        return "opened the kernel's memory"
    data = os.read(reading, 4096)
    if place in ("/proc/net/unix", "/proc/net/tcp"):
        # Sockets without a name are those of jobs that share the template's empty network.
        rows = [line for line in data.splitlines()[1:] if place.endswith("tcp") or b" /" in line]
        return f"{len(rows)} sockets of the host" if rows else None
    return f"read {data[:60]!r}" if data else None
