"""Output of a job while it runs: `on_output=` (semantics 8).

The callback is called with the name of the stream and text, in the thread that makes the call, in
the order of each stream, within the bound of `output=`. While it works nothing is read: a slow one
slows the job down, and buffers nothing. What it raises ends the call: its job is killed, and the
exception leaves the call as it is.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from agentsbx._output import Output

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

__all__ = ["Told", "told"]


class Told(Output):
    r"""stdout or stderr of one job that a callback of the host is told of.

    What is not UTF-8 is told as backslash escapes; a character that a read cut in two is told once
    it is whole. Control characters are told as they are: they are the callback's to judge.

    >>> seen = []
    >>> out = Told(4, None, "stdout", lambda name, text: seen.append((name, text)))
    >>> out.add(b"h\xc3"), out.add(b"\xa9!?")
    (True, False)
    >>> seen
    [('stdout', 'h'), ('stdout', 'é!')]
    """

    __slots__ = ("_name", "_tell", "_text_of")

    def __init__(
        self, limit: int, stream: IO[str] | None, name: str, tell: Callable[[str, str], object]
    ) -> None:
        super().__init__(limit, stream)
        self._name = name
        self._tell = tell
        self._text_of = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def add(self, data: bytes) -> bool:
        """Take what was read, and tell it; False when the limit is reached."""
        n_before = len(self.kept)
        has_room = super().add(data)
        self._pass_on(self._text_of.decode(bytes(self.kept[n_before:])))
        return has_room

    def finish(self) -> None:
        """The call came to its end: tell what was left of a character cut short."""
        self._pass_on(self._text_of.decode(b"", final=True))

    def _pass_on(self, text: str) -> None:
        if text:
            self._tell(self._name, text)


def told(
    pair: tuple[Output, Output], tell: Callable[[str, str], object] | None
) -> tuple[Output, Output]:
    """Return the stdout and stderr of a call, told to `tell` where there is one."""
    if tell is None:
        return pair
    out, err = pair
    return (
        Told(out.limit, out.stream, "stdout", tell),
        Told(err.limit, err.stream, "stderr", tell),
    )
