"""Descriptors that threads share, and pools that are given up."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from agentsbx import _core
from agentsbx._boxes import Box, Pool, SharedFd


def received() -> tuple[_core.Descriptors, tuple[int, ...]]:
    """Three descriptors as they come from the supervisor, and their numbers."""
    mine, theirs = _core.socketpair()
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    _core.send(theirs, b"x", tuple(fds))
    got = _core.recv(mine, 10, 3, 0)
    _core.close_all(mine, theirs, *fds)
    assert got is not None
    return got[1], got[1].numbers()


def test_received_descriptors_close_with_their_last_reference() -> None:
    owner, fds = received()
    assert len(owner) == 3
    assert all(map(is_open, fds))
    owner.close(fds[1])
    assert [is_open(fd) for fd in fds] == [True, False, True]
    assert owner.numbers() == (fds[0], -1, fds[2])
    del owner
    assert not any(map(is_open, fds))


def test_taken_descriptors_stay_open() -> None:
    owner, fds = received()
    assert owner.take() == fds
    del owner
    assert all(map(is_open, fds))
    _core.close_all(*fds)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture
def fd() -> int:
    read_end, write_end = os.pipe()
    os.close(write_end)
    return read_end


def test_held_descriptor_stays_open_until_the_last_user_is_done(fd: int) -> None:
    shared = SharedFd(fd)
    assert shared.hold() == shared.hold() == fd
    shared.close()
    assert shared.is_closed
    assert is_open(fd)
    assert shared.hold() == -1
    shared.release()
    assert is_open(fd)
    shared.release()
    assert not is_open(fd)


def test_idle_descriptor_closes_at_once_and_once(fd: int) -> None:
    shared = SharedFd(fd)
    shared.hold()
    shared.release()
    assert is_open(fd)
    shared.close()
    assert not is_open(fd)
    again = os.open("/dev/null", os.O_RDONLY)
    assert again == fd  # the number names another file now
    shared.close()
    assert is_open(again)
    os.close(again)


def test_abandoning_takes_no_lock(fd: int) -> None:
    """In a forked child the lock may be held by a thread that is not there."""
    shared = SharedFd(fd)
    shared.hold()
    with shared.lock:
        shared.abandon()
        shared.abandon()
    assert shared.is_closed
    assert not is_open(fd)


def test_closing_under_many_users(fd: int) -> None:
    shared = SharedFd(fd)
    wrong: list[int] = []
    start = threading.Barrier(5)

    def use() -> None:
        start.wait()
        while (held := shared.hold()) >= 0:
            if held != fd or not is_open(held):
                wrong.append(held)
            shared.release()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    shared.close()
    for thread in threads:
        thread.join(10)
    assert not wrong
    assert not is_open(fd)


def test_unused_sandbox_ends_with_its_last_reference() -> None:
    owner, fds = received()
    job: Any = None
    pool = Pool(1, os.open("/dev/null", os.O_RDONLY), job, 1, 0)
    box = Box(1, 0, owner, pool)
    del box
    assert not any(is_open(fd) for fd in fds)
    pool.close()


def test_closed_pool_gives_up_what_was_taken_ahead() -> None:
    job: Any = None
    sock = os.open("/dev/null", os.O_RDONLY)
    pool = Pool(1, sock, job, 1, 0)
    owner, fds = received()
    pool.spare.append(Box(1, 0, owner, pool))
    pool.close()
    assert pool.is_closed
    assert not pool.spare
    assert not any(is_open(fd) for fd in (sock, *fds))
