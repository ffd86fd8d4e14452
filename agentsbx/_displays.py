"""Displays of a cell as they cross: a closed shape, bounded in number and bytes, for both ends."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["MAX_DISPLAYS", "MAX_FORMS", "MAX_MIME", "pack", "unpack"]

MAX_DISPLAYS = 100  # of one cell
MAX_FORMS = 16  # of one display
MAX_MIME = 128  # characters of the name of a form

_Mime = Annotated[str, msgspec.Meta(max_length=MAX_MIME)]
_Texts = Annotated[dict[_Mime, str], msgspec.Meta(max_length=MAX_FORMS)]
_Bytes = Annotated[dict[_Mime, bytes], msgspec.Meta(max_length=MAX_FORMS)]
_DECODER = msgspec.msgpack.Decoder(tuple[bool, _Texts, _Bytes])


def pack(forms: dict[str, str | bytes], *, is_result: bool) -> bytes:
    """Interpreter: the body of a display."""
    texts = {mime: form for mime, form in forms.items() if type(form) is str}
    images = {mime: form for mime, form in forms.items() if type(form) is bytes}
    return msgspec.msgpack.encode((is_result, texts, images))


def unpack(body: bytes) -> tuple[bool, dict[str, str | bytes]]:
    """Host: whether it is the cell's value, and its forms by MIME type, from hostile bytes.

    ValueError if malformed.

    >>> unpack(pack({"text/plain": "x"}, is_result=True))
    (True, {'text/plain': 'x'})
    """
    try:
        is_result, texts, images = _DECODER.decode(body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"a malformed display: {str(error)[:200]}") from None
    return is_result, {**texts, **images}
