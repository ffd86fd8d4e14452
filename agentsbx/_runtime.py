"""Calls of decorated functions: prepare, find a sandbox, run it there, build the `Result`.

Thread-safe; nothing starts at import (see `_engine`).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from agentsbx import (
    _engine,
    _fast,
    _header,
    _host,
    _noting,
    _settle,
    _ship,
)
from agentsbx._boxes import Box, Pool, PoolGone
from agentsbx._codec import ClassTable, CodecLimits
from agentsbx._command import run_command
from agentsbx._engine import probe, shutdown
from agentsbx._job import Cancel, Exchange, NotSent
from agentsbx._kinds import Kind
from agentsbx._output import outputs
from agentsbx._pools import N_WAITING
from agentsbx._prepare import (
    Place,
    Prepared,
    pool_for,
    prepare,
    snapshot_body,
    views_of,
    wanted_by,
)
from agentsbx._protect import Watch
from agentsbx._reply import Reply
from agentsbx._supervisor import SupervisorGone
from agentsbx.errors import SandboxUnavailable
from agentsbx.policy import Policy
from agentsbx.result import Result

if TYPE_CHECKING:
    from agentsbx._bridge_offers import Offers
    from agentsbx._engine import Runtime

__all__ = ["CallSite", "Cancel", "HostCaps", "attempts", "invoke", "open_bridge", "probe",
           "reply_to", "run_command", "shutdown", "warm"]  # fmt: skip

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
        kind: Kind = Kind.FUNCTION,
        captures: Sequence[str] | None = None,
        raises: Sequence[type] = (),
        seed: int | None = None,
        output: str = "forward",
        keep: Sequence[str] = (),
        offers: Offers | None = None,
        on_output: Callable[[str, str], object] | None = None,
    ) -> None:
        self.fn = fn
        self.policy = policy
        self.name = name or getattr(fn, "__qualname__", repr(fn))
        self.kind = kind
        self.captures = captures
        self.raises = tuple(raises)
        self.seed = seed
        self.output = output
        self.on_output = on_output
        self.keep = _header.pack_patterns(keep)
        self.offers = offers  # host functions and arguments that stay here
        self.lock = threading.RLock()
        self.annotation = annotation
        self.raw_policy = msgspec.msgpack.encode(policy)
        self.warned: set[str] = set()  # of what (`_notices`)
        _sites.add(self)
        self.owner = object()  # of its pools, which must not keep the site alive
        weakref.finalize(self, _engine.orphans.append, self.owner).atexit = False
        self.prepared = Prepared()
        self.quick: _fast.Quick | None = None
        self.env_keys = (*_engine.SAFE_ENV, *policy.env_names)
        self.codec_limits = CodecLimits.of(policy.limits)

    def looks_for(self, detail: bool) -> bytes | None:
        """Which files in private places a call tells of: `keep` of `_header.pack_call`."""
        if detail:
            return self.keep
        return None if "gone" in self.warned else b""

    def classes(
        self, snapshot: Any, args: tuple[Any, ...], kwargs: dict[str, Any], annotation: Any
    ) -> ClassTable:
        """Return the classes that a result of this call may be made of."""
        return ClassTable.build(
            annotation=annotation, args=args, kwargs=kwargs, exceptions=self.raises,
            globals_exceptions=snapshot.exceptions, library=snapshot.library,
        )  # fmt: skip


_sites: weakref.WeakSet[CallSite] = weakref.WeakSet()


def _reset_sites() -> None:
    """In a forked child: a thread that is not here may have held the lock of a site."""
    for site in list(_sites):
        site.lock = threading.RLock()
        site.prepared = Prepared()
        site.quick = None


_engine.on_fork.append(_reset_sites)


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
    bridge = None
    if site.offers is not None:
        bridge, args, kwargs = open_bridge(site, args, kwargs, cancel)
        if site.offers.name_async:
            bridge.refuse_loop(site.offers.name_async)
    try:
        return _repeatedly(site, args, kwargs, cancel, detail, begun, bridge)
    finally:
        if bridge is not None:
            bridge.close()


def open_bridge(
    site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any], cancel: Cancel | None
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return what one job may call here, and the arguments without those that stay here."""
    from agentsbx._bridge import Bridge  # most sites offer nothing

    assert site.offers is not None
    args, kwargs, kept = site.offers.keep(args, kwargs)
    return Bridge(site.offers, kept, cancel), args, kwargs


def _repeatedly(
    site: CallSite,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    cancel: Cancel | None,
    detail: bool,
    begun: _fast.Begun | None,
    bridge: Any,
) -> Result:
    for attempt in range(3):
        rt = _engine.current()
        try:
            if begun is not None:
                return _finish(rt, site, begun, args, kwargs, cancel)
            return _invoke(rt, site, args, kwargs, cancel, detail, bridge)
        except OSError as e:
            _engine.reraise(e)
        except SupervisorGone as e:
            _engine.restart(rt)
            if attempt == 2:
                raise SandboxUnavailable(
                    "the supervisor ended before the call started", missing=["supervisor"],
                    hint="is the machine out of memory? `agentsbx doctor` tries each step",
                ) from e  # fmt: skip
    raise AssertionError("unreachable")


class Ready(NamedTuple):
    """A call that is complete up to sending it, and the sandbox that waits for it."""

    snapshot: Any
    version: int
    place: Place | None
    pool: Pool
    box: Box
    exchange: Exchange
    stream: _ship.CallStream
    body: bytes
    views: list[memoryview]
    watch: Watch | None


def attempts(
    rt: Runtime, site: CallSite, args: tuple[Any, ...], kwargs: dict[str, Any], reply: Reply
) -> Iterator[Ready]:
    """Make the call ready, again where the sandbox dies before it is sent; at last raise."""
    error: SandboxUnavailable | None = None
    keep = reply.keep[0] if reply.keep is not None else None
    for _ in range(ATTEMPTS):
        with site.lock:
            p = prepare(site)
            snapshot, setup, version = p.snapshot, p.setup, p.version
            stream = snapshot.begin_call(args, kwargs)
            if p.want is None:
                p.want = wanted_by(site, p, [stream.body])
            try:
                pool, grants = pool_for(rt, site, p, N_WAITING)
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
        exchange = _exchange(rt, site, box, reply, stream, args, kwargs)
        views = views_of(stream.buffers)
        head = None
        if box.version != version and setup is not None:
            head = snapshot_body(rt, pool, setup, snapshot)
            views = views_of(snapshot.buffers) + views
        body = _header.pack_call(
            head, stream.body, [v.nbytes for v in views], site.kind, site.seed, keep
        )
        yield Ready(snapshot, version, place, pool, box, exchange, stream, body, views, watch)
    raise error or SandboxUnavailable(
        "sandboxes die or change before they are used", missing=["job"],
        hint="is the machine out of memory, or are the granted files changing all the time?",
    )  # fmt: skip


def _invoke(
    rt: Runtime,
    site: CallSite,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    cancel: Cancel | None,
    detail: bool,
    bridge: Any,
) -> Result:
    detail = detail or site.policy.strict_violations
    reply = reply_to(site, site.looks_for(detail))
    reply.bridge = bridge
    for call in attempts(rt, site, args, kwargs, reply):
        try:
            record = _engine.converse(
                rt, call.box, call.exchange, call.body, call.views, cancel, detail, call.watch
            )
        except NotSent:  # the waiting sandbox had died: nothing ran yet
            continue
        result = _settle.settle(
            site,
            call.stream,
            call.pool,
            reply,
            record,
            args,
            kwargs,
            call.watch,
            detail,
            site.annotation,
        )
        if site.policy.fresh:
            rt.pools.forget_template(call.pool.template_id)
        elif (
            call.watch is None
            and call.place is not None
            and not call.place.layout.marks
            and not site.policy.strict_violations
            and site.on_output is None  # told while it runs: the quick way tells at the end
            and result.error is None
            and site.offers is None
            and _HAS_ENVIRON
        ):
            shape = len(args), tuple(kwargs)
            site.quick = _fast.Quick(rt, site, call.snapshot, call.version, call.place, shape)
        return result
    raise AssertionError("unreachable")


def _finish(
    rt: Runtime,
    site: CallSite,
    begun: _fast.Begun,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    cancel: Cancel | None,
) -> Result:
    """Finish a call that began the quick way: it was sent and takes longer, prints, asks ..."""
    reply = reply_to(site, begun.keep)
    exchange = _exchange(rt, site, begun.box, reply, begun.stream, args, kwargs)
    exchange.start_ns = begun.start_ns
    exchange.begun = begun.event
    record = _engine.converse(rt, begun.box, exchange, b"", [], cancel, detail=False)
    return _settle.settle(
        site, begun.stream, begun.box.pool, reply, record, args, kwargs, None, detail=False,
        annotation=site.annotation,
    )  # fmt: skip


def _forget(rt: Runtime, p: Prepared, gone: PoolGone) -> None:
    """The pool that a call was about to use is no more; so may be its zygote."""
    p.place = None
    if gone.template_id is not None:
        rt.pools.forget_template(gone.template_id)


def _exchange(
    rt: Runtime, site: CallSite, box: Box, reply: Reply, stream: Any,
    args: tuple[Any, ...], kwargs: dict[str, Any],
) -> Exchange:  # fmt: skip
    """Return the conversation of one call, within the limits of its site."""
    limits = site.codec_limits
    return Exchange(
        rt.sup, box, timeout_s=site.policy.limits.timeout, reply=reply, stream=stream,
        max_result=limits.body_bytes + limits.buffer_bytes,
        notes=_noting.taker(
            str(site.name), reply, stream,
            lambda: site.classes(stream.snapshot, args, kwargs, site.annotation),
        ),
    )  # fmt: skip


def reply_to(site: CallSite, keep: bytes | None) -> Reply:
    """Return what takes the answer: output; files, swallowed denials where asked for."""
    pair = outputs(site.output, site.policy.limits.output)
    if site.on_output is not None:
        from agentsbx._live import told

        pair = told(pair, site.on_output)
    reply = Reply(*pair)
    if keep is not None:
        reply.keep = keep, site.codec_limits.buffer_bytes
    if site.policy.strict_violations:
        reply.denials = []
    return reply


def warm(site: CallSite, n: int = 1) -> None:
    """Start what the site needs and wait until `n` sandboxes wait for its calls."""
    rt = _engine.current()
    with site.lock:
        p = prepare(site)
        if p.want is None:
            p.want = wanted_by(site, p, [])
        pool, _ = pool_for(rt, site, p, max(n, N_WAITING))
    try:
        rt.sup.wait_ready(pool, n, _engine.READY_TIMEOUT_MS)
    except OSError as e:
        _engine.reraise(e)
