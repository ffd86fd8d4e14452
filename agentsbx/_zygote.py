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
# Under another interpreter or other packages our own come from the last folder of the path, and
# are there before anything else can be found; then the path stands as the tool shall see it.
BOOT_ELSEWHERE = (
    "import sys; words = sys.argv[1:3]; path = sys.argv[3:]; sys.path[:] = path[-1:] + path; "
    "from agentsbx._zygote import main; main(*words, path)"
)


def main(preload: str, env: str, path: list[str] | None = None) -> None:
    """Import, freeze, serve. Never returns. `path`: of a tool that has libraries of its own."""
    # msgspec would load it, and inspect with it: twice the memory that every fork copies.
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    from agentsbx import _blas, _core, _worker

    del sys.modules["typing_extensions"]
    if path is not None:
        leave_behind(path)

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


def leave_behind(path: list[str]) -> None:
    """Set the path, and forget our msgspec where the tool's libraries have one of their own.

    What we imported keeps working without its name. The tool's is imported in the job, inside every
    wall: a zygote runs nothing of a library that the host itself does not run. One and the same
    file must not be loaded twice, though: its C code has one state.
    """
    sys.path[:] = path
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec("msgspec", path)
    ours = sys.modules["msgspec"].__file__
    if spec is None or spec.origin is None or ours is None or os.path.samefile(spec.origin, ours):
        return
    for name in [n for n in sys.modules if n.partition(".")[0] == "msgspec"]:
        del sys.modules[name]
