"""Denials in words: what was denied, by which rule, and the smallest change that would allow it.

Pure functions in the host. What they are given (paths, numbers of system calls) may come from the
job: it is quoted, clipped and never looked up except through the callables passed in. Every message
is at most 300 characters, so that a model can read and act on it.
"""

from __future__ import annotations

import errno as _errno
import os
import re
from typing import TYPE_CHECKING

import msgspec

from agentsbx._explain_limits import explain_exit, explain_limit, explain_thread, limit_table
from agentsbx._explain_policy import explain_policy
from agentsbx._explain_syscalls import explain_denied_syscall
from agentsbx._explain_variables import explain_keyerror, explain_named_variable
from agentsbx._explain_words import limit_violation, more, path_rule, quote, say, violation
from agentsbx._policy_rules import allows, is_below
from agentsbx.result import Violation, format_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentsbx.policy import Policy

__all__ = [
    "Context",
    "explain_database",
    "explain_denied_syscall",
    "explain_exit",
    "explain_keyerror",
    "explain_limit",
    "explain_named_variable",
    "explain_oserror",
    "explain_permission",
    "explain_policy",
    "explain_thread",
    "limit_table",
    "unnamed_write",
]


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What else is known about a failed call.

    `cwd` resolves relative names; `creates` is false where the call is known to make no new file;
    `private` are the job's own writable places; `calling` is the innermost function of the
    traceback (`"connect"`, `"_execute_child"`), `source` its line (`os.fork()`), `peer` the
    `host:port` of a network call. `host_readable`, `host_exists` and `host_which` look things up on
    the host; `holds_code` tells whether a write grant over a path is refused for the code there.
    """

    cwd: str | None = None
    private: tuple[str, ...] = ()
    calling: str | None = None
    source: str | None = None
    peer: str | None = None
    creates: bool = True
    host_readable: Callable[[str], bool] | None = None
    host_exists: Callable[[str], bool] | None = None
    holds_code: Callable[[str], bool] | None = None
    host_which: Callable[[str], str | None] | None = None


_NET_CALLS = frozenset(
    {"socket", "connect", "connect_ex", "create_connection", "getaddrinfo", "bind", "sendto"}
    | {"gethostbyname", "open_connection", "create_server", "socketpair"}
)
_SPAWN_CALLS = frozenset(
    {"fork", "vfork", "forkpty", "posix_spawn", "posix_spawnp", "fork_exec", "_fork_exec", "clone"}
    | {"_execute_child", "_launch", "Popen", "start_new_thread", "_start_joinable_thread"}
    | {"start_joinable_thread", "execve", "execv", "execvp", "execvpe", "_posix_spawn"}
)
_NET_SOURCE = ("socket", ".connect(", "create_connection", "getaddrinfo")
_SPAWN_SOURCE = ("fork", "spawn", "Popen(", "subprocess.", "os.exec", "os.system(")
_INTERPRETERS = ("python", "pypy", "ruby", "node", "perl", "java", "Rscript", "julia", "php")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/boot")
_KERNEL = ("/proc", "/sys", "/dev")


def explain_oserror(
    exc_type_name: str,
    errno: int | None,
    filename: object,
    filename2: object,
    policy: Policy,
    host_exists: Callable[[str], bool] | None = None,
    *,
    context: Context | None = None,
) -> Violation | None:
    """Explain an `OSError` of the job; None where it is not a denial of ours.

    `host_exists` tells whether a path exists on the host; without it, or with `reveal=False`, a
    missing file stays just that.
    """
    context = context or Context()
    nets, spawns = _kind(context)
    names = [n for n in (_name(filename), _name(filename2)) if n]
    if exc_type_name in ("gaierror", "herror"):
        return _net(policy, context)
    if errno in _LIMIT_ERRNOS:
        return _limit_oserror(errno, names, policy, context)
    if errno == _errno.EAGAIN and spawns:
        return explain_thread(policy)
    if errno in _NET_ERRNOS:
        return _net(policy, context)
    if not names:
        if errno == _errno.EROFS:
            return unnamed_write(policy, context.cwd)
        if errno in (_errno.EPERM, _errno.EACCES, _errno.ENOSYS):
            if nets:
                return _net(policy, context)
            if spawns:
                return _spawn(policy, "")
        return None
    refused = errno in (_errno.EPERM, _errno.EACCES, _errno.ENOSYS)
    if refused and spawns and policy.profile == "strict":
        return _spawn(policy, names[0])
    if errno in (_errno.EROFS, _errno.EXDEV):  # `rename`, `link`, `symlink`: what would be made
        names = _written(names, policy, context)
    for name in names:
        found = _path_oserror(errno, name, policy, host_exists, context)
        if found is not None:
            return found
    return None


_NET_ERRNOS = frozenset(
    {_errno.EAFNOSUPPORT, _errno.ENETUNREACH, _errno.EHOSTUNREACH, _errno.ENETDOWN}
    | {_errno.EADDRNOTAVAIL, _errno.EPROTONOSUPPORT, _errno.ESOCKTNOSUPPORT}
)
_LIMIT_ERRNOS = frozenset({_errno.ENOSPC, _errno.EDQUOT, _errno.EMFILE, _errno.EFBIG})


def _kind(context: Context) -> tuple[bool, bool]:
    """Whether the innermost call speaks to the network, and whether it starts a process."""
    calling, source = context.calling or "", context.source or ""
    nets = calling in _NET_CALLS or any(word in source for word in _NET_SOURCE)
    spawns = calling in _SPAWN_CALLS or any(word in source for word in _SPAWN_SOURCE)
    return nets, spawns


def _name(value: object) -> str:
    if isinstance(value, (str, bytes, os.PathLike)):
        text = os.fsdecode(value)
        return text if "\0" not in text else ""
    return ""


def _absolute(name: str, context: Context) -> str | None:
    if not os.path.isabs(name):
        if context.cwd is None:
            return None
        name = os.path.join(context.cwd, name)
    path = os.path.normpath(name)
    return "/" + path.lstrip("/") if path.startswith("//") else path


def unnamed_write(policy: Policy, cwd: str | None, what: str = "a write") -> Violation:
    """A write somewhere that is read-only, by a call that does not say where (`os.mkfifo`)."""
    what = f"{what} is denied: the policy does not grant the place"
    if cwd is None or cwd == "/" or allows(policy, cwd) == "write":
        return violation("write", "", "mount", what, todo="grant its folder with write=[...]")
    rule = path_rule("write", cwd)
    todo = f"in the working directory allow it with {rule}; or write below $TMPDIR"
    return violation("write", cwd, "mount", what, rule=rule, todo=todo)


_CONNECT = re.compile(r"""connect\(\s*r?(?P<quote>['"])(?P<name>[^'"]{1,255})(?P=quote)""")


def explain_database(
    policy: Policy, cwd: str, source: str | None, host_exists: Callable[[str], bool]
) -> Violation:
    """Explain that SQLite could not open a database; it does not say which.

    The source line may: `sqlite3.connect("shop.db")`.
    """
    said = _CONNECT.search(source or "")
    path = _absolute(said["name"], Context(cwd=cwd)) if said else None
    found = _hidden(path, policy, host_exists, creates=False) if path is not None else None
    if path is None or found is None:
        return unnamed_write(policy, cwd, "opening or changing a database")
    rule = path_rule("read", path)
    what = f"the database {quote(path)} exists on the host, but the policy hides it"
    todo = f"to read it say {rule}, to change it write=[...] for its folder"
    return violation("read", path, "mount", what, rule=rule, todo=todo)


def _written(names: Sequence[str], policy: Policy, context: Context) -> list[str]:
    """Of two names those that the job may not write, the one that it would have made first."""
    found = []
    for name in reversed(names):
        path = _absolute(name, context) or name
        if allows(policy, path) != "write" and not _is_private(path, context):
            found.append(name)
    return found or list(names)


def _is_private(path: str, context: Context) -> bool:
    """Whether a path is the job's own; the working directory, below /tmp too, is the host's."""
    if context.cwd is not None and is_below(path, context.cwd):
        return False
    return any(is_below(path, place) for place in context.private)


def _path_oserror(
    errno: int | None,
    name: str,
    policy: Policy,
    host_exists: Callable[[str], bool] | None,
    context: Context,
) -> Violation | None:
    if errno == _errno.ENOENT and _kind(context)[1] and "/" not in name:
        return _program(name, policy, context)
    path = _absolute(name, context)
    if path is None:
        return None
    if errno == _errno.ENOENT:
        if _kind(context)[1] and _place_of(path) != os.path.dirname(path):
            found = _interpreter(path, policy, host_exists)
            if found is not None:
                return found
        return _hidden(path, policy, host_exists, context.private, creates=context.creates)
    if errno == _errno.EROFS:
        return _read_only(path, policy, context)
    granted = any(is_below(path, g.path) for g in (*policy.read, *policy.write))
    if not granted and _is_private(path, context):
        return None
    if errno == _errno.EXDEV and allows(policy, path) != "write":
        return _read_only(path, policy, context)
    if errno not in (_errno.EACCES, _errno.EPERM):
        return None
    if not granted and os.path.dirname(path) == "/tmp" and "/tmp" not in context.private:
        what = f"{quote(path)}: /tmp is closed, since a grant or a library lies below it"
        return violation("write", path, "landlock", what, todo="write below $TMPDIR")
    if any(is_below(path, place) for place in _KERNEL):
        what = f"{quote(path)} is a kernel file that a sandbox may not use this way"
        return violation("open", path, "mount", what, todo="no rule allows it")
    level = allows(policy, path)
    readable = context.host_readable
    if level == "write" or (level == "read" and readable is not None and not readable(path)):
        return None
    if level == "read":
        return _read_only(path, policy, context)
    return _hidden(path, policy, host_exists) or _read_only(path, policy, context)


def _hidden(
    path: str,
    policy: Policy,
    host_exists: Callable[[str], bool] | None,
    private: Sequence[str] = (),
    *,
    creates: bool = True,
) -> Violation | None:
    """A path that the host has and the policy hides; also a new file in a hidden folder."""
    if not policy.reveal or host_exists is None or allows(policy, path) != "nothing":
        return None
    if path == "/" or any(is_below(path, place) for place in _KERNEL):
        return _no_grant(path) if host_exists(path) else None
    if host_exists(path):
        what = f"{quote(path)} exists on the host, but the policy hides it"
        return violation("read", path, "mount", what, rule=path_rule("read", path))
    parent = os.path.dirname(path)
    if parent in private or not creates:
        return None
    if parent != "/" and host_exists(parent) and allows(policy, parent) == "nothing":
        if any(is_below(parent, place) for place in _SYSTEM):
            return None
        rule = path_rule("write", parent)
        what = f"the folder {quote(parent)} exists on the host, but the policy hides it"
        todo = f"to write there say {rule}, to read read=[...]"
        return violation("open", path, "mount", what, rule=rule, todo=todo)
    return None


def _no_grant(path: str) -> Violation:
    """What no rule can name: the root, and what each sandbox has of its own."""
    if path == "/":
        what = "listing '/' is denied: a sandbox's root holds only what is granted"
        return violation("read", path, "mount", what, todo="name the folder that is meant")
    what = (
        f"{quote(path)} exists on the host; a sandbox has its own /proc, /sys and /dev without it"
    )
    return violation("read", path, "mount", what, todo="no rule allows it")


def _read_only(path: str, policy: Policy, context: Context) -> Violation:
    parent = path if path == context.cwd else os.path.dirname(path)
    if any(grant.path == path for grant in policy.write):
        rule = path_rule("write", parent)
        what = f"removing or replacing {quote(path)} is denied: it is granted, but not its folder"
        return violation("write", path, "mount", what, rule=rule)
    if allows(policy, path) == "write":  # granted, and yet read-only: only we mount that
        what = (
            f"writing {quote(path)} is denied: a protected name, which would make the host run code"
        )
        todo = "nothing in a write grant may touch it; do that step outside the sandbox"
        return violation("write", path, "protected name", what, todo=todo)
    if parent == "/" or any(is_below(path, place) for place in (*_SYSTEM, *_KERNEL)):
        what = f"writing {quote(path)} is denied: system folders are read-only in a sandbox"
        return violation("write", path, "mount", what, todo="write below $TMPDIR or $HOME")
    if context.holds_code is not None and context.holds_code(parent):
        return _beside_code(path, parent, context)
    rule = path_rule("write", parent)
    granted = "grants only reading there" if allows(policy, path) == "read" else "does not grant it"
    what = f"writing {quote(path)} is denied: the policy {granted}"
    todo = f"allow it with {rule}, or write below $TMPDIR"
    return violation("write", path, "mount", what, rule=rule, todo=todo)


def _beside_code(path: str, parent: str, context: Context) -> Violation:
    """A write in a folder that no plain grant may cover, since the host imports code from it."""
    what = f"writing {quote(path)} is denied: the policy does not grant it"
    elsewhere = "or write below $TMPDIR"
    makes_folder = context.calling in ("mkdir", "makedirs")
    if makes_folder or (context.host_exists is not None and context.host_exists(path)):
        rule = path_rule("write", path)
        allow = "make that folder beforehand and allow that" if makes_folder else "allow it"
        todo = f"{allow} with {rule}, {elsewhere}"
        return violation("write", path, "mount", what, rule=rule, todo=todo)
    rule = path_rule("write", os.path.join(parent, "out"))
    todo = f"write into a folder without code and allow that with {rule}, {elsewhere}"
    return violation("write", path, "mount", what, todo=todo)


def explain_permission(filename: object, policy: Policy, *, cwd: str | None = None) -> str | None:
    """Words for a `PermissionError` that is not ours: the policy allows the path, its mode not.

    None where the policy does not allow the path.
    """
    path = _absolute(_name(filename), Context(cwd=cwd)) if _name(filename) else None
    if path is None or (level := allows(policy, path)) == "nothing":
        return None
    what = f"the policy allows to {level} {quote(path)}; its own owner or permission bits refuse"
    return say(what, "change them on the host (ls -l shows them)")


def _program(name: str, policy: Policy, context: Context) -> Violation | None:
    found = context.host_which(name) if context.host_which is not None else None
    if found is None or not policy.reveal:
        return None
    if allows(policy, found) != "nothing" or is_below(found, "/usr"):
        what = f"the program {quote(name)} is not in the sandbox's PATH"
        rule = "env=['PATH']"
    else:
        what = f"the program {quote(name)} is {quote(found)} on the host; the policy hides it"
        rule = path_rule("read", _place_of(found))
    return violation("execute", name, "mount", what, rule=rule)


def _interpreter(
    path: str, policy: Policy, host_exists: Callable[[str], bool] | None
) -> Violation | None:
    """An interpreter by its path: it needs its library beside it."""
    prefix = _place_of(path)
    if prefix in ("/", "/usr", os.path.expanduser("~")):
        return None
    if _hidden(path, policy, host_exists, creates=False) is None:
        return None
    what = f"the interpreter {quote(path)} exists on the host; the policy hides it and its library"
    return violation("execute", path, "mount", what, rule=path_rule("read", prefix))


def _place_of(program: str) -> str:
    """The folder that a program needs: its own, or for an interpreter the prefix around it."""
    folder, name = os.path.split(program)
    if os.path.basename(folder) == "bin" and name.startswith(_INTERPRETERS):
        return os.path.dirname(folder)
    return folder


def _spawn(policy: Policy, program: str) -> Violation:
    of = f" {quote(program)}" if program else ""
    if policy.profile == "strict":
        what = f"starting the program or process{of} is denied: profile 'strict' starts none"
        return violation("execute", program, "seccomp", what, rule="profile='python'")
    what = f"starting the program or process{of} is denied by the system call filter"
    return violation("execute", program, "seccomp", what)


def _net(policy: Policy, context: Context) -> Violation:
    if context.calling == "socketpair" and policy.profile == "strict":
        what = "a pair of sockets, as asyncio needs it, is denied: profile 'strict' has none"
        return violation("syscall", "socketpair", "seccomp", what, rule="profile='python'")
    peer = context.peer
    rule = f"net=[{peer!r}]" if peer else "net=['host:port']"
    to = f" to {quote(peer, 80)}" if peer else ""
    if policy.net:
        what = f"a connection{to} is denied: net= does not name it"
    else:
        what = f"a connection{to} is denied: the policy gives no network"
    operation = "resolve" if context.calling == "getaddrinfo" else "connect"
    return violation(operation, peer or "", "seccomp+netns", what, rule=rule)


def _limit_oserror(
    errno: int | None, names: Sequence[str], policy: Policy, context: Context
) -> Violation | None:
    limits = policy.limits
    target = names[0] if names else ""
    if errno == _errno.EMFILE:
        what = f"too many open files: the limit is open_files={limits.open_files}"
        rule = more("open_files", limits.open_files)
        return limit_violation("open", target, what, rule)
    if errno == _errno.EFBIG:
        size = format_limit("file_size", limits.file_size)
        what = f"a file would become larger than file_size={size}"
        return limit_violation("write", target, what, more("file_size", limits.file_size))
    path = _absolute(target, context) if target else None
    if path is not None and allows(policy, path) == "write":
        return None  # the host's own disk is full
    size = format_limit("disk", limits.disk)
    what = f"private storage is full: disk={size}, inodes={limits.inodes}"
    rule = more("disk", limits.disk)
    todo = f"allow more with {rule} (many small files: inodes=), or remove files in $TMPDIR"
    return violation("write", target, "limit", what, rule=rule, todo=todo)
