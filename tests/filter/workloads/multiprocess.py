"""multiprocessing by fork and by spawn (forkserver needs a named socket): pools, queues, shm."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory


def square(x: int) -> int:
    return x * x


if __name__ == "__main__":
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
        queue = context.Queue()
        queue.put(os.getpid())
        assert queue.get(timeout=10) == os.getpid()
        queue.close()
        queue.join_thread()
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            assert list(executor.map(square, [3])) == [9]
    memory = shared_memory.SharedMemory(create=True, size=4096)
    memory.buf[0] = 7
    memory.close()
    memory.unlink()
