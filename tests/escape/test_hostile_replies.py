"""A job that speaks the reply protocol itself: the host stays whole, quick and in one piece.

Source: CVE-2025-14931 (unpickled results), CVE-2020-10735; security.md section 5 rows "unpickling
the result", "huge, deep ... results", section 6, section 7 row "SCM_RIGHTS brings in outside fds".
Frames: csrc/base/call.h.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

RESULT, ERROR, IMPORT, FAILED, SIGNAL, EXITED = range(16, 22)

FRAMES = [
    "empty",
    "three bytes",
    "short of its inline bytes",
    "inline of 4 GiB",
    "result without body",
    "pickle",
    "pickle as error",
    "unknown kind 0",
    "unknown kind 99",
    "kind of the host: call",
    "kind of the host: exec",
    "failed",
    "failed short",
    "signal",
    "signal short",
    "exited",
    "body beyond memfd",
    "memfd of 2^63",
    "memfd unsealed",
    "memfd smaller than told",
    "memfd larger than told",
    "memfd empty",
    "pipe for memfd",
    "directory for memfd",
    "device for memfd",
    "socket for memfd",
    "two descriptors",
    "many descriptors",
    "many descriptors for ever",
    "descriptors on import",
    "huge page memfd",
    "shrunk after sending",
    "shrinks while sealing",
    "buffers of 2^64",
    "million buffers",
    "buffers without memfd",
    "import flood",
    "evil imports",
    "result and goes on",
    "two results",
    "closed and goes on",
    "nothing, exit 0",
    "nothing, exit 3",
    "nothing, killed",
    "closed standard output",
]


def hostile(how: str, marker: str) -> str:
    """Runs in the job: send one kind of malformed reply on the call channel and die."""
    import array
    import fcntl
    import os
    import pickle
    import signal
    import socket
    import struct
    import threading
    import time

    if not hasattr(signal, "SIGKILL"):
        return "no"
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=os.dup(3))
    all_seals = 2 | 4 | 8

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (marker, "w"))

    def frame(
        kind: int,
        inline: bytes = b"",
        n_body: int = 0,
        n_memfd: int = 0,
        fds: tuple[int, ...] = (),
        n_inline: int | None = None,
    ) -> None:
        told = len(inline) if n_inline is None else n_inline
        head = struct.pack("@IIQQ", kind, told, n_body, n_memfd)
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        channel.sendmsg([head, inline], extra)

    def memfd(size: int, seals: int = all_seals, flags: int = 2, data: bytes = b"") -> int:
        fd = os.memfd_create("reply", flags | (0 if flags & 4 else 8))
        if data:
            os.write(fd, data)
        os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, 1033, seals)
        return fd

    empty = bytes(4)  # no buffers; codec bytes follow
    evil = pickle.dumps(Payload())
    plain: dict[str, tuple[Any, ...]] = {
        "short of its inline bytes": (RESULT, b"ab", 0, 0, (), 4000),
        "inline of 4 GiB": (RESULT, b"ab", 0, 0, (), 2**32 - 1),
        "result without body": (RESULT,),
        "pickle": (RESULT, empty + evil),
        "pickle as error": (ERROR, empty + evil),
        "unknown kind 0": (0, b"x"),
        "unknown kind 99": (99, b"x"),
        "kind of the host: call": (1, evil),
        "kind of the host: exec": (3, bytes(16)),
        "failed": (FAILED, struct.pack("=HHiI", 3, 0, 1, 0)),
        "failed short": (FAILED, b"x"),
        "signal": (SIGNAL, (9).to_bytes(4, "little")),
        "signal short": (SIGNAL, b""),
        "exited": (EXITED, bytes(32)),
        "buffers of 2^64": (RESULT, struct.pack("<IQQ", 2, 2**64 - 1, 1) + b"\xc0"),
        "million buffers": (RESULT, struct.pack("<I", 1000000) + b"\xc0"),
        "buffers without memfd": (RESULT, struct.pack("<IQ", 1, 4096) + b"\xc0"),
    }
    if how in plain:
        frame(*plain[how])
    elif how == "empty":
        channel.send(b"")
    elif how == "three bytes":
        channel.send(b"abc")
    elif how == "body beyond memfd":
        frame(RESULT, b"", 1 << 40, 4096, (memfd(4096),))
    elif how == "memfd of 2^63":
        frame(RESULT, b"", 2**63, 2**63 + 1, (memfd(4096),))
    elif how == "memfd unsealed":
        frame(RESULT, b"", 64, 4096, (memfd(4096, 0),))
    elif how == "memfd smaller than told":
        frame(RESULT, b"", 64, 1 << 20, (memfd(4096),))
    elif how == "memfd larger than told":
        frame(RESULT, b"", 64, 4096, (memfd(1 << 20),))
    elif how == "memfd empty":
        frame(RESULT, b"", 0, 0, (memfd(0),))
    elif how == "pipe for memfd":
        frame(RESULT, b"", 64, 4096, (os.pipe()[0],))
    elif how == "directory for memfd":
        frame(RESULT, b"", 64, 4096, (os.open("/", os.O_RDONLY),))
    elif how == "device for memfd":
        frame(RESULT, b"", 64, 4096, (os.open("/dev/zero", os.O_RDONLY),))
    elif how == "socket for memfd":
        pair = socket.socketpair()
        frame(RESULT, b"", 64, 4096, (pair[0].fileno(),))
    elif how == "two descriptors":
        frame(RESULT, b"", 64, 4096, (memfd(4096), memfd(4096)))
    elif how in ("many descriptors", "many descriptors for ever"):
        fds = (os.open("/dev/null", os.O_RDONLY),) * 250
        rounds = 400 if "ever" in how else 1
        for _ in range(rounds):
            frame(IMPORT if rounds > 1 else RESULT, b"json", 0, 0, fds)
    elif how == "descriptors on import":
        for _ in range(50):
            frame(IMPORT, b"json", 4, 4096, (memfd(4096),))
    elif how == "huge page memfd":
        frame(RESULT, b"", 64, 2 << 20, (memfd(2 << 20, all_seals, 2 | 4),))
    elif how == "shrunk after sending":
        fd = memfd(1 << 20, 2)
        frame(RESULT, b"", 64, 1 << 20, (fd,))
        os.ftruncate(fd, 0)
    elif how == "shrinks while sealing":
        fd = memfd(1 << 20, 0)

        def shrink() -> None:
            os.ftruncate(fd, 0)
            fcntl.fcntl(fd, 1033, all_seals)

        thread = threading.Thread(target=shrink)
        frame(RESULT, b"", 1 << 20, 1 << 20, (fd,))
        thread.start()
        thread.join()
    elif how == "import flood":
        for _ in range(20000):
            frame(IMPORT, b"json")
    elif how == "evil imports":
        for name in (
            b"",
            b"..",
            b"../../etc/passwd",
            b"os;import os",
            b"a" * 30000,
            b"a\0b",
            b"\xff\xfe",
            b"a." * 5000,
            b"__main__",
            b"builtins",
            b"agentsbx",
            b"agentsbx._core",
            b"tests",
            b"sitecustomize",
            b"/etc/passwd",
            b"conftest",
            b"_pytest.config",
        ):
            frame(IMPORT, name)
            channel.recv(65536)
    elif how == "result and goes on":
        frame(RESULT, empty + b"\xc0")
        time.sleep(30)
    elif how == "two results":
        frame(RESULT, empty + b"\xc0")
        frame(RESULT, empty + evil)
    elif how == "closed and goes on":
        channel.close()
        os.close(3)
        time.sleep(30)
    elif how == "closed standard output":
        os.close(1)
        os.close(2)
        channel.close()
        return "fine"
    elif how == "nothing, exit 3":
        os._exit(3)
    elif how == "nothing, killed":
        os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGSEGV)
    os._exit(0)


def fd_count() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def attacker() -> Any:
    from agentsbx import sandbox

    return sandbox(timeout="10s")(hostile)


@pytest.mark.parametrize("how", FRAMES)
def test_a_forged_reply_is_refused(how: str, attacker: Any, scratch: Path) -> None:
    import agentsbx

    marker = scratch / "unpickled"
    before = fd_count()
    start = time.monotonic()
    result = attacker.run(how, str(marker))
    took = time.monotonic() - start
    assert not marker.exists(), "the host unpickled what a job wrote"
    assert took < 5, f"took {took:.1f} s"
    if how == "closed standard output":
        assert result.value == "fine"
    elif how not in ("result and goes on", "two results"):
        # An ordinary user may not make memory of huge pages: that error is the job's own.
        refused = (agentsbx.AgentsbxError, OSError) if "huge" in how else agentsbx.AgentsbxError
        assert isinstance(result.error, refused), result
        assert not isinstance(result.error, agentsbx.SandboxUnavailable), "forged words of ours"
        assert not isinstance(result.error, agentsbx.SandboxTimeout), result.error
    healthy = attacker.run("closed standard output", "")
    assert healthy.value == "fine", healthy
    assert fd_count() <= before + 8, f"{before} descriptors before, {fd_count()} after"


def test_a_shrinking_memfd_never_kills_the_host(attacker: Any) -> None:
    for _ in range(60):
        attacker.run("shrinks while sealing", "")


def test_unpickling_is_dangerous_unconfined(scratch: Path) -> None:
    """The control: whoever unpickles such bytes runs the job's code."""
    marker = scratch / "unpickled"
    data = pickle.dumps(_Opens(str(marker)))
    subprocess.run(
        [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)"],
        input=data,
        check=True,
    )
    assert marker.exists()


class _Opens:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))
