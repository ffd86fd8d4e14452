"""Source lines for a job's traceback: the job may not read the project's files, the host does.

The text is the job's. It decides over which line of which loaded file stands in it, and no more:
other files are not opened, and what is read goes to the user and never to the job.
"""

from __future__ import annotations

import linecache
import re
import sys

__all__ = ["with_sources"]

_FRAME = re.compile(r'  File "([^"\n]{1,4096})", line (\d{1,7}), in .*')
_MAX_FRAMES = 100


def with_sources(text: str) -> str:
    """Return the text of a traceback with the lines that it names and does not show.

    >>> print(with_sources(f'  File "{__file__}", line 1, in f').splitlines()[1].strip()[:39])
    \"\"\"Source lines for a job's traceback: th
    """
    lines = text.split("\n")
    files: set[str] | None = None
    shown: list[str] = []
    n_frames = 0
    for at, line in enumerate(lines):
        shown.append(line)
        frame = _FRAME.fullmatch(line)
        if frame is None or "".join(lines[at + 1 : at + 2]).startswith("    "):
            continue
        n_frames += 1
        if n_frames > _MAX_FRAMES:
            continue
        if files is None:
            files = _loaded()
        file, number = frame[1], int(frame[2])
        source = linecache.getline(file, number).strip() if file in files else ""
        if source:
            shown.append(f"    {source[:300]}")
    return "\n".join(shown)


def _loaded() -> set[str]:
    """Return the files that this process runs code of, cells of notebooks among them."""
    found = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return {*filter(None, found), *linecache.cache}
