"""The Python of a session, from the host's side: cells and calls, one after the other.

Started by its first use and kept until it ends; then the next use starts another, and whoever lost
variables by that is told so. Thread-safe: one cell or call at a time, the others wait. What the
interpreter sends is as hostile as any job's and goes through the same gates (`_job`, `_codec`).
"""

from __future__ import annotations

import errno
import os
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from agentsbx import _engine, _explain_limits, _header, _noting, _outcome, _setup
from agentsbx._codec import ClassTable, CodecLimits
from agentsbx._codec_errors import escape
from agentsbx._explain import explain_exit, limit_table
from agentsbx._interpreter_live import Home, Live, Program, command
from agentsbx._interpreter_talk import Talk, tidy
from agentsbx._job import NO_CACHE, Reply, is_gone, send_body
from agentsbx._output import outputs
from agentsbx._prepare import prepare, views_of
from agentsbx._python_result import PythonResult
from agentsbx._ship_kept import Shipper
from agentsbx._turns import Turns
from agentsbx._wire import FRAME_INLINE, Frame
from agentsbx.errors import AgentsbxError, ResultError, SandboxUnavailable
from agentsbx.result import Exit, Result, Usage, Violation

if TYPE_CHECKING:
    from agentsbx._boxes import Box
    from agentsbx._job import Cancel
    from agentsbx._runtime import CallSite

__all__ = ["Home", "Interpreter", "Program", "command"]

START_S = 20.0
ENDING_S = 1.0  # how long an interpreter whose channel closed may take to end
MAX_TEXT = 200_000  # characters of the text of a value
_CALL, _CELL = int(Frame.CALL), int(Frame.CELL)
_NUMBERED = (Frame.ERROR, Frame.RESULT)
_OWN_ERRORS = (*_NUMBERED, Frame.TOO_BIG)


class _Ended(NamedTuple):
    """How one exchange left the interpreter."""

    words: str  # why its state is lost; empty: it goes on
    how: Exit | None = None


class Interpreter:
    """The one interpreter of a session, whichever process that is at the moment."""

    def __init__(self, home: Home, *, output: str = "forward") -> None:
        self._home = home
        self._output = output  # of calls; cells are captured
        self._turns = Turns()
        self._live: Live | None = None
        self._is_closed = False
        self._untold = ""  # a loss that nobody was told of
        self._n_cells = 0
        self._limits = CodecLimits.of(home.policy.limits)
        self._raw_policy = msgspec.msgpack.encode(home.policy)
        _all.add(self)

    # -- verbs ------------------------------------------------------------------------------------

    def python(
        self, code: str, *, timeout_s: float | None = None, cancel: Cancel | None = None
    ) -> PythonResult:
        """Run one cell. Raises only what comes before the code: `SandboxUnavailable`."""
        with self._turns.take(cancel) as turn:
            if not turn.has_come:
                return PythonResult(error=_cancelled())
            live, background = self._ready(cancel)
            self._n_cells += 1
            body = _header.pack_cell(live.next_number(), None, code, f"<cell {self._n_cells}>")
            reply = Reply(*outputs("capture", self._home.policy.limits.output))
            talk = Talk(live, reply, self._timeout(timeout_s), self._limits)
            ended = self._converse(live, talk, _CELL, body, [], cancel)
            return self._cell_result(talk, ended, background)

    def call(
        self, site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any], *,
        timeout_s: float | None = None, cancel: Cancel | None = None,
    ) -> Result:  # fmt: skip
        """Call a function in there; raises what comes before the call, as `_runtime.invoke`."""
        with self._turns.take(cancel) as turn:
            if not turn.has_come:
                return Result(error=_cancelled())
            live, _ = self._ready(cancel)
            self._tell_loss()
            with site.lock:
                p = prepare(site)
                snapshot, setup = p.snapshot, p.setup
            setup = _kept_setup(setup)
            slot, given, own, stream = _shipped(live.shipper, snapshot, args, kwargs)
            views = own + views_of(stream.buffers)
            told = None if setup == live.setup else setup
            lengths = [v.nbytes for v in views]
            number = live.next_number()
            body = _header.pack_kept_call(
                number, told, slot, given, stream.body, lengths, site.kind
            )
            reply = Reply(*outputs(self._output, self._home.policy.limits.output))
            talk = Talk(live, reply, self._timeout(timeout_s), self._limits, stream=stream)

            def classes() -> ClassTable:
                return site.classes(snapshot, args, kwargs, site.annotation)

            talk.notes = _noting.taker(str(site.name), reply, stream, classes)
            ended = self._converse(live, talk, _CALL, body, views, cancel)
            live.setup = setup
            if "function" in reply.lost:
                live.shipper.forget()
            return self._call_result(site, talk, ended, classes)

    def close(self) -> None:
        """End it; no use starts another."""
        self._is_closed = True
        live = self._live
        if live is not None:
            live.kill()
        with self._turns.take(None):
            self._drop()

    def abandon(self) -> None:
        """In a forked child: its locks may be held by absent threads, its process is the parent's.

        The channel is closed here: two that speak on it would take each other's answers.
        """
        self._turns = Turns()
        live, self._live = self._live, None
        if live is not None:
            live.abandon()
            self._untold = _lost("it belongs to the process that this one was forked from")

    # -- the running one --------------------------------------------------------------------------

    def _ready(self, cancel: Cancel | None) -> tuple[Live, bytes]:
        """Return the running interpreter, started where there is none, and what it has printed."""
        live = self._live
        if live is not None:
            background = tidy(live)
            if background is not None:
                return live, background
            how = live.program.ended(0.1)
            self._untold = _lost(_exit_words(how) or "it sent what nobody had asked for")
            self._drop()
        if self._is_closed:
            raise SandboxUnavailable("the session is closed", missing=["session"])
        return self._start(cancel), b""

    def _start(self, cancel: Cancel | None) -> Live:
        """Start one and wait until it serves: what that takes is no cell's time."""
        live = self._live = Live(self._home)
        live.setup = self._plain_setup()
        reply = Reply(*outputs("capture", self._home.policy.limits.output))
        talk = Talk(live, reply, START_S, self._limits)
        body = _header.pack_cell(live.next_number(), live.setup, "", "<start>")
        ended = self._converse(live, talk, _CELL, body, [], cancel)
        if not ended.words:
            return live
        said = bytes(reply.err.kept[-1000:]).decode("utf-8", "backslashreplace").strip()
        raise SandboxUnavailable(
            f"the session's Python did not start ({_exit_words(ended.how) or 'no answer'})",
            missing=["python"], notes=[escape(said)] if said else [],
            hint="is memory= enough for an interpreter? its last words are below",
        )  # fmt: skip

    def _drop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.close()

    def _tell_loss(self) -> None:
        words, self._untold = self._untold, ""
        if words:
            warnings.warn(f"agentsbx: {words}", RuntimeWarning, stacklevel=4)

    def _timeout(self, timeout_s: float | None) -> float:
        return self._home.policy.limits.timeout if timeout_s is None else timeout_s

    def _plain_setup(self) -> _setup.Setup:
        """What an interpreter looks like that only cells have used."""
        own = self._raw_policy, self._limits.body_bytes, self._limits.buffer_bytes
        return _setup.Setup(None, [""], None, 0, *own, None, False)  # noqa: FBT003

    def _converse(
        self, live: Live, talk: Talk, kind: int, body: bytes, views: list[memoryview],
        cancel: Cancel | None,
    ) -> _Ended:  # fmt: skip
        """Send and serve until the answer; what is no plain answer ends the interpreter."""
        reply = talk.reply
        arena = None
        if cancel is not None:
            cancel.arm(live.kill)
        try:
            if views or len(body) > FRAME_INLINE:
                try:
                    arena = send_body(cast("Box", live), kind, body, views, NO_CACHE)
                except OSError as error:
                    if not is_gone(error) and error.errno != errno.EAGAIN:
                        raise
                    live.kill()  # it is dead, or does not read
                talk.run()
            elif not talk.begin_with(kind, body):
                talk.run()
        except BaseException:
            self._untold = _lost("a cell or call was interrupted")
            self._drop()
            raise
        finally:
            if cancel is not None:
                cancel.arm(None)
            if arena is not None:
                arena.close()
            reply.out.end()
            reply.err.end()
        reply.wall_ns = time.monotonic_ns() - talk.start_ns
        if reply.kind in _NUMBERED and not reply.is_malformed and not live.is_answer(reply.lost):
            reply.is_malformed = "it answers another request"
        if reply.kind in _OWN_ERRORS and not (
            reply.is_malformed or reply.raised or reply.timed_out
            or (reply.over and reply.kind != Frame.TOO_BIG)
        ):  # fmt: skip
            return _Ended("")
        return self._end(live, reply, cancel)

    def _end(self, live: Live, reply: Reply, cancel: Cancel | None) -> _Ended:
        how = None
        is_cut = reply.is_malformed or reply.over or reply.raised or reply.timed_out
        if not is_cut and reply.kind in (0, Frame.ENDED):
            how = live.program.ended(ENDING_S)
        self._drop()
        if cancel is not None and cancel.cancelled:
            self._untold = _lost("a cell or call was cancelled")
            return _Ended(self._untold, how)
        if reply.kind == Frame.ENDED:
            return _Ended(_lost("this cell ended it"), how)
        return _Ended(_lost("it had to be killed" if how is None else _exit_words(how)), how)

    # -- results ----------------------------------------------------------------------------------

    def _cell_result(self, talk: Talk, ended: _Ended, background: bytes) -> PythonResult:
        reply = talk.reply
        value: Any = None
        text, crosses, dropped, code = None, True, 0, None
        error: BaseException | None = None
        violations: list[Violation] = []
        lost, self._untold = ended.words or self._untold, self._untold if ended.words else ""
        if reply.kind == Frame.RESULT and not ended.words:
            try:
                value, text, crosses, dropped = _answer(reply, self._limits)
            except ResultError as wrong:
                error = wrong.with_traceback(None)
        elif reply.kind == Frame.ENDED:
            code = int.from_bytes(reply.body[:4], "little")
        else:
            error, violations = self._error(talk, ended, ClassTable.build())
        return PythonResult(
            value=value if crosses else text, text=text, is_text=not crosses,
            displays=tuple(talk.displays), displays_dropped=talk.displays_dropped + dropped,
            stdout=bytes(reply.out.kept), stderr=bytes(reply.err.kept), background=background,
            error=error, cell=self._n_cells, exit_code=code, state_lost=lost,
            usage=Usage(wall_s=reply.wall_ns / 1e9), violations=violations,
            call_id=_engine.next_call_id(),
        )  # fmt: skip

    def _call_result(self, site: CallSite, talk: Talk, ended: _Ended, classes: Any) -> Result:
        reply = talk.reply
        value: Any = None
        error: BaseException | None = None
        violations: list[Violation] = []
        if reply.kind == Frame.RESULT and not ended.words:
            try:
                value = _outcome.value_of(reply, classes(), site.annotation, self._limits)
            except Exception as wrong:
                error = wrong.with_traceback(None)
        else:
            error, violations = self._error(talk, ended, classes())
        return Result(
            value=value, error=error, stdout=bytes(reply.out.kept), stderr=bytes(reply.err.kept),
            usage=Usage(wall_s=reply.wall_ns / 1e9), enforced=self._home.enforced,
            violations=violations, call_id=_engine.next_call_id(), notes_dropped=reply.n_dropped,
        )  # fmt: skip

    def _error(
        self, talk: Talk, ended: _Ended, classes: ClassTable
    ) -> tuple[BaseException, list[Violation]]:
        """What to raise for an exchange that gave no value; says so where state was lost by it."""
        reply, policy = talk.reply, self._home.policy
        table = limit_table(policy.limits, self._home.enforced)
        error: BaseException
        violations: list[Violation] = []
        if reply.timed_out:
            error = _explain_limits.explain_limit("timeout", talk.table(table))[0]
        elif not reply.kind and not reply.is_malformed and not reply.over:
            error = explain_exit(ended.how or Exit(), table)
        else:
            reply.over = self._limits.keyword(reply.over, policy.limits)
            try:
                error, violations = _outcome.error_of(
                    reply, None, policy, classes, table, self._home.cwd, self._limits
                )
            except ResultError as wrong:  # an exception that is none
                error = wrong.with_traceback(None)
        if ended.words:
            error.add_note(f"agentsbx: {ended.words}")
        return error, violations


_all: weakref.WeakSet[Interpreter] = weakref.WeakSet()


def _abandon_all() -> None:
    for interpreter in list(_all):
        interpreter.abandon()


os.register_at_fork(after_in_child=_abandon_all)


def _kept_setup(setup: _setup.Setup | None) -> Any:
    """Return the set-up of a call without what an interpreter keeps to itself.

    Its environment is its own since its start; its root logger has the handlers that it made.
    """
    assert setup is not None
    told = setup.mirrored
    if told is not None:
        logs = None if told[0] is None else (*told[0][:2], False)
        told = logs, None, told[2]
    return setup._replace(env=None, mirrored=told, watches=False, blas_threads=0)


def _shipped(
    shipper: Shipper, snapshot: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[int, tuple[bytes, int, bool] | None, list[memoryview], Any]:
    """Slot of the function; pickle and buffers, where it is new there; the call's stream."""
    slot = shipper.slot_of(snapshot)
    if slot is not None:
        return slot, None, [], shipper.begin_call(snapshot, args, kwargs)
    mark = shipper.mark()
    try:
        slot, function = shipper.give(snapshot)
        own = views_of(function.buffers)
        stream = shipper.begin_call(snapshot, args, kwargs)
    except BaseException:
        shipper.restore(mark)
        raise
    return slot, (function.blob, len(own), function.is_anew), own, stream


def _answer(reply: Reply, limits: CodecLimits) -> tuple[Any, str | None, bool, int]:
    """Value, its text, whether the value crossed, displays dropped: from hostile bytes."""
    got = _outcome.value_of(reply, ClassTable.build(), None, limits)
    if type(got) is list and len(got) == 4:
        _, text, crosses, dropped = got
        is_text = text is None or (type(text) is str and len(text) <= MAX_TEXT)
        if is_text and type(crosses) is bool and type(dropped) is int and 0 <= dropped < 1 << 32:
            return got[0], text, crosses, dropped
    raise ResultError("the answer to a cell has another shape than any cell gives")


def _lost(why: str) -> str:
    return (
        f"the session's interpreter ended ({why}): variables, imports and threads of earlier cells "
        "and calls are gone, the next one starts anew"
    )


def _exit_words(how: Exit | None) -> str:
    if how is None:
        return ""
    if how.signal:
        return f"signal {how.signal}"
    return f"exit code {how.code}" if how.code is not None else how.cause


def _cancelled() -> AgentsbxError:
    return AgentsbxError("cancelled while it waited for its turn: nothing was run")
