"""Each profile of system calls serves functions: plain, big, printing and failing calls.

Source: semantics.md 9; `agentsbx/data/syscalls.toml`.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from agentsbx import sandbox

PROFILES = ["strict", "python", "build"]


@pytest.mark.parametrize("profile", PROFILES)
def test_calls_are_answered(profile: str) -> None:
    box: Any = sandbox(profile=profile)
    add = box(lambda x: x + 1)
    assert [add(n) for n in range(8)] == list(range(1, 9))
    assert len(box(lambda n: b"x" * n)(3 << 20)) == 3 << 20
    assert box(lambda data: len(data))(b"x" * (3 << 20)) == 3 << 20
    assert box(lambda: print("said")).run().stdout == b"said\n"
    with pytest.raises(ZeroDivisionError):
        box(lambda: 1 / 0)()
    assert list(box(count)(3)) == [0, 1, 2]


def count(n: int) -> Any:
    yield from range(n)


def no_socket() -> list[str]:
    """Runs in the job."""
    made = []
    for make in (socket.socketpair, socket.socket):
        try:
            got = make()
        except OSError:
            continue
        for sock in got if isinstance(got, tuple) else [got]:
            sock.close()
        made.append(make.__name__)
    return made


def no_process() -> bool:
    """Runs in the job."""
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    except PermissionError:
        return False
    return True


def test_strict_has_neither_sockets_nor_processes() -> None:
    strict: Any = sandbox(profile="strict")
    assert strict(no_socket)() == []
    assert strict(no_process)() is False
    assert "socketpair" in no_socket(), "without a sandbox it can"
    assert no_process(), "without a sandbox it can"
