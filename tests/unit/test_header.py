"""Headers beside the pickles: what the job sends is hostile, and the host reads it."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentsbx import _header

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
    known = {"env": {"A": "1"}, "argv": ["prog"], "main_file": None, "policy": b"policy"}
    setup = _header.Setup(**{name: known.get(name, 4) for name in _header.Setup.__struct_fields__})
    head = _header.SnapshotHead(setup, b"blob", [1, 2])
    assert _header.decode_snapshot(_header.encode(head)) == head
    call = _header.CallHead(head, b"args", [3], is_async=True, seed=7)
    assert _header.decode_call(_header.encode(call)) == call
    bare = _header.CallHead(None, b"", [], is_async=False, seed=None)
    assert _header.decode_call(_header.encode(bare)) == bare
    module = _header.ModuleHead(b"x", [])
    assert _header.decode_module(_header.encode(module)) == module


@given(st.binary(max_size=40))
def test_other_bytes_are_no_call(raw):
    with pytest.raises(msgspec.MsgspecError):
        _header.decode_call(b"\xc1" + raw)  # a byte that msgpack never uses
