"""What a policy says about one operation: `agentsbx policy why`, and the model of `policy test`.

Host process; starts nothing. `judge` knows what every sandbox has (system folders, private places,
devices) from the same tables that plans are compiled from; `_policy_probe` asks a real one.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

import msgspec

from agentsbx import _compile, _engine, _filter, _host, _policy_rules, _pools, _pythons, _tables
from agentsbx._explain_words import path_rule, quote
from agentsbx._policy_code import holds_code
from agentsbx._policy_keys import suggestion
from agentsbx._protected_names import GIT, fold, is_protected
from agentsbx._units import endpoint_covers, parse_endpoint
from agentsbx.errors import PolicyError
from agentsbx.policy import Grant, Policy

__all__ = ["OPERATIONS", "Verdict", "judge", "parse"]

OPERATIONS = ("read", "write", "exec", "connect", "env", "syscall", "fork")
_ALIASES = {"open": "read", "execute": "exec", "see": "env"}
_HIDDEN = "mount namespace and Landlock"
_NO_RULE = "no rule allows it"
_NO_GATEWAY = "this version has no gateway yet: calls of a policy with net= are refused"
_OWN_ETC = (*_compile._ETC_FILES, "/etc/passwd", "/etc/group")


class Verdict(msgspec.Struct, frozen=True):
    """One answer: `verdict` is "allow", "deny" or "depends" (on a system call's arguments)."""

    op: str
    target: str
    verdict: str
    layer: str  # what enforces it, or gives it
    rule: str  # which rule decides, in words
    change: str = ""  # the smallest change that turns it round
    note: str = ""
    is_private: bool = False  # the sandbox's own, whatever the host has of that name


def parse(text: str) -> tuple[str, str]:
    """Split `"open /etc/passwd"` into operation and target; raises `PolicyError`.

    >>> parse("open /etc/passwd"), parse("fork")
    (('read', '/etc/passwd'), ('fork', ''))
    """
    op, _, target = text.strip().partition(" ")
    op, target = _ALIASES.get(op, op), target.strip()
    if op not in OPERATIONS:
        raise PolicyError(
            f"{text!r}: no operation is called {op!r}{suggestion(op, [*OPERATIONS, *_ALIASES])}",
            hint=f"operations: open, {', '.join(OPERATIONS)}; for example "
            f"{shlex.quote('open /etc/passwd')}",
        )
    if bool(target) == (op == "fork"):
        needs = "takes no target" if target else "needs a target"
        raise PolicyError(f"{text!r}: {op} {needs}", hint="write: open /etc/passwd")
    return op, target


def judge(policy: Policy, op: str, target: str, *, cwd: str | None = None) -> Verdict:
    """Say what the policy does with one operation. A relative path counts from `cwd`.

    >>> judge(Policy(), "read", "/root/.ssh/id_rsa").verdict
    'deny'
    >>> judge(Policy.from_keywords(env="API_KEY"), "env", "API_KEY").rule
    "env=['API_KEY']"
    """
    return _JUDGES[op](policy, op, target, cwd or os.getcwd())


# -- paths ----------------------------------------------------------------------------------------


def _path(policy: Policy, op: str, target: str, cwd: str) -> Verdict:
    path = os.path.normpath(os.path.join(cwd, os.path.expanduser(target)))
    found = _by_name(policy, op, path, cwd)
    real = os.path.realpath(path)
    if found.verdict == "deny" or found.is_private or real == path:
        return found
    grant = _deepest(policy, path)
    if grant is not None and _policy_rules.is_below(real, os.path.realpath(grant.path)):
        if path == grant.path and not grant.follow and os.path.islink(path):
            note = "it is a symbolic link: the call would be refused"
            change = f"Grant({path!r}, follow=True)"
            return msgspec.structs.replace(found, verdict="deny", note=note, change=change)
        return found
    led = _by_name(policy, op, real, cwd)
    return msgspec.structs.replace(led, target=path, note=f"the link leads to {quote(real)}")


def _by_name(policy: Policy, op: str, path: str, cwd: str) -> Verdict:
    make = _maker(op, path)
    own = _private(policy, path, cwd, op == "write")
    if own:
        return make("allow", "private storage", own, is_private=True)
    level = _policy_rules.allows(policy, path)
    grant = _deepest(policy, path)
    if op == "write" and level == "write" and (name := _protected(policy, path)):
        rule = f"{name!r} is a protected name: what lies there would make the host run code"
        return make("deny", "protected name", rule, note=_NO_RULE)
    if grant is not None and (level == "write" or (level == "read" and op != "write")):
        rule = path_rule("write" if grant in policy.write else "read", grant.path)
        return make("allow", "grant", rule, note=_mode_note(policy, path, op))
    shown = _shown(policy, path, cwd)
    if shown and op != "write":
        return make("allow", "base tree", shown, is_private=shown.startswith("its own"))
    if op == "write":
        return _no_write(make, path, level, grant, bool(shown))
    if _policy_rules.is_below(path, "/proc"):
        return make("depends", "mount namespace", "its own /proc shows the sandbox's own processes")
    if path == "/" or path.startswith(("/sys/", "/dev/")) or path in _SPECIAL:
        rule = "a sandbox has its own /, /proc, /sys and /dev, without it"
        return make("deny", "mount namespace", rule, note=_NO_RULE)
    return make("deny", _HIDDEN, "nothing grants it", change=path_rule("read", path))


_SPECIAL = ("/proc", "/sys", "/dev")


def _maker(op: str, target: str) -> Callable[..., Verdict]:
    def make(
        verdict: str,
        layer: str,
        rule: str,
        change: str = "",
        note: str = "",
        *,
        is_private: bool = False,
    ) -> Verdict:
        return Verdict(op, target, verdict, layer, rule, change, note, is_private)

    return make


def _no_write(
    make: Callable[..., Verdict], path: str, level: str, grant: Grant | None, is_shown: bool
) -> Verdict:
    if is_shown or path == "/" or os.path.dirname(path) == "/":
        rule = "system folders, the interpreter and packages are read-only in a sandbox"
        return make("deny", "read-only mount", rule, note=_NO_RULE)
    place = path if os.path.exists(path) else os.path.dirname(path)
    change = path_rule("write", place)
    if holds_code(place):
        change = f"write=[Grant({place!r}, code=True)]"
    if level == "read" and grant is not None:
        rule = f"{path_rule('read', grant.path)} grants only reading"
        return make("deny", "read-only mount and Landlock", rule, change=change)
    return make("deny", _HIDDEN, "nothing grants it", change=change)


def _deepest(policy: Policy, path: str) -> Grant | None:
    above = [g for g in (*policy.read, *policy.write) if _policy_rules.is_below(path, g.path)]
    return max(above, key=lambda g: len(g.path), default=None)


def _protected(policy: Policy, path: str) -> str:
    """The first protected name on the way from the write grant to the path."""
    grant = _deepest(policy, path)
    if grant is None or path == grant.path:
        return ""
    parts = os.path.relpath(path, grant.path).split("/")
    for at, name in enumerate(parts):
        if fold(name) == ".git" and at + 1 < len(parts) and fold(parts[at + 1]) in GIT:
            return f".git/{parts[at + 1]}"
        if is_protected(name):
            return name
    return ""


def _mode_note(policy: Policy, path: str, op: str) -> str:
    if not os.path.lexists(path):
        return "it does not exist now"
    if op == "read" and not _host.is_readable(path, policy):
        return "its owner and permission bits do not let a job read it"
    return ""


def _private(policy: Policy, path: str, cwd: str, for_write: bool) -> str:
    others = [g.path for g in (*policy.read, *policy.write)] + list(_base(policy))
    if any(_policy_rules.is_below(path, place) for place in others):
        return ""
    for place in (*_compile.private_places(others, cwd), "/dev/shm"):
        # The working directory, below /tmp too, is the host's.
        is_hosts = _policy_rules.is_below(cwd, place) and _policy_rules.is_below(path, cwd)
        if _policy_rules.is_below(path, place) and not is_hosts:
            return f"its own {place}, gone after the call"
    devices = tuple(f"/dev/{name}" for name in _compile._DEVICES)
    if path in devices or (path == "/dev/fd" and not for_write):
        return "a device that every sandbox has"
    return ""


def _base(policy: Policy) -> tuple[str, ...]:
    """What the template of a function shows, besides files of the sandbox's own."""
    return (*_pools.system_tree(), *_pythons.for_functions(policy).mounts)


def _shown(policy: Policy, path: str, cwd: str) -> str:
    if path in _OWN_ETC:
        return f"its own {path}, not the host's"
    for place in _base(policy):
        if _policy_rules.is_below(path, place):
            return f"{place} is shown read-only in every sandbox"
    if path == cwd:
        return "its own, empty working directory"
    return ""


def _exec(policy: Policy, op: str, target: str, cwd: str) -> Verdict:
    is_absent = "/" not in target
    if is_absent:
        folders = _engine.job_env(policy)["PATH"]
        for folder in folders.split(":"):
            if os.access(os.path.join(folder, target), os.X_OK):
                target, is_absent = os.path.join(folder, target), False
                break
    make = _maker(op, target)
    if policy.profile == "strict":
        rule = "profile='strict' starts no program"
        return make("deny", "seccomp", rule, change="profile='python'")
    if is_absent:
        rule = f"it is not in the sandbox's PATH ({folders})"
        return make("deny", "mount namespace", rule, note="name it with its path")
    found = _path(policy, op, target, cwd)
    if found.verdict == "allow" and not found.is_private:
        path = found.target
        if os.path.isdir(path) or (os.path.exists(path) and not os.access(path, os.X_OK)):
            return make("deny", "permission bits", "it is not executable", note=_NO_RULE)
    return found


# -- the rest -------------------------------------------------------------------------------------


def _connect(policy: Policy, op: str, target: str, _cwd: str) -> Verdict:
    endpoint = parse_endpoint("connect", target)
    make = _maker(op, target)
    for rule in policy.net:
        if endpoint_covers(rule, endpoint):
            return make("allow", "network rule", f"net=[{rule!r}]")
    if policy.net:
        rule = "net= does not name it"
        return make("deny", "gateway", rule, change=f"net=[{endpoint!r}]")
    rule = "the policy gives no network"
    change = f"net=[{endpoint!r}]"
    return make("deny", "seccomp and network namespace", rule, change, _NO_GATEWAY)


def _env(policy: Policy, op: str, target: str, _cwd: str) -> Verdict:
    make = _maker(op, target)
    if target in policy.env_values:
        return make("allow", "set", f"env=['{target}=...']", is_private=True)
    if target in policy.env_names:
        note = "" if target in os.environ else "it is not set on the host now"
        return make("allow", "grant", f"env=[{target!r}]", note=note)
    if target in _engine.job_env(msgspec.structs.replace(policy, python="")):
        return make("allow", "base environment", "every sandbox has it", is_private=True)
    if target in _engine.SAFE_ENV:
        return make("allow", "base environment", "as in the host", note="it is not set there now")
    return make("deny", "environment of its own", "nothing grants it", change=f"env=[{target!r}]")


_LOCKS = ("mlock", "mlock2", "mlockall")


def _syscall(policy: Policy, op: str, target: str, _cwd: str) -> Verdict:
    tables = _tables.load()
    make = _maker(op, target)
    group = next((g for g, found in tables.group.items() if target in found.syscalls), None)
    if group is None:
        known = [name for found in tables.group.values() for name in found.syscalls]
        raise PolicyError(
            f"no system call is called {target!r}{suggestion(target, known)}",
            hint="name it as in its manual page",
        )
    if target not in tables.numbers[_filter.native_arch()]:
        return make("deny", "kernel", f"{os.uname().machine} has no such call", note=_NO_RULE)
    if target in tables.args:
        rule = f"by its arguments: {tables.args[target].reason}"
        return make("depends", "seccomp", rule)
    if target in _LOCKS:
        rule = "no memory can be locked in a sandbox (RLIMIT_MEMLOCK is 0)"
        return make("deny", "rlimit", rule, note=_NO_RULE)
    if target in policy.syscalls:
        return make("allow", "seccomp", f"syscalls=[{target!r}]")
    reason = tables.group[group].reason
    if group in tables.profile[policy.profile].allow:
        return make("allow", "seccomp", f"profile={policy.profile!r} has group {group}: {reason}")
    rule = f"profile={policy.profile!r} has no group {group}: {reason}"
    if tables.group[group].never:
        return make("deny", "seccomp", rule, note=_NO_RULE)
    starts = policy.profile == "strict" and target in ("execve", "execveat", "fork", "vfork")
    change = "profile='python'" if starts else f"syscalls=[{target!r}]"
    return make("deny", "seccomp", rule, change=change)


def _fork(policy: Policy, op: str, _target: str, _cwd: str) -> Verdict:
    make = _maker(op, "")
    if policy.profile == "strict":
        rule = "profile='strict' starts no process"
        return make("deny", "seccomp", rule, change="profile='python'")
    limit = policy.limits.processes
    return make("allow", "seccomp", f"profile={policy.profile!r}", note=f"processes={limit}")


_JUDGES: dict[str, Callable[[Policy, str, str, str], Verdict]] = {
    "read": _path,
    "write": _path,
    "exec": _exec,
    "connect": _connect,
    "env": _env,
    "syscall": _syscall,
    "fork": _fork,
}
