"""Calls of decorated functions: prepare, find a sandbox, run it there, build the `Result`.

Thread-safe; nothing starts at import (see `_engine`).
"""

from __future__ import annotations

import inspect
import os
import threading
import warnings
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx import (
    _engine,
    _exits,
    _fast,
    _header,
    _host,
    _nested,
    _outcome,
    _setup,
    _ship,
    _swallowed,
    _transfer,
)
from agentsbx._boxes import Box, Pool, PoolGone
from agentsbx._codec import ClassTable, CodecLimits
from agentsbx._command import run_command
from agentsbx._engine import probe, shutdown
from agentsbx._explain import limit_table
from agentsbx._job import Cancel, Exchange, NotSent, Output, Reply, forward_streams
from agentsbx._pools import N_WAITING, is_same
from agentsbx._preload import NOTHING, Wanted, wanted
from agentsbx._protect import Watch, planted_error
from agentsbx._supervisor import SupervisorGone
from agentsbx._wire import ExitRecord, Frame
from agentsbx.errors import SandboxUnavailable
from agentsbx.policy import Limits, Policy
from agentsbx.result import Exit, Result, Usage

if TYPE_CHECKING:
    from agentsbx._engine import Runtime

__all__ = ["CallSite", "Cancel", "HostCaps", "invoke", "probe", "run_command", "shutdown", "warm"]

HostCaps = _host.Caps
ATTEMPTS = 5
_HAS_ENVIRON = type(getattr(os.environ, "_data", None)) is dict


class CallSite:
    """One decorated function: what is called, under which policy, and what was prepared for it.

    `annotation` is that of its return value; None where it cannot be evaluated (yet): then nothing
    is rebuilt by it.
    """

    def __init__(
        self,
        fn: Any,
        policy: Policy,
        *,
        annotation: Any,
        name: str | None = None,
        is_async: bool = False,
        captures: Sequence[str] | None = None,
        raises: Sequence[type] = (),
        seed: int | None = None,
        output: str = "forward",
    ) -> None:
        self.fn = fn
        self.policy = policy
        self.name = name or getattr(fn, "__qualname__", repr(fn))
        self.is_async = is_async
        self.captures = captures
        self.raises = tuple(raises)
        self.seed = seed
        self.output = output
        self.lock = threading.RLock()
        self.annotation = annotation
        self.raw_policy = msgspec.msgpack.encode(policy)
        self.has_warned = False
        _sites.add(self)
        self.owner = object()  # of its pools, which must not keep the site alive
        weakref.finalize(self, _engine.orphans.append, self.owner).atexit = False
        self.prepared = Prepared()
        self.quick: _fast.Quick | None = None
        self.env_keys = (*_engine.SAFE_ENV, *policy.env_names)
        lim = policy.limits
        # A `result=` below its default bounds all that comes back, big buffers too.
        buffers = min(lim.buffers, lim.result) if lim.result < Limits().result else lim.buffers
        self.codec_limits = CodecLimits(body_bytes=lim.result, buffer_bytes=buffers)

    def classes(self, snapshot: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ClassTable:
        """Return the classes that a result of this call may be made of."""
        return ClassTable.build(
            annotation=self.annotation, args=args, kwargs=kwargs, exceptions=self.raises,
            globals_exceptions=snapshot.exceptions,
        )  # fmt: skip


_sites: weakref.WeakSet[CallSite] = weakref.WeakSet()


def _reset_sites() -> None:
    """In a forked child: a thread that is not here may have held the lock of a site."""
    for site in list(_sites):
        site.lock = threading.RLock()
        site.prepared = Prepared()
        site.quick = None


_engine.on_fork.append(_reset_sites)


class Place:
    """Where the last call of a site ran: reused while nothing that names it has changed."""

    __slots__ = ("cwd", "grants", "layout", "pool", "rt")

    def __init__(
        self, rt: Runtime, layout: _host.Layout, cwd: str, grants: Any, pool: Pool
    ) -> None:
        self.rt, self.layout, self.cwd, self.grants, self.pool = rt, layout, cwd, grants, pool


class Prepared:
    """What the last call of a site left for the next one.

    Replaced as a whole when the host forks.
    """

    def __init__(self) -> None:
        self.snapshot: Any = None
        self.snapshot_fn: Any = None
        self.version = 0
        self.n_changes = 0
        self.setup: _setup.Setup | None = None
        self.want: Wanted | None = None
        self.environ: dict[Any, Any] = {}
        self.seen: tuple[Any, ...] = ()  # what the set-up was made from
        self.place: Place | None = None


# -- preparing ---------------------------------------------------------------------------------


def _prepare(site: CallSite) -> Prepared:
    """Present snapshot and set-up of a site; a new version where anything changed."""
    p = site.prepared
    fresh = p.snapshot is None or not p.snapshot.is_current() or p.snapshot_fn is not site.fn
    if fresh:
        p.snapshot = _ship.take_snapshot(
            site.fn,
            captures=site.captures,
            hidden_env=_setup.hidden_env(site.policy),
            wrapper_reducer=_nested.reduce,
        )
        p.snapshot_fn = site.fn
    if not fresh and p.environ == _engine.environ() and p.seen[1:] == _setup.process():
        p.n_changes = 0
        return p
    p.environ = _engine.environ().copy()
    seen = _setup.seen(site)
    if fresh or seen != p.seen:
        p.seen = seen
        p.setup = _setup.setup(site)
        p.version += 1
        p.n_changes += 1
    else:
        p.n_changes = 0
    return p


def _wanted(site: CallSite, p: Prepared, blobs: list[bytes]) -> Wanted:
    explicit = [*site.policy.preload, *(["asyncio"] if site.is_async else [])]
    return wanted(site.fn, [p.snapshot.blob, *blobs], explicit, has_env=bool(site.policy.env_names))


def _views(buffers: Sequence[Any]) -> list[memoryview]:
    return [b.raw() if hasattr(b, "raw") else memoryview(b).cast("B") for b in buffers]


def _snapshot_body(rt: Runtime, pool: Pool, setup: _setup.Setup, snapshot: Any) -> bytes:
    if setup.env == rt.pools.env_of(pool):
        setup = setup._replace(env=None)
    lengths = [v.nbytes for v in _views(snapshot.buffers)]
    return _header.pack_snapshot(setup, snapshot.blob, lengths)


def _snapshot_fd(body: bytes, buffers: list[memoryview]) -> int:
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
        and not at.pool.is_closed and not site.policy.write and not site.policy.fresh
        and is_same(at.grants)
    )  # fmt: skip
    if at is None or not same:
        grants = rt.pools.find_grants(site.policy)
        owner = object() if site.policy.fresh else None  # a new interpreter for each call
        template = rt.pools.template(layout, p.want or NOTHING, owner)
        pool = rt.pools.pool(site.owner, site.policy, template, grants, cwd, n_waiting)
        at = p.place = Place(rt, layout, cwd, grants, pool)
    pool = at.pool
    wanted = p.version if p.n_changes <= 2 else 0
    if pool.version != wanted and p.setup is not None:
        fd = -1
        if wanted:
            body = _snapshot_body(rt, pool, p.setup, p.snapshot)
            fd = _snapshot_fd(body, _views(p.snapshot.buffers))
        try:
            rt.sup.snapshot(pool, wanted, fd)
        finally:
            if fd >= 0:
                os.close(fd)
    return pool, at.grants


# -- calling -----------------------------------------------------------------------------------


def invoke(
    site: CallSite,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    cancel: Cancel | None = None,
    detail: bool = True,
    begun: _fast.Begun | None = None,
) -> Result:
    """Run one call and wait; `begun`: it was sent the quick way already.

    Never raises for the body; `PolicyError`, `SandboxUnavailable`, `SerializationError` come before
    user code. Without `detail` usage and limits of a call that went well are left out (what a plain
    call does not look at).
    """
    for attempt in range(3):
        rt = _engine.current()
        try:
            if begun is not None:
                return _finish(rt, site, begun, args, kwargs, cancel)
            return _invoke(rt, site, args, kwargs, cancel, detail)
        except SupervisorGone as e:
            _engine.restart(rt)
            if attempt == 2:
                raise SandboxUnavailable(
                    "the supervisor ended before the call started", missing=["supervisor"],
                    hint="is the machine out of memory? `agentsbx doctor` tries each step",
                ) from e  # fmt: skip
    raise AssertionError("unreachable")


def _invoke(
    rt: Runtime,
    site: CallSite,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    cancel: Cancel | None,
    detail: bool,
) -> Result:
    reply = Reply(*_outputs(site))
    if site.policy.strict_violations:
        detail, reply.denials = True, []
    error: SandboxUnavailable | None = None
    for _ in range(ATTEMPTS):
        with site.lock:
            p = _prepare(site)
            snapshot, setup, version = p.snapshot, p.setup, p.version
            stream = snapshot.begin_call(args, kwargs)
            if p.want is None:
                p.want = _wanted(site, p, [stream.body])
            try:
                pool, grants = _pool(rt, site, p, N_WAITING)
            except PoolGone as gone:
                _forget(rt, p, gone)
                error = gone.error
                continue
            place = p.place
        try:
            box = _engine.take(rt, pool, version)
        except PoolGone as gone:
            _forget(rt, p, gone)
            error = gone.error
            continue
        watch = Watch(grants) if site.policy.write else None
        exchange = _exchange(rt, site, box, reply, stream)
        views = _views(stream.buffers)
        head = None
        if box.version != version and setup is not None:
            head = _snapshot_body(rt, pool, setup, snapshot)
            views = _views(snapshot.buffers) + views
        body = _header.pack_call(
            head, stream.body, [v.nbytes for v in views], site.is_async, site.seed
        )
        try:
            record = _engine.converse(
                rt, box, exchange, body, views, cancel, detail or watch is not None
            )
        except NotSent:  # the waiting sandbox had died: nothing ran yet
            continue
        result = _result(site, snapshot, pool, reply, record, args, kwargs, watch, detail)
        if site.policy.fresh:
            rt.pools.forget_template(pool.template_id)
        if (
            watch is None
            and place is not None
            and not (site.policy.fresh or site.policy.strict_violations)
            and result.error is None
            and _HAS_ENVIRON
        ):
            shape = len(args), tuple(kwargs)
            site.quick = _fast.Quick(rt, site, snapshot, version, place, shape)
        return result
    raise error or SandboxUnavailable(
        "sandboxes die or change before they are used", missing=["job"],
        hint="is the machine out of memory, or are the granted files changing all the time?",
    )  # fmt: skip


def _finish(
    rt: Runtime,
    site: CallSite,
    begun: _fast.Begun,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    cancel: Cancel | None,
) -> Result:
    """Finish a call that began the quick way: it was sent and takes longer, prints, asks ..."""
    reply = Reply(*_outputs(site))
    exchange = _exchange(rt, site, begun.box, reply, begun.stream)
    exchange.start_ns = begun.start_ns
    exchange.begun = begun.event
    record = _engine.converse(rt, begun.box, exchange, b"", [], cancel, detail=False)
    pool, snapshot = begun.box.pool, begun.stream.snapshot
    return _result(site, snapshot, pool, reply, record, args, kwargs, None, detail=False)


def _forget(rt: Runtime, p: Prepared, gone: PoolGone) -> None:
    """The pool that a call was about to use is no more; so may be its zygote."""
    p.place = None
    if gone.template_id is not None:
        rt.pools.forget_template(gone.template_id)


def _exchange(rt: Runtime, site: CallSite, box: Box, reply: Reply, stream: Any) -> Exchange:
    """Return the conversation of one call, within the limits of its site."""
    limits = site.codec_limits
    return Exchange(
        rt.sup, box, timeout_s=site.policy.limits.timeout, reply=reply, stream=stream,
        max_result=limits.body_bytes + limits.buffer_bytes,
    )  # fmt: skip


def _outputs(site: CallSite) -> tuple[Output, Output]:
    limit = site.policy.limits.output
    out, err = forward_streams(site.output)
    return Output(limit, out), Output(limit, err)


def _result(
    site: CallSite,
    snapshot: Any,
    pool: Pool,
    reply: Reply,
    record: ExitRecord | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    watch: Watch | None,
    detail: bool,
) -> Result:
    value: Any = None
    error: BaseException | None = None
    classes = site.classes(snapshot, args, kwargs)
    planted = watch.planted() if watch is not None else []
    has_answer = reply.kind == Frame.RESULT and not reply.is_malformed and not reply.over
    if has_answer:
        try:
            value = _outcome.value_of(reply, classes, site.annotation, site.codec_limits)
            if not planted and not detail and not reply.lost:
                return Result(value=value)
        except Exception as e:
            error = e
    if reply.over == "buffers" and site.codec_limits.buffer_bytes < site.policy.limits.buffers:
        reply.over = "result"
    usage = _exits.usage_of(record, reply) if record is not None else Usage()
    table = limit_table(site.policy.limits, pool.job.enforced, usage)
    violations = _outcome.denied_syscalls(record) if record is not None else []
    if not has_answer:
        error, more = _outcome.error_of(
            reply, record, site.policy, classes, table, pool.job.cwd, site.codec_limits
        )
        violations = more + violations
    if planted:
        error, more = planted_error(planted, error)
        violations = more + violations
    if reply.denials is not None:
        more = _swallowed.violations(reply.denials, site.policy, pool.job.cwd, record)
        error = _swallowed.raise_for(_swallowed.merge(violations, more), error)
    if reply.lost:
        _warn_lost(site, reply.lost)
    enforced = pool.job.enforced
    if watch is not None and not watch.is_complete:
        enforced = enforced | {"protected names": "those nearest to the top: the grant is too big"}
    return Result(
        value=value if error is None else None, error=error, stdout=bytes(reply.out.kept),
        stderr=bytes(reply.err.kept), usage=usage,
        limits=_outcome.mark_hit(table, error, record, violations), enforced=enforced,
        violations=violations, exit=_exits.exit_of(record, reply) if record else Exit(),
        policy_id=pool.policy_id(), call_id=_engine.next_call_id(), lost=reply.lost,
    )  # fmt: skip


def _warn_lost(site: CallSite, lost: tuple[str, ...]) -> None:
    """Once per function: something was alive at its return and died with the sandbox."""
    if not site.has_warned:
        site.has_warned = True
        code = getattr(inspect.unwrap(site.fn), "__code__", None)
        warnings.warn_explicit(
            f"{site.name}: alive at its return, and killed: {', '.join(lost[:5])}", RuntimeWarning,
            code.co_filename if code else "agentsbx", code.co_firstlineno if code else 1,
        )  # fmt: skip


def warm(site: CallSite, n: int = 1) -> None:
    """Start what the site needs and wait until `n` sandboxes wait for its calls."""
    rt = _engine.current()
    with site.lock:
        p = _prepare(site)
        if p.want is None:
            p.want = _wanted(site, p, [])
        pool, _ = _pool(rt, site, p, max(n, N_WAITING))
    rt.sup.wait_ready(pool, n, _engine.READY_TIMEOUT_MS)
