"""Arenas: reusable shared memory for big arguments, in the host.

A fresh memfd for each 100 MB costs four times its memcpy in page faults; an arena is mapped once
and filled by memcpy. It is read-only for jobs, holds one call's data at a time, and is used again
only when the job that could read it is dead.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Sequence

from agentsbx._transfer import HOST_SEALS, align, new_memfd

ARENA_CACHE_BYTES = 256 * 2**20
ARENA_MIN = 1 * 2**20


class Arena:
    """A reusable shared memfd of the host: mapped once, filled by memcpy, read-only for jobs."""

    __slots__ = ("busy", "dirty", "fd", "map", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.dirty = 0
        self.busy: Callable[[], bool] | None = None
        self.fd = new_memfd("arena")
        try:
            os.ftruncate(self.fd, size)
            self.map = mmap.mmap(self.fd, size)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, HOST_SEALS)
        except BaseException:  # no descriptor or memory left
            os.close(self.fd)
            raise

    def fill(self, body: bytes, buffers: Sequence[memoryview]) -> None:
        """Put one call's data in; whatever an earlier call left behind it is zeroed."""
        at = 0
        for part in (memoryview(body), *buffers):
            n = part.nbytes
            if n:
                self.map[at : at + n] = part.cast("B")
            end = at + align(n)
            self._zero(at + n, end)
            at = end
        self._zero(at, self.dirty)
        self.dirty = at

    def _zero(self, start: int, end: int) -> None:
        end = min(end, self.dirty)
        while start < end:
            n = min(end - start, 1 << 20)
            self.map[start : start + n] = bytes(n)
            start += n

    def close(self) -> None:
        """Unmap and close."""
        self.map.close()
        os.close(self.fd)


class ArenaCache:
    """Arenas that wait for reuse: only after the job that could read one is dead."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[Arena] = []

    def get(self, size: int) -> Arena:
        """An arena of at least `size` bytes."""
        with self._lock:
            fits = [a for a in self._free if size <= a.size <= max(4 * size, ARENA_MIN)]
            if fits:
                best = min(fits, key=lambda a: a.size)
                self._free.remove(best)
            else:
                best = None
        if best is not None:
            if best.busy is None or not best.busy():
                best.busy = None
                return best
            best.close()
        return Arena(max(align(size), ARENA_MIN))

    def put(self, arena: Arena, is_busy: Callable[[], bool]) -> None:
        """Give one back; `is_busy()` waits for the job's death and says whether it still lives."""
        arena.busy = is_busy
        with self._lock:
            self._free.append(arena)
            dropped = []
            while sum(a.size for a in self._free) > ARENA_CACHE_BYTES:
                dropped.append(self._free.pop(0))
        for a in dropped:
            a.close()

    def clear(self) -> None:
        """Close all."""
        with self._lock:
            old, self._free = self._free, []
        for a in old:
            a.close()
