"""A job of profile `strict` has sendmsg and recvmsg for its channel: what else can it do by them?

It holds one socket, connected, SOCK_SEQPACKET, whose other end is the host's. So an address names
nobody (unix(7)), what it sends comes back to nobody but the host, which takes one sealed memfd and
closes all else, and nothing comes that the host did not send. Each attempt works on sockets of the
three other kinds, outside of a sandbox. Source: docs/explanation/taken-over.md, "The channel".
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHANNEL = 3


def send_by_address(fd: int, path: str) -> str:
    """Send to a service of the host by its name."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, os.dup(fd)) as sock:
        try:
            sock.sendmsg([b"attack"], [], 0, path)
        except OSError as error:
            return f"refused: {error.errno}"
        return "sent"


def to_itself(fd: int, far: int) -> str:
    """Send a descriptor and take it back: a second one that outlives what bounded the first."""
    import array
    import socket

    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1]))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, os.dup(fd)) as sock:
        sock.sendmsg([b"x"], [rights])
    return receive(far)


def receive(fd: int) -> str:
    """Take what lies in the channel."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, os.dup(fd)) as sock:
        try:
            _, found, _, _ = sock.recvmsg(65536, 4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return "nothing came"
        return f"{len(found)} came"


def flood(fd: int) -> int:
    """Send as many descriptors as go."""
    import array
    import socket

    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 50))
    sent = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, os.dup(fd)) as sock:
        try:
            for _ in range(2000):
                sock.sendmsg([b"x"], [rights], socket.MSG_DONTWAIT)
                sent += 50
        except OSError:
            pass
    return sent


def held() -> list[str]:
    """What the job holds, by kind."""
    found = []
    for fd in range(64):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}").split("[")[0].rstrip(":"))
        except OSError:
            continue
    return found


@pytest.fixture
def service(make_scratch: Callable[[str], Path]) -> Any:
    place = make_scratch("service")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(place / "dgram"))
        (place / "dgram").chmod(0o777)
        sock.settimeout(0.2)
        yield place, sock


def strict(box: Any, **keywords: Any) -> Any:
    return box.sandbox(profile="strict", timeout="10s", **keywords)


def test_attempts_work_unconfined(service: Any) -> None:
    place, sock = service
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        assert send_by_address(client.fileno(), str(place / "dgram")) == "sent"
    assert sock.recv(100) == b"attack"
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        assert to_itself(near.fileno(), far.fileno()) == "1 came"
        assert to_itself(near.fileno(), near.fileno()) == "nothing came"
        assert receive(far.fileno()) == "1 came"  # what it sent to the other end
        assert flood(near.fileno()) > 50


def test_job_holds_one_socket(box: Any) -> None:
    assert strict(box)(held)() == ["/dev/null", "pipe", "pipe", "socket"]


def test_address_names_nobody(box: Any, service: Any) -> None:
    place, sock = service
    result = strict(box, read=[str(place)])(send_by_address).run(CHANNEL, str(place / "dgram"))
    # The bytes went to the host's end of the channel, as a frame that is none.
    assert isinstance(result.error, box.ResultError), result
    with pytest.raises(TimeoutError):
        sock.recv(100)


def test_descriptor_does_not_come_back(box: Any) -> None:
    result = strict(box)(to_itself).run(CHANNEL, CHANNEL)
    assert isinstance(result.error, box.ResultError), result


def test_nothing_is_there_to_receive(box: Any) -> None:
    assert strict(box)(receive)(CHANNEL) == "nothing came"
    assert strict(box)(receive).run(CHANNEL).value == "nothing came"


def test_flood_of_descriptors_fills_neither_the_host_nor_its_user(box: Any) -> None:
    """Descriptors in unread messages count for a user: another tenant must still get its own."""
    attack, other = strict(box)(flood), box.sandbox(lambda data: len(data))
    assert other(bytes(3 << 20)) == 3 << 20
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        result = attack.run(CHANNEL)
        assert isinstance(result.error, box.ResultError), result
        assert other(bytes(3 << 20)) == 3 << 20
    assert len(os.listdir("/proc/self/fd")) <= before + 6
