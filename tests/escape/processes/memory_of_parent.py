"""Find the host's secrets in one's own memory: a fork carries everything.

Source: fork(2), "From Zygote to Morula"; security.md section 5 row "child holds the parent's
memory".
"""

from __future__ import annotations

LAYER = "fork"


def attempt(canary: dict[str, str]) -> str | None:
    import re

    needle = re.compile(("HOST" + "HEAP").encode() + b":[0-9a-f]{32}")
    with open("/proc/self/maps") as table, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in table:
            area, rights = line.split()[:2]
            if "r" not in rights or "[v" in line:
                continue
            start, end = (int(word, 16) for word in area.split("-"))
            if end - start > 1 << 30:
                continue
            memory.seek(start)
            try:
                found = needle.search(memory.read(end - start))
            except (OSError, ValueError):
                continue
            if found:
                return f"own memory holds {found.group()!r}"
    return None
