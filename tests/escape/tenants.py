"""Two jobs at once on one template: what one does while the other works.

`victim` sets up what could be reached and says at its end what was done to it; `attack` tries one
way to reach it. Both are self-contained: they run as sandboxed functions and, for the control, as
two plain processes of one parent (this file as a program).

Source: security.md section 5 rows "process group reaches across", "sandboxes that share one user
namespace share counters", "cached Landlock ruleset", section 4 row "pipes and fds in flight".
"""

from __future__ import annotations

import json
import os
import sys

ATTACKS = (
    "signal the group",
    "signal everyone",
    "signal by number",
    "renice the group",
    "renice the user",
    "ioprio of the group",
    "process table",
    "pending signals",
    "inotify instances",
    "descriptors in flight",
    "pipe pages",
    "files",
    "memory",
    "environment",
    "descriptors",
    "listed processes",
    "abstract sockets",
    "disk",
    "inodes",
    "hold all memory",
    "shared memory names",
    "other channels",
    "cgroup files",
    "message queues",
)


def victim(place: str, stop: str) -> list[str]:
    """Work until the file `stop` is there; return what was done to this process."""
    import array
    import contextlib
    import ctypes
    import fcntl
    import os
    import signal
    import socket
    import tempfile
    import time

    harm: list[str] = []
    caught: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: caught.append(number))
    held = ("TENANT:" + "5ec0de" * 4).encode()
    os.environ["TENANT_KEY"] = held.decode()
    with open(os.path.join(tempfile.gettempdir(), "tenant-secret"), "wb") as file:
        file.write(held)
    named = None
    with contextlib.suppress(OSError):
        named = socket.socket(socket.AF_UNIX)
        named.bind("\0tenant-secret")
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    ioprio = 252 if os.uname().machine == "x86_64" else 31
    before = libc.syscall(ctypes.c_long(ioprio), ctypes.c_long(1), ctypes.c_long(0))
    end = time.monotonic() + 15
    while not os.path.exists(stop) and time.monotonic() < end:
        time.sleep(0.02)
    if caught:
        harm.append(f"got signals {caught}")
    if os.getpriority(os.PRIO_PROCESS, 0) != nice:
        harm.append("was reniced")
    after = libc.syscall(ctypes.c_long(ioprio), ctypes.c_long(1), ctypes.c_long(0))
    if after != before:
        harm.append("got another io priority")
    event = ctypes.create_string_buffer(64)
    if libc.timer_create(1, None, event) < 0:
        harm.append(f"timer_create: {os.strerror(ctypes.get_errno())}")
    if libc.inotify_init1(0) < 0:
        harm.append(f"inotify_init1: {os.strerror(ctypes.get_errno())}")
    near, far = socket.socketpair()
    try:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1]))]
        near.sendmsg([b"x"], rights)
        far.recvmsg(1, socket.CMSG_SPACE(4))
    except OSError as error:
        harm.append(f"cannot pass a descriptor: {error}")
    size = fcntl.fcntl(os.pipe()[0], 1032)
    if size < 65536:
        harm.append(f"pipes of {size} bytes")
    try:
        with open(os.path.join(tempfile.gettempdir(), "more"), "wb") as file:
            file.write(bytes(2 << 20))
    except OSError as error:
        harm.append(f"cannot write: {error}")
    try:
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                time.sleep(0.3)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
    except OSError as error:
        harm.append(f"cannot fork: {error}")
    kept = bytearray(b"x" * (16 << 20))
    del kept, named
    return harm


def attack(how: str, place: str) -> str | None:
    """Try one way to reach the other job; hold on to what was taken for a moment."""
    import array
    import contextlib
    import ctypes
    import os
    import re
    import signal
    import socket
    import tempfile
    import time

    libc = ctypes.CDLL(None, use_errno=True)
    x86 = os.uname().machine == "x86_64"
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keep: list[object] = []
    others = [
        name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())
    ]
    with contextlib.suppress(OSError):
        if how == "signal the group":
            os.kill(0, signal.SIGUSR1)
        elif how == "signal everyone":
            if os.stat("/proc/self/ns/pid").st_ino == int(place or 0):
                return "shares the host's process namespace"
            os.kill(-1, signal.SIGUSR1)
        elif how == "signal by number":
            for pid in (*range(2, 2000), *range(max(2000, os.getpid() - 200), os.getpid())):
                with contextlib.suppress(OSError):
                    if pid != os.getpid() and pid != os.getppid():
                        os.kill(pid, 0)
                        return f"could signal {pid}"
        elif how == "renice the group":
            os.setpriority(os.PRIO_PGRP, 0, 19)
        elif how == "renice the user":
            os.setpriority(os.PRIO_USER, os.getuid(), 19)
        elif how == "ioprio of the group":
            libc.syscall(
                ctypes.c_long(251 if x86 else 30),
                ctypes.c_long(2),
                ctypes.c_long(0),
                ctypes.c_long(3 << 13),
            )
        elif how == "process table":
            for _ in range(200):
                if os.fork() == 0:
                    time.sleep(3)
                    os._exit(0)
        elif how == "pending signals":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
            for _ in range(100000):
                if libc.sigqueue(os.getpid(), signal.SIGRTMIN, None) < 0:
                    break
        elif how == "inotify instances":
            for _ in range(250):
                if libc.inotify_init1(0) < 0:
                    break
        elif how == "descriptors in flight":
            reading, writing = socket.socketpair()
            keep += [reading, writing]
            fds = array.array("i", [1] * 100)
            for _ in range(20):
                writing.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        elif how == "pipe pages":
            for _ in range(12):
                if os.fork() == 0:
                    with contextlib.suppress(OSError):
                        while True:
                            os.pipe()
                    time.sleep(3)
                    os._exit(0)
        elif how in (
            "files",
            "environment",
            "shared memory names",
            "cgroup files",
            "message queues",
        ):
            for folder in (
                tempfile.gettempdir(),
                "/tmp",
                "/dev/shm",
                "/var/tmp",
                os.path.expanduser("~"),
                "/run",
            ):
                place = os.path.join(folder, "tenant-secret")
                with contextlib.suppress(OSError), open(place) as file:
                    return f"read {file.read()}"
            for name in others:
                place = f"/proc/{name}/environ"
                with contextlib.suppress(OSError), open(place, "rb") as raw:
                    if b"TENANT_KEY" in raw.read():
                        return "read the environment"
            for folder in ("/sys/fs/cgroup", "/dev/mqueue"):
                with contextlib.suppress(OSError):
                    names = os.listdir(folder)
                    if names:
                        return f"{folder} holds {names[:4]}"
            if how == "environment" and "TENANT_KEY" in os.environ:
                return "has the other's variable"
        elif how == "memory":
            needle = re.compile(("TEN" + "ANT").encode() + b":(5ec0de){4}")
            for name in ["self", *others]:
                with contextlib.suppress(OSError):
                    table = open(f"/proc/{name}/maps").read().splitlines()  # noqa: SIM115
                    memory = open(f"/proc/{name}/mem", "rb", buffering=0)  # noqa: SIM115
                    for line in table:
                        start, end = (int(word, 16) for word in line.split()[0].split("-"))
                        if "r" not in line.split()[1] or end - start > 1 << 28 or "[v" in line:
                            continue
                        memory.seek(start)
                        with contextlib.suppress(OSError, ValueError):
                            if needle.search(memory.read(end - start)):
                                return f"found the other's secret in memory of {name}"
        elif how in ("descriptors", "other channels"):
            for name in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/self/fd/{name}")
                    if int(name) > 3 and (target.startswith("socket:") or "pidfd" in target):
                        return f"holds {target}"
            for name in others:
                with contextlib.suppress(OSError):
                    return f"sees {os.listdir(f'/proc/{name}/fd')}"
        elif how == "listed processes":
            return f"sees processes {others}" if others else None
        elif how == "abstract sockets":
            with open("/proc/net/unix") as file:
                rows = [line for line in file.read().splitlines()[1:] if "@" in line]
            return f"sees {len(rows)} named sockets" if rows else None
        elif how in ("disk", "inodes"):
            folder = tempfile.mkdtemp()
            for index in range(20000):
                with open(os.path.join(folder, str(index)), "wb") as output:
                    if how == "disk":
                        output.write(bytes(1 << 20))
        elif how == "hold all memory":
            with contextlib.suppress(MemoryError):
                for _ in range(22):
                    keep.append(bytearray(b"x" * (4 << 20)))
    time.sleep(1.6)
    return None


def control(how: str, stop: str) -> dict[str, object]:
    """Run both as plain processes of one parent, group, user and file system."""
    # All of it before root's rights are dropped: another user may not read the interpreter's files.
    import array  # noqa: F401
    import contextlib
    import ctypes
    import fcntl  # noqa: F401
    import re  # noqa: F401
    import resource
    import signal
    import socket  # noqa: F401
    import tempfile
    import time

    tempfile.tempdir = os.path.dirname(stop)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65520, 65520, 65520)
        os.setresuid(65520, 65520, 65520)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, lost with the change of user
    busy = 0  # the limit counts what this user runs anyway
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.getuid():
                busy += len(os.listdir(f"/proc/{name}/task"))
    resource.setrlimit(resource.RLIMIT_NPROC, (busy + 24, busy + 24))
    resource.setrlimit(resource.RLIMIT_SIGPENDING, (200, 200))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    answers: dict[str, object] = {}
    pipes = {}
    for name in ("victim", "attack"):
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(reading)
            told = victim("", stop) if name == "victim" else attack(how, "")
            os.write(writing, json.dumps(told).encode())
            os._exit(0)
        os.close(writing)
        pipes[name] = reading
        time.sleep(0.3)
    time.sleep(0.6)
    with open(stop, "w"):
        pass
    for name, reading in pipes.items():
        data = os.read(reading, 1 << 16)
        answers[name] = json.loads(data) if data else "died"
    return answers


if __name__ == "__main__":
    print(json.dumps(control(sys.argv[1], sys.argv[2])))
