"""A zygote, a supervisor that was taken over: what it says and what it reaches is bounded.

`hostile_zygote.c` runs as the program of a template; `hostile_supervisor.c` is the loop of a
supervisor after the real start. docs/explanation/taken-over.md tells what is left to them.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import launcher as lib
from launcher import Launcher, Plan, Pool

HERE = Path(__file__).parent
ORDINARY = 1000
IS_ROOT = os.geteuid() == 0
CGROUP_V1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()
# In the order of `enum reach` of the two programs.
ZYGOTE = (
    "a file of the host", "a process of others", "a process to signal", "the system's directories",
    "the host's loopback", "an abstract socket of the host", "its parent by ptrace",
    "a block device", "control groups of jobs", "a setting of the kernel", "a module", "the clock",
)  # fmt: skip
SUPERVISOR = (
    "a file of its owner", "the system's directories", "the shadow file", "a signal to the host",
    "a descriptor of the host", "the broker by ptrace", "the network", "an abstract socket",
    "a mount", "real root", "a setting of the kernel", "a module", "the clock", "a block device",
)  # fmt: skip


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="agentsbx-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def binary(place: Path) -> Path:
    return lib.build(place / "agentsbx-launcher")


@pytest.fixture(scope="module")
def evil(place: Path) -> Path:
    """Return a folder with the hostile program."""
    folder = place / "evil"
    folder.mkdir()
    flags = ["-std=gnu17", "-O1", "-D_GNU_SOURCE"]
    source = str(HERE / "hostile_zygote.c")
    subprocess.run(["cc", *flags, source, "-o", str(folder / "zygote")], check=True)
    return folder


def users() -> list[int | None]:
    return [None, ORDINARY] if IS_ROOT else [None]


@pytest.fixture(params=users(), ids=lambda user: "ordinary" if user or not IS_ROOT else "root")
def started(request: pytest.FixtureRequest, binary: Path) -> Iterator[Launcher]:
    with Launcher(binary, user=request.param) as it:
        assert it.hello().err.stage == 0
        yield it


def mounted(started: Launcher, *paths: Path | str) -> list[int]:
    got = [started.mount(str(path), attr=1) for path in paths]
    assert not [err for err, _ in got if err.stage]
    started.owned += [fd for _, fd in got]
    return [fd for _, fd in got]


def hostile(started: Launcher, evil: Path, *words: str) -> tuple[int, lib.Err]:
    """Start a template whose program is the hostile one."""
    plan = Plan(1, flags=1).op("TMPFS", "/", a=1 << 20, b=1000).op("BIND", "/usr", arg=0)
    for name in ("bin", "lib", "lib64", "sbin"):
        plan.op("SYMLINK", f"/{name}", f"usr/{name}")
    plan.op("BIND", "/evil", arg=1).op("MKDIR", "/tmp", a=0o777).op("NODE", "/dev/null")
    plan.op("PROC", "/proc").op("PIVOT").op("ARG", text="/evil/zygote")
    for word in words:
        plan.op("ARG", text=word)
    return started.template(plan, mounted(started, "/usr", evil), is_command=False)


def honest_pool(started: Launcher) -> Pool:
    template, err = started.template(lib.command_template(), mounted(started, "/usr"))
    assert err.stage == 0, err
    pool, err = started.pool(template, lib.command_job(), [], n_waiting=2)
    assert err.stage == 0, err
    return pool


def hostile_pool(started: Launcher, evil: Path, *words: str) -> tuple[Pool, int]:
    template, err = hostile(started, evil, *words)
    assert err.stage == 0, err
    pool, err = started.pool(template, lib.command_job(), [])
    assert err.stage == 0, err
    return pool, template


def supervisor_of(started: Launcher) -> int:
    text = Path(f"/proc/{started.process.pid}/task/{started.process.pid}/children").read_text()
    return int(text.split()[0])


def still_serves(pool: Pool, seconds: float = 5.0) -> None:
    begun = time.monotonic()
    end, out = pool.run("/bin/echo", "yes").end()
    assert (end.cause, out) == ("exited", b"yes\n")
    assert time.monotonic() - begun < seconds


@contextlib.contextmanager
def listeners(name: str) -> Iterator[int]:
    """Yield the port of a socket on the loopback; another waits at an abstract name."""
    with (
        socket.create_server(("127.0.0.1", 0)) as inet,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
    ):
        unix.bind("\0" + name)
        unix.listen(4)
        yield inet.getsockname()[1]


# -- the zygote ----------------------------------------------------------------------------------


def test_zygote_reaches_nothing_outside_of_its_tree(
    started: Launcher, evil: Path, place: Path
) -> None:
    canary = place / "canary"
    canary.write_text("of the host\n")
    canary.chmod(0o644)
    name = f"agentsbx-test-{os.getpid()}"
    with listeners(name) as port:
        _, err = hostile(started, evil, "reach", str(canary), str(port), name)
    assert err.stage == 1, err
    assert err.op == 7, "it died before it had tried"
    reached = {what for i, what in enumerate(ZYGOTE) if err.detail >> i & 1}
    # Version 1 has no leaf for us: its namespace begins at the host's own group.
    assert reached <= ({"control groups of jobs"} if CGROUP_V1 else set())


def test_zygote_program_reaches_those_things_without_the_template(evil: Path, place: Path) -> None:
    """What the other test forbids works for the same program when it runs as it stands."""
    canary = place / "canary"
    canary.write_text("of the host\n")
    name = f"agentsbx-test-{os.getpid()}-open"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, listeners(name) as port:
        words = [str(evil / "zygote"), "reach", str(canary), str(port), name]
        # No signal to all and no change of the machine: an ordinary user in namespaces of its own.
        wrapper = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork"]
        subprocess.run(
            [*wrapper, "sh", "-c", 'exec "$@" 3<&0', "sh", *words], stdin=theirs, check=True
        )
        got = lib.Err(*struct.unpack("=IIQHHiII", ours.recv(4096))[3:7])
    reached = {what for i, what in enumerate(ZYGOTE) if got.detail >> i & 1}
    assert {ZYGOTE[0], ZYGOTE[1], ZYGOTE[4], ZYGOTE[5]} <= reached


def test_zygote_speaks_for_no_job_of_another_template(started: Launcher, evil: Path) -> None:
    pool = honest_pool(started)
    job = pool.run("/bin/sleep", "60")
    waits = pool.launcher.ask(struct.pack("=IIQ", lib.WAIT, 0, job.job_id), [])
    other, _ = hostile_pool(started, evil, "forge")
    other.leave()
    time.sleep(0.3)
    still_serves(pool)
    assert not select.select([waits], [], [], 0)[0], "a forged EXITED ended a job of others"
    assert job.stat().is_alive
    job.kill()
    assert started.exit_of(waits).cause == "cancelled"


def test_what_cannot_kill_the_job_is_not_taken_for_its_pidfd(started: Launcher, evil: Path) -> None:
    pool = honest_pool(started)
    other, _ = hostile_pool(started, evil, "no-pidfd")
    assert other.take().err.stage != 0
    assert other.sock.recv(100) == b""
    still_serves(pool)


@pytest.mark.limit(60)
def test_zygote_that_keeps_the_death_of_a_job_to_itself_dies(started: Launcher, evil: Path) -> None:
    """Somebody waits for that word; and the process that died may not have been the job."""
    pool = honest_pool(started)
    other, _ = hostile_pool(started, evil, "mute")
    pub = other.take()
    started.owned += pub.fds
    now = time.monotonic_ns()
    started.tell(lib.START, pub.job_id, now, now + 200_000_000, fmt="QQQ")
    before = time.monotonic()
    assert started.wait(pub.job_id).cause == "lost"
    assert time.monotonic() - before < 15
    still_serves(pool)


def test_listener_that_others_read_too_does_not_stop_the_supervisor(
    started: Launcher, evil: Path
) -> None:
    pool = honest_pool(started)
    other, _ = hostile_pool(started, evil, "listener")
    other.leave()
    for _ in range(5):
        job = pool.run("/bin/sleep", "60", deadline_ns=100_000_000)
        before = time.monotonic()
        assert job.end()[0].cause == "timeout"
        assert time.monotonic() - before < 3


def test_flood_of_a_zygote_neither_starves_others_nor_fills_descriptors(
    started: Launcher, evil: Path
) -> None:
    pool = honest_pool(started)
    for _ in range(8):  # each control group that is kept has descriptors of its own
        still_serves(pool)
    fds = Path(f"/proc/{supervisor_of(started)}/fd")
    readable = os.access(fds, os.R_OK)
    before = len(os.listdir(fds)) if readable else 0
    other, template = hostile_pool(started, evil, "flood")
    other.leave()
    for _ in range(8):
        still_serves(pool)
    if readable:
        assert len(os.listdir(fds)) < before + 40
    started.tell(lib.DROP_TEMPLATE, template)


@pytest.mark.skipif(not IS_ROOT, reason="machine lacks: root (a file of another user)")
def test_read_grant_can_be_written_only_where_its_id_may(
    started: Launcher, evil: Path, place: Path
) -> None:
    """The read-only mark of a mount in its own namespace is the zygote's to take away."""
    folder = place / f"grant-{started.process.pid}"
    folder.mkdir()
    (folder / "file").write_text("of root\n")
    (folder / "file").chmod(0o644)
    template, err = hostile(started, evil, "grant")
    assert err.stage == 0, err
    _, err = started.pool(template, lib.command_job(binds=1), mounted(started, folder))
    assert (err.stage, err.op) == (1, 7), "it died before it had tried"
    was_opened = err.detail & 1
    assert not was_opened


# -- the supervisor ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "user", users(), ids=lambda user: "ordinary" if user or not IS_ROOT else "root"
)
def test_supervisor_reaches_only_what_its_user_could_read(
    place: Path, binary: Path, user: int | None
) -> None:
    name = f"agentsbx-test-{os.getpid()}-{user}"
    evil = place / "agentsbx-launcher-taken"
    if not evil.exists():
        lib.build(evil, without="supervisor/loop.c", more=str(HERE / "hostile_supervisor.c"))
    secret = place / f"secret-{user}"
    secret.write_text("of the host's user\n")
    secret.chmod(0o600)
    if user is not None:
        os.chown(secret, user, user)
    with Launcher(evil, user=user) as started, listeners(name) as port:
        hello = started.hello()
        assert hello.err.stage == 0
        started.control.send(f"{secret} {port} {name}".encode())
        (bits,) = struct.unpack("=I", started.control.recv(100))
    reached = {what for i, what in enumerate(SUPERVISOR) if bits >> i & 1}
    allowed = set()
    if not hello.is_root:  # the same user: nothing but the user's own rights parts the two
        allowed.add("a file of its owner")
    assert reached <= allowed, reached - allowed
    assert ("a file of its owner" in reached) == (not hello.is_root), "the test tries nothing"
