"""The job's side of what a function left in files: loaded only where it left something.

Imports what each job has anyway: another module would be milliseconds in a call.
"""

from __future__ import annotations

import _io
import gc
import posix

__all__ = ["flush"]

_WRITERS = (_io.TextIOWrapper, _io.BufferedWriter, _io.BufferedRandom)
_KIND, _REGULAR = 0o170000, 0o100000  # of a mode, inode(7)


def flush() -> None:
    """Write out what open files still hold, as the end of an interpreter would.

    Only regular files: a pipe that nobody reads would keep us waiting.
    """
    for obj in gc.get_objects():
        if type(obj) not in _WRITERS:
            continue
        try:
            if posix.fstat(obj.fileno()).st_mode & _KIND == _REGULAR:
                obj.flush()
        except Exception:
            continue  # it is closed, or full
