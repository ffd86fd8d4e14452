"""Denied system calls in words: number, name and group come from the tables of the filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentsbx._explain_words import violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsbx.result import Violation

__all__ = ["explain_denied_syscall"]

_FAMILIES = {1: "AF_UNIX", 2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK", 17: "AF_PACKET"}
_FAMILIES |= {38: "AF_ALG", 40: "AF_VSOCK"}
_STARTS = frozenset({"execve", "execveat", "fork", "vfork", "clone", "clone3"})
_NEVER = frozenset(
    {
        "mount",
        "umount2",
        "pivot_root",
        "chroot",
        "open_tree",
        "move_mount",
        "fsopen",
        "fsmount",
        "fsconfig",
        "fspick",
        "mount_setattr",
        "unshare",
        "setns",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "kcmp",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "keyctl",
        "add_key",
        "request_key",
        "init_module",
        "finit_module",
        "delete_module",
        "kexec_load",
        "kexec_file_load",
        "reboot",
        "swapon",
        "swapoff",
        "acct",
        "quotactl",
        "quotactl_fd",
        "settimeofday",
        "clock_settime",
        "clock_adjtime",
        "adjtimex",
        "iopl",
        "ioperm",
        "syslog",
        "sethostname",
        "setdomainname",
        "fanotify_init",
        "open_by_handle_at",
        "name_to_handle_at",
        "pidfd_getfd",
        "lookup_dcookie",
        "nfsservctl",
        "vhangup",
        "modify_ldt",
        "personality",
    }
)


def explain_denied_syscall(
    nr: int, name: str, args: Sequence[int], group: str, *, count: int = 1
) -> Violation:
    """Explain a system call that the job's filter denied; `group` is its table's reason."""
    shown = name or f"number {nr}"
    why = f" ({group})" if group else ""
    if name in ("socket", "socketpair") and args:
        family = args[0] & 0xFFFFFFFF
        target = _FAMILIES.get(family, f"family {family}")
        what = f"socket({target}) is denied: the policy gives no such network"
        if family in (2, 10):
            net = "net=['host:port']"
            return violation(
                "connect", target, "seccomp", what, rule=net, syscall=name, count=count
            )
        todo = "no rule allows this family"
        return violation("connect", target, "seccomp", what, todo=todo, syscall=name, count=count)
    what = f"the system call {shown}{why} is denied by the filter"
    rule: str | None = None
    todo_text: str | None = None
    if name in _STARTS and not (name.startswith("clone") and group == "namespaces"):
        rule = "profile='python'"
    elif name in _NEVER or not name or name.startswith("clone"):
        todo_text = "no rule allows it in a sandbox"
    else:
        rule = f"syscalls=[{name!r}]"
    return violation(
        "syscall", shown, "seccomp", what, rule=rule, todo=todo_text, syscall=shown, count=count
    )
