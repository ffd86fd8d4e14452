"""What the benchmark runs inside: each returns proof that it ran in a sandbox."""

from __future__ import annotations

import os
import time
from typing import Any

PROOF = """
def prove(canary):
    import os
    try:
        os.close(os.open(canary, os.O_RDONLY))
        seen = 0
    except OSError as error:
        seen = error.errno
    return os.getpid(), os.getuid(), seen

def body(x, canary):
    return x, prove(canary)

def array(a, canary):
    return int(a[0]) + int(a[-1]), prove(canary)
"""


def prove(canary: str) -> tuple[int, int, int]:
    """Return what only a sandboxed process sees: pid, uid, errno of opening a host file."""
    try:
        os.close(os.open(canary, os.O_RDONLY))
        seen = 0
    except OSError as error:
        seen = error.errno or -1
    return os.getpid(), os.getuid(), seen


def body(x: int, canary: str) -> tuple[int, tuple[int, int, int]]:
    """Do nothing but prove."""
    return x, prove(canary)


def files(folder: str, n: int) -> float:
    """Create, write, stat, read and remove `n` small files; return the seconds."""
    start = time.perf_counter()
    data = b"x" * 1000
    names = [f"{folder}/f{i}" for i in range(n)]
    for name in names:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, data)
        os.close(fd)
    for name in names:
        os.stat(name)
        fd = os.open(name, os.O_RDONLY)
        os.read(fd, 2000)
        os.close(fd)
    took = time.perf_counter() - start
    for name in names:
        os.unlink(name)
    return took


def spin(n: int) -> float:
    """CPU-bound Python; return the seconds of the best of five."""
    best = 1e9
    for _ in range(5):
        start = time.perf_counter()
        total = 0
        for i in range(n):
            total += i * i % 7
        best = min(best, time.perf_counter() - start)
    return best


def product(n: int) -> float:
    """Multiply two big matrices; return the seconds of the better of three."""
    import numpy

    a = numpy.ones((n, n))
    best = 1e9
    for _ in range(3):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return best


def system_calls(n: int) -> float:
    """Return the seconds of one `getppid`, the least of five series of `n`."""
    call = os.getppid
    best = 1e9
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(n):
            call()
        best = min(best, (time.perf_counter() - start) / n)
    return best


def import_numpy() -> float:
    """Return the seconds of `import numpy`."""
    start = time.perf_counter()
    import numpy  # noqa: F401

    return time.perf_counter() - start


def proved(work: str, canary: str, *args: Any) -> tuple[float, tuple[int, int, int]]:
    """Do one of the above; return its seconds, and proof."""
    return globals()[work](*args), prove(canary)
