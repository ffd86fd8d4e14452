"""What a call of a site needs before a sandbox is taken: snapshot, set-up, zygote, pool.

All of it is compared with the last call's and made anew only where something has changed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentsbx import _engine, _header, _host, _nested, _pythons, _setup, _ship, _transfer
from agentsbx._boxes import Pool
from agentsbx._pools import is_same
from agentsbx._preload import NOTHING, Wanted, wanted

if TYPE_CHECKING:
    from agentsbx._engine import Runtime
    from agentsbx._runtime import CallSite

__all__ = ["Place", "Prepared", "pool_for", "prepare", "snapshot_body", "views_of", "wanted_by"]


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


def prepare(site: CallSite) -> Prepared:
    """Present snapshot and set-up of a site; a new version where anything changed."""
    p = site.prepared
    fresh = p.snapshot is None or not p.snapshot.is_current() or p.snapshot_fn is not site.fn
    if fresh:
        p.snapshot = _ship.take_snapshot(
            site.fn,
            captures=site.captures,
            hidden_env=_host.hidden_env(site.policy),
            wrapper_reducer=_nested.reducer(site.offers),
            offers=site.offers,
        )
        p.snapshot_fn = site.fn
    if not fresh and p.environ == _engine.environ() and p.seen[1:] == _setup.process():
        p.n_changes = 0
        return p
    p.environ = _engine.environ().copy()
    seen = _setup.seen(site)
    if fresh or seen != p.seen:
        p.seen = seen
        p.setup = _setup.setup(site, seen)
        p.version += 1
        p.n_changes += 1
    else:
        p.n_changes = 0
    return p


def wanted_by(site: CallSite, p: Prepared, blobs: list[bytes]) -> Wanted:
    """Return the libraries that the zygote of the site shall import."""
    explicit = [*site.policy.preload, *(["asyncio"] if site.kind.is_async else [])]
    layout = _pythons.for_functions(site.policy)
    return wanted(
        site.fn, [p.snapshot.blob, *blobs], explicit,
        has_env=bool(site.policy.env), folders=layout.folders or None,
    )  # fmt: skip


def views_of(buffers: Sequence[Any]) -> list[memoryview]:
    """Return flat views of what travels out of band."""
    return [b.raw() if hasattr(b, "raw") else memoryview(b).cast("B") for b in buffers]


def snapshot_body(rt: Runtime, pool: Pool, setup: _setup.Setup, snapshot: Any) -> bytes:
    """Return what a sandbox of the pool loads before its call."""
    if setup.env == rt.pools.env_of(pool):
        setup = setup._replace(env=None)
    lengths = [v.nbytes for v in views_of(snapshot.buffers)]
    return _header.pack_snapshot(setup, snapshot.blob, lengths)


def _snapshot_fd(body: bytes, buffers: list[memoryview]) -> int:
    fd, _ = _transfer.write_memfd(
        "snapshot", len(body).to_bytes(8, "little") + body, buffers, _transfer.HOST_SEALS
    )
    return fd


def pool_for(rt: Runtime, site: CallSite, p: Prepared, n_waiting: int) -> tuple[Pool, Any]:
    """Return the pool of a site as things stand now, holding its snapshot, and its grants."""
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        cwd = "/"
    layout = _pythons.for_functions(site.policy)
    at = p.place
    same = (
        at is not None and at.rt is rt and at.cwd == cwd and at.layout is layout
        and not at.pool.is_closed and not site.policy.write and not site.policy.fresh
        and is_same(at.grants)
    )  # fmt: skip
    if at is not None and at.layout is not layout and layout.marks:
        p.want = wanted_by(site, p, [])  # what was the host's own file there may be another now
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
            body = snapshot_body(rt, pool, p.setup, p.snapshot)
            fd = _snapshot_fd(body, views_of(p.snapshot.buffers))
        try:
            rt.sup.snapshot(pool, wanted, fd)
        finally:
            if fd >= 0:
                os.close(fd)
    return pool, at.grants
