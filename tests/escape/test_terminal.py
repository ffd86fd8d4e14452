"""A command that is given the user's terminal as input cannot type into it.

Source: CVE-2017-5226 (bubblewrap), CVE-2023-1523 (snapd), CVE-2019-7303 (junk in the upper half);
security.md section 2 row "TIOCSTI", section 5 row "stdin/tty inherited".
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import ctypes, fcntl, os, sys, termios
libc = ctypes.CDLL(None, use_errno=True)
how = sys.argv[1]
number = 16 if os.uname().machine == "x86_64" else 29
if how == "after setsid":
    if os.fork():
        os.wait()
        os._exit(0)
    os.setsid()
    try:
        fcntl.ioctl(0, termios.TIOCSCTTY, 1)
    except OSError:
        pass
request = 0x5412 + (2**32 if how == "junk" else 0)
for letter in b"ls":
    key = ctypes.create_string_buffer(bytes([letter]))
    result = libc.syscall(ctypes.c_long(number), ctypes.c_long(0), ctypes.c_long(request), key)
os.write(1, b"pushed" if result == 0 else os.strerror(ctypes.get_errno()).encode())
"""
WAYS = ("plain", "junk", "after setsid")


def typed(terminal: int) -> bytes:
    """Return what waits to be read from the terminal."""
    if select.select([terminal], [], [], 0.1)[0]:
        return os.read(terminal, 100)
    return b""


@pytest.fixture
def terminal() -> Any:
    """Yield a terminal whose reader gets each key at once."""
    import tty

    master, slave = pty.openpty()
    tty.setraw(slave)
    yield slave
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("how", WAYS)
def test_typing_works_unconfined(how: str, terminal: int) -> None:
    # Its own session with this terminal as the controlling one, as a shell would have given it.
    lead = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + PROGRAM
    argv = [sys.executable, "-I", "-c", lead, "plain" if how == "after setsid" else how]
    done = subprocess.run(
        argv, stdin=terminal, capture_output=True, start_new_session=True, check=True
    )
    if done.stdout != b"pushed":
        pytest.skip(f"machine lacks: dev.tty.legacy_tiocsti ({done.stdout!r})")
    assert typed(terminal) == b"ls"


@pytest.mark.parametrize("how", WAYS)
def test_typing_fails_in_a_command(how: str, terminal: int, box: Any) -> None:
    python = os.path.realpath(sys.executable)
    read = [] if sys.base_prefix.startswith("/usr") else [sys.base_prefix]
    result = box.run([python, "-I", "-c", PROGRAM, how], input=terminal, read=read)
    assert result.stdout, result.stderr
    assert result.stdout != b"pushed"
    assert typed(terminal) == b""
