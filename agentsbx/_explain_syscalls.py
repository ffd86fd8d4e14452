"""Denied system calls in words: numbers and groups come from the tables of the filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentsbx._explain_words import violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsbx.result import Violation

__all__ = ["explain_denied_syscall"]

_FAMILIES = {
    1: "AF_UNIX",
    2: "AF_INET",
    10: "AF_INET6",
    16: "AF_NETLINK",
    17: "AF_PACKET",
    38: "AF_ALG",
    40: "AF_VSOCK",
}
_INTERNET = (2, 10)
_CLONE_NEW = 0x7E020000  # every CLONE_NEW* flag that clone() takes
_STARTS = frozenset({"execve", "execveat", "fork", "vfork", "clone"})
_NO_RULE = "no rule allows it in a sandbox"


def explain_denied_syscall(
    nr: int, name: str, args: Sequence[int], group: str, *, count: int = 1
) -> Violation:
    """Explain a system call that the job's filter denied.

    `name` and `group` are those of `_filter.explain_syscall(nr)`, `args` the first arguments as
    recorded, `count` how often it was tried.
    """
    if name in ("socket", "socketpair") and args:
        return _socket(name, args, count)
    known, reason, rule = _look_up(nr, name, args, group)
    shown = known or f"number {nr}"
    what = f"the system call {shown.removeprefix('syscall ')} is denied by the filter" + (
        f" ({reason})" if reason else ""
    )
    todo = None if rule else _NO_RULE
    return violation(
        "syscall", shown, "seccomp", what, rule=rule, todo=todo, syscall=shown, count=count
    )


def _socket(name: str, args: Sequence[int], count: int) -> Violation:
    family = args[0] & 0xFFFFFFFF
    target = _FAMILIES.get(family, f"family {family}")
    rule = todo = None
    if name == "socketpair":
        what = f"socketpair({target}) is denied with this family, type or protocol"
        todo = "use socket.socketpair() with AF_UNIX and SOCK_STREAM"
    elif family in _INTERNET:
        what = f"socket({target}) is denied: the policy gives no network"
        rule = "net=['host:port']"
    else:
        what = f"socket({target}) is denied: a sandbox reaches no local or kernel service"
        todo = _NO_RULE
    operation = "connect" if name == "socket" else "syscall"
    return violation(
        operation, target, "seccomp", what, rule=rule, todo=todo, syscall=name, count=count
    )


def _look_up(nr: int, name: str, args: Sequence[int], group: str) -> tuple[str, str, str | None]:
    """Return the name, the tables' reason and the smallest rule that allows the call, if any."""
    from agentsbx import _tables  # read only when something was denied

    tables = _tables.load()
    found = tables.group.get(group)
    if found is None or name not in found.syscalls:
        return name, "newer than the tables", None
    if name in _STARTS and not (name == "clone" and args and args[0] & _CLONE_NEW):
        return name, "starting a program or process", "profile='python'"
    arguments = tables.args.get(name)
    if arguments is not None:
        return name, arguments.reason, None
    return name, found.reason, None if found.never else f"syscalls=[{name!r}]"
