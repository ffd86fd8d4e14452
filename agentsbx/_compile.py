"""policy + host -> plan: a pure function (law 4). Looks nothing up, starts nothing.

`compile_template` builds the base tree that jobs of one template share read-only; `compile_job`
what one policy adds: grants, private storage, identity, limits and walls. What a kernel of this
host cannot enforce raises `SandboxUnavailable` here, before any user code, unless the policy says
`on_missing="weaken"`; either way it is listed in `enforced`.
"""

from __future__ import annotations

import math
import os
import resource

import msgspec

from agentsbx._compile_missing import missing
from agentsbx._filter import build_filter, coarse_filter
from agentsbx._host import Caps, Found, Layout
from agentsbx._plan import JOB, POOL_DIR, TEMPLATE, Flag, Op, PlanBuilder, PlanFlag
from agentsbx.errors import PolicyError, SandboxUnavailable
from agentsbx.policy import Limits, Policy

RDONLY_ATTR = 1  # MOUNT_ATTR_RDONLY
PRIVATE = "/sandbox"
HOME = f"{PRIVATE}/home"
TMPDIR = f"{PRIVATE}/tmp"
SLASH_TMP = f"{PRIVATE}/.tmp"  # what /tmp shows
SHOWN_CWD = f"{PRIVATE}/.cwd"  # what the working directory shows, where it is not granted
_TREE_DIRS = ("/proc", "/dev", "/etc", PRIVATE, "/tmp", "/var/tmp", "/run")  # of each template
U64 = 2**64 - 1
RLIM_INFINITY = U64
MiB = 2**20

# Landlock access rights by ABI (landlock(7), linux/landlock.h).
_EXECUTE, _WRITE, _READ, _READ_DIR = 1, 2, 4, 8
_ALL_ABI1 = (1 << 13) - 1
_MAKE_CHAR, _MAKE_SOCK, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
LL_READ = _EXECUTE | _READ | _READ_DIR


class MountSpec(msgspec.Struct, frozen=True):
    """One detached mount that the broker shall make."""

    found: Found
    is_rdonly: bool
    idmap: bool = False  # started as root: show the owner as the pool's id
    recursive: bool = True


class Template(msgspec.Struct, frozen=True):
    """Base tree of a family of pools."""

    plan: bytes
    mounts: tuple[MountSpec, ...]
    places: tuple[str, ...]
    is_command: bool


class Job(msgspec.Struct, frozen=True):
    """What the jobs of one pool add, and the numbers that the supervisor enforces."""

    plan: bytes
    mounts: tuple[MountSpec, ...]
    places: tuple[str, ...]
    cwd: str
    memory: int
    cpu_time_ns: int
    cpu_quota_us: int
    processes: int
    want_cgroup: int
    poll_memory: bool
    enforced: dict[str, str]


def landlock_sets(abi: int) -> tuple[int, int, int]:
    """Everything that this ABI can handle: (fs, net, scope).

    >>> landlock_sets(0), landlock_sets(3)
    ((0, 0, 0), (32767, 0, 0))
    """
    if abi <= 0:
        return 0, 0, 0
    fs = _ALL_ABI1 | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    fs |= _IOCTL_DEV if abi >= 5 else 0
    return fs, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0


# -- base tree ---------------------------------------------------------------------------------

SYSTEM_DIRS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC_PATHS = ("/etc/ld.so.cache", "/etc/localtime", "/etc/ssl", "/etc/alternatives", "/etc/pki",
             "/etc/ca-certificates")  # fmt: skip
_BLAS_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_DEVICES = ("null", "zero", "full", "random", "urandom")
_ETC_FILES = {
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "/etc/hostname": "sandbox\n",
    "/etc/host.conf": "multi on\n",
}


def compile_template(
    layout: Layout | None,
    tree: dict[str, Found | str],
    ids: tuple[int, int],
    *,
    bootstrap: tuple[str, ...] = (),
) -> Template:
    """Base tree plus the zygote program.

    `tree` maps a path to what stands there: a link's text or a look-up; `layout` None makes a
    command template. `ids`: uid and gid that jobs see.
    """
    b = PlanBuilder(TEMPLATE, PlanFlag.NEW_NET)
    mounts: list[MountSpec] = []
    b.add(Op.TMPFS, path="/", a=64 * MiB, b=200_000)  # mount points of all its pools stay
    b.add(Op.TMPFS, path=POOL_DIR, a=MiB, b=8192)
    for path in _TREE_DIRS:
        b.add(Op.MKDIR, path=path, a=0o755)
    for path, found in tree.items():
        if isinstance(found, str):
            b.add(Op.SYMLINK, path=path, text=found)
            continue
        b.add(Op.BIND, path=path, arg=len(mounts), flags=Flag.FILE if found.is_file else 0)
        mounts.append(MountSpec(found, is_rdonly=True))
    _base_files(b, ids)
    b.add(Op.PROC, path="/proc")
    b.add(Op.PIVOT)
    b.add(Op.HOSTNAME, text="sandbox")
    b.bpf = coarse_filter()
    b.add(Op.SECCOMP)
    words = ("agentsbx-launcher", "zygote") if layout is None else bootstrap
    for word in words:
        b.add(Op.ARG, text=word)
    b.add(Op.ENV, text="PATH=/usr/local/bin:/usr/bin:/bin")
    b.add(Op.ENV, text="LC_ALL=C.UTF-8")
    for name in _BLAS_THREADS if layout is not None else ():
        b.add(Op.ENV, text=f"{name}=1")  # a zygote has one thread; the worker restores the count
    b.n_mounts = len(mounts)
    return Template(b.pack(), tuple(mounts), tuple(b.places), layout is None)


def _base_files(b: PlanBuilder, ids: tuple[int, int]) -> None:
    for name in _DEVICES:
        b.add(Op.NODE, path=f"/dev/{name}")
    for link, to in (
        ("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"), ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/shm", f"{PRIVATE}/shm"), ("/etc/mtab", "/proc/self/mounts"),
    ):  # fmt: skip
        b.add(Op.SYMLINK, path=link, text=to)
    uid, gid = ids
    files = dict(_ETC_FILES)
    files["/etc/passwd"] = f"sandbox:x:{uid}:{gid}:sandbox:{HOME}:/bin/sh\n"
    files["/etc/group"] = f"sandbox:x:{gid}:\n"
    for path, text in files.items():
        b.add(Op.WRITE, path=path, text=text, a=0o444)
    b.add(Op.MKDIR, path="/.empty", a=0o555)  # what MASK shows for a directory; a bare cwd
    b.add(Op.WRITE, path="/.canary", text="a wall is missing\n", a=0o444)


# -- one policy --------------------------------------------------------------------------------


class Mount(msgspec.Struct, frozen=True):
    """A grant as it was found for this call."""

    at: str  # path inside = the name as the policy writes it
    found: Found
    is_write: bool
    is_protected: bool = False  # a protected name inside a write grant: never idmapped anew


def compile_job(
    policy: Policy,
    caps: Caps,
    base: tuple[str, ...],
    grants: tuple[Mount, ...],
    cwd: str,
    ids: tuple[int, int],
    *,
    masks: tuple[str, ...] = (),
    has_shadow: bool = False,
    traces: bool = False,
    terminal: bool = False,
) -> Job:
    """Plan of one policy. `base`: paths that the template shows; `grants`: as looked up now.

    `traces`: pid 1 may trace its command; `terminal`: none that it may get is the host's.
    """
    if policy.net:
        raise SandboxUnavailable(
            "network rules need the egress gateway, which this version does not have",
            missing=["gateway"],
            hint="leave net= out: the sandbox then has no network at all",
        )
    if cwd.startswith(("/proc/", "/dev/")):
        raise SandboxUnavailable(
            f"the working directory {cwd!r} is the host's: a sandbox has its own /proc and /dev",
            missing=["working directory"], hint="change to another folder before the call",
        )  # fmt: skip
    b = PlanBuilder(JOB, PlanFlag.MOUNT_NS | PlanFlag.IPC_NS | PlanFlag.PID_NS)
    ordered = sorted(grants, key=lambda g: (g.at.count("/"), g.at))
    mounts = _tree(b, policy.limits, ordered, base, cwd, masks)
    b.n_mounts = len(mounts)
    b.add(Op.IDS, a=ids[0], b=ids[1])
    b.add(Op.SYSCTL, path="/proc/sys/user/max_user_namespaces", text="0")
    b.add(Op.SYSCTL, path="/proc/sys/user/max_inotify_instances", text="16", flags=Flag.OPTIONAL)
    b.add(Op.SYSCTL, path="/proc/sys/user/max_inotify_watches", text="4096", flags=Flag.OPTIONAL)
    limits = _limits(b, policy, caps)
    if policy.cpu_set:
        _pin(b, policy, limits.enforced)
    b.add(Op.CAPS)
    enforced = dict(limits.enforced)
    _landlock(b, policy, caps, ordered, base, cwd, enforced)
    # Started by root the supervisor sets vm.memfd_noexec=2 for its pid namespace; an ordinary user
    # cannot, so there the filter demands MFD_NOEXEC_SEAL.
    b.bpf = build_filter(
        policy.profile,
        extra=policy.syscalls,
        memfd_noexec_seal=not caps.is_root and caps.has_noexec_seal,
        ids=ids,
        traces=traces,
        terminal=terminal,
        is_pinned=bool(policy.cpu_set),
    )
    b.add(Op.SECCOMP, flags=Flag.LISTENER)
    enforced["system calls"] = f"seccomp allow-list (profile {policy.profile})"
    enforced["files"] = "mount namespace with an empty root" + (
        f" and Landlock (ABI {caps.landlock_abi})" if caps.landlock_abi > 0 else ""
    )
    enforced["network"] = "empty network namespace, no socket families"
    enforced["processes seen"] = "pid, ipc, uts and user namespaces of its own"
    if caps.landlock_abi > 0:
        b.add(Op.CANARY, path="/.canary", arg=13)
    if has_shadow:
        b.add(Op.CANARY, path="/etc/shadow", arg=2)
    b.add(Op.CHDIR, path=cwd)
    return msgspec.structs.replace(
        limits, plan=b.pack(), mounts=tuple(mounts), places=tuple(b.places), cwd=cwd,
        enforced=enforced,
    )  # fmt: skip


def _inside(path: str, roots: tuple[str, ...] | list[str]) -> bool:
    return any(path == r or path.startswith(r.rstrip("/") + "/") for r in roots)


def _tree(
    b: PlanBuilder,
    limits: Limits,
    grants: list[Mount],
    base: tuple[str, ...],
    cwd: str,
    masks: tuple[str, ...],
) -> list[MountSpec]:
    b.add(Op.TMPFS, path=PRIVATE, a=max(limits.disk, 4096), b=max(limits.inodes, 16))
    for name, mode in (("home", 0o700), ("tmp", 0o700), ("shm", 0o700), (".tmp", 0o700)):
        b.add(Op.MKDIR, path=f"{PRIVATE}/{name}", a=mode, flags=Flag.OWN)
    for path in base:
        if path.startswith("/tmp/"):  # a virtual environment there: the private /tmp would hide it
            b.add(Op.MOVE, path=SLASH_TMP + path.removeprefix("/tmp"), text=path)
    b.add(Op.SELF, path="/tmp", text=SLASH_TMP, flags=Flag.RECURSIVE)
    places = [g.at for g in grants]
    is_bare = not _inside(cwd, [*base, *places]) and cwd not in (HOME, TMPDIR)  # nor writable
    is_own = is_bare and not any(_inside(p, [cwd]) for p in _TREE_DIRS)
    # A folder of this job alone: private storage is writable, and in the tree that all jobs of the
    # template share stand the names of other policies' grants.
    is_empty = is_own and not any(_inside(p, [cwd]) for p in (*base, *places))
    if is_empty:
        b.add(Op.SELF, path=cwd, text="/.empty", flags=Flag.RDONLY)
    elif is_own:
        b.add(Op.MKDIR, path=SHOWN_CWD, a=0o755)
        for path in base:
            if _inside(path, [cwd]):
                b.add(Op.MOVE, path=SHOWN_CWD + path.removeprefix(cwd), text=path)
        b.add(Op.SELF, path=cwd, text=SHOWN_CWD, flags=Flag.RECURSIVE)
    elif is_bare and not _inside(cwd, ["/proc", *_TREE_DIRS]) and cwd != "/":
        b.add(Op.MKDIR, path=cwd, a=0o755)
    mounts: list[MountSpec] = []
    for g in grants:
        flags = Flag.FILE if g.found.is_file else 0
        if _inside(g.at, [o.at for o in grants if o is not g]):
            flags |= Flag.NOCREATE  # it lies in another grant: nothing of ours appears on the host
        if g.is_protected:
            flags |= Flag.NOCREATE | Flag.OPTIONAL  # gone meanwhile: Watch sees what comes
        b.add(Op.BIND, path=g.at, arg=len(mounts), flags=flags)
        mounts.append(MountSpec(g.found, is_rdonly=not g.is_write, idmap=True))
    if (is_own and not is_empty) or (is_bare and cwd == "/tmp"):
        b.add(Op.RDONLY, path=cwd)
    b.add(Op.PROC, path="/proc", flags=Flag.RDONLY)
    for path in masks:
        b.add(Op.MASK, path=path)
    b.add(Op.DETACH, path=POOL_DIR)
    b.add(Op.RDONLY, path="/")
    return mounts


def private_places(others: list[str], cwd: str) -> tuple[str, ...]:
    """Where a job may write without a grant. `others`: paths of libraries and grants.

    Landlock adds up rights along a path, across mounts: with a grant or a library below /tmp a rule
    on /tmp would be no second wall there, so /tmp itself is then closed; TMPDIR is another
    directory. As working directory it is closed too: what lies there is the host's, and a relative
    name must not vanish (rule 4.2).

    >>> private_places(["/srv/data"], "/")[-2:], private_places(["/tmp/x"], "/")[-1]
    (('/sandbox/tmp', '/tmp'), '/sandbox/tmp')
    """
    own = HOME, f"{PRIVATE}/shm", TMPDIR
    is_closed = cwd == "/tmp" or any(_inside(p, ["/tmp"]) for p in others)
    return own if is_closed else (*own, "/tmp")


def _rlimit(b: PlanBuilder, which: int, value: int) -> None:
    """Set soft and hard, never above what this process itself may have."""
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = hard if value < 0 else min(value, hard)
    v = RLIM_INFINITY if value < 0 else value
    b.add(Op.RLIMIT, arg=which, a=v, b=v)


def _limits(b: PlanBuilder, policy: Policy, caps: Caps) -> Job:
    lim = policy.limits
    have = caps.cgroup_have
    memory_cg, cpu_cg, pids_cg, acct_cg = (bool(have & bit) for bit in (1, 2, 4, 8))
    enforced: dict[str, str] = {}
    want = 0
    if lim.memory >= 0:
        enforced["memory"] = f"cgroup v{caps.cgroup_version}" if memory_cg else "rlimit+poll"
        if not memory_cg:
            enforced["memory, not covered"] = (
                "memfd, pipe and socket buffers (no memory cgroup here)"
            )
        want |= 1 if memory_cg else 0
    if policy.strict_limits and lim.memory >= 0 and not memory_cg:
        missing(policy, "memory", "a memory cgroup", enforced)
    if lim.cpus >= 0:
        if cpu_cg:
            want |= 2
            enforced["cpus"] = f"cgroup v{caps.cgroup_version}"
        else:
            missing(policy, "cpus", "a cpu cgroup", enforced)
    if pids_cg:
        want |= 4
    if acct_cg:
        want |= 8
    own = "RLIMIT_NPROC of its own user namespace"
    enforced["processes"] = "cgroup and RLIMIT_NPROC" if pids_cg else own
    if not pids_cg and not caps.has_nproc:
        missing(policy, "processes", "a pids cgroup where the kernel's root starts it", enforced)
    if policy.strict_limits and lim.cpu_time >= 0 and not acct_cg:
        missing(policy, "cpu_time", "a cpuacct cgroup", enforced)
    if lim.cpu_time >= 0:
        enforced["cpu_time"] = (
            "cgroup accounting, whole tree"
            if acct_cg
            else "RLIMIT_CPU per process, and polling of the tree"
        )
        _rlimit(b, resource.RLIMIT_CPU, math.ceil(lim.cpu_time) + 1)
    enforced |= {
        "timeout": "supervisor",
        "buffers": "host",
        "open_files": "RLIMIT_NOFILE",
        "file_size": "RLIMIT_FSIZE",
        "disk": "tmpfs size",
        "inodes": "tmpfs nr_inodes",
        "output": "host",
        "result": "host",
    }
    if lim.memory >= 0 and not memory_cg:
        _rlimit(b, resource.RLIMIT_DATA, lim.memory + 128 * MiB)
    _rlimit(b, resource.RLIMIT_CORE, 1)  # 0 does not stop a core pipe, 1 does (core(5))
    _rlimit(b, resource.RLIMIT_NOFILE, lim.open_files)
    _rlimit(b, resource.RLIMIT_FSIZE, lim.file_size)
    _rlimit(b, resource.RLIMIT_NPROC, lim.processes)
    _rlimit(b, resource.RLIMIT_MEMLOCK, 0)
    _rlimit(b, resource.RLIMIT_SIGPENDING, 256)
    _rlimit(b, resource.RLIMIT_MSGQUEUE, 0)
    _rlimit(b, resource.RLIMIT_NICE, 0)
    _rlimit(b, resource.RLIMIT_RTPRIO, 0)
    return Job(
        plan=b"", mounts=(), places=(), cwd="", memory=lim.memory if lim.memory >= 0 else U64,
        cpu_time_ns=int(lim.cpu_time * 1e9) if lim.cpu_time >= 0 else U64,
        cpu_quota_us=max(1000, int(lim.cpus * 100_000)) if lim.cpus >= 0 else U64,
        processes=lim.processes if lim.processes >= 0 else U64, want_cgroup=want,
        poll_memory=lim.memory >= 0 and not memory_cg, enforced=enforced,
    )  # fmt: skip


def _pin(b: PlanBuilder, policy: Policy, enforced: dict[str, str]) -> None:
    """Run on some CPUs only; the filter denies to choose others."""
    usable = os.sched_getaffinity(0)
    wrong = [cpu for cpu in policy.cpu_set if cpu not in usable]
    if wrong:
        raise SandboxUnavailable(
            f"cpu_set= names CPU {wrong[0]}, which this process may not use",
            missing=["cpu"],
            hint=f"usable here: {','.join(map(str, sorted(usable)))}",
        )
    b.add(Op.CPUS, text=",".join(map(str, policy.cpu_set)))
    enforced["cpu_set"] = "sched_setaffinity, which the job itself is denied"


def _landlock(
    b: PlanBuilder,
    policy: Policy,
    caps: Caps,
    grants: list[Mount],
    base: tuple[str, ...],
    cwd: str,
    enforced: dict[str, str],
) -> None:
    fs, net, scope = landlock_sets(caps.landlock_abi)
    if not fs:
        missing(policy, "landlock", "Landlock (Linux 5.13, lsm=landlock)", enforced)
        return
    b.landlock = (fs, net, scope)
    write = fs & ~_EXECUTE | _EXECUTE
    for path in ("/etc", "/proc", *(p for p in base if not p.startswith("/etc/"))):
        b.add(Op.LANDLOCK, path=path, a=LL_READ, flags=Flag.OPTIONAL)
    b.add(Op.LANDLOCK, path="/dev", a=_READ_DIR | _READ | _WRITE | _IOCTL_DEV | _TRUNCATE)
    write &= ~(_IOCTL_DEV | _MAKE_CHAR | _MAKE_BLOCK | _MAKE_SOCK)
    for path in private_places([*base, *(g.at for g in grants)], cwd):
        b.add(Op.LANDLOCK, path=path, a=write)
    for g in grants:
        b.add(Op.LANDLOCK, path=g.at, a=write if g.is_write else LL_READ)
    if not _inside(cwd, [*base, *(g.at for g in grants)]) and cwd not in ("/", HOME, TMPDIR):
        b.add(Op.LANDLOCK, path=cwd, a=_READ_DIR)


def refuse_control_paths(grants: tuple[Mount, ...]) -> None:
    """A grant must not hold kernel interfaces or other sandboxes' ends."""
    for g in grants:
        real = g.found.real
        if real == "/" or (_inside(real, ["/proc", "/sys", "/dev"]) and not g.found.is_file):
            raise PolicyError(
                f"{g.at!r} cannot be granted: it holds kernel interfaces",
                hint="grant the one directory or file that the tool needs",
            )
