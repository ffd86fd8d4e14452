"""Baselines in a process of their own: `python -m agentsbx.cli._bench_helper MODE`.

`fork`: a Python host of 20 MB that forks per request, with a pipe back; replies with the seconds.
`zygote`: what a zygote imports, and nothing but a fork per request; replies with a byte.
"""

from __future__ import annotations

import os
import sys
import time

__all__ = ["main"]

_HOST_BYTES = 20_000_000


def main() -> None:
    """Serve until stdin ends."""
    if sys.argv[1] == "fork":
        _serve_fork()
    else:
        _serve_zygote()


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def _serve_fork() -> None:
    ballast = []
    while _resident() < _HOST_BYTES:
        ballast.append([object() for _ in range(1000)])
    while os.read(0, 1):
        start = time.perf_counter()
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(w, b"x")
            os._exit(0)
        os.close(w)
        os.read(r, 1)
        os.close(r)
        os.waitpid(pid, 0)
        took = time.perf_counter() - start
        os.write(1, f"{took!r}\n".encode())


def _serve_zygote() -> None:
    import gc

    from agentsbx import _core, _worker

    _core.count_leftovers = lambda: 0  # here is no sandbox, so no private storage
    _worker.prepare()
    gc.collect()
    gc.freeze()
    while os.read(0, 1):
        pid = os.fork()
        if pid == 0:
            os.write(1, b"x")
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
