"""What jobs of one template share: nothing that one can change or read of another (law 10)."""

from __future__ import annotations

from pathlib import Path

from agentsbx import sandbox


def test_flags_of_standard_input_do_not_outlive_a_call() -> None:
    def mark() -> int:
        import fcntl
        import os

        before = fcntl.fcntl(0, fcntl.F_GETFL)
        fcntl.fcntl(0, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)
        return before

    first = sandbox(timeout="10s")(mark)
    second = sandbox(timeout="10s", env={"OTHER": "pool"})(mark)
    assert first() == second() == first()


def test_plans_of_other_pools_are_not_in_a_job(tmp_path: Path) -> None:
    secret = tmp_path / "name-of-another-customer"
    secret.mkdir()

    @sandbox(timeout="10s", read=[str(secret)])
    def other() -> None:
        return None

    @sandbox(timeout="10s")
    def search(half: str, rest: str) -> tuple[int, bool]:
        n, found, needle = 0, False, (half + rest).encode()
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb") as memory:
            for line in maps:
                if "memfd:plan" in line:
                    start, end = (int(x, 16) for x in line.split()[0].split("-"))
                    memory.seek(start)
                    found |= needle in memory.read(end - start)
                    n += 1
        return n, found

    other()
    assert search("name-of-an", "other-customer") == (1, False)
