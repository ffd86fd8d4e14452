"""What a job, a signal or another thread may do to the host's end of a call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

import pytest

from agentsbx import sandbox


def n_open() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_message_without_bytes_leaves_no_descriptor() -> None:
    @sandbox(timeout="10s")
    def smuggle() -> None:
        import os
        import socket

        channel = socket.socket(fileno=3)
        read_end, _ = os.pipe()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, read_end.to_bytes(4, "little"))
        channel.sendmsg([b""], [rights])
        os._exit(0)

    smuggle.run()
    before = n_open()
    for _ in range(5):
        smuggle.run()
    assert n_open() <= before + 1


def test_handled_signals_are_no_end_of_the_time() -> None:
    seen = []

    def handler(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    old: Any = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        for i in range(3):  # a policy of its own: each waits for its first sandbox

            @sandbox(timeout="10s", env={"NUMBER": str(i)})
            def nothing() -> int:
                return 1

            assert nothing() == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0, 0)
        signal.signal(signal.SIGALRM, old)
    assert seen


@pytest.mark.limit(20)
def test_ctrl_c_while_a_job_does_not_read() -> None:
    @sandbox(timeout="15s")
    def deaf() -> None:
        import socket
        import struct

        channel = socket.socket(fileno=3)
        ask = struct.pack("=IIQQ", 18, 2, 0, 0) + b"os"
        while True:
            channel.send(ask)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    old: Any = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            deaf()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


INHERITED = """
import os, select
from agentsbx import sandbox

@sandbox(timeout="10s")
def nothing():
    return 1

read_end, write_end = os.pipe()
os.set_inheritable(write_end, True)
nothing()
os.close(write_end)
assert select.select([read_end], [], [], 5)[0], "somebody holds the write end"
assert os.read(read_end, 1) == b""
"""


def test_our_processes_keep_no_descriptor_of_the_host() -> None:
    subprocess.run([sys.executable, "-c", INHERITED], check=True, timeout=60)
