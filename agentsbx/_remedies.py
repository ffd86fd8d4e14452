"""Why a set-up step fails on a machine, and what to do: the words behind `SandboxUnavailable`.

Data, not code: (stage, errno) -> (why, remedy, what is missing). An errno of 0 is the stage's
general row. Read only when something has failed.
"""

from __future__ import annotations

from errno import (
    EACCES,
    EAGAIN,
    EBUSY,
    EDOM,
    EINVAL,
    ELOOP,
    EMFILE,
    ENFILE,
    ENODEV,
    ENOENT,
    ENOEXEC,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ENOTDIR,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    EROFS,
    ESTALE,
    ETIMEDOUT,
)
from typing import NamedTuple

from agentsbx.errors import Stage

__all__ = ["REMEDIES", "Remedy", "is_filtered", "remedy"]


class Remedy(NamedTuple):
    """Why it fails, the smallest thing to do, and the missing part in a few words."""

    why: str
    todo: str | None
    missing: str


_USERNS_OFF = (
    "allow them: sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu; or an AppArmor "
    "profile for the launcher), kernel.unprivileged_userns_clone=1 (Debian)"
)
_PROC_MASKED = (
    "run the container with an unmasked /proc (docker: --security-opt systempaths=unconfined; "
    "Kubernetes: procMount: Unmasked)"
)
_CONTAINER = (
    "docker: --security-opt seccomp=unconfined --security-opt systempaths=unconfined; Kubernetes: "
    "seccompProfile Unconfined, procMount Unmasked"
)
_IDMAP_FS = (
    "copy the data to ext4, xfs, btrfs or tmpfs (or a volume of these), or start as its owner"
)
_REPORT = "please report this with the output of `agentsbx doctor --json`"
_CGROUP_DELEGATE = (
    "start under a delegated scope (systemd-run --user --scope -p Delegate=yes ...), or drop "
    "strict=True to accept rlimits and polling"
)

REMEDIES: dict[tuple[Stage, int], Remedy] = {
    (Stage.LAUNCH, ENOENT): Remedy(
        "the launcher program is not installed",
        "reinstall agentsbx on Linux (x86_64 or aarch64) from a wheel, or build it with ./dev",
        "launcher program",
    ),
    (Stage.LAUNCH, EACCES): Remedy(
        "the launcher program may not be executed",
        "install agentsbx on a file system without noexec, with its executable bit kept",
        "executable launcher program",
    ),
    (Stage.LAUNCH, ENOEXEC): Remedy(
        "the launcher program is for another machine",
        "install the wheel of this architecture",
        "launcher program",
    ),
    (Stage.LAUNCH, EAGAIN): Remedy(
        "this user may start no more processes",
        "raise `ulimit -u`, or end other processes",
        "processes",
    ),
    (Stage.LAUNCH, EMFILE): Remedy(
        "this process has too many open files", "raise `ulimit -n`", "file descriptors"
    ),
    (Stage.USERNS, EPERM): Remedy(
        "user namespaces are refused to this program", _USERNS_OFF, "user namespaces"
    ),
    (Stage.USERNS, EACCES): Remedy(
        "user namespaces are refused to this program", _USERNS_OFF, "user namespaces"
    ),
    (Stage.USERNS, ENOSPC): Remedy(
        "the number of user namespaces is at its limit",
        "raise it: sysctl user.max_user_namespaces=15000 (0 means: switched off)",
        "user namespaces",
    ),
    (Stage.USERNS, EINVAL): Remedy(
        "this kernel has no user namespaces", "use a kernel with CONFIG_USER_NS", "user namespaces"
    ),
    (Stage.USERNS, ENOSYS): Remedy(
        "unshare is not available here", "use a kernel with CONFIG_USER_NS", "user namespaces"
    ),
    (Stage.IDMAP, EPERM): Remedy(
        "the kernel or an LSM refuses the user map",
        _USERNS_OFF,
        "user maps",
    ),
    (Stage.IDMAP, EACCES): Remedy(
        "AppArmor restricts the new user namespace", _USERNS_OFF, "user maps"
    ),
    (Stage.NAMESPACES, EPERM): Remedy(
        "a container runtime or LSM refuses new namespaces",
        "let the container's seccomp profile allow unshare; "
        "on Ubuntu install the AppArmor profile that doctor prints",
        "namespaces",
    ),
    (Stage.NAMESPACES, ENOSPC): Remedy(
        "a namespace count is at its limit",
        "raise sysctl user.max_{mnt,pid,net,ipc,uts,cgroup}_namespaces",
        "namespaces",
    ),
    (Stage.NAMESPACES, EINVAL): Remedy(
        "this kernel lacks one of the namespaces",
        "use a kernel with CONFIG_PID_NS, NET_NS, IPC_NS, UTS_NS and CGROUPS",
        "namespaces",
    ),
    (Stage.PROC, EPERM): Remedy(
        "a masked file in the outer /proc, as container runtimes make it",
        _PROC_MASKED,
        "fresh /proc",
    ),
    (Stage.PROC, EBUSY): Remedy("/proc is already mounted there", _REPORT, "fresh /proc"),
    (Stage.CGROUP, EACCES): Remedy(
        "no control group is delegated to this user", _CGROUP_DELEGATE, "delegated control group"
    ),
    (Stage.CGROUP, EPERM): Remedy(
        "no control group is delegated to this user", _CGROUP_DELEGATE, "delegated control group"
    ),
    (Stage.CGROUP, EROFS): Remedy(
        "/sys/fs/cgroup is read-only here, as in most containers",
        "give the container a writable cgroup (docker: --cgroupns=private with a rw mount), or "
        "drop strict=True to accept rlimits and polling",
        "writable control group",
    ),
    (Stage.CGROUP, ENOENT): Remedy(
        "no cgroup with the needed controllers", _CGROUP_DELEGATE, "cgroup controllers"
    ),
    (Stage.CGROUP, EBUSY): Remedy(
        "the group has processes of its own, so cgroup v2 refuses controllers",
        _CGROUP_DELEGATE,
        "cgroup controllers",
    ),
    (Stage.CGROUP, EOPNOTSUPP): Remedy(
        "the group is threaded or lacks the controller", _CGROUP_DELEGATE, "cgroup controllers"
    ),
    (Stage.CGROUP, ENOSYS): Remedy("no control groups here", _CGROUP_DELEGATE, "control groups"),
    (Stage.GRANT, ENOENT): Remedy(
        "the granted path does not exist",
        "create it, or correct read=/write=",
        "granted path",
    ),
    (Stage.GRANT, ENOTDIR): Remedy(
        "a part of the granted path is not a folder", "correct read=/write=", "granted path"
    ),
    (Stage.GRANT, EACCES): Remedy(
        "this user may not reach the granted path itself",
        "grant a path that you can read, or change its permissions",
        "granted path",
    ),
    (Stage.GRANT, EPERM): Remedy(
        "this kind of file cannot be granted",
        "grant a regular file or a folder",
        "granted path",
    ),
    (Stage.GRANT, ELOOP): Remedy(
        "the granted path is a symbolic link",
        'grant its target, or say so: Grant(path, follow=True), { path = "...", follow = true }',
        "granted path",
    ),
    (Stage.GRANT, ESTALE): Remedy(
        "the granted path was replaced during the look-up", "call again", "granted path"
    ),
    (Stage.GRANT_IDMAP, EINVAL): Remedy(
        "this file system (overlayfs in containers, NFS, FUSE ...) refuses idmapped mounts",
        _IDMAP_FS,
        "idmapped mounts",
    ),
    (Stage.GRANT_IDMAP, EPERM): Remedy(
        "the mount may not be idmapped from here", _IDMAP_FS, "idmapped mounts"
    ),
    (Stage.GRANT_IDMAP, EOPNOTSUPP): Remedy(
        "this file system refuses idmapped mounts", _IDMAP_FS, "idmapped mounts"
    ),
    (Stage.GRANT_IDMAP, ENOSYS): Remedy(
        "mount_setattr needs Linux 5.12", "use Linux >= 5.14", "idmapped mounts"
    ),
    (Stage.PLAN, EOVERFLOW): Remedy(
        "the policy is too large for one plan",
        "grant folders rather than single files",
        "plan size",
    ),
    (Stage.PLAN, EINVAL): Remedy("launcher and package differ", "reinstall agentsbx", "plan"),
    (Stage.MOUNT, EPERM): Remedy(
        "mounting is refused in this user namespace", _USERNS_OFF, "mounts"
    ),
    (Stage.MOUNT, EACCES): Remedy(
        "an LSM (AppArmor, SELinux) refuses the mount",
        "allow it for the launcher (doctor prints an AppArmor profile)",
        "mounts",
    ),
    (Stage.MOUNT, ENOSYS): Remedy(
        "open_tree/move_mount are missing or filtered",
        "use Linux >= 5.14; in Docker a seccomp profile that knows the new mount calls",
        "new mount API",
    ),
    (Stage.MOUNT, ENOSPC): Remedy(
        "the number of mounts is at its limit", "raise sysctl fs.mount-max", "mounts"
    ),
    (Stage.TMPFS, ENOMEM): Remedy("no memory for private storage", "free memory", "memory"),
    (Stage.TMPFS, EINVAL): Remedy(
        "the kernel refuses the size of private storage", "change disk= or inodes=", "tmpfs"
    ),
    (Stage.TMPFS, ENODEV): Remedy(
        "this kernel has no tmpfs for user namespaces", "use a kernel with CONFIG_TMPFS", "tmpfs"
    ),
    (Stage.PIVOT, EINVAL): Remedy(
        "the root is an initramfs or not a mount point",
        "run from a real root file system, or in a container",
        "pivot_root",
    ),
    (Stage.FORK, EAGAIN): Remedy(
        "no more processes for this user or control group",
        "raise `ulimit -u` or the pids limit of the container, or lower max_concurrency",
        "processes",
    ),
    (Stage.FORK, ENOMEM): Remedy(
        "no memory to fork, or a dead pid namespace", "free memory; call again", "memory"
    ),
    (Stage.IDS, EPERM): Remedy("changing ids is refused here", _USERNS_OFF, "user ids"),
    (Stage.IDS, EINVAL): Remedy(
        "the id is not mapped", "give this user a range in /etc/subuid and /etc/subgid", "user ids"
    ),
    (Stage.IDS, EAGAIN): Remedy(
        "RLIMIT_NPROC of the target id is reached", "raise `ulimit -u`", "processes"
    ),
    (Stage.SYSCTL, EACCES): Remedy(
        "/proc/sys is read-only here, as in containers", _PROC_MASKED, "/proc/sys/user"
    ),
    (Stage.SYSCTL, EROFS): Remedy(
        "/proc/sys is read-only here, as in containers", _PROC_MASKED, "/proc/sys/user"
    ),
    (Stage.SYSCTL, ENOENT): Remedy(
        "this kernel lacks the sysctl", "use Linux >= 5.14", "/proc/sys/user"
    ),
    (Stage.RLIMIT, EPERM): Remedy(
        "the hard limit of the host process is lower than the policy asks",
        "raise the hard limit (ulimit -H, systemd Limit*=), or ask for less",
        "hard resource limits",
    ),
    (Stage.RLIMIT, EINVAL): Remedy("the limit is not valid", "ask for another amount", "rlimits"),
    (Stage.NNP, EINVAL): Remedy("no no_new_privs here", "use Linux >= 5.14", "no_new_privs"),
    (Stage.LANDLOCK, ENOSYS): Remedy(
        "this kernel is built without Landlock, or a container's filter hides it",
        'use a kernel with CONFIG_SECURITY_LANDLOCK, or accept less: on_missing="weaken"',
        "Landlock",
    ),
    (Stage.LANDLOCK, EOPNOTSUPP): Remedy(
        "Landlock is built in but switched off at boot",
        'boot with lsm=landlock,... (see /sys/kernel/security/lsm), or on_missing="weaken"',
        "Landlock",
    ),
    (Stage.LANDLOCK, EPERM): Remedy("no_new_privs is not set", _REPORT, "Landlock"),
    (Stage.LANDLOCK, EINVAL): Remedy(
        "this kernel's Landlock does not know a right that was detected", _REPORT, "Landlock"
    ),
    (Stage.SECCOMP, EINVAL): Remedy(
        "this kernel has no seccomp filter mode, or the filter is refused",
        "use a kernel with CONFIG_SECCOMP_FILTER",
        "seccomp filters",
    ),
    (Stage.SECCOMP, ENOSYS): Remedy(
        "this kernel has no seccomp", "use a kernel with CONFIG_SECCOMP_FILTER", "seccomp filters"
    ),
    (Stage.SECCOMP, EBUSY): Remedy(
        "an outer seccomp listener allows no second one",
        "do not run agentsbx under a supervisor that uses seccomp notifications",
        "seccomp listener",
    ),
    (Stage.SECCOMP, EACCES): Remedy("no_new_privs is not set", _REPORT, "seccomp filters"),
    (Stage.SECCOMP, ENOMEM): Remedy(
        "too many or too long filters in a row", "start agentsbx outside other sandboxes", "seccomp"
    ),
    (Stage.SELFTEST, EDOM): Remedy(
        "the filter does not answer as built", _REPORT, "seccomp filters"
    ),
    (Stage.CHDIR, ENOENT): Remedy(
        "the working directory is gone", "change to a folder that exists", "working directory"
    ),
    (Stage.CHDIR, EACCES): Remedy(
        "the working directory may not be entered", "change to another folder", "working directory"
    ),
    (Stage.EXEC, ENOENT): Remedy(
        "no such program inside the sandbox",
        "grant the folder of the interpreter with read=[...], or use a Python under /usr",
        "program",
    ),
    (Stage.EXEC, EACCES): Remedy(
        "the program may not be executed",
        "grant it with read=[...] from a file system without noexec",
        "program",
    ),
    (Stage.EXEC, ENOEXEC): Remedy(
        "not a program of this machine", "use a native program or a script with #!", "program"
    ),
    (Stage.WORKER, ETIMEDOUT): Remedy(
        "the Python worker did not start in time", "try again; is the machine overloaded?", "worker"
    ),
}

# Where a system call filter lies over this program already, its "no" is the likelier one.
_FILTERED: dict[tuple[Stage, int], Remedy] = {
    (stage, EPERM): Remedy("a container's or sandbox's filter refuses it", _CONTAINER, what)
    for stage, what in (
        (Stage.USERNS, "user namespaces"),
        (Stage.NAMESPACES, "new namespaces"),
        (Stage.MOUNT, "mounts"),
    )
}

_GENERAL: dict[Stage, Remedy] = {
    Stage.TRACE: Remedy(
        "this machine lets no process trace its own children",
        "leave explain out, or set sysctl kernel.yama.ptrace_scope=1",
        "ptrace",
    ),
    Stage.USERNS: Remedy("", _USERNS_OFF, "user namespaces"),
    Stage.CGROUP: Remedy("", _CGROUP_DELEGATE, "control groups"),
    Stage.GRANT: Remedy("", "correct read=/write=", "granted path"),
    Stage.GRANT_IDMAP: Remedy("", _IDMAP_FS, "idmapped mounts"),
    Stage.PROC: Remedy("", _PROC_MASKED, "fresh /proc"),
    Stage.SELFTEST: Remedy(
        "a wall did not behave as built, so nothing was run", _REPORT, "self-test"
    ),
    Stage.FDS: Remedy(
        "a descriptor was left over that the plan does not name", _REPORT, "fd check"
    ),
    Stage.PROTOCOL: Remedy(
        "an agentsbx process ended or answered out of turn", _REPORT, "supervisor"
    ),
}

_ANY_STAGE: dict[int, Remedy] = {
    EMFILE: Remedy("too many open files", "raise `ulimit -n`", "file descriptors"),
    ENFILE: Remedy("too many open files in the system", "raise sysctl fs.file-max", "files"),
    ENOMEM: Remedy("out of memory", "free memory", "memory"),
    EAGAIN: Remedy("a resource limit of this user is reached", "raise `ulimit -u`", "processes"),
}


def is_filtered() -> bool:
    """Return whether a seccomp filter of somebody else lies over this process."""
    try:
        with open("/proc/thread-self/status") as file:
            return any(line.split() == ["Seccomp:", "2"] for line in file)
    except OSError:  # no /proc: then nothing is known
        return False


def remedy(stage: Stage, errno: int) -> Remedy:
    """Return the row for a failure: the exact one, else the stage's, else the errno's."""
    if (stage, errno) in _FILTERED and is_filtered():
        return _FILTERED[stage, errno]
    found = REMEDIES.get((stage, errno)) or _GENERAL.get(stage) or _ANY_STAGE.get(errno)
    return found or Remedy("", None, stage.label if stage else "")
