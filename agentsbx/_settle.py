"""The `Result` of a call that has ended: value or error, limits, violations, what it left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentsbx import _engine, _exits, _notices, _outcome
from agentsbx._explain_limits import limit_table
from agentsbx._protect import planted_error
from agentsbx._wire import Frame
from agentsbx.result import Exit, Result, Usage

if TYPE_CHECKING:
    from agentsbx._boxes import Pool
    from agentsbx._protect import Watch
    from agentsbx._reply import Reply
    from agentsbx._runtime import CallSite
    from agentsbx._wire import ExitRecord

__all__ = ["settle"]


def settle(
    site: CallSite,
    stream: Any,
    pool: Pool,
    reply: Reply,
    record: ExitRecord | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    watch: Watch | None,
    detail: bool,
    annotation: Any,
) -> Result:
    """Make the `Result` of a call that has ended."""
    value: Any = None
    error: BaseException | None = None
    classes = site.classes(stream.snapshot, args, kwargs, annotation)
    planted = watch.planted() if watch is not None else []
    has_answer = reply.kind == Frame.RESULT and not reply.is_malformed and not reply.over
    if has_answer:
        try:
            value = _outcome.value_of(reply, classes, annotation, site.codec_limits)
            is_plain = not (planted or detail or reply.lost or reply.denials)
            if is_plain and reply.left is None:
                return Result(value=value)
        except Exception as e:
            error = e.with_traceback(None)  # our frames say nothing to the user
    reply.over = site.codec_limits.keyword(reply.over, site.policy.limits)
    usage = _exits.usage_of(record, reply) if record is not None else Usage()
    table = limit_table(site.policy.limits, pool.job.enforced, usage)
    violations = _outcome.denied_syscalls(record) if record is not None else []
    if not has_answer:
        from agentsbx._codec_sources import Given

        error, more = _outcome.error_of(
            reply, record, site.policy, classes, table, pool.job.cwd, site.codec_limits,
            Given(stream.functions, stream.files).has,
        )  # fmt: skip
        violations = more + violations
    if planted:
        error, more = planted_error(planted, error)
        violations = more + violations
    if reply.denials is not None:
        from agentsbx import _swallowed

        more = _swallowed.violations(reply.denials, site.policy, pool.job.cwd, record)
        error = _swallowed.raise_for(_swallowed.merge(violations, more), error)
    if reply.lost:
        _notices.lost(site, reply.lost)
    discarded, files = _exits.files_of(reply)
    if discarded:
        _notices.files(site, discarded, is_plain=not detail)
    enforced = pool.job.enforced
    if watch is not None and not watch.is_complete:
        enforced = enforced | {"protected names": "those nearest to the top: the grant is too big"}
    return Result(
        value=value if error is None else None, error=error, stdout=bytes(reply.out.kept),
        stderr=bytes(reply.err.kept), usage=usage,
        limits=_outcome.mark_hit(table, error, record, violations), enforced=enforced,
        violations=violations, exit=_exits.exit_of(record, reply) if record else Exit(),
        policy_id=pool.policy_id(), call_id=_engine.next_call_id(), lost=reply.lost,
        discarded=discarded, files=files,
        notes_dropped=reply.n_dropped,
        host_calls=tuple(reply.bridge.calls) if reply.bridge is not None else (),
    )  # fmt: skip
