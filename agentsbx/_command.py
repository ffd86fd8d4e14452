"""Commands: `agentsbx run -- cmd` and `agentsbx.run([...])`, from the host's side."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from agentsbx import _core, _engine, _exits, _header, _transfer
from agentsbx._boxes import Box, Pool, PoolGone
from agentsbx._explain_limits import explain_limit, limit_table
from agentsbx._job import Cancel, Exchange, is_gone
from agentsbx._output import Output
from agentsbx._pools import is_same
from agentsbx._preload import NOTHING
from agentsbx._protect import Watch, planted_error
from agentsbx._reply import Reply
from agentsbx._supervisor import SupervisorGone
from agentsbx._wire import EXEC, EXITED, FRAME_INLINE, Cause, ExitRecord, Frame
from agentsbx.errors import SandboxUnavailable, Stage
from agentsbx.policy import Policy
from agentsbx.result import Exit, Limit, Result, Violation

if TYPE_CHECKING:
    from agentsbx._engine import Runtime
    from agentsbx._host import Layout

__all__ = ["run_command"]

ATTEMPTS = 5


class _Place:
    """Where the last command ran: used again while nothing that names it has changed."""

    __slots__ = ("environ", "key", "mounts", "pool", "shown", "words")

    def __init__(
        self, rt: Runtime, policy: Policy, cwd: str, n_waiting: int, explain: bool
    ) -> None:
        self.key = rt, policy, cwd, n_waiting, explain
        self.shown: Layout | None = None
        if policy.python or policy.packages:
            from agentsbx import _pythons

            self.shown = _pythons.for_command(policy)
        self.mounts = rt.pools.find_grants(policy)
        template = rt.pools.template(None, NOTHING, shown=self.shown)
        self.pool = rt.pools.pool(
            None, policy, template, self.mounts, cwd, n_waiting, traces=explain
        )
        self.environ = _engine.environ().copy()
        self.words = _words(_engine.job_env(policy))

    def serves(self, key: tuple[Any, ...]) -> bool:
        return (
            self.key == key
            and not key[1].write  # names in a write grant are looked for anew
            and not self.pool.is_closed
            and (self.shown is None or self.shown.is_unchanged())
            and self.environ == _engine.environ()
            and (not self.mounts or is_same(self.mounts))
        )


_last: _Place | None = None


def _place(rt: Runtime, policy: Policy, cwd: str, n_waiting: int, explain: bool) -> _Place:
    global _last
    last = _last
    if last is None or not last.serves((rt, policy, cwd, n_waiting, explain)):
        last = _last = _Place(rt, policy, cwd, n_waiting, explain)
    return last


def _words(env: dict[str, str]) -> list[bytes]:
    return [os.fsencode(f"{k}={v}") for k, v in env.items()]


def run_command(
    argv: Sequence[str],
    *,
    policy: Policy,
    env: dict[str, str] | None = None,
    cwd: str | None = None,
    stdin: bytes | int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    cancel: Cancel | None = None,
    n_waiting: int = 1,
    explain: bool = False,
    keep: Sequence[str] = (),
    on_output: Callable[[str, str], object] | None = None,
) -> Result:
    """Run a command in a fresh sandbox.

    `stdin`: bytes to read, a descriptor, or nothing; `stdout` and `stderr`: descriptors, or None to
    capture. `Result.value` is the exit code, 128+n for a signal, 127 where the program does not
    exist. `explain`: trace it, which is slower, and tell each call that was denied;
    `strict_violations` does so too, and a denial that is no benign probe is then an error.
    `keep`: patterns of the files in private places that come back.
    `on_output`: told of what is captured, while the command runs (`_live`).
    """
    rt = _engine.current()
    explain = explain or policy.strict_violations
    pair = Output(policy.limits.output, None), Output(policy.limits.output, None)
    if on_output is not None:
        from agentsbx._live import told

        pair = told(pair, on_output)
    try:
        fds = stdin, stdout, stderr
        return _run_command(
            rt, argv, policy, env, cwd, fds, cancel, n_waiting, explain, keep, Reply(*pair)
        )
    except OSError as e:
        _engine.reraise(e)
    except SupervisorGone as e:
        _engine.restart(rt)
        raise SandboxUnavailable("the supervisor ended", missing=["supervisor"]) from e


def _run_command(
    rt: Runtime,
    argv: Sequence[str],
    policy: Policy,
    env: dict[str, str] | None,
    cwd: str | None,
    fds: tuple[bytes | int | None, int | None, int | None],
    cancel: Cancel | None,
    n_waiting: int,
    explain: bool,
    keep: Sequence[str],
    reply: Reply,
) -> Result:
    where = os.path.abspath(cwd) if cwd is not None else os.getcwd()
    if explain:
        reply.denials = []
    patterns = _header.pack_patterns(keep)
    reply.keep = patterns, policy.limits.buffers
    for _ in range(ATTEMPTS):
        try:
            place = _place(rt, policy, where, n_waiting, explain)
            box = _engine.take(rt, place.pool)
        except PoolGone as gone:
            _forget(rt, gone)
            continue
        watch = Watch(place.mounts) if policy.write else None
        opened: list[int] = []
        try:
            mask, given = _command_fds(fds, opened)
            variables = _words(_engine.job_env(policy, env)) if env else place.words
            head = EXEC.pack(
                len(argv), len(variables), mask, explain, len(patterns), 0, policy.limits.buffers
            )
            words = b"\0".join([*map(os.fsencode, argv), *variables, b""])
            _send_exec(box, head + words + patterns, given)
            break
        except OSError as e:
            box.close()
            if not is_gone(e):
                raise
        finally:
            _core.close_all(*opened)
    else:
        raise SandboxUnavailable("sandboxes die before they are used", missing=["job"])
    exchange = Exchange(
        rt.sup, box, timeout_s=policy.limits.timeout, max_result=0, reply=reply, stream=None
    )
    record = _engine.converse(rt, box, exchange, b"", [], cancel, explain, watch)
    return _command_result(argv, policy, place.pool, reply, record, watch)


def _forget(rt: Runtime, gone: PoolGone) -> None:
    global _last
    _last = None
    if gone.template_id is not None:
        rt.pools.forget_template(gone.template_id)


def _send_exec(box: Box, body: bytes, fds: tuple[int, ...]) -> None:
    if len(body) <= FRAME_INLINE:
        _core.send_frame(box.channel, Frame.EXEC, body, fds)
        return
    memfd, size = _transfer.write_memfd("argv", body, [], _transfer.HOST_SEALS)
    try:
        _core.send_frame(box.channel, Frame.EXEC, b"", (memfd, *fds), len(body), size)
    finally:
        os.close(memfd)


def _command_fds(
    fds: tuple[bytes | int | None, int | None, int | None], opened: list[int]
) -> tuple[int, tuple[int, ...]]:
    """(mask, descriptors): what replaces 0-2 of the command.

    Left out: /dev/null and the job's pipes.
    """
    mask, given = 0, []
    for i, fd in enumerate(fds):
        if fd is None:
            continue
        if isinstance(fd, bytes):
            data, fd = fd, _transfer.new_memfd("stdin")
            opened.append(fd)
            _transfer.pwrite_all(fd, memoryview(data), 0)
        mask |= 1 << i
        given.append(fd)
    return mask, tuple(given)


def _command_result(
    argv: Sequence[str],
    policy: Policy,
    pool: Pool,
    reply: Reply,
    record: ExitRecord | None,
    watch: Watch | None,
) -> Result:
    if record is None:  # it ended with 0: the reaper counted, nothing needs to be explained
        record = ExitRecord.ended(*EXITED.unpack_from(reply.body)[2:])
    usage = _exits.usage_of(record, reply)
    table = limit_table(policy.limits, pool.job.enforced, usage)
    violations: list[Violation] = []
    error: BaseException | None = None
    value: int | None = None
    how = _exits.exit_of(record, reply)
    if record.cause >= Cause.TIMEOUT:
        pass  # a limit ended it, whatever the last frame says
    elif reply.kind == Frame.EXITED and len(reply.body) >= EXITED.size and not reply.over:
        value, how = _exits.command_exit_code(EXITED.unpack_from(reply.body)[0])
    elif reply.kind == Frame.FAILED and int.from_bytes(reply.body[:2], "little") == Stage.EXEC:
        code = int.from_bytes(reply.body[4:8], "little")
        value = 127 if code == 2 else 126
        how = Exit(code=value)
        reply.err.add(f"agentsbx: {argv[0]}: {os.strerror(code)}\n".encode())
    elif reply.over:
        error = explain_limit(reply.over, table, usage)[0]
    else:
        error = None
    if record.denied or (value is None and error is None):
        error, violations = _in_words(policy, pool, reply, record, table, error, value is None)
    if reply.denials is not None:
        from agentsbx import _traced

        violations = violations + _traced.violations(reply.denials, policy, pool.job.cwd)
    elif value and reply.err.kept and reply.kind == Frame.EXITED:
        from agentsbx._said import violations as said

        violations = violations + said(bytes(reply.err.kept), policy, pool.job.cwd)
    if watch is not None and (planted := watch.planted()):
        error, more = planted_error(planted, error)
        violations = more + violations
    if policy.strict_violations:
        from agentsbx._swallowed import raise_for

        error = raise_for(violations, error)
    if error is not None or record.n_pids_refused or violations:
        from agentsbx._outcome import mark_hit

        table = mark_hit(table, error, record, violations)
    discarded, files = _exits.files_of(reply)
    return Result(
        value=value, error=error, stdout=bytes(reply.out.kept), stderr=bytes(reply.err.kept),
        usage=usage, limits=table, enforced=pool.job.enforced,
        violations=violations, exit=how, policy_id=pool.policy_id(),
        call_id=_engine.next_call_id(), discarded=discarded, files=files,
    )  # fmt: skip


def _in_words(
    policy: Policy,
    pool: Pool,
    reply: Reply,
    record: ExitRecord,
    table: dict[str, Limit],
    error: BaseException | None,
    has_failed: bool,
) -> tuple[BaseException | None, list[Violation]]:
    """What was denied, and why there is no exit code.

    Imported only when there is something to say.
    """
    from agentsbx import _outcome
    from agentsbx._codec import ClassTable, CodecLimits

    violations = _outcome.denied_syscalls(record)
    if has_failed and error is None:
        error, more = _outcome.error_of(
            reply, record, policy, ClassTable.build(), table, pool.job.cwd, CodecLimits()
        )
        violations = more + violations
    return error, violations
