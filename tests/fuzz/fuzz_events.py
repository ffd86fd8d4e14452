"""What a job can write into its channel, made up and mutated: the host takes it or refuses it.

Frames of base/call.h of every kind, in any order, with descriptors of every sort, through the real
receiver (`_core`), `Exchange`, and all that makes words of them: results, errors, files, notes,
denials, exits. Allowed are a value, a typed error, `ResultError`; no descriptor may stay.

`AGENTSBX_FUZZ_SECONDS`, `AGENTSBX_FUZZ_SEED` as in fuzz_codec.py; failures say the seed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import random
import socket
import struct
import time
import warnings
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from _codec_samples import catch
from agentsbx import _command, _core, _exits, _noting, _outcome, _swallowed, _transfer
from agentsbx._boxes import Box
from agentsbx._codec import ClassTable, CodecLimits, encode, encode_exception
from agentsbx._explain_limits import limit_table
from agentsbx._header import pack_result
from agentsbx._job import Exchange
from agentsbx._output import Output
from agentsbx._reply import Reply
from agentsbx._wire import DENIAL, FILES, LEFT_FILE, Cause, ExitRecord, Frame
from agentsbx.errors import AgentsbxError, ResultError
from agentsbx.policy import Policy

SECONDS = float(os.environ.get("AGENTSBX_FUZZ_SECONDS", "1"))
SEED = int(os.environ.get("AGENTSBX_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
HEAD = struct.Struct("=IIQQ")
KINDS = (*map(int, Frame), 0, 1, 2, 3, 4, 99, 2**32 - 1)


def bodies(rng: random.Random) -> list[tuple[int, bytes]]:
    """Frames as jobs of ours send them."""
    files = [(5, b"a.txt", 0, 0, 0), (9, b"d/b.png", 1, 1, 1), (2, b"\xff", 3, 2, 4)]
    left = [
        LEFT_FILE.pack(n, len(name), place, kind, why) + name for n, name, place, kind, why in files
    ]
    notes: list[Any] = [
        [1, "app", 30, "text", "/x.py", 3, "f", time.time(), "MainThread", "", "", "", {"k": 1},
         False],
        [2, "builtins", "UserWarning", "careful", "/x.py", 3, "x"],
        [3, "/x.py", [1, 2, 3]],
        [4, "/x.py", [[-1, 1], [1, 2]]],
    ]  # fmt: skip
    body, buffers = encode({"a": [1, 2.5, "x"], "b": b"y" * 50})
    assert not buffers
    return [
        (Frame.RESULT, pack_result(body, [])),
        (Frame.RESULT, pack_result(body, [10, 20], ("thread t",))),
        (Frame.ERROR, pack_result(encode_exception(catch("open('/nowhere/x')"))[0], [])),
        (Frame.YIELD, pack_result(body, [])),
        (Frame.IMPORT, b"some.module"),
        (Frame.FAILED, struct.pack("=HHiI", rng.randrange(40), 1, rng.randrange(200), 0)),
        (Frame.SIGNAL, struct.pack("=I", rng.randrange(70))),
        (Frame.EXITED, struct.pack("=iIQQQ", rng.randrange(70000), 0, 1, 2, 3)),
        (Frame.PART, b"p" * rng.randrange(2000)),
        (Frame.TOO_BIG, rng.choice((b"result", b"buffers", b"file_size", b"x"))),
        (Frame.DENIED, DENIAL.pack(rng.randrange(500), 13, 0) + b"/etc/shadow\0/root/x\0"),
        (Frame.DENIED, b"PermissionError\0" + b"13\0open\0/etc/x\0"),
        *((Frame.NOTE, msgspec.msgpack.encode(note)) for note in notes),
        (Frame.FILES, FILES.pack(3, 2, 1, 100) + b"".join(left)),
        (Frame.FILES, FILES.pack(1, 1, 0, 0) + left[0] + b"12345"),
    ]


def mutate(rng: random.Random, body: bytes) -> bytes:
    """Change, cut or repeat some bytes."""
    data = bytearray(body)
    for _ in range(rng.choice((0, 1, 1, 2, 6))):
        at = rng.randrange(len(data)) if data else 0
        how = rng.randrange(5)
        if how == 0 and data:
            data[at] = rng.randrange(256)
        elif how == 1 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            del data[at : at + rng.randrange(9)]
        elif how == 3:
            data[at:at] = data[at : at + rng.randrange(20)]
        else:
            data[at:at] = rng.choice((b"\xff" * 4, b"\0", b"/../", b"\x1b[2J", b"\xff" * 8))
    return bytes(data)


def some_fds(rng: random.Random, size: int) -> list[int]:
    """Descriptors as a job may attach them: right ones, and any others."""
    how = rng.randrange(8)
    if how < 3:
        return []
    if how == 3:
        return [os.open("/dev/zero", os.O_RDWR)]
    if how == 4:
        return list(os.pipe())
    fd = os.memfd_create("fuzz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, max(0, size + rng.choice((0, 0, 0, -1, 4096))))
    os.pwrite(fd, rng.randbytes(64), 0)
    if how > 5:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _transfer.JOB_SEALS)
    return [fd]


def send_some(rng: random.Random, channel: socket.socket) -> list[tuple[int, int]]:
    """Write a job's last words; returns their kinds and sizes."""
    sent = []
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        kind, body = rng.choice(bodies(rng))
        body = mutate(rng, body)
        if rng.random() < 0.15:
            kind = rng.choice(KINDS)
        size = rng.choice((0, 0, len(body), 4096, 8192, 2**63, 2**64 - 1))
        head = HEAD.pack(
            kind, len(body) if rng.random() < 0.9 else rng.randrange(2**32),
            rng.choice((0, len(body), size, 2**64 - 1)), size,
        )  # fmt: skip
        fds = some_fds(rng, size if size < 2**20 else 0)
        message = (head + body)[: rng.choice((10**6, 10**6, 10**6, rng.randrange(64)))]
        try:
            socket.send_fds(channel, [message], fds)
        except BlockingIOError:
            break
        finally:
            for fd in fds:
                os.close(fd)
        sent.append((kind, len(message)))
    return sent


def a_box(rng: random.Random) -> tuple[Box, list[tuple[int, int]]]:
    """Return a sandbox whose job has said its words and is gone."""
    mine, job = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, theirs = _core.socketpair()
    pipes = [os.pipe(), os.pipe()]
    with mine, job:
        job.settimeout(0)
        sent = send_some(rng, job)
        for _, end in pipes:
            os.write(end, rng.randbytes(rng.randrange(200)))
        _core.send(theirs, b"x", (mine.fileno(), pipes[0][0], pipes[1][0]))
    got = _core.recv(ours, 10, 3, 0)
    assert got is not None
    _core.close_all(ours, theirs, *pipes[0], *pipes[1])
    pool: Any = SimpleNamespace(
        job=SimpleNamespace(cwd="/work", enforced={}), policy_id=lambda: "x"
    )
    return Box(7, 1, got[1], pool), sent


POLICY = Policy()
LIMITS = CodecLimits()
CLASSES = ClassTable.build()
SUP: Any = SimpleNamespace(start=lambda *a: None, kill=lambda *a: None)
STREAM: Any = SimpleNamespace(
    module_reply=lambda name: (name.encode("utf-8", "replace"), []), functions=list, files=set
)


def converse(rng: random.Random, is_command: bool) -> list[tuple[int, int]]:
    """One conversation, and all that is made of it."""
    box, sent = a_box(rng)
    reply = Reply(Output(rng.choice((-1, 100)), None), Output(1000, None))
    reply.keep = b"*.txt\0", rng.choice((10, 1 << 20))
    reply.is_stream = rng.random() < 0.3
    if rng.random() < 0.5:
        reply.denials = []
    stream = None if is_command else STREAM
    notes = None if is_command else _noting.taker("f", reply, STREAM, lambda: CLASSES)
    exchange = Exchange(
        SUP, box, timeout_s=5, max_result=1 << 20, reply=reply, stream=stream, notes=notes
    )
    exchange.run()
    record = ExitRecord.lost(7)
    if rng.random() < 0.7:
        record = record._replace(cause=Cause(rng.randrange(8)), wait_status=rng.randrange(70000))
    if is_command:
        result = _command._command_result(["x"], POLICY, box.pool, reply, record, None)
        str(result.error), repr(result), result.discarded, list(result.files)
        box.close()
        return sent
    if reply.kind in (Frame.RESULT, Frame.YIELD) and not reply.is_malformed and not reply.over:
        with contextlib.suppress(ResultError):
            repr(_outcome.value_of(reply, CLASSES, None, LIMITS))
    else:
        table = limit_table(POLICY.limits, {}, _exits.usage_of(record, reply))
        error, violations = _outcome.error_of(
            reply, record, POLICY, CLASSES, table, "/work", LIMITS
        )
        assert isinstance(error, BaseException)
        assert isinstance(error, Exception), f"a job forged {error!r}"
        str(error), [v.message for v in violations]
    if reply.denials is not None:
        _swallowed.violations(reply.denials, POLICY, "/work", record)
    _exits.exit_of(record, reply)
    left, files = _exits.files_of(reply)
    str(left), list(files)
    box.close()
    return sent


@pytest.mark.limit(60 + SECONDS * 2)
@pytest.mark.parametrize("is_command", [False, True])
def test_made_up_frames_are_taken_or_refused(is_command: bool) -> None:
    rng = random.Random(SEED)
    until = time.monotonic() + SECONDS
    for _ in range(20):
        converse(random.Random(1), is_command)
    before = len(os.listdir("/proc/self/fd"))
    runs = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while time.monotonic() < until:
            state = rng.random()
            started = time.monotonic()
            try:
                converse(random.Random(state), is_command)
            except AgentsbxError:
                pass
            except Exception as error:
                raise AssertionError(f"AGENTSBX_FUZZ_SEED={SEED}, run {runs}: {state}") from error
            assert time.monotonic() - started < 5, f"seed {SEED}, run {runs}: slow"
            runs += 1
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before, f"seed {SEED}: descriptors stayed"
    assert runs
