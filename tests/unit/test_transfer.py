"""Bytes in memfds: one layout for both ends, and what the host takes from a job."""

from __future__ import annotations

import fcntl
import mmap
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentsbx import _arena, _transfer
from agentsbx._wire import BUFFER_ALIGN

some_bytes = st.binary(max_size=3 * BUFFER_ALIGN)


@pytest.fixture
def opened():
    """Collect descriptors that a test makes."""
    fds: list[int] = []
    yield fds
    for fd in fds:
        os.close(fd)


@settings(max_examples=60, deadline=None)
@given(some_bytes, st.lists(some_bytes, max_size=5))
def test_what_is_written_is_what_is_read(body, buffers):
    views = [memoryview(b) for b in buffers]
    fd, size = _transfer.write_memfd("t", body, views, _transfer.JOB_SEALS)
    try:
        assert size % BUFFER_ALIGN == 0
        if not size:
            return
        whole = _transfer.map_hostile(fd, size, 2**30)
        got_body, got = _transfer.split(whole, len(body), [len(b) for b in buffers])
        assert got_body == body
        assert [bytes(b) for b in got] == buffers
    finally:
        os.close(fd)


@given(st.integers(0, 2**40))
def test_alignment_rounds_up_and_never_by_a_whole_step(n):
    assert 0 <= _transfer.align(n) - n < BUFFER_ALIGN
    assert _transfer.align(n) % BUFFER_ALIGN == 0


def test_shaped_buffers_are_written_flat(opened):
    shaped = memoryview(bytes(range(24))).cast("B", (2, 3, 4))
    fd, size = _transfer.write_memfd("t", b"", [shaped], 0)
    opened.append(fd)
    assert os.pread(fd, 24, 0) == bytes(range(24))
    assert size == BUFFER_ALIGN


def test_buffers_of_the_host_are_private_and_writable_in_the_job(opened):
    fd, size = _transfer.write_memfd("t", b"abc", [], _transfer.HOST_SEALS)
    opened.append(fd)
    one, other = _transfer.map_private(fd, size), _transfer.map_private(fd, size)
    one[0] = ord("X")
    assert bytes(one[:3]) == b"Xbc"
    assert bytes(other[:3]) == b"abc"
    with pytest.raises(PermissionError):
        mmap.mmap(fd, size)  # shared and writable
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)


@pytest.mark.parametrize("left_out", ["F_SEAL_WRITE", "F_SEAL_SHRINK", "F_SEAL_GROW"])
def test_a_result_that_the_job_could_still_change_is_refused(left_out, opened):
    seals = _transfer.JOB_SEALS & ~getattr(fcntl, left_out)
    fd, size = _transfer.write_memfd("t", b"abc", [], seals)
    opened.append(fd)
    with pytest.raises(ValueError, match="not sealed"):
        _transfer.map_hostile(fd, size, 2**20)


def test_a_result_descriptor_of_another_kind_is_refused(tmp_path, opened):
    file = tmp_path / "f"
    file.write_bytes(b"x" * 10)
    opened += [os.open(file, os.O_RDONLY), os.open("/dev/zero", os.O_RDWR), *os.pipe()]
    for fd in opened:
        with pytest.raises(ValueError, match=r"not a memfd|not sealed"):
            _transfer.map_hostile(fd, 10, 2**20)


def test_a_result_of_another_size_or_over_the_limit_is_refused(opened):
    fd, size = _transfer.write_memfd("t", b"abc", [], _transfer.JOB_SEALS)
    opened.append(fd)
    for announced, limit in (
        (size + 1, 2**20),
        (size - 1, 2**20),
        (2**63, 2**64),
        (size, size - 1),
    ):
        with pytest.raises(_transfer.TooBig):
            _transfer.map_hostile(fd, announced, limit)


def test_an_empty_result_is_refused(opened):
    fd, size = _transfer.write_memfd("t", b"", [], _transfer.JOB_SEALS)
    opened.append(fd)
    with pytest.raises(ValueError, match="empty"):
        _transfer.map_hostile(fd, size, 2**20)


@given(st.integers(-5, 3 * BUFFER_ALIGN), st.lists(st.integers(-5, 2**64), max_size=4))
def test_lengths_that_do_not_fit_are_refused(n_body, lengths):
    view = memoryview(bytearray(2 * BUFFER_ALIGN))
    fits = n_body >= 0 and min(lengths, default=0) >= 0
    fits = fits and _transfer.total_size(n_body, lengths) <= len(view)
    if not fits:
        with pytest.raises(ValueError, match="do not fit"):
            _transfer.split(view, n_body, lengths)
        return
    body, parts = _transfer.split(view, n_body, lengths)
    assert len(body) == n_body
    assert [len(p) for p in parts] == lengths


def test_a_failed_write_leaves_no_descriptor(monkeypatch):
    before = len(os.listdir("/proc/self/fd"))

    def refuse(*args):
        raise OSError("full")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(OSError, match="full"):
        _transfer.write_memfd("t", b"abc", [], 0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_arena_shows_nothing_of_the_call_before():
    arena = _arena.Arena(64 * 1024)
    try:
        secret = b"s3cret" * 2000
        arena.fill(secret, [memoryview(secret)])
        arena.fill(b"ab", [memoryview(b"cd")])
        seen = bytes(arena.map[:])
        assert b"s3cret" not in seen
        assert seen[:2] == b"ab"
        assert seen[BUFFER_ALIGN : BUFFER_ALIGN + 2] == b"cd"
        assert not any(seen[2:BUFFER_ALIGN])
        assert not any(seen[BUFFER_ALIGN + 2 :])
    finally:
        arena.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(some_bytes, st.lists(some_bytes, max_size=3)), max_size=4))
def test_an_arena_holds_exactly_the_last_call(calls):
    arena = _arena.Arena(16 * BUFFER_ALIGN)
    try:
        expected = bytearray(16 * BUFFER_ALIGN)
        for body, buffers in calls:
            arena.fill(body, [memoryview(b) for b in buffers])
            expected = bytearray(16 * BUFFER_ALIGN)
            at = 0
            for part in (body, *buffers):
                expected[at : at + len(part)] = part
                at += _transfer.align(len(part))
        assert bytes(arena.map[:]) == bytes(expected)
    finally:
        arena.close()


def test_an_arena_cannot_be_written_or_resized_by_who_receives_it():
    arena = _arena.Arena(BUFFER_ALIGN)
    try:
        with pytest.raises(PermissionError):
            mmap.mmap(arena.fd, BUFFER_ALIGN)
        with pytest.raises(PermissionError):
            os.pwrite(arena.fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, 2 * BUFFER_ALIGN)
    finally:
        arena.close()


def test_arenas_are_used_again_only_when_their_job_is_dead():
    cache = _arena.ArenaCache()
    first = cache.get(100)
    cache.put(first, lambda: True)
    second = cache.get(100)
    assert second is not first
    cache.put(second, lambda: False)
    assert cache.get(100) is second
    second.close()
    cache.clear()


def test_a_small_call_does_not_take_a_huge_arena():
    cache = _arena.ArenaCache()
    huge = cache.get(64 * 2**20)
    cache.put(huge, lambda: False)
    small = cache.get(100)
    assert small is not huge
    assert cache.get(32 * 2**20) is huge
    small.close()
    huge.close()


def test_the_cache_of_arenas_is_bounded(monkeypatch):
    monkeypatch.setattr(_arena, "ARENA_CACHE_BYTES", 3 * _arena.ARENA_MIN)
    cache = _arena.ArenaCache()
    before = len(os.listdir("/proc/self/fd"))
    arenas = [cache.get(1) for _ in range(6)]
    for arena in arenas:
        cache.put(arena, lambda: False)
    assert sum(a.size for a in cache._free) == 3 * _arena.ARENA_MIN
    cache.clear()
    assert len(os.listdir("/proc/self/fd")) == before
