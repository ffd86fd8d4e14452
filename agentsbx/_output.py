"""What a job prints, on the host: bounded, kept for the `Result`, passed on (semantics 8).

The bytes are hostile. They are kept as they are and shown as text: what is not UTF-8 as backslash
escapes, and on a terminal control characters too.
"""

from __future__ import annotations

import codecs
import contextlib
import sys
from typing import IO

__all__ = ["Output", "forward", "forward_streams", "outputs"]

# What a job prints must not steer a terminal (titles, clipboard, faked lines): control characters
# but tab and newline are shown. Pipes and files get the bytes as they are.
_SHOWN = {c: f"\\x{c:02x}" for c in (*range(32), 127, *range(128, 160)) if c not in (9, 10)}


class Output:
    r"""stdout or stderr of one job: bounded to `limit` bytes (-1: not), kept, and passed on.

    >>> import io
    >>> shown = io.StringIO()
    >>> out = Output(4, shown)
    >>> out.add(b"h\xc3"), out.add(b"\xa9!?"), bytes(out.kept), out.dropped
    (True, False, b'h\xc3\xa9!', 1)
    >>> shown.getvalue()
    'hé!'
    """

    __slots__ = ("_decoder", "dropped", "kept", "limit", "stream")

    def __init__(self, limit: int, stream: IO[str] | None) -> None:
        self.limit = limit
        self.kept = bytearray()
        self.dropped = 0
        self.stream = stream
        self._decoder: codecs.IncrementalDecoder | None = None

    def add(self, data: bytes) -> bool:
        """Take what was read; False when the limit is reached."""
        room = self.limit - len(self.kept) if self.limit >= 0 else len(data)
        part = data[:room]
        self.kept += part
        self.dropped += len(data) - len(part)
        if self.stream is not None and part:
            self._show(self._text(part))
        return not self.dropped

    def flush(self) -> None:
        """Let what was passed on be seen now: the job goes on."""
        if self.stream is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                self.stream.flush()

    def finish(self) -> None:
        """The call came to its end; `_live.Told` has something to say then."""

    def end(self) -> None:
        """No more will come: show what was left of a character cut short."""
        if self._decoder is not None:
            self._show(self._decoder.decode(b"", final=True))

    def _text(self, part: bytes) -> str:
        if self._decoder is None:
            with contextlib.suppress(UnicodeDecodeError):
                return part.decode()
            # A character may be cut in two by the end of a read.
            self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        return self._decoder.decode(part)

    def _show(self, text: str) -> None:
        stream = self.stream
        if stream is None or not text:
            return
        with contextlib.suppress(OSError, ValueError):  # closed, a broken pipe
            isatty = getattr(stream, "isatty", None)
            if isatty is not None and isatty():
                text = text.translate(_SHOWN)
            try:
                stream.write(text)
            except UnicodeEncodeError as e:
                stream.write(text.encode(e.encoding, "backslashreplace").decode(e.encoding))


def forward_streams(output: str) -> tuple[IO[str] | None, IO[str] | None]:
    """Where stdout and stderr of a call go while it runs."""
    if output == "forward":
        return sys.stdout, sys.stderr
    if output == "stderr":
        return sys.stderr, sys.stderr
    return None, None


def outputs(output: str, limit: int) -> tuple[Output, Output]:
    """Return stdout and stderr of a call, each bounded to `limit` bytes."""
    out, err = forward_streams(output)
    return Output(limit, out), Output(limit, err)


def forward(output: str, said: bytes, cried: bytes) -> None:
    """Pass on all that a finished call printed."""
    for data, stream in zip((said, cried), forward_streams(output), strict=True):
        if data and stream is not None:
            whole = Output(-1, stream)
            whole.add(data)
            whole.end()
