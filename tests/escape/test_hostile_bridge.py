"""A job that speaks the bridge's frames itself: no host function runs that it was not offered.

Source: security.md section 5 (results), semantics section 10; frames: csrc/base/call.h,
agentsbx/_bridge_job.py.
"""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import sandbox

# What attacks does not tidy up: the host would warn of the jobs' sockets.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

ran: list[tuple[str, Any]] = []


def add(a: int, b: int = 0) -> int:
    ran.append(("add", a))
    return a + b


def note(items: list[str]) -> int:
    ran.append(("note", len(items)))
    return len(items)


class Context:
    name = "public"
    secret = "host only"

    def find(self, q: str) -> str:
        ran.append(("find", q))
        return q


HOW = [
    "wrong index",
    "index 2^32-1",
    "unknown operation",
    "get of a function",
    "short",
    "empty",
    "number 0",
    "replay",
    "pickle",
    "huge inline string",
    "deep",
    "wide",
    "million buffers",
    "memfd of 2^63",
    "memfd unsealed",
    "memfd beyond host_bytes",
    "pipe for memfd",
    "parts beyond host_bytes",
    "not arguments",
    "keywords not strings",
    "wrong type",
    "secret attribute",
    "flood that is not read",
    "after its answer",
]
DECODED = {
    "pickle", "huge inline string", "deep", "wide", "not arguments", "keywords not strings",
    "wrong type",
}  # fmt: skip


def hostile(ctx: Any, how: str, marker: str) -> str:
    """Runs in the job: send HOST_CALL frames by hand."""
    import array
    import fcntl
    import os
    import pickle
    import socket
    import struct
    import time

    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=os.dup(3))

    def frame(
        inline: bytes, n_body: int = 0, n_memfd: int = 0, fd: int = -1, kind: int = 32
    ) -> None:
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        channel.sendmsg([struct.pack("@IIQQ", kind, len(inline), n_body, n_memfd), inline], extra)

    def call(number: int, index: int, what: int, codec: bytes, n_buffers: int = 0) -> bytes:
        return struct.pack("<II", n_buffers, 0) + struct.pack("<QII", number, index, what) + codec

    def answer() -> str:
        return repr(channel.recv(65536)[24:300])

    def memfd(size: int, seals: int = 14) -> int:
        fd = os.memfd_create("x", 2 | 8)
        os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, 1033, seals)
        return fd

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (marker,))

    plain = b"\x00"  # then msgpack
    good = plain + b"\x92\x91\x01\x80"  # [[1], {}]
    sent: dict[str, bytes] = {
        "wrong index": call(1, 77, 0, good),
        "index 2^32-1": call(1, 2**32 - 1, 0, good),
        "unknown operation": call(1, 0, 9, good),
        "get of a function": call(1, 0, 1, good),
        "short": struct.pack("<II", 0, 0) + b"abc",
        "empty": b"",
        "number 0": call(0, 0, 0, good),
        "pickle": call(1, 0, 0, pickle.dumps(Payload())),
        "huge inline string": call(1, 0, 0, plain + b"\x92\x91\xdb\xff\xff\xff\xff" + b"x" * 9000),
        "deep": call(1, 1, 0, plain + b"\x91" * 30000 + b"\xc0"),
        "wide": call(1, 1, 0, plain + b"\x92\x91\xdd\xff\xff\xff\xff" + b"\xc0" * 9000),
        "million buffers": call(1, 0, 0, good, 1000000),
        "not arguments": call(1, 0, 0, plain + b"\x01\x01"),
        "keywords not strings": call(1, 0, 0, plain + b"\x92\x91\x01\x81\x01\x01"),
        "wrong type": call(1, 0, 0, plain + b"\x92\x91\xa3abc\x80"),
    }
    if how in sent:
        frame(sent[how])
    elif how == "replay":
        frame(call(1, 0, 0, good))
        answer()
        frame(call(1, 0, 0, good))
    elif how == "memfd of 2^63":
        frame(b"", 2**63, 2**63 + 1, memfd(4096))
    elif how == "memfd unsealed":
        frame(b"", 64, 4096, memfd(4096, 0))
    elif how == "memfd beyond host_bytes":
        frame(b"", 8 << 20, 8 << 20, memfd(8 << 20))
    elif how == "pipe for memfd":
        frame(b"", 64, 4096, os.pipe()[0])
    elif how == "parts beyond host_bytes":
        for _ in range(100):
            frame(bytes(32000), kind=22)
        frame((3_200_000).to_bytes(8, "little"))
    elif how == "secret attribute":
        for index in range(2, 12):
            frame(call(index, index, 1, good))
            told = answer()
            if "host only" in told:
                return told
    elif how == "flood that is not read":
        for number in range(1, 30000):
            frame(call(number, 0, 0, good))
    elif how == "after its answer":
        frame(struct.pack("<II", 0, 0) + b"\x00\xc0", kind=16)
        for number in range(1, 4):
            frame(call(number, 0, 0, good))
        time.sleep(20)
    return answer()


attacker = sandbox(
    timeout="10s", host=[add, note], host_args={"ctx": ("name", "find")}, host_bytes="1MB"
)(hostile)


@pytest.mark.parametrize("how", HOW)
def test_a_forged_host_call_is_refused(how: str, scratch: Path) -> None:
    ran.clear()
    marker = scratch / "unpickled"
    before = len(os.listdir("/proc/self/fd"))
    start = time.monotonic()
    result = attacker.run(Context(), how, str(marker))
    assert time.monotonic() - start < 20
    assert not marker.exists(), "the host unpickled what a job wrote"
    if how in DECODED:  # an error in the job, which may go on
        assert "TypeError" in result.value
        assert ran == []
        assert result.host_calls[0].error is not None
    elif how == "after its answer":
        assert result.value is None
        assert ran == []
    else:
        assert isinstance(result.error, agentsbx.AgentsbxError), result
        assert not isinstance(result.error, agentsbx.SandboxUnavailable)
        assert "host only" not in repr(result)
        most = {"replay": 1, "flood that is not read": 1000}.get(how, 0)
        assert len([name for name, _ in ran if name == "add"]) <= most
    assert len(os.listdir("/proc/self/fd")) <= before + 8
    healthy = attacker.options(timeout="5s").run(Context(), "wrong type", "")
    assert "TypeError" in healthy.value


def test_arguments_unpickled_would_run_code(scratch: Path) -> None:
    """The control: the payload of `pickle` works where somebody unpickles it."""
    marker = scratch / "unpickled"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(marker),))

    pickle.loads(pickle.dumps(Payload()))
    assert marker.exists()


@sandbox(host=[add])
def by_a_child(raw: bool) -> str:
    import os
    import socket
    import struct

    read, write = os.pipe()
    if os.fork() == 0:
        try:
            if raw:
                channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=3)
                call = bytes(8) + struct.pack("<QII", 1, 9, 0) + b"\x00\x92\x90\x80"
                channel.send(struct.pack("@IIQQ", 32, len(call), 0, 0) + call)
                told = "sent"
            else:
                told = str(add(1))
        except Exception as error:
            told = str(error)
        os.write(write, told.encode())
        os._exit(0)
    told = os.read(read, 1000).decode()
    os.wait()
    return told + str(add(2))


def test_a_child_process_is_no_other_tenant() -> None:
    ran.clear()
    told = by_a_child(raw=False)
    assert "the process of the sandboxed function alone" in told
    assert told.endswith("2")
    assert ran == [("add", 2)]
    # With the descriptor in its hands it is the job: what it forges ends the job.
    assert isinstance(by_a_child.run(raw=True).error, agentsbx.ResultError)


@sandbox
def without(index: int) -> str:
    import os
    import socket
    import struct

    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=os.dup(3))
    call = bytes(8) + struct.pack("<QII", 1, index, 0) + b"\x00\x92\x91\x01\x80"
    channel.send(struct.pack("@IIQQ", 32, len(call), 0, 0) + call)
    return repr(channel.recv(65536))


def test_a_job_that_was_offered_nothing_can_call_nothing() -> None:
    """Another site of the same policy, perhaps the same template, offers functions: not to it."""
    ran.clear()
    add_site = sandbox(host=[add])(without.local)
    assert add_site(0)[:4] == "b'\\t", "the control: where it was offered it is answered"
    assert ran == [("add", 1)]
    for index in range(3):
        assert isinstance(without.run(index).error, agentsbx.ResultError)
    assert ran == [("add", 1)]


class Tattle:
    """Its `repr` and `str` would run in the host if instances of it were made there."""

    def __repr__(self) -> str:
        ran.append(("repr", None))
        return "x"


@sandbox(host=[note])
def smuggles() -> str:
    items: Any = [Tattle()]
    try:
        return str(note(items))
    except TypeError as error:
        return str(error)


def test_classes_that_no_annotation_names_are_not_made() -> None:
    ran.clear()
    assert "note()" in smuggles()
    assert ran == []


def test_an_exception_of_the_host_shows_none_of_its_frames() -> None:
    def fails(path: str) -> None:
        token = "sk-" + "in-a-local"  # noqa: F841
        raise ValueError("said")

    @sandbox(host=[fails])
    def looks() -> str:
        import gc
        import traceback

        try:
            fails("x")
        except ValueError as error:
            text = "".join(traceback.format_exception(error))
            found = [o for o in gc.get_objects() if isinstance(o, dict) and "token" in o]
            return text + repr(error.__traceback__) + repr(found)
        return ""

    told = looks()
    assert "said" in told
    assert "in-a-local" not in told
