"""Source lines for what a job says of files and lines: the job may not read them, the host does.

The text is the job's, and may end in a model's context: it names no line to us but one that the job
was given anyway. Else a job could have the host read it a secret of the project.
"""

from __future__ import annotations

import linecache
import re
import types
from typing import TYPE_CHECKING

from agentsbx._ship_modules import is_library_file

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

__all__ = ["Given", "with_sources"]

_FRAME = re.compile(r'  File "([^"\n]{1,4096})", line (\d{1,7}), in .*')
_MAX_FRAMES = 100


class Given:
    """The source lines that a job was given: of libraries, and in what was shipped.

    `functions` gives what travelled by value, `files` the names of those whose source was served.
    """

    __slots__ = ("_files", "_functions")

    def __init__(
        self,
        functions: Callable[[], Iterable[types.FunctionType]],
        files: Callable[[], Container[str]],
    ) -> None:
        self._functions = functions
        self._files = files

    def has(self, filename: str, line: int) -> bool:
        """Whether the job was given that line."""
        if filename in self._files():
            return True
        if filename.endswith(".py") and is_library_file(filename):
            return True
        return any(
            line in _span(code)
            for fn in self._functions()
            if (code := fn.__code__).co_filename == filename
        )


def _span(code: types.CodeType) -> range:
    last = max((line for _, _, line in code.co_lines() if line), default=0)
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return range(code.co_firstlineno, max([last + 1, *(_span(c).stop for c in inner)]))


def with_sources(text: str, has: Callable[[str, int], bool]) -> str:
    """Return the text of a traceback with the lines that it names and does not show.

    >>> print(with_sources(f'  File "{__file__}", line 1, in f', lambda *_: True)[-39:])
    job may not read them, the host does.
    """
    lines = text.split("\n")
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
        file, number = frame[1], int(frame[2])
        source = linecache.getline(file, number).strip() if has(file, number) else ""
        if source:
            shown.append(f"    {source[:300]}")
    return "\n".join(shown)
