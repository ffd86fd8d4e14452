"""Global random generators, those of libraries too: started anew for each call (semantics 5.4).

The zygote imports this, so it loads nothing.
"""

from __future__ import annotations

import os
import sys

__all__ = ["reseed"]

# Module -> how it is seeded, and below what.
_GENERATORS = {
    "random": ("seed", 1 << 128),
    "numpy.random": ("seed", 1 << 32),
    "torch": ("manual_seed", 1 << 63),
}


def reseed(seed: int | None) -> None:
    """Seed what is loaded: no two calls draw the same numbers, unless `seed` says which.

    >>> import random
    >>> reseed(7); a = random.random(); reseed(7); a == random.random()
    True
    """
    if seed is not None:
        import random  # noqa: F401 - what the call imports later is seeded too
    loaded = [name for name in _GENERATORS if sys.modules.get(name) is not None]
    if not loaded:
        return
    value = int.from_bytes(os.urandom(16), "little") if seed is None else seed
    for name in loaded:
        how, size = _GENERATORS[name]
        getattr(sys.modules[name], how)(value % size)
