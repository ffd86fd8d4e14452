"""What one cell of `Sandbox.python` gave: `PythonResult` and its displays. Plain frozen data."""

from __future__ import annotations

from typing import Any

import msgspec

from agentsbx._units import format_duration
from agentsbx.result import Usage, Violation

__all__ = ["Display", "PythonResult"]


class Display(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a cell showed, in several forms by MIME type.

    `data` maps `"image/png"`, `"text/html"` ... to bytes (images) or text (all else, JSON too).
    `is_result` says that it is the value of the last expression. All of it was written by the cell:
    HTML and SVG of a sandbox that a page of yours shows run there.

    >>> Display(data={"text/plain": "1", "image/png": b"..."}).png
    b'...'
    """

    data: dict[str, str | bytes]
    is_result: bool = False

    @property
    def png(self) -> bytes | None:
        """The image, where there is one."""
        form = self.data.get("image/png")
        return form if isinstance(form, bytes) else None

    @property
    def text(self) -> str:
        """The plain text; empty where there is none."""
        form = self.data.get("text/plain", "")
        return form if isinstance(form, str) else form.decode("utf-8", "backslashreplace")


class PythonResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Everything about one cell; `Sandbox.python(...)` returns it and never raises for the code.

    `value` is that of the last expression, rebuilt as a call's result is; where it cannot cross it
    is its text and `is_text` is true. `text` is what a prompt would show of it, None for no value.
    `displays` are what the cell showed (`display(x)`, rich forms of the value, figures of
    matplotlib), `displays_dropped` how many did not fit: 100 of them, `result=` bytes in all.
    `stdout` and `stderr` are exact and bounded, those of child processes included. `background` is
    what threads and processes of earlier cells have printed since. `error` is what the code raised
    or what stopped it; its lines are in `traceback`. `cell` counts from 1. `exit_code` is set where
    the cell ended the interpreter (`exit()`). `state_lost` says in words why the variables, imports
    and threads of earlier cells are gone from here on; empty where they are not.

    >>> PythonResult(value=2, text="2", cell=1).unwrap()
    2
    >>> PythonResult(error=NameError("x"), cell=2).ok
    False
    """

    value: Any = None
    text: str | None = None
    is_text: bool = False
    displays: tuple[Display, ...] = ()
    displays_dropped: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    background: bytes = b""
    error: BaseException | None = None
    cell: int = 0
    exit_code: int | None = None
    state_lost: str = ""
    usage: Usage = Usage()
    violations: list[Violation] = msgspec.field(default_factory=list)
    call_id: str = ""

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end."""
        return self.error is None

    @property
    def stdout_text(self) -> str:
        """`stdout` as text; bytes that are not UTF-8 appear as backslash escapes."""
        return self.stdout.decode("utf-8", "backslashreplace")

    @property
    def stderr_text(self) -> str:
        """`stderr` as text; bytes that are not UTF-8 appear as backslash escapes."""
        return self.stderr.decode("utf-8", "backslashreplace")

    @property
    def traceback(self) -> str:
        """The traceback as the interpreter would print it; empty where nothing was raised.

        Written by the job: control characters are escaped, the rest proves nothing.
        """
        error = self.error
        for _ in range(100):
            if error is None or error.__cause__ is None:
                break
            error = error.__cause__
        if error is None:
            return ""
        if type(error).__name__ == "RemoteTraceback" and error.args:
            return str(error.args[0])
        return f"{type(error).__name__}: {error}\n"

    def unwrap(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value

    def __repr__(self) -> str:
        """Return one short line."""
        if self.error is not None:
            outcome = f"error={type(self.error).__name__}({str(self.error)[:60]!r})"
        else:
            outcome = f"text={(self.text or 'None')[:60]!r}"
        parts = [f"cell={self.cell}", outcome]
        if self.displays:
            parts.append(f"displays={len(self.displays)}")
        if self.exit_code is not None:
            parts.append(f"exit_code={self.exit_code}")
        if self.state_lost:
            parts.append("state lost")
        parts.append(f"wall={format_duration(self.usage.wall_s)}")
        return f"<PythonResult {' '.join(parts)}>"
