"""Headers beside the pickles: what the job sends is hostile, and the host reads it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentsbx import _header
from agentsbx._setup import Setup

names = st.lists(st.text(min_size=1, max_size=20).filter(lambda s: "\0" not in s), max_size=5)
lengths_of = st.lists(st.integers(0, 2**64 - 1), max_size=20)


@given(st.binary(max_size=100), lengths_of, names)
def test_results_come_back(body, lengths, lost):
    packed = _header.pack_result(body, lengths, tuple(lost))
    got_body, got_lengths, got_lost = _header.unpack_result(memoryview(packed))
    assert (got_body, got_lengths) == (body, lengths)
    assert got_lost == tuple(n.encode("utf-8", "replace").decode() for n in lost)


@settings(max_examples=300)
@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(raw):
    try:
        body, lengths, lost = _header.unpack_result(memoryview(raw))
    except ValueError:
        return
    assert len(body) + 8 + 8 * len(lengths) <= len(raw)
    assert all(isinstance(n, str) for n in lost)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        bytes(7),
        struct.pack("<II", 1, 0),
        struct.pack("<II", 0, 1),
        struct.pack("<II", 2**32 - 1, 0),
        struct.pack("<II", 0, 2**32 - 1),
        struct.pack("<II", _header.MAX_BUFFERS + 1, 0) + bytes(8 * (_header.MAX_BUFFERS + 1)),
        struct.pack("<II", 0, _header.MAX_LOST + 1) + bytes(_header.MAX_LOST + 1),
    ],
)
def test_counts_that_do_not_fit_are_refused(raw):
    with pytest.raises(ValueError, match="result frame"):
        _header.unpack_result(memoryview(raw))


def test_a_very_long_list_of_names_is_cut():
    lost = tuple(f"thread {i} é" for i in range(2000))
    _, _, got = _header.unpack_result(memoryview(_header.pack_result(b"", [], lost)))
    assert got[:10] == lost[:10]
    assert sum(len(n.encode()) + 1 for n in got) <= _header.MAX_LOST + 3


def test_calls_and_snapshots_come_back():
    setup = Setup({"A": "1"}, ["prog"], None, 4, b"policy", 5, 6, (None, True, False), watches=True)
    snapshot = _header.pack_snapshot(setup, b"blob", [1, 2])
    assert _header.unpack(snapshot) == (tuple(setup), b"blob", [1, 2])
    assert type(_header.unpack(snapshot)[0]) is tuple, "a job does not know the host's classes"
    call = _header.pack_call(snapshot, b"args", [3], kind=1, seed=7, keep=b"*\0")
    assert _header.unpack(memoryview(call)) == (snapshot, b"args", [3], 1, 7, b"*\0")
    bare = _header.pack_call(None, b"", [], kind=0, seed=None)
    assert _header.unpack(bare) == (None, b"", [], 0, None, None)
    assert _header.unpack(_header.pack_module(b"x", [])) == (b"x", [])
