"""Thread counts of OpenBLAS: one in the zygote (it must have one thread), the host's in the jobs.

The zygote finds the setter once, after its imports; a job calls it when its call has come, so that
waiting sandboxes stay single-threaded and small.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_NAMES = ("openblas_set_num_threads", "openblas_set_num_threads64_",
          "scipy_openblas_set_num_threads", "scipy_openblas_set_num_threads64_")  # fmt: skip
_setters: list[Callable[[int], Any]] = []


def find() -> None:
    """Zygote: look the setters up in the libraries that were loaded."""
    if "numpy" not in sys.modules:
        return
    import ctypes

    with open("/proc/self/maps", encoding="utf-8") as maps:
        fields = [line.split(None, 5) for line in maps]
    for path in {f[5].strip() for f in fields if len(f) == 6 and "openblas" in f[5]}:
        lib = ctypes.CDLL(path)
        _setters.extend(getattr(lib, name) for name in _NAMES if hasattr(lib, name))


def restore(n: int) -> None:
    """Job: use `n` threads from now on."""
    for setter in _setters if n > 0 else ():
        setter(n)
