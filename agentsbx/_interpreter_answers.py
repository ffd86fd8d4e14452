"""From what a session's interpreter sent to what the user sees: values, errors, losses in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agentsbx import _engine, _explain_limits, _outcome
from agentsbx._codec import ClassTable, CodecLimits
from agentsbx._codec_decode import NOT_PLAIN, decode_plain
from agentsbx._explain import explain_exit, limit_table
from agentsbx._python_result import PythonResult
from agentsbx._wire import Frame
from agentsbx.errors import ResultError
from agentsbx.result import Exit, Result, Usage, Violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsbx._interpreter_live import Home
    from agentsbx._interpreter_talk import Talk
    from agentsbx._reply import Reply
    from agentsbx._runtime import CallSite

__all__ = ["Answers", "Ended", "exit_words"]

MAX_TEXT = 200_000  # characters of the text of a value


class Ended(NamedTuple):
    """How one exchange left the interpreter."""

    words: str  # why its state is lost; empty: it goes on
    how: Exit | None = None


class Answers:
    """Makes the results of one session."""

    def __init__(self, home: Home, limits: CodecLimits) -> None:
        self._home, self._limits = home, limits

    def cell(
        self, talk: Talk, ended: Ended, n: int, background: bytes, untold: str
    ) -> PythonResult:
        """Return the result of the cell `n`; `untold`: a loss before it that nobody was told of."""
        reply = talk.reply
        value: Any = None
        text, crosses, dropped, code = None, True, 0, None
        error: BaseException | None = None
        violations: list[Violation] = []
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
            error=error, cell=n, exit_code=code, state_lost=ended.words or untold,
            usage=Usage(wall_s=reply.wall_ns / 1e9), violations=violations,
            call_id=_engine.next_call_id(),
        )  # fmt: skip

    def call(
        self, site: CallSite, talk: Talk, ended: Ended, classes: Callable[[], ClassTable]
    ) -> Result:
        """Return the result of a call of `site`."""
        reply = talk.reply
        value: Any = None
        error: BaseException | None = None
        violations: list[Violation] = []
        if reply.kind == Frame.RESULT and not ended.words:
            try:
                value = _value(reply, classes, site.annotation, self._limits)
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
        self, talk: Talk, ended: Ended, classes: ClassTable
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


def _value(
    reply: Reply, classes: Callable[[], ClassTable], annotation: Any, limits: CodecLimits
) -> Any:
    plain = NOT_PLAIN if reply.buffers else decode_plain(reply.body, limits)
    if plain is not NOT_PLAIN:
        return plain
    return _outcome.value_of(reply, classes(), annotation, limits)


def _answer(reply: Reply, limits: CodecLimits) -> tuple[Any, str | None, bool, int]:
    """Value, its text, whether the value crossed, displays dropped: from hostile bytes."""
    got = _value(reply, ClassTable.build, None, limits)
    if type(got) is list and len(got) == 4:
        _, text, crosses, dropped = got
        is_text = text is None or (type(text) is str and len(text) <= MAX_TEXT)
        if is_text and type(crosses) is bool and type(dropped) is int and 0 <= dropped < 1 << 32:
            return got[0], text, crosses, dropped
    raise ResultError("the answer to a cell has another shape than any cell gives")


def exit_words(how: Exit | None) -> str:
    """Say how a process ended; empty where it has not."""
    if how is None:
        return ""
    if how.cause not in ("exited", "signaled"):
        return how.cause
    if how.signal:
        return f"signal {how.signal}"
    return f"exit code {how.code}" if how.code is not None else how.cause
