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
from typing import TYPE_CHECKING, Any, cast

import msgspec

from agentsbx import _core, _header, _noting, _setup
from agentsbx._codec import ClassTable, CodecLimits
from agentsbx._codec_decode import NOT_PLAIN
from agentsbx._codec_errors import escape
from agentsbx._interpreter_answers import Answers, Ended, exit_words
from agentsbx._interpreter_live import Home, Live, Program, command
from agentsbx._interpreter_request import Known, Request, request_of
from agentsbx._interpreter_talk import Talk, tidy
from agentsbx._job import NO_CACHE, SHORT_MS, is_gone, send_body
from agentsbx._output import forward, outputs
from agentsbx._python_result import PythonResult
from agentsbx._reply import Reply
from agentsbx._turns import Turns
from agentsbx._wire import FRAME_INLINE, Event, Frame
from agentsbx.errors import AgentsbxError, SandboxUnavailable
from agentsbx.result import Result

if TYPE_CHECKING:
    from agentsbx._boxes import Box
    from agentsbx._job import Cancel
    from agentsbx._runtime import CallSite

__all__ = ["Home", "Interpreter", "Program", "command"]

START_S = 20.0
ENDING_S = 1.0  # how long an interpreter whose channel closed may take to end
_CALL, _CELL = int(Frame.CALL), int(Frame.CELL)
_NUMBERED = (Frame.ERROR, Frame.RESULT)
_OWN_ERRORS = (*_NUMBERED, Frame.TOO_BIG)


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
        self._answers = Answers(home, self._limits)
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
            untold, self._untold = self._untold, self._untold if ended.words else ""
            return self._answers.cell(talk, ended, self._n_cells, background, untold)

    def call(
        self, site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any], *,
        timeout_s: float | None = None, cancel: Cancel | None = None,
    ) -> Result | tuple[Any]:  # fmt: skip
        """Call a function in there; raises what comes before the call, as `_runtime.invoke`.

        (value,) of a call that went the usual way: the rest of a `Result` is not made for it.
        """
        with self._turns.take(cancel) as turn:
            if not turn.has_come:
                return Result(error=_cancelled())
            live, background = self._ready(cancel)
            forward(self._output, background, b"")
            self._tell_loss()
            request = request_of(live, site, args, kwargs)
            got, start_ns = None, time.monotonic_ns()
            if not request.views and len(request.body) <= FRAME_INLINE:
                got = self._exchange(live, request.body)
                live.setup = request.setup
                value = live.plain_answer(got, self._limits)
                if value is not NOT_PLAIN:
                    live.remember(site, Known(site, request, args, kwargs))
                    if got[6] or got[7]:
                        forward(self._output, got[6], got[7])
                    return (value,)
            return self._finish(live, site, request, got, start_ns, args, kwargs, timeout_s, cancel)

    def quick(
        self, site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any], cancel: Cancel | None
    ) -> Result | tuple[Any] | None:
        """`call` in few steps, where nothing has changed since the last; None: nothing was sent."""
        live = self._live
        known = live.known.get(site) if live is not None else None
        if live is None or known is None or not known.fits(args, kwargs) or self._untold:
            return None
        turn = self._turns.try_take()
        if turn is None:
            return None
        try:
            if live is not self._live or not known.is_current(live):
                return None
            made = live.shipper.quick_call(known.request.snapshot, args, kwargs)
            if made is None or len(made.body) > FRAME_INLINE - 1024:
                return None
            number, slot = live.next_number(), known.request.slot
            body = _header.pack_kept_call(number, None, slot, None, made.body, [], site.kind)
            start_ns = time.monotonic_ns()
            got = self._exchange(live, body)
            if got[0] == Event.NOT_SENT:
                return None  # it is dead: the general way starts another
            value = live.plain_answer(got, self._limits)
            if value is not NOT_PLAIN:
                if got[6] or got[7]:
                    forward(self._output, got[6], got[7])
                return (value,)
            request = known.request._replace(stream=made, body=b"")
            return self._finish(live, site, request, got, start_ns, args, kwargs, None, cancel)
        finally:
            turn.leave()

    def _finish(
        self, live: Live, site: CallSite, request: Request, got: tuple[Any, ...] | None,
        start_ns: int, args: tuple[Any, ...], kwargs: dict[str, Any], timeout_s: float | None,
        cancel: Cancel | None,
    ) -> Result:  # fmt: skip
        """Serve a call to its end; `got`: it was sent, and this came first."""
        stream = request.stream
        reply = Reply(*outputs(self._output, self._home.policy.limits.output))
        talk = Talk(live, reply, self._timeout(timeout_s), self._limits, stream=stream)
        talk.start_at(start_ns)

        def classes() -> ClassTable:
            return site.classes(request.snapshot, args, kwargs, site.annotation)

        talk.notes = _noting.taker(str(site.name), reply, stream, classes)
        ended = self._converse(live, talk, _CALL, request.body, request.views, cancel, got)
        live.setup = request.setup
        if "function" in reply.lost:
            live.shipper.forget()
        return self._answers.call(site, talk, ended, classes)

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
            self._untold = _lost(exit_words(how) or "it sent what nobody had asked for")
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
            f"the session's Python did not start ({exit_words(ended.how) or 'no answer'})",
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

    def _exchange(self, live: Live, body: bytes) -> tuple[Any, ...]:
        """Send a small call and wait a moment."""
        try:
            return _core.exchange(live.channel, live.out, live.err, _CALL, body, SHORT_MS)
        except BaseException:  # Ctrl-C
            self._untold = _lost("a cell or call was interrupted")
            self._drop()
            raise

    def _converse(
        self, live: Live, talk: Talk, kind: int, body: bytes, views: list[memoryview],
        cancel: Cancel | None, got: tuple[Any, ...] | None = None,
    ) -> Ended:  # fmt: skip
        """Send and serve until the answer; what is no plain answer ends the interpreter.

        `got`: it was sent, and this came first.
        """
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
            elif not (talk.begin_with(kind, body) if got is None else talk.go_on_with(got)):
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
            return Ended("")
        return self._end(live, reply, cancel)

    def _end(self, live: Live, reply: Reply, cancel: Cancel | None) -> Ended:
        how = None
        is_cut = reply.is_malformed or reply.over or reply.raised or reply.timed_out
        if not is_cut and reply.kind in (0, Frame.ENDED):
            how = live.program.ended(ENDING_S)
        self._drop()
        if cancel is not None and cancel.cancelled:
            self._untold = _lost("a cell or call was cancelled")
            return Ended(self._untold, how)
        if reply.kind == Frame.ENDED:
            return Ended(_lost("this cell ended it"), how)
        if how is not None and how.cause not in ("exited", "signaled"):
            return Ended(f"the whole session ended ({how.cause}), with all that was in it", how)
        return Ended(_lost("it had to be killed" if how is None else exit_words(how)), how)


_all: weakref.WeakSet[Interpreter] = weakref.WeakSet()


def _abandon_all() -> None:
    for interpreter in list(_all):
        interpreter.abandon()


os.register_at_fork(after_in_child=_abandon_all)


def _lost(why: str) -> str:
    return (
        f"the session's interpreter ended ({why}): variables, imports and threads of earlier cells "
        "and calls are gone, the next one starts anew"
    )


def _cancelled() -> AgentsbxError:
    return AgentsbxError("cancelled while it waited for its turn: nothing was run")
