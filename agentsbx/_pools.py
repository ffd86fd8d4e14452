"""Templates and pools of one process: which waiting sandbox serves which call.

Template = interpreter, imports, base tree, ids. Pool = template + one policy as its grants stand
now + working directory. Before each call every granted name is looked up again (semantics 4.5):
another object behind a name means another pool. LRU bounds on both.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from agentsbx import _compile, _core, _host, _zygote
from agentsbx._boxes import Pool, PoolGone
from agentsbx._preload import Wanted
from agentsbx._supervisor import Starting, Supervisor, SupervisorGone
from agentsbx.errors import PolicyError, SandboxUnavailable

if TYPE_CHECKING:
    from agentsbx.policy import Grant, Policy

MAX_TEMPLATES = 8
MAX_POOLS = 48  # of one supervisor; below SBX_MAX_POOLS of a zygote
N_WAITING = 2
_PROC_MASKS = (
    "/proc/keys", "/proc/key-users", "/proc/timer_list", "/proc/sched_debug", "/proc/kcore",
    "/proc/kmsg", "/proc/interrupts", "/proc/scsi", "/proc/acpi", "/proc/cmdline", "/proc/slabinfo",
    "/proc/vmallocinfo", "/proc/kpagecount", "/proc/kpageflags", "/proc/kpagecgroup",
)  # fmt: skip


def _masks() -> tuple[str, ...]:
    """Kernel information that others may read.

    What is root's alone needs no mask (a job never is).
    """
    out = []
    for path in _PROC_MASKS:
        with contextlib.suppress(OSError):
            st = os.stat(path)
            if st.st_mode & (stat.S_IROTH | stat.S_IXOTH):
                out.append(path)
    return tuple(out)


def system_tree() -> dict[str, _host.Found | str]:
    """What the base tree shows of the system: links as links, the rest as mounts."""
    out: dict[str, _host.Found | str] = {}
    for path in (*_compile.SYSTEM_DIRS, *_compile.ETC_PATHS):
        try:
            if path.count("/") == 1 and os.path.islink(path):
                out[path] = os.readlink(path)
            else:
                out[path] = _host.look_up(path)
        except FileNotFoundError:
            continue
    return out


def _shown(layout: _host.Layout) -> dict[str, _host.Found]:
    """Look up what a template shows of an interpreter; another one's is not reached by links."""
    try:
        found = {p: _host.look_up(p, follow=not layout.marks) for p in layout.mounts}
        return found | {at: _host.look_up(path) for at, path in layout.own}
    except OSError as e:
        raise PolicyError(
            f"{e.filename!r}, of the interpreter or packages of this tool: {e.strerror}",
            hint="is the environment being made anew? call again when it is there",
        ) from None


def _grant(grant: Grant, key: str) -> _host.Found:
    try:
        return _host.look_up(grant.path, follow=grant.follow)
    except FileNotFoundError:
        raise PolicyError(
            f"{key}={grant.path!r}: there is no such file or directory",
            path=key, hint="create it before the call, or take it out of the policy",
        ) from None  # fmt: skip
    except OSError as e:
        raise PolicyError(f"{key}={grant.path!r}: {e.strerror}", path=key) from None


def _refuse_links(mounts: list[_compile.Mount]) -> None:
    """A grant inside a write grant must be reached without links.

    An earlier job could have put one there, and the next would be given what it points to.
    """
    writable = [m for m in mounts if m.is_write and not m.found.is_file]
    for m in mounts:
        for w in writable:
            if not m.at.startswith(w.at.rstrip("/") + "/"):
                continue
            if m.found.real != os.path.join(w.found.real, os.path.relpath(m.at, w.at)):
                raise PolicyError(
                    f"{m.at!r} is reached through a symbolic link inside the write grant {w.at!r}",
                    hint="a job may have made it: remove the link, or grant its target by name",
                )


def is_same(mounts: tuple[_compile.Mount, ...]) -> bool:
    """Whether each name still stands for the object that was found: one stat(2) each."""
    try:
        for m in mounts:
            st = os.stat(m.at)
            f = m.found
            if st.st_ino != f.ino or st.st_dev != f.dev or st.st_uid != f.uid or st.st_gid != f.gid:
                return False
    except OSError:
        return False
    return True


class TemplateKey(NamedTuple):
    """What decides whether a call may use a template."""

    layout: _host.Layout | None
    packages: frozenset[str]
    owner: object
    shown: _host.Layout | None = None  # to commands, where it is not this program's own


class Pools:
    """All templates and pools of one supervisor."""

    def __init__(
        self,
        sup: Supervisor,
        caps: _host.Caps,
        env: Callable[[], dict[str, str]],
        orphans: deque[object],
    ) -> None:
        self._env = env  # what jobs without grants find in their environment
        self._orphans = orphans  # owners that are gone
        self.sup = sup
        self.caps = caps
        self._lock = threading.RLock()
        self._templates: OrderedDict[TemplateKey, int] = OrderedDict()
        self._pools: OrderedDict[tuple[Any, ...], Pool] = OrderedDict()
        self._starting: dict[int, Starting] = {}
        self._retired: set[int] = set()
        self._running: Counter[int] = Counter()  # calls in flight, by template
        self._bases: dict[int, tuple[str, ...]] = {}
        self._envs: dict[int, dict[str, str]] = {}
        self._system: dict[str, _host.Found | str] | None = None
        self._next_uid = 0
        self._has_shadow = os.path.exists("/etc/shadow")
        uid, gid = os.getuid(), os.getgid()
        self.ids = (uid, gid) if uid else (1000, 1000)

    def find_grants(self, policy: Policy) -> tuple[_compile.Mount, ...]:
        """Look every granted name up now."""
        from agentsbx._protect import protected_mounts

        mounts = [
            _compile.Mount(g.path, _grant(g, key), key == "write")
            for key in ("read", "write")
            for g in getattr(policy, key)
        ]
        written = {m.at for m in mounts if m.is_write}
        if written:
            from agentsbx._policy_code import refuse_code_writes

            refuse_code_writes(policy, real={m.at: m.found.real for m in mounts if m.is_write})
        mounts = [m for m in mounts if m.is_write or m.at not in written]
        _refuse_links(mounts)
        found = tuple(mounts + protected_mounts([m for m in mounts if m.is_write]))
        _compile.refuse_control_paths(found)
        return found

    def enter(self, pool: Pool) -> None:
        """A call runs in a sandbox of this pool: its template stays."""
        with self._lock:
            self._running[pool.template_id] += 1

    def leave(self, pool: Pool) -> None:
        """The counterpart of `enter`."""
        with self._lock:
            self._running[pool.template_id] -= 1
            if self._running[pool.template_id]:
                return
            del self._running[pool.template_id]
            if pool.template_id in self._retired:
                self._retired.remove(pool.template_id)
                with contextlib.suppress(SupervisorGone):
                    self._drop_template(pool.template_id)

    def template(
        self,
        layout: _host.Layout | None,
        want: Wanted,
        owner: object = None,
        *,
        shown: _host.Layout | None = None,
    ) -> int:
        """A zygote that has imported what `want` names, or is about to.

        `layout` None: the zygote of commands, which see the interpreter of `shown` (default: this
        program's). `owner`: shared with nobody else (fresh=True).
        """
        with self._lock:
            for key in self._templates:
                if (
                    key.layout is layout
                    and key.shown is shown
                    and key.owner is owner
                    and want.is_served_by(key.packages)
                ):
                    self._templates.move_to_end(key)
                    return self._templates[key]
            key = TemplateKey(layout, want.packages, owner, shown)
            if self._system is None:
                self._system = system_tree()
            tree = dict(self._system)
            bootstrap: tuple[str, ...] = ()
            shown = layout or shown
            if shown is None:  # commands: the interpreter is there too, where it is one
                with contextlib.suppress(SandboxUnavailable):
                    shown = _host.python_layout()
            tree |= _shown(shown) if shown is not None else {}
            if layout is not None:
                names = ",".join(want.names) or "-"
                given = self._env()
                env = "\x1f".join(f"{k}={v}" for k, v in given.items())
                boot = _zygote.BOOT_ELSEWHERE if layout.own else _zygote.BOOT
                flags = ("-I", "-S", "-B", "-c", boot, names, env)
                bootstrap = (layout.executable, *flags, *layout.sys_path)
            plan = _compile.compile_template(layout, tree, self.ids, bootstrap=bootstrap)
            starting = self.sup.template(plan)
            made = starting.id
            self._templates[key] = made
            self._starting[made] = starting
            if layout is not None:
                self._envs[made] = given
            self._bases[made] = tuple(p for p, f in tree.items() if not isinstance(f, str))
            idle = [k for k, t in self._templates.items() if t != made and not self._running[t]]
            for old in idle[: max(0, len(self._templates) - MAX_TEMPLATES)]:
                self._drop_template(self._templates.pop(old))
            return made

    def env_of(self, pool: Pool) -> dict[str, str] | None:
        """Return the environment that its zygote was given."""
        return self._envs.get(pool.template_id)

    def _settle(self, template_id: int) -> None:
        """Wait until the zygote serves; forget it where it could not start."""
        starting = self._starting.pop(template_id, None)
        if starting is None:
            return
        try:
            starting.finish(self.sup)
        except BaseException as e:
            layout = next((k.layout for k, t in self._templates.items() if t == template_id), None)
            self.forget_template(template_id)
            if isinstance(e, SandboxUnavailable) and layout is not None and layout.marks:
                raise SandboxUnavailable(
                    f"{layout.executable} did not start in the sandbox, as the interpreter of this "
                    "tool",
                    missing=["python"], stage=e.stage, errno=e.errno,
                    hint=f'see why: agentsbx.run([{layout.executable!r}, "-c", ""], python=...)',
                ) from e  # fmt: skip
            raise

    def _drop_template(self, template_id: int) -> None:
        for key, pool in list(self._pools.items()):
            if pool.template_id == template_id:
                del self._pools[key]
                pool.close()
        self._bases.pop(template_id, None)
        self._envs.pop(template_id, None)
        starting = self._starting.pop(template_id, None)
        if starting is not None:
            starting.close()
        self.sup.drop_template(template_id)

    def pool(
        self,
        owner: object,
        policy: Policy,
        template_id: int,
        grants: tuple[_compile.Mount, ...],
        cwd: str,
        n_waiting: int,
        *,
        traces: bool = False,
        terminal: bool = False,
    ) -> Pool:
        """The pool of this owner (a call site), policy and state of the file system.

        `traces`: its jobs may trace their command; `terminal`: they are sessions.
        """
        key = (owner, policy, template_id, grants, cwd, traces, terminal)
        with self._lock:
            self._settle(template_id)
            have = self._pools.get(key)
            if have is not None:
                self._pools.move_to_end(key)
                return have
            if template_id not in self._bases:  # another thread saw it die, or could not start it
                raise PoolGone("the zygote is gone", template_id=template_id)
            job = _compile.compile_job(
                policy, self.caps, self._bases[template_id], grants, cwd, self.ids,
                masks=_masks(), has_shadow=self._has_shadow, traces=traces, terminal=terminal,
            )  # fmt: skip
            uid_index = 0
            if self.caps.is_root:
                uid_index = self._free_uid()
            try:
                made = self.sup.pool(template_id, job, n_waiting, uid_index)
            except FileNotFoundError as e:
                raise PolicyError(
                    f"{e.filename!r}: gone while the sandbox was being made"
                ) from None
            except OSError as e:
                raise SandboxUnavailable(
                    f"{e.filename!r} changed while the sandbox was being made: {e.strerror}",
                    missing=["stable grant"], errno=e.errno,
                ) from None  # fmt: skip
            # The same call site with other grants or another directory: its old pool is of no use.
            stale = [k for k in self._pools if owner and k[0] is owner and k[1] == policy]
            self._pools[key] = made
            while self._orphans:
                gone = self._orphans.popleft()
                stale += [k for k in self._pools if k[0] is gone]
            for k in stale:
                self.drop(k)
            while len(self._pools) > MAX_POOLS:
                self.drop(next(iter(self._pools)))
            return made

    def drop(self, key: tuple[Any, ...]) -> None:
        """Kill a pool's waiting sandboxes and forget it."""
        pool = self._pools.pop(key, None)
        if pool is not None:
            with contextlib.suppress(SupervisorGone):
                self.sup.drop_pool(pool)

    def forget_template(self, template_id: int) -> None:
        """The next call starts another zygote; this one ends when no call runs in it any more."""
        with self._lock:
            for key, have in list(self._templates.items()):
                if have == template_id:
                    del self._templates[key]
            if self._running[template_id]:
                self._retired.add(template_id)
                return
            with contextlib.suppress(SupervisorGone):
                self._drop_template(template_id)

    def _free_uid(self) -> int:
        """The next id that no pool has: two tenants with one uid would share kernel quotas."""
        used = {pool.uid_index for pool in self._pools.values()}
        while True:
            self._next_uid = self._next_uid % (self.caps.n_uids - 1) + 1
            if self._next_uid not in used:
                return self._next_uid

    def abandon(self) -> None:
        """In a forked child: close our copies, take no lock."""
        _core.close_all(*(s.reply for s in self._starting.values()))
        for pool in self._pools.values():
            pool.abandon()

    def close(self) -> None:
        """Close every queue (the processes end with the supervisor)."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            for starting in self._starting.values():
                starting.close()
            self._starting.clear()
            self._pools.clear()
            self._templates.clear()
