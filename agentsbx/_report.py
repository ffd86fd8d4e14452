"""Log records and warnings on their way from a job to the host's loggers and filters.

Runs in the job only, loaded by its first log record or warning. Everything is rendered here, cut
to what a frame holds and sent as one NOTE (`_notes` is the host's half, and trusts none of it).
"""

from __future__ import annotations

import sys

import msgspec

from agentsbx import _core, _hooks
from agentsbx._wire import FRAME_INLINE, Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["attach", "send", "set_levels", "text", "warning"]

CHANNEL = 3
LOG, WARNING, LINES, ARCS = 1, 2, 3, 4  # first item of a note: `_notes`
MAX_TEXT = 8192  # characters of a message or traceback
MAX_NAME = 256
MAX_EXTRA = 16
MAX_LEVEL = 1000
_NOTE = int(Frame.NOTE)
_SCALARS = frozenset({str, int, float, bool, type(None)})

_logging: Any = None
_real_call_handlers: Any = None
_own_attributes: frozenset[str] = frozenset()
_modules: dict[str, str] = {}  # file -> name of the module, as far as asked for


def send(*note: Any) -> None:
    """Send one note, which must fit a frame; where the channel is gone it is lost."""
    try:
        _core.send_frame(CHANNEL, _NOTE, msgspec.msgpack.encode(note))
    except OSError:
        return


def text(value: Any, limit: int) -> str:
    """Return a value as text that UTF-8 can hold, cut in the middle."""
    said = value if type(value) is str else str(value)
    if len(said) > limit:
        half = limit // 2 - 3
        said = f"{said[:half]} ... {said[-half:]}"
    return said if said.isascii() else said.encode("utf-8", "backslashreplace").decode()


def _number(value: Any, highest: int) -> int:
    return max(0, min(value, highest)) if isinstance(value, int) else 0


# -- logging --------------------------------------------------------------------------------------


def attach(logging: Any) -> None:
    """`logging` is loaded: what any logger of it lets through goes to the host too."""
    global _logging, _real_call_handlers, _own_attributes
    _logging = logging
    sample = logging.LogRecord("", 0, "", 0, "", (), None)
    _own_attributes = frozenset({*vars(sample), "message", "asctime", "taskName"})
    _real_call_handlers = logging.Logger.callHandlers
    logging.Logger.callHandlers = _call_handlers
    set_levels()


def set_levels() -> None:
    """Give the loggers the levels that they have in the host."""
    if _hooks.logs is None or _logging is None:
        return
    levels, disabled, has_root_handlers = _hooks.logs
    for name, level in levels:
        _logging.getLogger(name).setLevel(level)
    if disabled:
        _logging.disable(disabled)
    if has_root_handlers:
        # Else `logging.info()` and `basicConfig()` would set up here what is set up there.
        _logging.root.addHandler(_logging.NullHandler())


def _call_handlers(logger: Any, record: Any) -> None:
    """Stand for `Logger.callHandlers`: to the host, and to handlers that were added here."""
    handled = stopped = False
    at = logger
    while at is not None and not stopped:
        handled = handled or any(type(h) is not _logging.NullHandler for h in at.handlers)
        stopped = not at.propagate
        at = at.parent
    if _hooks.stays_here:
        _real_call_handlers(logger, record)
        return
    if not (handled and stopped):  # who stops a record here has said where it goes
        _send_record(record, handled=handled)
    if handled:
        _real_call_handlers(logger, record)


def _send_record(record: Any, *, handled: bool) -> None:
    try:
        message = record.getMessage()
    except Exception as error:
        message = f"{record.msg!r} (cannot be formatted: {type(error).__name__}: {error})"
    failure = record.exc_text or ""
    if record.exc_info and not failure:
        failure = _logging.Formatter().formatException(record.exc_info)
    extra = [(k, v) for k, v in vars(record).items() if k not in _own_attributes][:MAX_EXTRA]
    limit = MAX_TEXT
    while True:
        note = (
            LOG, text(record.name, MAX_NAME), _number(record.levelno, MAX_LEVEL),
            text(message, limit), text(record.pathname, MAX_NAME * 4),
            _number(record.lineno, 2**31 - 1), text(record.funcName or "", MAX_NAME),
            float(record.created), text(record.threadName or "", MAX_NAME),
            text(record.processName or "", MAX_NAME), text(failure, limit),
            text(record.stack_info or "", limit),
            {text(k, MAX_NAME): _scalar(v, limit // 8) for k, v in extra}, handled,
        )  # fmt: skip
        if len(msgspec.msgpack.encode(note)) <= FRAME_INLINE:
            break
        limit //= 2
    send(*note)


def _scalar(value: Any, limit: int) -> Any:
    """Return what of an extra attribute crosses: scalars as they are, else its text."""
    if type(value) is int and not -(2**63) <= value < 2**63:
        value = str(value) if value.bit_length() < 4096 else "a big number"
    if type(value) in _SCALARS and type(value) is not str:
        return value
    return _said(value, limit)


# -- warnings -------------------------------------------------------------------------------------


def warning(msg: Any) -> None:
    """Stand for `warnings._showwarnmsg_impl`: the host issues it again."""
    kind = msg.category
    filename = text(msg.filename, MAX_NAME * 4)
    worker = sys.modules["agentsbx._worker"].__file__
    if filename in (worker, "sys", "<sys>"):  # stacklevel= points to the caller of the function
        filename = ""
    send(
        WARNING, text(kind.__module__, MAX_NAME), text(kind.__qualname__, MAX_NAME),
        _said(msg.message, MAX_TEXT // 2), filename, _number(msg.lineno, 2**31 - 1),
        _module_of(filename),
    )  # fmt: skip


def _said(value: Any, limit: int) -> str:
    """Return a value as text, whatever its class does when it is asked for one."""
    try:
        return text(value, limit)
    except Exception as error:
        return f"<str failed: {type(error).__name__}>"


def _module_of(filename: str) -> str:
    """Return the name of the module of a file, which filters may ask for."""
    known = _modules.get(filename)
    if known is None:
        known = ""
        for name, module in list(sys.modules.items()):
            if getattr(module, "__dict__", {}).get("__file__") == filename:
                known = text(name, MAX_NAME)
                break
        _modules[filename] = known
    return known
