"""Whatever a session's interpreter sends, the host gives a result or a typed error, in time.

Frames are random, or mutations of what an interpreter sends; the conversation is the real one, over
a socket pair. Run by pytest for a second; `AGENTSBX_FUZZ_SECONDS=600 pytest tests/fuzz/...`
for longer, `AGENTSBX_FUZZ_SEED` to repeat a run.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
import time

from agentsbx import _displays, _header
from agentsbx._codec import encode, encode_exception
from agentsbx._interpreter import Interpreter
from agentsbx._python_result import PythonResult
from agentsbx.errors import SandboxUnavailable
from agentsbx.policy import Policy
from agentsbx.result import Exit

SECONDS = float(os.environ.get("AGENTSBX_FUZZ_SECONDS", "1"))
SEED = int(os.environ.get("AGENTSBX_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
KINDS = (*range(35), 99, 2**32 - 1)


def numbered(kind: int, body: bytes, number: int) -> tuple[int, bytes]:
    return kind, _header.pack_result(body, [], (str(number),))


def samples(number: int) -> list[tuple[int, bytes]]:
    """Frames as an interpreter sends them for one cell."""
    answers = [
        [1, "1", True, 0],
        [None, None, True, 0],
        [None, "x", False, 3],
        [[1] * 50, "", True, 0],
    ]
    found = [numbered(16, encode(answer)[0], number) for answer in answers]
    found.append(numbered(17, encode_exception(ValueError("x"))[0], number))
    shown = _displays.pack({"text/plain": "x", "image/png": b"y"}, is_result=True)
    found.append((30, _header.pack_result(shown, [])))
    found += [(31, b"\3\0\0\0"), (23, b"result"), (18, b"os"), (25, b"\xc0"), (22, b"part")]
    return found


def mutated(rng: random.Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(rng.choice((0, 1, 1, 4))):
        if data and rng.random() < 0.7:
            data[rng.randrange(len(data))] = rng.randrange(256)
        else:
            data[rng.randrange(len(data) + 1) :] = rng.randbytes(rng.randrange(20))
    return bytes(data)


class Peer:
    """Stands for the process: answers each request with frames of chance."""

    def __init__(self, channel: int, rng: random.Random) -> None:
        self.socket = socket.socket(fileno=os.dup(channel))
        self.rng = rng
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        number = 0
        while True:
            try:
                if not self.socket.recv(1 << 16):
                    return
                number += 1
                if number == 1:
                    self.send(*samples(1)[1])
                else:
                    self.answer(number)
            except OSError:
                return

    def answer(self, number: int) -> None:
        for _ in range(self.rng.randrange(1, 6)):
            kind, body = self.rng.choice(samples(number))
            if self.rng.random() < 0.2:
                kind = self.rng.choice(KINDS)
            self.send(kind, mutated(self.rng, body))
        if self.rng.random() < 0.3:
            self.socket.send(self.rng.randbytes(self.rng.randrange(60)))
        if self.rng.random() < 0.8:
            self.kill()

    def send(self, kind: int, body: bytes) -> None:
        n_body, n_memfd = 0, 0
        if self.rng.random() < 0.03:
            n_memfd = self.rng.randrange(1 << 40)
        self.socket.send(struct.pack("=IIQQ", kind, len(body), n_body, n_memfd) + body)

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def ended(self, timeout_s: float) -> Exit | None:
        return Exit(code=0)

    def close(self) -> None:
        self.kill()
        self.socket.close()


class Home:
    def __init__(self, rng: random.Random) -> None:
        self.policy = Policy()
        self.cwd = "/"
        self.enforced: dict[str, str] = {}
        self.rng = rng

    def start_python(self, channel: int, out: int, err: int) -> Peer:
        return Peer(channel, self.rng)


def test_any_frames_give_a_result_or_a_typed_error() -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    end = time.monotonic() + SECONDS
    n, seen = 0, set()
    while time.monotonic() < end:
        interpreter = Interpreter(Home(rng), output="capture")
        for _ in range(3):
            start = time.monotonic()
            try:
                result = interpreter.python("1", timeout_s=0.5)
            except SandboxUnavailable:
                continue
            assert time.monotonic() - start < 5
            assert type(result) is PythonResult
            assert result.error is None or isinstance(result.error, Exception)
            seen.add(type(result.error).__name__)
            n += 1
        interpreter.close()
    assert n > 0
    assert {"NoneType", "ResultError"} <= seen or n < 50
