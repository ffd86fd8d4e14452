"""Main program of a Python zygote: import what the jobs shall find imported, then serve for ever.

Runs as ``python -I -S -B -c BOOT preload environment sys.path...`` in an empty environment and the
template's base tree; pid 1 of its pid namespace, one thread, no secret. It never runs project code:
`preload` names installed distributions or stdlib modules only.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys

BOOT = (
    "import sys; words = sys.argv[1:3]; sys.path[:] = sys.argv[3:]; "
    "from agentsbx._zygote import main; main(*words)"
)


def main(preload: str, env: str) -> None:
    """Import, freeze, serve. Never returns."""
    # msgspec would load it, and inspect with it: twice the memory that every fork copies.
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    from agentsbx import _blas, _core, _worker

    del sys.modules["typing_extensions"]

    # Before the imports: many a library asks for its user's home when it is imported.
    os.environ.clear()
    os.environ.update(dict(v.split("=", 1) for v in env.split("\x1f")))
    for name in preload.split(","):
        if name != "-":
            # What cannot be imported here cannot be imported in the job either, and says so there.
            with contextlib.suppress(Exception):
                __import__(name)
    _blas.find()
    job = _worker.prepare()
    sys.argv[:] = [""]
    gc.collect()
    gc.freeze()
    forked = _core.zygote_serve(_worker.CHANNEL)
    if forked is None:
        os._exit(0)
    _worker.run(job, forked[1], forked[2])
