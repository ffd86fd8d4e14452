"""Exceptions across the boundary: what a job raised, as data, and what the host makes of it.

A builtin exception comes back as itself, one of the user's as its own type with `args` and state
if the call knows the class; both are made without their `__init__`. Everything else is a
`RemoteError`: control flow (`SystemExit`, `StopIteration`, `CancelledError` ...) and whatever
claims to be ours.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from agentsbx._codec_annotation import loaded_class
from agentsbx._codec_classes import set_state
from agentsbx._codec_decode import guarded, open_table
from agentsbx._codec_encode import encode_table
from agentsbx._codec_instances import instance_state
from agentsbx._codec_table import SAFE, SAFE_STDLIB
from agentsbx._codec_wire import DEFAULT, Bad, CodecLimits, Ref, Tag, clean_name, disclaim
from agentsbx.errors import AgentsbxError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agentsbx._codec_decode import Builder
    from agentsbx._codec_encode import Encoder
    from agentsbx._codec_table import ClassTable

__all__ = ["DECODERS", "RemoteTraceback", "decode_exception", "encode_as_value", "encode_exception"]

MAX_MESSAGE = 8192
MAX_TRACEBACK = 32768
MAX_FRAMES = 1000  # the innermost: of a runaway recursion there may be a million
MAX_CHAIN = 8
MAX_NOTES = 32
_CELLS = 14

_TEXT = (str, type(None))
_NUMBER = (int, type(None))
_PATH = (str, bytes, int, type(None))
_PLACE: dict[str, tuple[type, ...]] = {"start": (int,), "end": (int,), "reason": (str,)}
# Attributes that the builtin classes keep outside `args` and `__dict__`.
_FIELDS: dict[type, dict[str, tuple[type, ...]]] = {
    OSError: {"errno": _NUMBER, "strerror": _TEXT, "filename": _PATH, "filename2": _PATH},
    SyntaxError: {
        "msg": _TEXT, "filename": _TEXT, "lineno": _NUMBER, "offset": _NUMBER, "text": _TEXT,
        "end_lineno": _NUMBER, "end_offset": _NUMBER,
    },
    ImportError: {"msg": _TEXT, "name": _TEXT, "path": _TEXT},
    NameError: {"name": _TEXT},
    AttributeError: {"name": _TEXT},
    UnicodeDecodeError: {"encoding": (str,), "object": (bytes,), **_PLACE},
    UnicodeEncodeError: {"encoding": (str,), "object": (str,), **_PLACE},
    UnicodeTranslateError: {"object": (str,), **_PLACE},
}  # fmt: skip
_RESERVED = frozenset(
    {name for fields in _FIELDS.values() for name in fields}
    | {"args", "add_note", "with_traceback", "characters_written", "obj", "value", "code"}
    | {"message", "exceptions", "print_file_and_line", "name_from"}
)


class RemoteTraceback(Exception):
    """The traceback that the job sent, as inert text; found at the end of the `__cause__` chain."""

    def __str__(self) -> str:
        """Return the text the way a traceback shows a cause."""
        return f'\n"""\n{self.args[0] if self.args else ""}"""'


# ---- job side


def encode_exception(
    exc: BaseException, *, limits: CodecLimits = DEFAULT, project_roots: Iterable[str] = ()
) -> tuple[bytes, list[memoryview]]:
    """Return the body and the buffers that carry `exc` to the host; does not raise.

    What cannot leave the sandbox among its arguments and attributes is replaced by its `repr`.
    `project_roots` are directories whose frames are kept where the traceback must be shortened.
    """
    text = _traceback_text(exc, tuple(project_roots))
    try:
        return encode_table(lambda encoder: _encode(encoder, exc, text, 0), limits, "exception")
    except Exception:  # too large, or a class whose code fails
        bare = RuntimeError(_say(str, exc, MAX_MESSAGE))
        name = (_name(type(exc).__module__), _name(type(exc).__qualname__))
        return encode_table(
            lambda encoder: _encode(encoder, bare, text, 0, name), DEFAULT, "exception"
        )


def encode_as_value(encoder: Encoder, exc: BaseException) -> Ref:
    """Encode an exception that is part of a returned value."""
    return _encode(encoder, exc, "", 0)


def _encode(
    encoder: Encoder, exc: BaseException, text: str, level: int, name: tuple[str, str] | None = None
) -> Ref:
    kind = type(exc)
    module, qualname = name or (_name(kind.__module__), _name(kind.__qualname__))
    row: list[Any] = [Tag.EXCEPTION, module, qualname]
    ref = encoder.open(exc, row, mutable=False)
    row.append(encoder.cell(_say(str, exc, MAX_MESSAGE)))
    row.append(encoder.cell(_say(repr, exc.args, 2048)))
    row.append(encoder.cell(text))
    group = isinstance(exc, BaseExceptionGroup)
    args = exc.args[:1] if group else exc.args
    row.append(_attempt(encoder, tuple(_portable(encoder, part) for part in args)))
    row.append(_attempt(encoder, _fields(exc)))
    row.append(_attempt(encoder, _state(encoder, exc)))
    notes = [_say(str, note, MAX_MESSAGE) for note in _notes(exc)]
    row.append(_attempt(encoder, notes))
    deeper = level < MAX_CHAIN
    for linked in (exc.__cause__, exc.__context__):
        same = linked is exc.__cause__ and len(row) == 11
        row.append(None if same or not deeper else _attempt_exc(encoder, linked, level + 1))
    row.append(bool(exc.__suppress_context__))
    row.append(None)
    if isinstance(exc, BaseExceptionGroup) and deeper:
        parts: list[Any] = [Tag.LIST]
        row[-1] = encoder.row(parts)
        for part in exc.exceptions:
            parts.append(_attempt_exc(encoder, part, level + 1))
    return encoder.close(exc, ref)


def _name(name: Any) -> str:
    text = name if isinstance(name, str) else "?"
    return text.encode("utf-8", "replace").decode()[:1024]


def _say(how: Callable[[Any], str], value: Any, limit: int) -> str:
    """Return `how(value)`, shortened; the user's `__str__` may fail."""
    try:
        text = how(value)
        return text if len(text) <= limit else text[: limit - 4] + " ..."
    except Exception as error:
        return f"<{how.__name__} failed: {type(error).__name__}>"


def _notes(exc: BaseException) -> list[Any]:
    notes = getattr(exc, "__notes__", None)
    return list(notes)[:MAX_NOTES] if isinstance(notes, (list, tuple)) else []


def _attempt(encoder: Encoder, value: Any) -> Any:
    """Return the cell of `value`, or None and the encoder as before where it cannot leave."""
    before = (encoder.depth, encoder.in_key, dict(encoder.memo), dict(encoder.shapes), encoder.size)
    counts = len(encoder.rows), len(encoder.blobs), len(encoder.buffers)
    try:
        return encoder.cell(value)
    except Exception:  # the user's own properties may raise anything
        encoder.depth, encoder.in_key, encoder.memo, encoder.shapes, encoder.size = before
        for store, count in zip(
            (encoder.rows, encoder.blobs, encoder.buffers), counts, strict=True
        ):
            del store[count:]  # type: ignore[attr-defined]
        return None


def _attempt_exc(encoder: Encoder, exc: BaseException | None, level: int) -> Any:
    if exc is None:
        return None
    known = encoder.memo.get(id(exc))
    if known is not None:
        return known if known.i >= 0 else None  # its own cause: the chain ends here
    if encoder.depth + 1 >= encoder.limits.depth:
        return None
    encoder.depth += 1
    ref = _encode(encoder, exc, "", level)
    encoder.depth -= 1
    return ref


def _portable(encoder: Encoder, value: Any) -> Any:
    """Return `value` if it can leave, else its `repr`."""
    if type(value) in (str, int, float, bool, type(None)):
        return value
    counts = len(encoder.rows)
    if _attempt(encoder, value) is None and len(encoder.rows) == counts:
        return _say(repr, value, 2048)
    return value


def _fields(exc: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base, fields in _FIELDS.items():
        if isinstance(exc, base):
            for name, kinds in fields.items():
                value = vars(base)[name].__get__(exc)
                if isinstance(value, os.PathLike):
                    value = os.fspath(value)
                if value is not None and type(value) in kinds:
                    found[name] = value
    return found


def _state(encoder: Encoder, exc: BaseException) -> dict[str, Any]:
    state = {}
    for name, value in instance_state(exc).items():
        dunder = name.startswith("__") and name.endswith("__")
        if not dunder and (name not in _RESERVED or name in vars(exc)):
            state[name] = _portable(encoder, value)
    return state


def _traceback_text(exc: BaseException, roots: tuple[str, ...]) -> str:
    """Return the formatted traceback without our frames, shortened to the project's if long."""
    import traceback

    ours = os.path.dirname(os.path.abspath(__file__)) + os.sep
    try:
        whole = traceback.TracebackException.from_exception(exc, limit=-MAX_FRAMES, compact=True)
        _keep_frames(whole, lambda name: not name.startswith(ours))
        text = "".join(whole.format())
        if len(text) > MAX_TRACEBACK and roots:
            _keep_frames(whole, lambda name: name.startswith(roots) or name.startswith("<"))
            text = "".join(whole.format())
    except Exception as error:
        text = f"{type(exc).__name__} (its traceback cannot be shown: {type(error).__name__})\n"
    if len(text) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2 - 16
        text = f"{text[:half]}\n  ...\n{text[-half:]}"
    return text


def _keep_frames(shown: Any, keep: Callable[[str], bool]) -> None:
    todo = [shown]
    while todo:
        part = todo.pop()
        if part is None:
            continue
        part.stack[:] = [frame for frame in part.stack if keep(frame.filename)]
        todo += [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]


# ---- host side


def decode_exception(
    body: bytes | memoryview,
    buffers: Sequence[memoryview],
    *,
    classes: ClassTable,
    limits: CodecLimits = DEFAULT,
    has_line: Callable[[str, int], bool] | None = None,
) -> BaseException:
    """Return the exception that a job raised, or a `RemoteError` that tells of it.

    The remote traceback hangs at the end of its `__cause__` chain as a `RemoteTraceback`, with the
    source lines for which `has_line` holds. Raises `ResultError` where the bytes are malformed.
    """

    def build() -> BaseException:
        builder = open_table(body, buffers, classes, None, limits)
        made = builder.root()
        if not isinstance(made, Exception) or builder.rows[0][0] != Tag.EXCEPTION:
            raise Bad("it is not an exception")
        if isinstance(made, RemoteError):
            _say_how_to_know(made, builder)
        text = escape(builder.text(builder.rows[0][5], 2 * MAX_TRACEBACK))
        if has_line is not None:
            from agentsbx._codec_sources import with_sources

            text = with_sources(text, has_line)
        _hang(made, RemoteTraceback(text))
        return made

    made: BaseException = guarded(build)
    return made


def _say_how_to_know(made: RemoteError, builder: Builder) -> None:
    """Add a note where the class is loaded here and may be named: the user's `except` needs it."""
    name = builder.text(builder.rows[0][1], 1024), builder.text(builder.rows[0][2], 1024)
    kind = loaded_class(*name)
    if kind is not None and may_rebuild(kind) and find_class(builder.classes, *name) is None:
        made.add_note(f"agentsbx: to get it as a {kind.__name__}, say raises=[{kind.__name__}]")


def _hang(exc: BaseException, last: BaseException) -> None:
    """Make `last` the end of the chain of causes of `exc`."""
    for _ in range(4 * MAX_CHAIN):
        if exc.__cause__ is None:
            break
        exc = exc.__cause__
    exc.__cause__ = last


def escape(text: str) -> str:
    """Return `text` with everything but printable characters, newline and tab escaped."""
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def _build_exception(builder: Builder, i: int, row: list[Any]) -> Any:
    if len(row) != _CELLS or type(row[12]) is not bool:
        raise Bad("an exception is malformed")
    module, qualname = builder.text(row[1], 1024), builder.text(row[2], 1024)
    message, shown = builder.text(row[3], MAX_MESSAGE), builder.text(row[4], 2048)
    cause, context = _linked(builder, row[10]), _linked(builder, row[11])
    notes = builder.cell(row[9])
    if notes is None:
        notes = []
    if type(notes) is not list or len(notes) > MAX_NOTES or not set(map(type, notes)) <= {str}:
        raise Bad("the notes of an exception are malformed")
    builder.charge(sum(map(len, notes)))
    made = None
    kind = find_class(builder.classes, module, qualname)
    if kind is not None:
        builder.classes.extend(kind)
        saved = builder.depth, builder.in_key
        try:
            made = _rebuild(builder, kind, row)
        except (Bad, TypeError, ValueError, AttributeError, OverflowError):
            builder.depth, builder.in_key = saved
    if made is None:
        name = escape(qualname if module == "builtins" else f"{module}.{qualname}")
        made = RemoteError(
            f"{name}: {escape(message)}" if message else name,
            type_name=name,
            args_repr=escape(shown),
        )
    for note in notes:
        BaseException.add_note(made, disclaim(escape(note[:MAX_MESSAGE])))
    made.__context__ = context
    made.__cause__ = cause
    made.__suppress_context__ = row[12]
    return made


def _linked(builder: Builder, cell: Any) -> Any:
    linked = builder.cell(cell)
    if linked is not None and not isinstance(linked, Exception):
        raise Bad("an exception is malformed")
    return linked


def find_class(classes: ClassTable, module: str, qualname: str) -> type | None:
    """Return the exception class to rebuild; None where it must become a `RemoteError`."""
    kind = SAFE.get((module, qualname)) or classes.lookup(module, qualname)
    if kind is None and (module, qualname) in SAFE_STDLIB:
        import importlib

        kind = getattr(importlib.import_module(module), qualname, None)
    return kind if kind is not None and may_rebuild(kind) else None


def may_rebuild(kind: type) -> bool:
    """Whether exceptions of a class may be made here: not control flow, ours, or with code."""
    if not issubclass(kind, Exception) or hasattr(kind, "__del__"):
        return False
    if issubclass(kind, (StopIteration, StopAsyncIteration, AgentsbxError, RemoteTraceback)):
        return False
    futures = sys.modules.get("concurrent.futures._base")
    return futures is None or not issubclass(kind, futures.CancelledError)


def _rebuild(builder: Builder, kind: type, row: list[Any]) -> Any:
    args, fields, state = (builder.cell(cell) for cell in row[6:9])
    if fields is None:
        fields = {}
    if state is None:
        state = {}
    if type(args) is not tuple or type(fields) is not dict or type(state) is not dict:
        raise Bad("an exception is malformed")
    base: Any = next(part for part in kind.__mro__ if part.__module__ == "builtins")
    if issubclass(kind, BaseExceptionGroup):
        parts = builder.cell(row[13])
        if type(parts) is not list or not parts or len(args) != 1:
            raise Bad("an exception group is malformed")
        if not all(isinstance(part, Exception) for part in parts):
            raise Bad("an exception group is malformed")
        builder.charge(len(parts))
        args = (args[0], parts)
    made = base.__new__(kind, *args)
    if not isinstance(made, kind):
        raise Bad("an exception is not of its class")
    if type(made) is not kind:  # OSError chooses by errno; what the job had is no subclass
        made = base.__new__(kind)
    if base not in (BaseExceptionGroup, ExceptionGroup):
        vars(BaseException)["args"].__set__(made, args)
    _set_fields(made, fields)
    for name in state:
        clean_name(name)
        if isinstance(getattr(base, name, None), _descriptors()) or name in _FIELD_NAMES:
            raise Bad("an attribute of an exception has a reserved name")
    set_state(made, state)
    return made


_FIELD_NAMES = frozenset({"args", "add_note", "with_traceback"})


def _descriptors() -> tuple[type, ...]:
    import types

    return (types.MemberDescriptorType, types.GetSetDescriptorType)


def _set_fields(made: Any, fields: dict[str, Any]) -> None:
    for base, known in _FIELDS.items():
        if not isinstance(made, base):
            continue
        if not fields.keys() <= known.keys():
            raise Bad("an exception has an unknown field")
        for name, value in fields.items():
            if type(value) not in known[name]:
                raise Bad("a field of an exception is of the wrong type")
        if issubclass(base, UnicodeError):
            # The C code of these classes trusts its own fields.
            if fields.keys() != known.keys():
                raise Bad("a UnicodeError lacks a field")
            if not 0 <= fields["start"] <= fields["end"] <= len(fields["object"]):
                raise Bad("a UnicodeError lies about its place")
        for name, value in fields.items():
            vars(base)[name].__set__(made, value)
        return
    if fields:
        raise Bad("an exception has an unknown field")


DECODERS: dict[int, Callable[[Builder, int, list[Any]], Any]] = {Tag.EXCEPTION: _build_exception}
