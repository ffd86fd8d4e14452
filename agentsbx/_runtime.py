"""The runtime of one process: finds or makes a sandbox for a call, runs it, builds the `Result`.

Nothing starts at import. One supervisor per process, started by the first call and outliving the
thread that made it; a forked host gets one of its own (semantics 5.5). Thread-safe.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import inspect
import itertools
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from agentsbx import _header, _host, _outcome, _ship, _transfer
from agentsbx._codec import ClassTable, CodecLimits
from agentsbx._explain import explain_limit, limit_table
from agentsbx._job import Cancel, Exchange, Output, Reply, forward_streams, is_gone, send_body
from agentsbx._pools import N_WAITING, Pools, is_same
from agentsbx._preload import Wanted, wanted
from agentsbx._protect import Watch
from agentsbx._supervisor import Box, Pool, Supervisor, SupervisorGone
from agentsbx._wire import EXEC, EXITED, FRAME_INLINE, Cause, ExitRecord, Frame
from agentsbx.errors import SandboxUnavailable, SandboxViolation, Stage
from agentsbx.policy import Policy
from agentsbx.result import Exit, Result, Usage

__all__ = ["CallSite", "Cancel", "HostCaps", "invoke", "probe", "run_command", "shutdown", "warm"]

HostCaps = _host.Caps
READY_TIMEOUT_MS = 20_000
LAST_BREATH_MS = 100
_SAFE_ENV = ("LANG", "LANGUAGE", "TZ", "TERM", "COLUMNS", "LINES", "NO_COLOR", "LC_ALL", "LC_CTYPE",
             "LC_COLLATE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME")  # fmt: skip
_call_prefix = os.urandom(6).hex()
_call_numbers = itertools.count(1)


class CallSite:
    """One decorated function: what is called, under which policy, and what was prepared for it."""

    def __init__(
        self, fn: Any, policy: Policy, *, name: str | None = None, is_async: bool = False,
        captures: Sequence[str] | None = None, raises: Sequence[type] = (), seed: int | None = None,
        output: str = "forward",
    ) -> None:  # fmt: skip
        self.fn = fn
        self.policy = policy
        self.name = name or getattr(fn, "__qualname__", repr(fn))
        self.is_async = is_async
        self.captures = captures
        self.raises = tuple(raises)
        self.seed = seed
        self.output = output
        self.lock = threading.RLock()
        self.annotation = _return_annotation(fn)
        self.raw_policy = msgspec.msgpack.encode(policy)
        self.prepared = Prepared()
        self.env_keys = [os.fsencode(k) for k in (*_SAFE_ENV, *policy.env_names)]
        lim = policy.limits
        self.codec_limits = CodecLimits(
            body_bytes=lim.result if lim.result >= 0 else 2**31,
            buffer_bytes=lim.buffers if lim.buffers >= 0 else 2**40,
        )


class Place:
    """Where the last call of a site ran: reused while nothing that names it has changed."""

    __slots__ = ("cwd", "grants", "layout", "pool", "rt")

    def __init__(
        self, rt: Runtime, layout: _host.Layout, cwd: str, grants: Any, pool: Pool
    ) -> None:
        self.rt, self.layout, self.cwd, self.grants, self.pool = rt, layout, cwd, grants, pool


class Prepared:
    """What the last call of a site left for the next one; replaced as a whole when the host forks."""

    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self.snapshot: Any = None
        self.snapshot_fn: Any = None
        self.version = 0
        self.n_changes = 0
        self.setup: _header.Setup | None = None
        self.head: _header.SnapshotHead | None = None
        self.want: Wanted | None = None
        self.seen: tuple[Any, ...] = ()  # what the set-up was made from
        self.place: Place | None = None


def _return_annotation(fn: Any) -> Any:
    try:
        got = inspect.get_annotations(inspect.unwrap(fn), eval_str=True).get("return")
    except Exception:  # a name that is not defined (yet): then nothing is rebuilt by annotation
        return None
    return None if isinstance(got, str) else got


class Runtime:
    """Supervisor, pools and arenas of this process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.sup = Supervisor()
        hello = self.sup.hello
        self.caps = _host.Caps(
            bool(hello.is_root), hello.uid_base, hello.n_uids, hello.cgroup_version,
            hello.cgroup_have, hello.landlock_abi, os.uname().release,
        )  # fmt: skip
        self.pools = Pools(self.sup, self.caps)
        self.arenas = _transfer.ArenaCache()

    def close(self) -> None:
        """End the supervisor and all that it runs."""
        self.pools.close()
        self.sup.close()
        self.arenas.clear()


_lock = threading.RLock()
_current: Runtime | None = None


def _runtime() -> Runtime:
    global _current, _lock
    rt = _current
    if rt is not None and rt.owner == os.getpid():
        return rt
    if rt is not None:  # a fork of the host: locks may be held by threads that are not here
        _lock = threading.RLock()
        with contextlib.suppress(OSError):
            rt.close()
        _current = None
    with _lock:
        if _current is None:
            _current = Runtime()
            atexit.register(shutdown)
        return _current


def shutdown() -> None:
    """Kill every running and waiting sandbox of this process and end its supervisor."""
    global _current
    with _lock:
        rt, _current = _current, None
    if rt is not None and rt.owner == os.getpid():
        rt.close()
    atexit.unregister(shutdown)


def _restart(rt: Runtime) -> None:
    """The supervisor is gone: the next use starts another."""
    global _current
    with _lock:
        if _current is rt:
            _current = None
    with contextlib.suppress(OSError, SupervisorGone):
        rt.close()


def probe() -> HostCaps:
    """What the supervisor found by trying."""
    return _runtime().caps


# -- preparing ---------------------------------------------------------------------------------


def _job_env(policy: Policy, extra: dict[str, str] | None = None) -> dict[str, str]:
    env = {k: v for k in _SAFE_ENV if (v := os.environ.get(k)) is not None}
    path = [os.path.dirname(sys.executable)] if sys.prefix != sys.base_prefix else []
    env["PATH"] = ":".join([*path, "/usr/local/bin", "/usr/bin", "/bin"])
    env |= {"HOME": "/sandbox/home", "TMPDIR": "/tmp", "USER": "sandbox", "LOGNAME": "sandbox"}  # noqa: S108
    env |= {k: v for k in policy.env_names if (v := os.environ.get(k)) is not None}
    return env | policy.env_values | (extra or {})


def _seen(site: CallSite) -> tuple[Any, ...]:
    """What `_setup` reads, cheaply: a change of any of it makes a new set-up."""
    env = os.environb
    main = sys.modules.get("__main__")
    names = [env.get(k) for k in site.env_keys]
    return names, tuple(sys.argv), getattr(main, "__file__", None), sys.executable


def _setup(site: CallSite) -> _header.Setup:
    main = sys.modules.get("__main__")
    return _header.Setup(
        _job_env(site.policy), list(sys.argv), getattr(main, "__file__", None), [],
        os.cpu_count() or 1, site.raw_policy,
    )  # fmt: skip


def _prepare(site: CallSite) -> Prepared:
    """Present snapshot and set-up of a site; a new version where anything changed."""
    p = site.prepared
    if p.owner_pid != os.getpid():
        p = site.prepared = Prepared()
    fresh = p.snapshot is None or not p.snapshot.is_current() or p.snapshot_fn is not site.fn
    if fresh:
        p.snapshot = _ship.take_snapshot(
            site.fn, captures=site.captures, hidden_env=_hidden_env(site.policy)
        )
        p.snapshot_fn = site.fn
    seen = _seen(site)
    if fresh or seen != p.seen:
        p.seen = seen
        p.setup = _setup(site)
        p.version += 1
        p.n_changes += 1
        lengths = [v.nbytes for v in _views(p.snapshot.buffers)]
        p.head = _header.SnapshotHead(p.setup, p.snapshot.blob, lengths)
    else:
        p.n_changes = 0
    return p


def _hidden_env(policy: Policy) -> dict[str, str]:
    granted = set(policy.env_names)
    return {k: v for k, v in os.environ.items() if k not in granted}


def _wanted(site: CallSite, p: Prepared, blobs: list[bytes]) -> Wanted:
    explicit = [*site.policy.preload, *(["asyncio"] if site.is_async else [])]
    return wanted(
        site.fn, [p.snapshot.blob, *blobs], explicit, has_env=bool(site.policy.env_names)
    )


def _views(buffers: Sequence[Any]) -> list[memoryview]:
    return [b.raw() if hasattr(b, "raw") else memoryview(b).cast("B") for b in buffers]


def _snapshot_fd(head: _header.SnapshotHead, buffers: list[memoryview]) -> int:
    body = _header.encode(head)
    fd, _ = _transfer.write_memfd(
        "snapshot", len(body).to_bytes(8, "little") + body, buffers, _transfer.HOST_SEALS
    )
    return fd


def _pool(rt: Runtime, site: CallSite, p: Prepared, n_waiting: int) -> tuple[Pool, Any]:
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        cwd = "/"
    layout = _host.python_layout()
    at = p.place
    same = (
        at is not None and at.rt is rt and at.cwd == cwd and at.layout is layout
        and at.pool.sock >= 0 and not site.policy.write and is_same(at.grants)
    )  # fmt: skip
    if at is None or not same:
        grants = rt.pools.find_grants(site.policy)
        owner = site if site.policy.fresh else None
        template = rt.pools.template(layout, p.want or Wanted(((), ())), owner)
        pool = rt.pools.pool(site, site.policy, template, grants, cwd, n_waiting)
        at = p.place = Place(rt, layout, cwd, grants, pool)
    pool = at.pool
    wanted = p.version if p.n_changes <= 2 else 0
    if pool.version != wanted and p.head is not None:
        fd = _snapshot_fd(p.head, _views(p.snapshot.buffers)) if wanted else -1
        try:
            rt.sup.snapshot(pool, wanted, fd)
        finally:
            if fd >= 0:
                os.close(fd)
    return pool, at.grants


def _take(rt: Runtime, pool: Pool) -> Box:
    """A waiting sandbox that holds the pool's present snapshot."""
    while True:
        box = rt.sup.take(pool, READY_TIMEOUT_MS)
        if box.version == pool.version:
            return box
        rt.sup.kill(box.job_id, Cause.CANCELLED)
        box.close()


# -- calling -----------------------------------------------------------------------------------


def invoke(
    site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any], *, cancel: Cancel | None = None,
    detail: bool = True,
) -> Result:  # fmt: skip
    """Run one call and wait. Never raises for the body; `PolicyError`, `SandboxUnavailable`,
    `SerializationError` come before user code. Without `detail` usage and limits of a call that went
    well are left out (what a plain call does not look at)."""
    for attempt in (1, 2):
        rt = _runtime()
        try:
            return _invoke(rt, site, args, kwargs, cancel, detail)
        except SupervisorGone as e:
            _restart(rt)
            if attempt == 2:
                raise SandboxUnavailable(
                    "the supervisor ended before the call started", missing=["supervisor"],
                    hint="is the machine out of memory? `agentsbx doctor` tries each step",
                ) from e  # fmt: skip
    raise AssertionError("unreachable")


def _invoke(
    rt: Runtime, site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any],
    cancel: Cancel | None, detail: bool,
) -> Result:  # fmt: skip
    with site.lock:
        p = _prepare(site)
        stream = p.snapshot.begin_call(args, kwargs)
        if p.want is None:
            p.want = _wanted(site, p, [stream.body])
        pool, grants = _pool(rt, site, p, N_WAITING)
    call_views = _views(stream.buffers)
    watch = Watch(grants) if site.policy.write else None
    reply = Reply(*_outputs(site))
    for _ in range(3):
        box = _take(rt, pool)
        head = None if box.version == p.version else p.head
        snapshot_views = [] if head is None else _views(p.snapshot.buffers)
        views = [*snapshot_views, *call_views]
        body = _header.encode(
            _header.CallHead(head, stream.body, [v.nbytes for v in views], site.is_async, site.seed, 0)
        )
        try:
            arena = send_body(box, Frame.CALL, body, views, rt.arenas)
            break
        except OSError as e:
            box.close()
            if not is_gone(e):
                raise
    else:
        raise SandboxUnavailable("waiting sandboxes die before they are used", missing=["job"])
    exchange = Exchange(
        rt.sup, box, timeout_s=site.policy.limits.timeout, reply=reply, stream=stream,
        max_result=site.codec_limits.body_bytes + site.codec_limits.buffer_bytes,
    )  # fmt: skip
    record = _converse(rt, box, exchange, arena, cancel, detail)
    return _result(rt, site, p, pool, reply, record, args, kwargs, watch, detail)


def _outputs(site: CallSite) -> tuple[Output, Output]:
    limit = site.policy.limits.output
    out, err = forward_streams(site.output)
    return Output(limit, out), Output(limit, err)


def _converse(
    rt: Runtime, box: Box, exchange: Exchange, arena: _transfer.Arena | None,
    cancel: Cancel | None, detail: bool,
) -> ExitRecord | None:  # fmt: skip
    """Serve the call to its end; the job is dead or dying when this returns."""
    job_id = box.job_id
    reply = exchange.reply
    try:
        if cancel is not None:
            cancel.arm(lambda: rt.sup.kill(job_id, Cause.CANCELLED))
        exchange.run()
    except SupervisorGone:  # user code may have run: never again by itself
        return ExitRecord.lost(job_id)
    finally:
        if cancel is not None:
            cancel.arm(None)
        with contextlib.suppress(SupervisorGone):
            if detail or reply.kind not in (Frame.RESULT, Frame.ERROR):
                # It ends by itself, and how is worth knowing; what is left after that is killed.
                record = rt.sup.wait(job_id, LAST_BREATH_MS)
                if record.cause != Cause.LOST:
                    job_id = 0
            if job_id:
                rt.sup.kill(job_id, Cause.CANCELLED)
        if arena is not None:
            rt.arenas.put(arena, lambda: _is_alive(rt, box.job_id))
        box.close()
    if reply.kind == Frame.RESULT and not reply.is_malformed and not reply.over and not detail:
        return None
    return rt.sup.wait(box.job_id)


def _is_alive(rt: Runtime, job_id: int) -> bool:
    try:
        return rt.sup.wait(job_id, 2000).is_alive
    except SupervisorGone:
        return False


def _result(
    rt: Runtime, site: CallSite, p: Prepared, pool: Pool, reply: Reply, record: ExitRecord | None,
    args: tuple[Any, ...], kwargs: dict[str, Any], watch: Watch | None, detail: bool,
) -> Result:  # fmt: skip
    error: BaseException | None = None
    value: Any = None
    violations = _outcome.denied_syscalls(record) if record is not None else []
    classes = ClassTable.build(
        annotation=site.annotation, args=args, kwargs=kwargs, exceptions=site.raises,
        globals_exceptions=p.snapshot.exceptions,
    )  # fmt: skip
    ok = reply.kind == Frame.RESULT and not reply.is_malformed and not reply.over
    if ok:
        try:
            value = _outcome.value_of(reply, classes, site.annotation, site.codec_limits)
        except Exception as e:
            error, ok = e, False
    if not ok or detail:
        usage = _outcome.usage_of(record) if record is not None else Usage()
        table = limit_table(site.policy.limits, pool.job.enforced, usage)
    if not ok and error is None:
        error, more = _outcome.error_of(
            reply, record, site.policy, classes, table, pool.job.cwd, site.codec_limits
        )
        violations = more + violations
    if watch is not None and (planted := watch.planted()):
        error, more = _planted(planted, error)
        violations = more + violations
        value = None
    if error is None and not detail:
        return Result(value=value)
    return Result(
        value=value, error=error, stdout=bytes(reply.out.kept), stderr=bytes(reply.err.kept),
        usage=usage, limits=_outcome.mark_hit(table, error, record, violations), enforced=pool.job.enforced,
        violations=violations, exit=_outcome.exit_of(record, reply) if record else Exit(),
        policy_id=hashlib.sha256(pool.job.plan).hexdigest(),
        call_id=f"{_call_prefix}-{next(_call_numbers):x}",
    )  # fmt: skip


def _planted(paths: list[str], error: BaseException | None) -> tuple[BaseException, list[Any]]:
    from agentsbx._explain_words import violation

    found = [
        violation(
            "write", path, "protected name",
            f"the job created or replaced {path!r}, which would make the host run code; it was moved "
            "aside", todo="nothing in a write grant may touch that name",
        )
        for path in paths
    ]  # fmt: skip
    new = SandboxViolation(violation=found[0])
    new.__cause__ = error
    return new, found


def warm(site: CallSite, n: int = 1) -> None:
    """Start what the site needs and wait until `n` sandboxes wait for its calls."""
    rt = _runtime()
    with site.lock:
        p = _prepare(site)
        if p.want is None:
            p.want = _wanted(site, p, [])
        pool, _ = _pool(rt, site, p, max(n, N_WAITING))
    rt.sup.wait_ready(pool, n, READY_TIMEOUT_MS)


# -- commands ----------------------------------------------------------------------------------


def run_command(
    argv: Sequence[str], *, policy: Policy, env: dict[str, str] | None = None,
    cwd: str | None = None, stdin: bytes | int | None = None, stdout: int | None = None,
    stderr: int | None = None, cancel: Cancel | None = None, n_waiting: int = 1,
) -> Result:  # fmt: skip
    """Run a command in a fresh sandbox. `stdin`: bytes to read, a descriptor, or nothing; `stdout`
    and `stderr`: descriptors, or None to capture. `Result.value` is the exit code, 128+n for a signal,
    127 where the program does not exist."""
    rt = _runtime()
    try:
        return _run_command(rt, argv, policy, env, cwd, (stdin, stdout, stderr), cancel, n_waiting)
    except SupervisorGone as e:
        _restart(rt)
        raise SandboxUnavailable("the supervisor ended", missing=["supervisor"]) from e


def _run_command(
    rt: Runtime, argv: Sequence[str], policy: Policy, env: dict[str, str] | None, cwd: str | None,
    fds: tuple[bytes | int | None, int | None, int | None], cancel: Cancel | None, n_waiting: int,
) -> Result:  # fmt: skip
    grants = rt.pools.find_grants(policy)
    where = os.path.abspath(cwd) if cwd is not None else os.getcwd()
    template = rt.pools.template(None, Wanted(((), ())))
    pool = rt.pools.pool(None, policy, template, grants, where, n_waiting)
    watch = Watch(grants) if policy.write else None
    words = [*argv, *(f"{k}={v}" for k, v in _job_env(policy, env).items())]
    raw = b"".join(os.fsencode(w) + b"\0" for w in words)
    opened: list[int] = []
    out = Output(policy.limits.output, None)
    err = Output(policy.limits.output, None)
    reply = Reply(out, err)
    box = _take(rt, pool)
    try:
        mask, given = _command_fds(fds, opened)
        head = EXEC.pack(len(argv), len(words) - len(argv), mask, 0)
        _send_exec(box, head + raw, given)
    finally:
        for fd in opened:
            os.close(fd)
    exchange = Exchange(
        rt.sup, box, timeout_s=policy.limits.timeout, max_result=0, reply=reply, stream=None
    )
    record = _converse(rt, box, exchange, None, cancel, True)
    return _command_result(argv, policy, pool, reply, record, watch)


def _send_exec(box: Box, body: bytes, fds: tuple[int, ...]) -> None:
    from agentsbx import _core

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
    """(mask, descriptors): what replaces 0-2 of the command. Left out: /dev/null and the job's pipes."""
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
    argv: Sequence[str], policy: Policy, pool: Pool, reply: Reply, record: ExitRecord | None,
    watch: Watch | None,
) -> Result:  # fmt: skip
    record = record or ExitRecord.lost(0)
    usage = _outcome.usage_of(record)
    table = limit_table(policy.limits, pool.job.enforced, usage)
    violations = _outcome.denied_syscalls(record)
    error: BaseException | None = None
    value: int | None = None
    how = _outcome.exit_of(record, reply)
    if reply.kind == Frame.EXITED and len(reply.body) >= EXITED.size and not reply.over:
        value, how = _outcome.command_exit_code(EXITED.unpack_from(reply.body)[0])
    elif reply.kind == Frame.FAILED and int.from_bytes(reply.body[:2], "little") == Stage.EXEC:
        code = int.from_bytes(reply.body[4:8], "little")
        value = 127 if code == 2 else 126
        how = Exit(code=value)
        reply.err.add(f"agentsbx: {argv[0]}: {os.strerror(code)}\n".encode())
    elif reply.over:
        error = explain_limit(reply.over, table, usage)[0]
    else:
        error, more = _outcome.error_of(
            reply, record, policy, ClassTable.build(), table, pool.job.cwd, CodecLimits()
        )
        violations = more + violations
    if watch is not None and (planted := watch.planted()):
        error, more = _planted(planted, error)
        violations = more + violations
    return Result(
        value=value, error=error, stdout=bytes(reply.out.kept), stderr=bytes(reply.err.kept),
        usage=usage, limits=_outcome.mark_hit(table, error, record, violations), enforced=pool.job.enforced,
        violations=violations, exit=how, policy_id=hashlib.sha256(pool.job.plan).hexdigest(),
        call_id=f"{_call_prefix}-{next(_call_numbers):x}",
    )  # fmt: skip
