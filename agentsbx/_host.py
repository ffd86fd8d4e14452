"""What this host is: the interpreter's layout and what the kernel offers. Pure look-ups.

Nothing here starts a process; what only trying can tell (namespaces, control groups) comes from the
supervisor's HELLO and is merged in by `_runtime`.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
import sysconfig
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from agentsbx._policy_rules import is_below

if TYPE_CHECKING:
    from agentsbx.policy import Policy


class Layout(msgspec.Struct, frozen=True):
    """Where the interpreter of a template lives.

    `mounts` are the real directories and files that a Python job sees read-only besides the
    system's own: each at its host path. `sys_path` is what the zygote imports from: stdlib and
    site-packages of the host's `sys.path`, in its order, and the folder that holds this package.

    For another interpreter or other packages (`_pythons`): `folders` hold the packages; `own` are
    folders of this installation that such a template needs as well, each as (place in there, path
    here); `marks` is what the layout was read from, as (path, device, inode, time of change).
    """

    executable: str
    version: str
    sys_path: tuple[str, ...]
    mounts: tuple[str, ...]
    package: str
    folders: tuple[str, ...] = ()
    own: tuple[tuple[str, str], ...] = ()
    marks: tuple[tuple[str, int, int, int], ...] = ()

    def is_unchanged(self) -> bool:
        """Whether all that it was read from is still there and the same."""
        return all(mark(m[0]) == m for m in self.marks)


def mark(path: str) -> tuple[str, int, int, int] | None:
    """Return what tells whether a file or folder is the same as before; None: it is gone."""
    try:
        st = os.stat(path)
    except OSError:
        return None
    return path, st.st_dev, st.st_ino, st.st_mtime_ns


def library_roots() -> tuple[str, ...]:
    """Directories whose modules are libraries (semantics 1.2): stdlib and site-packages.

    >>> any("python" in p for p in library_roots())
    True
    """
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    found = {os.path.realpath(p) for n in names if (p := sysconfig.get_paths().get(n))}
    found |= {os.path.realpath(p) for p in sys.path if is_site(p)}
    return tuple(sorted(found))


def is_site(path: str) -> bool:
    """Whether a folder is one for installed packages, by its name."""
    return os.path.basename(path.rstrip("/")) in ("site-packages", "dist-packages")


def hidden_env(policy: Policy) -> dict[str, str]:
    """Return the variables of this process that the policy does not grant."""
    granted = set(policy.env_names)
    return {k: v for k, v in os.environ.items() if k not in granted}


def without_dots(path: str) -> str:
    """Return the same place by an absolute name without `..` (`../.venv/bin/python`).

    The folders that such a name leads through are not in a sandbox. Links are kept where they can
    be: what a virtual environment's interpreter links to is another one.
    """
    if not path or (os.path.isabs(path) and "/.." not in path):
        return path
    plain = os.path.abspath(path)
    folder, name = os.path.split(path)
    try:
        if os.path.samefile(os.path.dirname(plain), folder or "."):
            return plain
        return os.path.join(os.path.realpath(folder, strict=True), name)
    except OSError:  # not there: nothing that could be said better
        return path


def _executable() -> str:
    exe = without_dots(sys.executable)
    ok = exe and os.path.isabs(exe) and os.access(exe, os.X_OK)
    if ok and "python" not in os.path.basename(os.path.realpath(exe)):
        ok = False  # an embedding host names itself here (uwsgi, blender): not an interpreter
    if not ok:
        from agentsbx.errors import SandboxUnavailable

        raise SandboxUnavailable(
            f"sys.executable is {exe!r}, which is not a Python interpreter; a sandbox needs one",
            missing=["python"],
            hint="set sys.executable to the interpreter whose packages the tool uses",
        )
    return exe


@functools.cache
def _covered_roots() -> tuple[str, ...]:
    """System directories that every sandbox has read-only, as real paths."""
    return tuple(
        os.path.realpath(p) for p in ("/usr", "/lib", "/lib64", "/bin") if os.path.isdir(p)
    )


def is_covered(path: str) -> bool:
    """Whether every sandbox has this real path, being the system's."""
    return any(path == r or path.startswith(r + "/") for r in _covered_roots())


def python_layout() -> Layout:
    """The running interpreter's layout, for `sys.path` as it stands now."""
    names = tuple(p for p in sys.path if isinstance(p, str))  # what else is there, Python skips
    with _one_at_a_time:  # layouts are compared by identity: two would mean two zygotes
        return _layout(sys.executable, names, sys.prefix)


_one_at_a_time = threading.Lock()


def after_fork() -> None:
    """In a forked child: the thread that held the lock is not here."""
    global _one_at_a_time
    _one_at_a_time = threading.Lock()


@functools.lru_cache(maxsize=8)
def _layout(executable: str, sys_path: tuple[str, ...], prefix: str) -> Layout:
    del executable, prefix  # keys only: an interpreter's own settings can be changed at run time
    exe = _executable()
    stdlib = {sysconfig.get_paths()["stdlib"]}  # "platstdlib" lies about virtual environments
    package = os.path.dirname(os.path.abspath(__file__))
    path: list[str] = []
    for p in sys_path:
        zipped = p.endswith(".zip") and os.path.dirname(p) in {os.path.dirname(s) for s in stdlib}
        if p in stdlib or os.path.basename(p) == "lib-dynload" or is_site(p) or zipped:
            path.append(p)
    home = os.path.dirname(package)
    if home not in path:
        path.append(home)
    wanted: list[str] = []
    for prefix in {sys.base_prefix, sys.base_exec_prefix, sys.prefix}:
        wanted += [os.path.join(prefix, "bin"), os.path.join(prefix, "lib")]
        wanted.append(os.path.join(prefix, "pyvenv.cfg"))
    wanted += [p for p in path if is_site(p)] + [package, os.path.dirname(os.path.realpath(exe))]
    mounts = minimal(p for p in wanted if os.path.exists(p) and not is_covered(os.path.realpath(p)))
    return Layout(exe, sys.version, tuple(path), mounts, package)


def minimal(paths: Iterable[str]) -> tuple[str, ...]:
    """Sorted, without what lies below another one."""
    out: list[str] = []
    for p in sorted({os.path.abspath(p) for p in paths}):
        if not any(p.startswith(o + "/") for o in out):
            out.append(p)
    return tuple(out)


class Found(msgspec.Struct, frozen=True):
    """One look-up of a name on the host: what the broker must find again."""

    path: str
    real: str
    dev: int
    ino: int
    uid: int
    gid: int
    is_file: bool


def look_up(path: str, *, follow: bool = True) -> Found:
    """Find `path` now. FileNotFoundError, or OSError(ELOOP) for a final link with follow=False."""
    seen = None if follow else os.lstat(path)
    if seen is not None and stat.S_ISLNK(seen.st_mode):
        raise OSError(40, "is a symbolic link (Grant(path, follow=True) accepts it)", path)
    real = os.path.realpath(path, strict=True)
    st = os.stat(real)
    if seen is not None and (st.st_dev, st.st_ino) != (seen.st_dev, seen.st_ino):
        raise OSError(116, "was replaced while it was looked up", path)
    return Found(
        path, real, st.st_dev, st.st_ino, st.st_uid, st.st_gid, not stat.S_ISDIR(st.st_mode)
    )


class Caps(msgspec.Struct, frozen=True):
    """What the supervisor found by trying (struct sbx_hello), plus kernel facts."""

    is_root: bool = False
    uid_base: int = 0
    n_uids: int = 1
    cgroup_version: int = 0
    cgroup_have: int = 0
    landlock_abi: int = 0
    kernel: str = ""
    has_nproc: bool = True

    @property
    def has_noexec_seal(self) -> bool:
        """Whether memfd_create knows MFD_NOEXEC_SEAL (Linux 6.3).

        >>> Caps(kernel="6.18.4-x").has_noexec_seal, Caps(kernel="5.15.0").has_noexec_seal
        (True, False)
        """
        major, _, rest = self.kernel.partition(".")
        minor = rest.partition(".")[0].partition("-")[0]
        return major.isdigit() and minor.isdigit() and (int(major), int(minor)) >= (6, 3)


def is_kernel_root() -> bool:
    """Return whether this user is the kernel's uid 0, whom RLIMIT_NPROC never holds.

    Root of a container is, unless the container has a user namespace of its own.
    """
    if os.geteuid() != 0:
        return False
    try:
        with open("/proc/self/uid_map") as file:
            return file.read().split()[:2] == ["0", "0"]
    except OSError:  # no /proc: the weaker one is believed
        return True


def is_readable(path: str, policy: Policy) -> bool:
    """Whether owner and mode let a job read a granted path: it has none of root's own rights."""
    if os.geteuid() != 0:
        return os.access(path, os.R_OK)
    above = [g.path for g in (*policy.read, *policy.write) if is_below(path, g.path)]
    try:
        grant, file = os.stat(max(above, key=len, default=path)), os.stat(path)
    except OSError:
        return True  # not for its mode
    if file.st_uid == grant.st_uid:  # the job is shown as the owner of what is granted
        return bool(file.st_mode & stat.S_IRUSR)
    return bool(file.st_mode & (stat.S_IRGRP if file.st_gid == grant.st_gid else stat.S_IROTH))
