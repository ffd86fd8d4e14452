"""Notes of a job, on the host: log records, warnings and measured lines (semantics 8).

Loaded by the first note of a process. The bytes are hostile: they are of a closed shape, bounded
in count and size for each call, control characters in them are escaped, nothing in them is used as
a format, and no name in them makes a logger, an attribute of `LogRecord`, or a file to be read.
"""

from __future__ import annotations

import builtins
import contextlib
import logging
import os
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from agentsbx._codec import ClassTable
from agentsbx._codec_errors import escape
from agentsbx._codec_sources import Given
from agentsbx._mirror import measuring
from agentsbx._ship_modules import is_library_module, loaded_project_modules

__all__ = ["MAX_BYTES", "MAX_NOTES", "Malformed", "Notes"]

MAX_NOTES = 10_000  # log records and warnings of one call
MAX_BYTES = 8 * 2**20  # that they take as sent
MAX_LINE_NOTES = 500  # notes of measured lines of one call, each of at most 32 KiB
MAX_LINE = 1_000_000  # highest line number of a measured file
_OWN = "agentsbx"
_MAX_REGISTRY = 10_000

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_Line = Annotated[int, msgspec.Meta(ge=1, le=MAX_LINE)]
_Edge = Annotated[int, msgspec.Meta(ge=-MAX_LINE, le=MAX_LINE)]
_Extra = dict[Annotated[str, msgspec.Meta(max_length=300)], bool | int | float | str | None]


class _Shape(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """What one kind of note holds."""


class _Log(_Shape, tag=1):
    name: str
    level: Annotated[int, msgspec.Meta(ge=0, le=1000)]
    message: str
    path: str
    line: _Number
    func: str
    created: float
    thread: str
    process: str
    failure: str
    stack: str
    extra: Annotated[_Extra, msgspec.Meta(max_length=16)]
    handled: bool


class _Warning(_Shape, tag=2):
    module: str
    qualname: str
    text: str
    filename: str
    line: _Number
    source_module: str


class _Lines(_Shape, tag=3):
    filename: str
    lines: list[_Line]


class _Arcs(_Shape, tag=4):
    filename: str
    arcs: list[tuple[_Edge, _Edge]]


_DECODER = msgspec.msgpack.Decoder(_Log | _Warning | _Lines | _Arcs)


class Malformed(Exception):
    """Bytes that no job of ours sends."""


class Notes:
    """The notes of one call.

    `name` is that of the function; `functions` gives those that the job has, `files` those whose
    source it was given, `classes` the classes that the call knows. `take` raises `Malformed`, and
    whatever the host's own handlers and filters raise.
    """

    def __init__(
        self,
        name: str,
        functions: Callable[[], list[types.FunctionType]],
        files: Callable[[], set[str]],
        classes: Callable[[], ClassTable],
    ) -> None:
        self.dropped = 0
        self._name = name
        self._functions = functions
        self._files = files
        self._classes = classes
        self._n = self._n_lines = self._n_bytes = 0

    def take(self, body: bytes) -> None:
        """Handle one note, or count it as dropped."""
        try:
            note = _DECODER.decode(body)
        except (msgspec.MsgspecError, ValueError) as error:
            raise Malformed(f"a malformed note: {str(error)[:200]}") from None
        if isinstance(note, (_Lines, _Arcs)):
            self._n_lines += 1
            if self._n_lines <= MAX_LINE_NOTES:
                self._measured(note)
            return
        self._n += 1
        self._n_bytes += len(body)
        if self._n > MAX_NOTES or self._n_bytes > MAX_BYTES:
            self.dropped += 1
        elif isinstance(note, _Log):
            self._log(note)
        else:
            self._warn(note)

    # -- logging ------------------------------------------------------------------------------

    def _log(self, note: _Log) -> None:
        """Have the logger of that name handle the record, as if it had been logged here."""
        name = _foreign(_line(note.name))
        logger = _nearest_logger(name)
        if not logger.isEnabledFor(note.level):
            return
        if note.handled and not logger.hasHandlers():
            return  # handlers in the job had it: no last resort
        stack = _block(note.stack) or None
        record = logger.makeRecord(
            name, note.level, _line(note.path), note.line, _line(note.message), (), None,
            _line(note.func) or None, None, stack,
        )  # fmt: skip
        now = time.time()
        if now - 86400 < note.created <= now:
            record.created = note.created
            record.msecs = (note.created % 1) * 1000
        if note.thread not in ("", "MainThread"):
            record.threadName = _line(note.thread)
        if note.process not in ("", "MainProcess"):
            record.processName = _line(note.process)
        record.exc_text = _block(note.failure) or None
        record.sandbox = self._name
        for key, value in note.extra.items():
            if key.isidentifier() and key[0] != "_" and not _is_taken(record, key):
                setattr(record, key, _line(value) if isinstance(value, str) else value)
        logger.handle(record)

    # -- warnings -----------------------------------------------------------------------------

    def _warn(self, note: _Warning) -> None:
        """Issue the warning here."""
        text = _line(note.text)
        warning = self._instance(note.module, note.qualname, text)
        filename, line, module = self._place(note)
        try:
            warnings.warn_explicit(
                warning, type(warning), filename, line, module, _registry(filename)
            )
        except Warning as error:
            if error is warning:
                error.add_note(f"warned in the sandbox, at {filename}:{line}")
            if not isinstance(error, ResourceWarning):
                raise
            _Finalized(error)  # finalizers give these, where nothing can be raised

    def _instance(self, module: str, qualname: str, text: str) -> Warning:
        """Return the warning; of its own class where that is known, made without `__init__`."""
        kind = _known_category(module, qualname, self._classes)
        if kind is not None:
            with contextlib.suppress(Exception):  # of the class's own code: told by name then
                made = kind.__new__(kind, text)
                made.args = (text,)
                if type(made) is kind and str(made) is not None:
                    return made
        return UserWarning(f"{_line(module)}.{_line(qualname)}: {text}")

    def _place(self, note: _Warning) -> tuple[str, int, str]:
        """File, line and module to show.

        Whoever shows a warning shows its source line too: no line is named but one that the job
        has anyway.
        """
        if not note.filename:
            return _caller(self._functions)
        filename = _line(note.filename)
        module = _line(note.source_module) or "<unknown>"
        if not Given(self._functions, self._files).has(filename, note.line):
            filename = f"{filename} (in the sandbox)"
        return filename, note.line, module

    # -- coverage -----------------------------------------------------------------------------

    def _measured(self, note: _Lines | _Arcs) -> None:
        """Add measured lines to the data of the `coverage` that measures here."""
        measured = measuring()
        if measured is None or measured.get_option("run:branch") != isinstance(note, _Arcs):
            return
        known = self._project_files()
        if note.filename not in known:
            return
        filename = _measured_name(measured, note.filename, known[note.filename])
        if filename is None:
            return
        data = measured._data
        if isinstance(note, _Arcs):
            data.add_arcs({filename: note.arcs})
        else:
            data.add_lines({filename: note.lines})

    def _project_files(self) -> dict[str, str | None]:
        """Return the files whose code the job may have run, with the names of their modules."""
        known: dict[str, str | None] = dict.fromkeys(self._files())
        known |= {fn.__code__.co_filename: fn.__module__ for fn in self._functions()}
        for name in (*loaded_project_modules(), "__main__"):
            file = getattr(sys.modules.get(name), "__file__", None)
            if isinstance(file, str):
                known[file] = name
        return known


# -- text -----------------------------------------------------------------------------------------


def _line(text: str) -> str:
    r"""Return text without control characters: none can fake a line of a log.

    >>> _line("a\nb\x1b[2J")
    'a\\nb\\x1b[2J'
    """
    shown = escape(text)
    return shown.replace("\n", "\\n") if "\n" in shown else shown


def _block(text: str) -> str:
    """Return text of several lines, each indented: none of them starts like a line of a log."""
    return "\n".join("    " + line for line in escape(text).split("\n")) if text else ""


def _foreign(name: str) -> str:
    """Return the name of a logger; ours is not a job's to speak with."""
    return f"job:{name}" if name.partition(".")[0] == _OWN else name


# -- loggers --------------------------------------------------------------------------------------

_RESERVED = frozenset(
    {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), *dir(logging.LogRecord)}
    | {"message", "asctime", "taskName", "sandbox"}
)


def _is_taken(record: logging.LogRecord, key: str) -> bool:
    """Whether an attribute is the record's own, or one that the host has set."""
    return key in _RESERVED or hasattr(record, key)


def _nearest_logger(name: str) -> logging.Logger:
    """Return the logger of that name, or the nearest above: they handle alike, and none is made."""
    known = logging.root.manager.loggerDict
    while name:
        found = known.get(name)
        if isinstance(found, logging.Logger):
            return found
        name = name.rpartition(".")[0]
    return logging.root


# -- warnings -------------------------------------------------------------------------------------


class _Finalized:
    """Gives an error to `sys.unraisablehook`, as a finalizer that raises it does."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


_registries: dict[str, dict[Any, Any]] = {}  # what was shown once, by file


def _registry(filename: str) -> dict[Any, Any]:
    """Return where the `warnings` module notes what it has shown; bounded."""
    if len(_registries) > _MAX_REGISTRY:
        _registries.clear()
    registry = _registries.setdefault(filename, {})
    if len(registry) > _MAX_REGISTRY:
        registry.clear()
    return registry


def _known_category(
    module: str, qualname: str, classes: Callable[[], ClassTable]
) -> type[Warning] | None:
    """Return the class of that name: a builtin, one that the call knows, or a loaded library's."""
    kind: Any
    if module == "builtins":
        kind = getattr(builtins, qualname, None)
    elif module.partition(".")[0] == _OWN:
        return None
    else:
        kind = classes().lookup(module, qualname)
        home = sys.modules.get(module)
        if kind is None and isinstance(home, types.ModuleType) and is_library_module(home):
            kind = vars(home).get(qualname)
    return kind if isinstance(kind, type) and issubclass(kind, Warning) else None


def _caller(functions: Callable[[], list[types.FunctionType]]) -> tuple[str, int, str]:
    """Return who called the function: nearest frame here that is not ours, else the function."""
    own = os.path.dirname(__file__) + os.sep
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(own):
        frame = frame.f_back
    if frame is not None and frame.f_code.co_name != "_bootstrap_inner":
        name = frame.f_globals.get("__name__", "<unknown>")
        return frame.f_code.co_filename, frame.f_lineno, name
    code = next(iter(functions())).__code__
    return code.co_filename, code.co_firstlineno, "<unknown>"


# -- coverage -------------------------------------------------------------------------------------


def _measured_name(measured: Any, filename: str, module: str | None) -> str | None:
    """Return the name under which `coverage` keeps a file; None where it does not measure it."""
    frame = types.SimpleNamespace(f_globals={"__name__": module} if module else {})
    found = measured._inorout.should_trace(filename, frame)
    if not found.trace:
        return None
    name: str = measured._file_mapper(found.source_filename)
    return name
