"""A job that tells of files that no job has: the host stays whole and writes nothing outside.

Source: CVE-2025-4517 and kin (names with `..` and links out of an archive), security.md section 5
rows "huge ... results", section 7 row "SCM_RIGHTS brings in outside fds". Frames: csrc/base/call.h.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentsbx._leftovers import Collector
from agentsbx._wire import FILES, LEFT_FILE, MAX_KEPT, MAX_LISTED

# What an attack leaves open in its job, Python warns of: it is the point here.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

FRAMES = [
    "short",
    "unknown flags",
    "kept with a list",
    "kept twice in one frame",
    "kept and last",
    "after the last",
    "list with a descriptor",
    "empty lists for ever",
    "lists for ever",
    "kept for ever",
    "unknown place",
    "unknown kind",
    "unknown reason",
    "name beyond the frame",
    "name of 65535",
    "name with NUL",
    "name empty",
    "name dot dot",
    "name with dot dot inside",
    "name absolute",
    "name not asked for",
    "name matches by dot dot",
    "a link that is kept",
    "bytes behind",
    "size too small",
    "size too big",
    "size of 2^64",
    "over buffers",
    "memfd unsealed",
    "memfd too big",
    "memfd smaller than told",
    "memfd of 1 TB",
    "inline of 4 GiB",
    "pipe for memfd",
    "device for memfd",
    "directory for memfd",
    "two descriptors",
    "shrinks while sealing",
]


def hostile(how: str) -> str:
    """Runs in the job: send FILES frames of one malformed kind, then a good answer."""
    import array
    import fcntl
    import os
    import socket
    import struct
    import threading

    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=os.dup(3))
    all_seals = 2 | 4 | 8

    def frame(body: bytes, fds: tuple[int, ...] = (), n_memfd: int = 0) -> None:
        head = struct.pack("@IIQQ", 26, len(body), 0, n_memfd)
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        channel.sendmsg([head, body], extra)

    def files(n: int, flags: int, *records: bytes, more: tuple[int, int] = (0, 0)) -> bytes:
        return struct.pack("@IIQQ", n, flags, *more) + b"".join(records)

    def record(
        name: bytes = b"x.txt", size: int = 4, place: int = 0, kind: int = 0, why: int = 0,
        n_name: int | None = None,
    ) -> bytes:  # fmt: skip
        told = len(name) if n_name is None else n_name
        return struct.pack("@QHBBB3x", size, told, place, kind, why) + name

    def memfd(size: int, seals: int = all_seals) -> int:
        fd = os.memfd_create("kept", 2 | 8)
        os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, 1033, seals)
        return fd

    def kept(name: bytes = b"x.txt", **more: int) -> bytes:
        return files(1, 1, record(name, **more), b"data")

    plain = {
        "short": b"abc",
        "unknown flags": files(0, 64),
        "kept with a list": files(2, 1, record(), record()),
        "kept twice in one frame": files(2, 1, record(), b"data", record(), b"data"),
        "kept and last": files(1, 3, record(), b"data"),
        "unknown place": kept(place=4),
        "unknown kind": kept(kind=9),
        "unknown reason": files(1, 2, record(why=200)),
        "name beyond the frame": files(1, 2, record(n_name=4000)),
        "name of 65535": files(1, 2, record(b"x" * 20000, n_name=65535)),
        "name with NUL": kept(b"a\0.txt"),
        "name empty": files(1, 2, record(b"")),
        "name dot dot": kept(b".."),
        "name with dot dot inside": kept(b"a/../../x.txt"),
        "name absolute": kept(b"/etc/x.txt"),
        "name not asked for": kept(b"x.sh"),
        "name matches by dot dot": kept(b"out/../../x.txt"),
        "a link that is kept": kept(kind=1),
        "bytes behind": files(1, 2, record(), b"behind"),
        "size too small": kept(size=3),
        "size too big": kept(size=5),
        "size of 2^64": kept(size=2**64 - 1),
    }
    if how in plain:
        frame(plain[how])
    elif how == "after the last":
        frame(files(0, 2))
        frame(files(0, 2))
    elif how == "list with a descriptor":
        frame(files(1, 2, record()), (memfd(4096),), 4096)
    elif how == "empty lists for ever":
        while True:
            frame(files(0, 0))
    elif how == "lists for ever":
        while True:
            frame(files(20, 0, *[record()] * 20))
    elif how == "kept for ever":
        while True:
            frame(kept())
    elif how == "over buffers":
        for _ in range(100):
            frame(files(1, 1, record(size=1 << 20)), (memfd(1 << 20),), 1 << 20)
    elif how == "memfd unsealed":
        frame(files(1, 1, record(size=4096)), (memfd(4096, 0),), 4096)
    elif how == "memfd too big":
        frame(files(1, 1, record(size=4096)), (memfd(8192),), 8192)
    elif how == "memfd smaller than told":
        frame(files(1, 1, record(size=1 << 20)), (memfd(4096),), 1 << 20)
    elif how == "memfd of 1 TB":
        frame(files(1, 1, record(size=1 << 40)), (memfd(4096),), 1 << 40)
    elif how == "inline of 4 GiB":
        head = struct.pack("@IIQQ", 26, 2**32 - 1, 0, 0)
        channel.send(head + files(1, 2, record()))
    elif how == "pipe for memfd":
        frame(files(1, 1, record(size=4096)), (os.pipe()[0],), 4096)
    elif how == "device for memfd":
        frame(files(1, 1, record(size=4096)), (os.open("/dev/zero", os.O_RDONLY),), 4096)
    elif how == "directory for memfd":
        frame(files(1, 1, record(size=4096)), (os.open("/usr", os.O_RDONLY),), 4096)
    elif how == "two descriptors":
        frame(files(1, 1, record(size=4096)), (memfd(4096), memfd(4096)), 4096)
    elif how == "shrinks while sealing":
        fd = memfd(1 << 21, 0)

        def shrink() -> None:
            os.ftruncate(fd, 0)

        thread = threading.Thread(target=shrink)
        thread.start()
        try:
            fcntl.fcntl(fd, 1033, all_seals)
        finally:
            frame(files(1, 1, record(size=1 << 21)), (fd,), 1 << 21)
            thread.join()
    return "fine"


@pytest.fixture(scope="module")
def attacker() -> Any:
    from agentsbx import sandbox

    return sandbox(timeout="10s", keep=["*.txt", "out/**"], buffers="10MB")(hostile)


def fd_count() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("how", FRAMES)
def test_a_forged_list_of_files_is_refused(how: str, attacker: Any, scratch: Path) -> None:
    from agentsbx import ResultError

    before = fd_count()
    start = time.monotonic()
    result = attacker.run(how)
    assert time.monotonic() - start < 5
    if how == "two descriptors":  # the second is closed, the first is a file like any other
        assert result.files["x.txt"].read_bytes() == bytes(4096)
    elif how != "shrinks while sealing" or result.error is not None:
        assert isinstance(result.error, ResultError), result
    result.files.save(scratch)
    assert set(os.listdir(scratch)) <= {"x.txt"}
    healthy = attacker.run("nothing")
    assert healthy.value == "fine"
    assert healthy.discarded == ()
    assert fd_count() <= before + 8


def test_files_that_nobody_asked_for_end_the_call() -> None:
    """A plain call that was told not to look, and a job that tells all the same."""
    from agentsbx import ResultError, sandbox

    f = sandbox(hostile)
    f.run("nothing")
    site = f.__agentsbx_site__.call_site(hostile)  # type: ignore[attr-defined]
    site.warned.add("gone")
    site.quick = None
    with pytest.raises(ResultError, match="frame of kind 26"):
        f("short")


def test_a_job_in_a_quick_call_is_no_better_off() -> None:
    from agentsbx import ResultError, sandbox

    f = sandbox(hostile)
    for _ in range(3):
        assert f("nothing") == "fine"
    with pytest.raises(ResultError):
        f("kept for ever")
    assert f("nothing") == "fine"


def test_what_a_job_says_it_left_takes_bounded_memory() -> None:
    """The most that passes: a thousand kept, a thousand listed, one megabyte of names each."""
    collector = Collector(b"**\0", 10**9)
    name = b"n" * 1000
    for i in range(MAX_KEPT):
        raw = b"%d" % i + name
        head = LEFT_FILE.pack(4, len(raw), 0, 0, 0)
        collector.add(FILES.pack(1, 1, 0, 0) + head + raw + b"data", -1, 0)
    with pytest.raises(ValueError, match="more than may be kept"):
        collector.add(FILES.pack(1, 1, 0, 0) + head + raw + b"data", -1, 0)
    head = LEFT_FILE.pack(4, len(name), 0, 0, 0)
    for _ in range(MAX_LISTED // 20):
        collector.add(FILES.pack(20, 0, 0, 0) + (head + name) * 20, -1, 0)
    with pytest.raises(ValueError, match="more records"):
        collector.add(FILES.pack(1, 2, 0, 0) + head + name, -1, 0)


_NAMES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"..", b"a/../b", b"/x", b"a//b", b"x\0", b"\x1b[2J", b"out/x"]),
)
_RECORD = st.builds(
    lambda size, name, place, kind, why: LEFT_FILE.pack(size, len(name), place, kind, why) + name,
    st.integers(0, 2**64 - 1), _NAMES, st.integers(0, 5), st.integers(0, 4), st.integers(0, 6),
)  # fmt: skip
_BODY = st.one_of(
    st.binary(max_size=100),
    st.builds(
        lambda n, flags, more, rest: FILES.pack(n, flags, *more) + b"".join(rest),
        st.integers(0, 4), st.integers(0, 9),
        st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
        st.lists(st.one_of(_RECORD, st.binary(max_size=5)), max_size=4),
    ),
)  # fmt: skip


@given(st.lists(_BODY, max_size=5))
@settings(max_examples=500)
def test_any_bytes_are_taken_or_refused(bodies: list[bytes]) -> None:
    collector = Collector(b"**\0", 1000)
    for body in bodies:
        try:
            collector.add(body, -1, 0)
        except ValueError:
            break
    for name, file in collector.files.items():
        assert name == file.name
        assert name.isprintable()
        assert name[0] != "/"
        assert not {"", ".", ".."} & set(name.split("/"))
    found = collector.discarded
    assert found is None or found.summary().isprintable()


def test_such_names_write_outside_unconfined(tmp_path: Path) -> None:
    """The control: whoever takes a job's names as they are writes where the job wants."""
    (tmp_path / "inside").mkdir()
    for name, data in {"../outside.txt": b"evil"}.items():
        (tmp_path / "inside" / name).write_bytes(data)
    assert (tmp_path / "outside.txt").exists()
