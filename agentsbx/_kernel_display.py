"""What a cell shows: `display(x)`, rich forms of its value, figures of matplotlib.

Runs in a session's interpreter only. A display is a bundle of forms of one thing, by MIME type; it
goes to the host as plain data, bounded in number and bytes for each cell. matplotlib is not needed,
and nothing of it is loaded before user code does.
"""

from __future__ import annotations

import builtins
import sys

from agentsbx import _hooks
from agentsbx._displays import MAX_DISPLAYS, MAX_FORMS, MAX_MIME, pack
from agentsbx._wire import Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Bundle = dict[str, str | bytes]

__all__ = ["begin", "display", "dropped", "figures", "forget", "install", "result"]

_METHODS = {
    "text/html": "_repr_html_", "text/markdown": "_repr_markdown_", "text/latex": "_repr_latex_",
    "image/svg+xml": "_repr_svg_", "image/png": "_repr_png_", "image/jpeg": "_repr_jpeg_",
    "application/json": "_repr_json_",
}  # fmt: skip
_DPI = 100

_is_here = True  # False in a fork of the interpreter
_n = _left = _dropped = 0


def install() -> None:
    """Interpreter: give cells `display`, and matplotlib a way to show its figures."""
    builtins.display = display  # type: ignore[attr-defined]
    _hooks.watch("matplotlib", _use_backend)


def begin(max_bytes: int) -> None:
    """A cell begins: it may show this much."""
    global _n, _left, _dropped
    _n, _left, _dropped = 0, max_bytes, 0


def dropped() -> int:
    """How many displays of this cell did not fit the bounds."""
    return _dropped


def forget() -> None:
    """In a fork: there is nobody to show anything to."""
    global _is_here
    _is_here = False


def display(*objects: Any, **_options: Any) -> None:
    """Show each object in its rich forms, as a notebook would; where it has none, as text.

    A plain dict with MIME types as keys is shown as it is with `raw=True`.
    """
    for thing in objects:
        if _options.get("raw") and type(thing) is dict:
            _send(_checked(thing), is_result=False)
        else:
            forms = _forms(thing)
            forms.setdefault("text/plain", _text(thing))
            _send(forms, is_result=False)


def result(value: Any) -> None:
    """Show the value of a cell, where it has rich forms."""
    forms = _forms(value)
    if forms:
        forms.setdefault("text/plain", _text(value))
        _send(forms, is_result=True)
        if _is_figure(value):
            sys.modules["matplotlib.pyplot"].close(value)


def figures() -> None:
    """Show the figures that are open, and close them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not _is_here:
        return
    try:
        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            _send({"image/png": _png(figure), "text/plain": _text(figure)}, is_result=False)
    finally:
        pyplot.close("all")


def _send(forms: Bundle, *, is_result: bool) -> None:
    global _n, _left, _dropped
    if not _is_here:
        sys.stdout.write(str(forms.get("text/plain", "")) + "\n")
        return
    size = sum(map(len, forms.values()))
    if _n >= MAX_DISPLAYS or size > _left:
        _dropped += 1
        return
    from agentsbx import _worker

    body = pack(forms, is_result=is_result)
    _worker._flush()  # what was printed before it stands before it
    try:
        _worker._send(Frame.DISPLAY, body, [])
    except OSError:  # too big for a file
        _dropped += 1
    else:
        _n, _left = _n + 1, _left - size


# -- forms ----------------------------------------------------------------------------------------


def _forms(thing: Any) -> Bundle:
    """Return the rich forms of an object; a method that fails gives none."""
    if isinstance(thing, type):
        return {}
    if _is_figure(thing):
        return {"image/png": _png(thing)}
    found: dict[Any, Any] = {}
    bundle = _ask(thing, "_repr_mimebundle_")
    if type(bundle) is tuple and bundle:  # with metadata
        bundle = bundle[0]
    if isinstance(bundle, dict):
        found |= bundle
    for mime, name in _METHODS.items():
        if mime not in found and (form := _ask(thing, name)) is not None:
            found[mime] = form[0] if type(form) is tuple and form else form
    return _checked(found)


def _ask(thing: Any, name: str) -> Any:
    if not hasattr(type(thing), name):  # not of an instance: a mock answers to any name
        return None
    try:
        return getattr(thing, name)()
    except Exception:
        return None


def _checked(found: dict[Any, Any]) -> Bundle:
    """Return forms as plain data: images as bytes, all else as text."""
    forms: Bundle = {}
    for mime, form in list(found.items())[:MAX_FORMS]:
        if type(mime) is not str or len(mime) > MAX_MIME or form is None:
            continue
        plain = _plain(mime, form)
        if plain is not None:
            forms[mime] = plain
    return forms


def _plain(mime: str, form: Any) -> str | bytes | None:
    if isinstance(form, (bytes, bytearray, memoryview)):
        return bytes(form)
    if isinstance(form, str):
        text = str.__str__(form)
        if mime.startswith("image/") and mime != "image/svg+xml":
            import base64

            try:
                return base64.b64decode(text)
            except ValueError:
                return None
        return text.encode("utf-8", "backslashreplace").decode()
    import json

    try:
        return json.dumps(form)
    except (TypeError, ValueError, RecursionError):
        return None


def _text(thing: Any) -> str:
    from agentsbx._kernel_cell import shown

    return shown(thing).encode("utf-8", "backslashreplace").decode()


# -- matplotlib -----------------------------------------------------------------------------------


def _use_backend(matplotlib: Any) -> None:
    """Matplotlib was imported: its figures are shown here, unless the user has said how."""
    import os

    if "MPLBACKEND" not in os.environ:
        matplotlib.use("module://agentsbx._kernel_figures")


def _is_figure(thing: Any) -> bool:
    module = sys.modules.get("matplotlib.figure")
    return module is not None and isinstance(thing, module.Figure)


def _png(figure: Any) -> bytes:
    import io

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, bbox_inches="tight")
    return file.getvalue()
