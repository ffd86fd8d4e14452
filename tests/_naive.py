"""What one would write first in place of `@sandbox`: it looks right, and means something else.

`forked` runs the function in a fork of the host and pickles the answer back. `pooled` has a worker
that was forked when the function was decorated, and sends it the function's name. `spawned` starts
an interpreter that imports the function's module.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["STAND_INS", "forked", "pooled", "spawned"]


def forked(fn: Callable[..., Any], **_policy: Any) -> Callable[..., Any]:
    """Fork at the call."""

    def call(*args: Any) -> Any:
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                answer = True, fn(*args)
            except BaseException as error:
                answer = False, error
            with open(w, "wb") as file:
                pickle.dump(answer, file)
            os._exit(0)
        os.close(w)
        with open(r, "rb") as file:
            is_value, value = pickle.load(file)
        os.waitpid(pid, 0)
        if not is_value:
            raise value
        return value

    return call


def _resolve(module: str, name: str, args: tuple[Any, ...]) -> Any:
    return getattr(sys.modules[module], name)(*args)


def pooled(fn: Callable[..., Any], **_policy: Any) -> Callable[..., Any]:
    """A warm worker and a function by reference."""
    pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    pool.submit(os.getpid).result()

    def call(*args: Any) -> Any:
        with pool:
            return pool.submit(_resolve, fn.__module__, fn.__qualname__, args).result()

    return call


def spawned(fn: Callable[..., Any], **_policy: Any) -> Callable[..., Any]:
    """A new interpreter that imports the module."""

    def call(*args: Any) -> Any:
        script = (
            "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
            "module, name, args = pickle.load(sys.stdin.buffer); "
            "value = getattr(__import__(module), name)(*args); "
            "sys.stdout.buffer.write(pickle.dumps(value))"
        )
        told = pickle.dumps(sys.path) + pickle.dumps((fn.__module__, fn.__qualname__, args))
        done = subprocess.run(
            [sys.executable, "-c", script], input=told, capture_output=True, check=True, timeout=60
        )
        return pickle.loads(done.stdout)

    return call


STAND_INS = {"forked": forked, "pooled": pooled, "spawned": spawned}
