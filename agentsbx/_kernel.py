"""The interpreter of a session: cells and calls, one after the other, in one Python that goes on.

Runs in a session only, started by the host's first `python` or `call` as a program of the session's
pid 1, with a channel of its own as descriptor 3. All that it sends is untrusted to the host. It
differs from `_worker`, whose parts it uses, in that it is asked again and again, and in that what a
cell or call leaves (globals, modules, threads, processes, files) is still there for the next one.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import sys

from agentsbx import _core, _header, _hooks, _injob, _kernel_display, _transfer, _worker
from agentsbx._codec_encode import Encoder, encode, encode_table, is_plain_data
from agentsbx._codec_wire import Refused, Tag
from agentsbx._kernel_cell import Cells, run_coroutine, shown
from agentsbx._receive_kept import KeptReceiver
from agentsbx._wire import Event, Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["main"]

CHANNEL = _worker.CHANNEL
_IN_CELL = "put the answer into the code"
_IN_CALL = "pass the answer as an argument, or call the function here, unsandboxed"
_OF_CLASSES = frozenset({Tag.CLASS, Tag.OBJECT, Tag.SUBCLASS, Tag.ENUM})
_UNLOADED = "function"  # in an ERROR: what was shipped could not be rebuilt


class _Kernel:
    def __init__(self) -> None:
        self.receiver = KeptReceiver(_worker._request_module)
        self.cells = Cells()

    def serve(self) -> None:
        """Answer until the host is gone."""
        while True:
            self.receiver.make_ready()
            try:
                event, kind, body, memfd, n_body, n_memfd = _core.wait_frame(CHANNEL, -1, -1, -1)
            except OSError:
                return  # a cell closed the channel
            except BaseException as error:  # of a signal handler that a cell has set
                sys.excepthook(type(error), error, error.__traceback__)
                continue
            if event != Event.FRAME or kind not in (Frame.CELL, Frame.CALL):
                return
            whole: list[memoryview] = []
            view: Any = body
            if memfd >= 0:
                whole = [_transfer.map_private(memfd, n_memfd)]
                os.close(memfd)
                view = whole[0][:n_body]
            if kind == Frame.CELL:
                self._cell(*_header.unpack(view))
            else:
                self._call(_header.unpack(view), whole, len(view))

    def _cell(self, number: int, setup: Any, code: str, name: str) -> None:
        _worker.marks = (str(number),)
        if setup is not None:
            _worker._apply(setup)
        _hooks.stays_here, _hooks.advice = True, _IN_CELL
        _kernel_display.begin(_injob.limits().body_bytes)
        sys.modules["__main__"] = self.cells.module
        try:
            value = self.cells.run(code, name)
            _kernel_display.figures()
        except SystemExit as stop:
            _leave_copy(stop)
            _end(stop)
        except BaseException as error:
            _leave_copy(error)
            with contextlib.suppress(Exception):
                _kernel_display.figures()
            _worker._fail(self.cells.without_ours(error, name))
        else:
            _leave_copy(None)
            _worker._flush()
            _answer(value)

    def _call(self, head: tuple[Any, ...], whole: list[memoryview], n_body: int) -> None:
        number, setup, slot, function, blob, lengths, kind = head
        _worker.marks = (str(number),)
        buffers = _worker._buffers(whole, n_body, lengths) if lengths else []
        _hooks.stays_here, _hooks.advice = False, _IN_CALL
        _kernel_display.begin(0)  # a call gives its value and nothing else
        try:
            self.receiver.enter_main()
            if setup is not None:
                _worker._apply(setup)
            if function is not None:
                code, n_own, anew = function
                self.receiver.load_function(slot, code, buffers[:n_own], anew=anew)
                buffers = buffers[n_own:]
        except BaseException as error:
            _worker.marks += (_UNLOADED,)
            _worker._fail(error)
            return
        try:
            fn, args, kwargs = self.receiver.begin(slot, blob, buffers)
            value = fn(*args, **kwargs)
            if kind == 1:
                value = run_coroutine(value)
        except BaseException as error:
            _leave_copy(error)
            self.receiver.end()
            _worker._fail(error)
        else:
            _leave_copy(None)
            self.receiver.end()
            _worker._answer(value)


def _answer(value: Any) -> None:
    """Send what a cell gave: [value or None, its text, whether the value crosses, dropped]."""
    text = None if value is None else shown(value)
    dropped = _kernel_display.dropped()
    try:
        _worker._send(Frame.RESULT, *_encode([value, text, True, dropped]))
    except Exception:  # it cannot cross, or is too big for a file
        told = encode([None, text, False, dropped], limits=_injob.limits())
        _worker._send(Frame.RESULT, *told)


def _encode(answer: list[Any]) -> tuple[bytes, list[memoryview]]:
    """As `encode`; refuses what needs a class: of a cell's classes the host knows none."""

    def fill(encoder: Encoder) -> Any:
        root = encoder.cell(answer)
        if not _OF_CLASSES.isdisjoint([row[0] for row in encoder.rows]):
            raise Refused("is an object of a class")
        return root

    limits = _injob.limits()
    return encode(answer, limits=limits) if is_plain_data(answer) else encode_table(fill, limits)


def _end(stop: SystemExit) -> NoReturn:
    """`exit()` in a cell: as an interpreter ends, and the host is told."""
    code = stop.code
    if not isinstance(code, int):
        if code is not None:
            sys.stderr.write(f"{code}\n")
        code = 0 if code is None else 1
    _worker._flush()
    _core.send_frame(CHANNEL, Frame.ENDED, (code & 0xFF).to_bytes(4, "little"))
    os._exit(code & 0xFF)


_own_pid = 0


def _leave_copy(error: BaseException | None) -> None:
    """In a fork of the interpreter that came back from user code: it has nobody to answer."""
    if os.getpid() == _own_pid:
        return
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    _worker._flush()
    os._exit(code & 0xFF)


def _after_fork_in_child() -> None:
    """A copy must neither answer for its parent nor keep the channel open when that is gone."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, CHANNEL, inheritable=False)
    os.close(null)
    _kernel_display.forget()


def main(*, has_own: bool) -> None:
    """Serve for ever; never returns. `has_own`: it is a tool's that has libraries of its own."""
    global _own_pid
    if has_own:
        from agentsbx import _zygote

        _zygote.leave_behind(sys.path[:])
    os.set_inheritable(CHANNEL, False)  # noqa: FBT003
    sys.argv[:] = [""]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(  # type: ignore[union-attr]
            encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # what `site` gives
    _hooks.install()
    _kernel_display.install()
    _own_pid = os.getpid()
    os.register_at_fork(after_in_child=_after_fork_in_child)
    code = 0
    try:
        _Kernel().serve()
    except BaseException:
        code = 125
    finally:
        os._exit(code)
