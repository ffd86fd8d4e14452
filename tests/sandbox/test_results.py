"""Results on their way to the host: parts, limits, and jobs that lie about both.

Source: design sections 7 to 9; unix(7), ETOOMANYREFS.
"""

from __future__ import annotations

from typing import Any

import pytest

from agentsbx import LimitExceeded, ResultError, sandbox


def without_descriptors(value: Any) -> Any:
    """Runs in the job: from now on no descriptor can be sent, as when too many are in flight."""
    import errno

    from agentsbx import _core, _worker

    class Core:
        def __getattr__(self, name: str) -> Any:
            return getattr(_core, name)

        def send_frame(self, channel: int, kind: int, body: bytes, *more: Any) -> None:
            if more:
                raise OSError(errno.ETOOMANYREFS, "too many references")
            _core.send_frame(channel, kind, body)

    _worker._core = Core()
    if isinstance(value, Exception):
        raise value
    return value


@pytest.mark.parametrize(
    "value",
    [1, "text", bytes(40_000), b"ab" * 300_000, ["x" * 50_000, b"y" * 5000, {"z": bytes(70_000)}]],
    ids=["int", "text", "one part", "many parts", "several buffers"],
)
def test_without_descriptors_results_come_in_parts(value: Any) -> None:
    call = sandbox(timeout="20s")(without_descriptors)
    assert call(value) == value
    assert call.run(value).value == value


def test_arrays_that_came_in_parts_are_writable() -> None:
    numpy = pytest.importorskip("numpy")
    call = sandbox(timeout="20s")(without_descriptors)
    array = call(numpy.arange(100_000))
    array[0] = 7
    assert array.sum() == 7 + sum(range(100_000))


def test_errors_come_in_parts_too() -> None:
    call = sandbox(timeout="20s")(without_descriptors)
    with pytest.raises(ValueError, match="xxxx"):
        call(ValueError("x" * 100_000))


@pytest.mark.parametrize("value", [[0] * 700_000, b"x" * 1_500_000, "y" * 1_500_000])
def test_result_limit_counts_structure_and_buffers(value: Any) -> None:
    call = sandbox(timeout="20s", result="500KB")(without_descriptors)
    result = call.run(value)
    assert isinstance(result.error, LimitExceeded)
    assert result.error.limit == "result"
    assert result.limits["result"].hit
    other = sandbox(timeout="20s", result="500KB")(lambda value: value)
    assert isinstance(other.run(value).error, LimitExceeded)


def test_file_size_limit_of_a_result() -> None:
    call = sandbox(timeout="20s", file_size="1MB")(lambda n: b"x" * n)
    result = call.run(2_000_000)
    assert isinstance(result.error, LimitExceeded)
    assert result.limits["file_size"].hit
    assert len(call(900_000)) == 900_000


def lie(what: str) -> None:
    """Runs in the job: frames that no honest job sends."""
    import os
    import struct
    import time

    def frame(kind: int, body: bytes) -> None:
        os.write(3, struct.pack("=IIQQ", kind, len(body), 0, 0) + body)

    part, result, too_big = 22, 16, 23
    if what == "endless parts":
        while True:
            frame(part, bytes(32768))
    if what == "wrong length":
        frame(part, bytes(100))
        frame(result, (10**9).to_bytes(8, "little"))
    if what == "no length":
        frame(part, bytes(100))
        frame(result, b"")
    if what == "unknown limit":
        frame(too_big, b"memory")
    if what == "a word of the reaper":
        frame(19, bytes(12))
    if what == "a host's frame":
        frame(1, b"")
    if what == "a kind beyond all":
        frame(2**31, b"x")
    time.sleep(20)


@pytest.mark.parametrize(
    "what",
    ["wrong length", "no length", "unknown limit", "a word of the reaper", "a host's frame",
     "a kind beyond all"],
)  # fmt: skip
def test_what_does_not_parse_ends_the_job(what: str) -> None:
    result = sandbox(timeout="20s")(lie).run(what)
    assert isinstance(result.error, ResultError), result.error
    assert result.usage.wall_s < 10


def test_parts_without_end_are_a_limit() -> None:
    result = sandbox(timeout="20s", result="1MB")(lie).run("endless parts")
    assert isinstance(result.error, LimitExceeded)
    assert result.error.limit == "result"
