"""The launcher alone: start, mounts, pools, limits, clean-up, as root and as an ordinary user."""

from __future__ import annotations

import glob
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import launcher as lib
from launcher import Launcher, Plan, Pool

ORDINARY = 1000
MIB = 1 << 20
IS_ROOT = os.geteuid() == 0
GROUPS = ["/sys/fs/cgroup/**/agentsbx-*"]


@pytest.fixture(scope="session")
def binary() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="agentsbx-test-"))
    directory.chmod(0o755)  # the ordinary user runs it too
    try:
        yield lib.build(directory / "agentsbx-launcher")
    finally:
        shutil.rmtree(directory)


@pytest.fixture(params=["root", "ordinary"])
def started(request: pytest.FixtureRequest, binary: Path) -> Iterator[Launcher]:
    if request.param == "root" and not IS_ROOT:
        pytest.skip("machine lacks: root (started by an ordinary user)")
    user = ORDINARY if request.param == "ordinary" and IS_ROOT else None
    with Launcher(binary, user=user) as it:
        yield it


@pytest.fixture
def pool_of(started: Launcher) -> Callable[..., Pool]:
    hello = started.hello()
    assert hello.err.stage == 0

    def make(job: Plan | None = None, **limits: int) -> Pool:
        err, usr = started.mount("/usr", attr=1)
        assert err.stage == 0
        template, err = started.template(lib.command_template(), [usr])
        os.close(usr)
        assert err.stage == 0, err
        limits.setdefault("uid_index", 1 if hello.is_root else 0)
        limits.setdefault("poll_memory", 0 if hello.cgroup_have & 1 else 1)
        pool, err = started.pool(template, job or lib.command_job(), [], **limits)
        assert err.stage == 0, err
        pool.template = template  # type: ignore[attr-defined]
        return pool

    return make


def own_groups(broker_pid: int) -> list[str]:
    found = glob.glob("/sys/fs/cgroup/*/agentsbx-*") + glob.glob("/sys/fs/cgroup/*/*/*/agentsbx-*")
    return [g for g in found if f"agentsbx-{broker_pid}-" in g]


def is_gone(pid: int, within_s: float) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.005)
    return False


def descendants(pid: int) -> list[int]:
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        for child in Path(path).read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


# -- start and end -------------------------------------------------------------------------------


def test_hello_says_what_is_there(started: Launcher) -> None:
    hello = started.hello()
    assert hello.err == (0, 0, 0, 0)
    assert hello.pid == 1
    assert (hello.n_uids > 1) == bool(hello.is_root)


def test_stop_ends_broker_and_everything_below(started: Launcher) -> None:
    started.hello()
    below = descendants(started.process.pid)
    assert below
    assert started.stop() == 0
    assert all(is_gone(p, 1) for p in below)


def test_closed_control_socket_ends_it(started: Launcher) -> None:
    started.hello()
    started.control.close()
    assert started.process.wait(10) == 0


def test_dead_supervisor_is_eof_for_the_host(started: Launcher) -> None:
    started.hello()
    (supervisor,) = descendants(started.process.pid)
    os.kill(supervisor, signal.SIGKILL)
    assert started.control.recv(10) == b""
    assert started.process.wait(10) == 0


def test_dead_broker_takes_the_supervisor_along(started: Launcher) -> None:
    started.hello()
    below = descendants(started.process.pid)
    started.process.kill()
    assert all(is_gone(p, 1) for p in below)


def test_killed_host_leaves_no_process_and_no_group(binary: Path) -> None:
    """Also when a fork of the host keeps every socket open: the pidfd decides."""
    script = (
        "import sys, os, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; import launcher\n"
        "l = launcher.Launcher(Path(sys.argv[2])); l.hello()\n"
        "pid = os.fork()\n"
        "if pid: print(l.process.pid, pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    here = str(Path(__file__).parent)
    host = subprocess.Popen(
        [sys.executable, "-c", script, here, str(binary)], stdout=subprocess.PIPE
    )
    assert host.stdout
    broker, fork = map(int, host.stdout.readline().split())
    try:
        below = descendants(broker)
        assert below
        host.kill()
        host.stdout.close()
        assert all(is_gone(p, 0.5) for p in below)
        assert is_gone(broker, 5)
        assert not own_groups(broker)
    finally:
        os.kill(fork, signal.SIGKILL)
        host.wait()


@pytest.mark.skipif(not IS_ROOT, reason="machine lacks: root (control groups)")
def test_groups_of_a_killed_broker_go_with_the_next_start(binary: Path) -> None:
    first = Launcher(binary)
    if not first.hello().cgroup_version:
        pytest.skip("machine lacks: control groups")
    assert own_groups(first.process.pid)
    first.process.kill()
    first.process.wait()
    time.sleep(0.1)
    with first, Launcher(binary) as second:
        second.hello()
        assert not own_groups(first.process.pid)
        assert own_groups(second.process.pid)
        second.stop()
        assert not own_groups(second.process.pid)


def test_supervisor_gives_up_what_it_does_not_need(started: Launcher) -> None:
    hello = started.hello()
    (pid,) = descendants(started.process.pid)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    setgid, setuid, setfcap = 1 << 6, 1 << 7, 1 << 31
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == setgid | setuid | setfcap
    assert (status["CapInh"], status["CapAmb"]) == ("0" * 16, "0" * 16)
    assert status["NoNewPrivs"] == "1"
    if hello.is_root:
        assert status["Uid"].split() == [str(hello.uid_base)] * 4
        assert status["Groups"].split() == []


def test_environment_of_the_host_is_wiped(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "very-secret")
    with Launcher(binary) as it:
        it.hello()
        broker = it.process.pid
        for pid in (broker, *descendants(broker)):
            assert b"very-secret" not in Path(f"/proc/{pid}/environ").read_bytes()


# -- mounts --------------------------------------------------------------------------------------


def test_mount_of_another_object_than_the_host_saw_is_stale(started: Launcher) -> None:
    started.hello()
    st = os.stat("/usr")
    err, fd = started.mount("/usr", ids=(st.st_dev, st.st_ino))
    assert err.stage == 0
    os.close(fd)
    err, fd = started.mount("/usr", ids=(st.st_dev, st.st_ino + 1))
    assert (err.errno, fd) == (116, -1)


def test_mount_follows_no_symbolic_link(started: Launcher, tmp_path: Path) -> None:
    started.hello()
    link = Path(tempfile.mkdtemp(dir="/tmp")) / "link"
    link.parent.chmod(0o755)
    link.symlink_to("/usr")
    try:
        assert started.mount(str(link))[0].errno == 40
        assert started.mount(f"{link}/bin")[0].errno == 40
    finally:
        shutil.rmtree(link.parent)


@pytest.mark.parametrize("message", [b"x", b"\0" * 56, struct.pack("=II48x", 1, 9999) + b"/"])
def test_malformed_mount_requests_are_refused(started: Launcher, message: bytes) -> None:
    started.hello()
    started.broker.send(message)
    reply = started.broker.recv(4096)
    assert lib.Err(*struct.unpack("=IIQHHiII", reply)[3:7]).errno == 22


# -- commands ------------------------------------------------------------------------------------


def test_command_runs_in_a_sandbox(pool_of: Callable[..., Pool]) -> None:
    pool = pool_of()
    got, output = pool.run(
        "/bin/sh", "-c", "echo $$; id -u; ls /proc | grep -c '^[0-9]'; exit 0"
    ).end()
    assert got.cause == "exited"
    # pid 2 below the reaper, and ls and grep: nobody else
    assert output.split()[:2] == [b"2", b"1000"]
    assert int(output.split()[2]) <= 4


def test_deadline_kills_the_tree(pool_of: Callable[..., Pool]) -> None:
    began = time.monotonic()
    got, output = (
        pool_of().run("/bin/sh", "-c", "sleep 60 & sleep 60", deadline_ns=100_000_000).end()
    )
    assert (got.cause, output) == ("timeout", b"")
    assert time.monotonic() - began < 3


def test_kill_is_answered_with_its_cause(pool_of: Callable[..., Pool]) -> None:
    job = pool_of().run("/bin/sleep", "60")
    assert job.stat().is_alive
    job.kill()
    got, _ = job.end()
    assert got.cause == "cancelled"
    assert os.WTERMSIG(got.wait_status) == signal.SIGKILL


def test_memory_over_the_limit_ends_the_job(pool_of: Callable[..., Pool]) -> None:
    got, _ = pool_of(memory=48 * MIB).run("/usr/bin/tail", "/dev/zero").end()
    assert got.cause == "memory"
    assert got.peak_memory >= 40 * MIB


def test_cpu_time_of_the_tree_is_bounded(pool_of: Callable[..., Pool]) -> None:
    loop = "while :; do :; done"
    got, _ = pool_of(cpu_time_ns=200_000_000).run("/bin/sh", "-c", f"({loop}) & {loop}").end()
    assert got.cause == "cpu_time"
    assert 150_000 < got.utime_us + got.stime_us < 2_000_000


def test_denied_calls_are_answered_and_recorded(pool_of: Callable[..., Pool]) -> None:
    script = (
        "import socket, sys\n"
        "for n in range(3):\n"
        "    try: socket.socket(2, 1, 0)\n"
        "    except OSError as e: print(e.errno)\n"
    )
    pool = pool_of(lib.command_job(is_notifying=True))
    got, output = pool.run("/usr/bin/env", "python3", "-Ic", script).end()
    if b"No such file" in output:
        pytest.skip("machine lacks: a system python3")
    assert output.split() == [b"97"] * 3
    inet = [d for d in got.denied if d.args[0] == socket.AF_INET]
    assert [(d.count, d.args) for d in inet] == [(3, (2, 1 | 0o2000000, 0, 0))]


def test_flood_of_denied_calls_stays_denied_and_bounded(pool_of: Callable[..., Pool]) -> None:
    script = (
        "import socket, collections\n"
        "seen = collections.Counter()\n"
        "for n in range(20000):\n"
        "    try: socket.socket(n % 40, 1, 0)\n"
        "    except OSError as e: seen[e.errno] += 1\n"
        "print(sum(seen.values()), *sorted(seen))\n"
    )
    pool = pool_of(lib.command_job(is_notifying=True))
    got, output = pool.run("/usr/bin/env", "python3", "-Ic", script).end()
    if b"No such file" in output:
        pytest.skip("machine lacks: a system python3")
    assert output.split() == [b"20000", b"38", b"97"]
    assert len(got.denied) == 16


def test_sigkill_to_pid_1_of_the_job_ends_it(pool_of: Callable[..., Pool]) -> None:
    pool = pool_of(lib.command_job(is_notifying=True))
    got, output = pool.run("/bin/sh", "-c", "kill -9 1; echo not reached").end()
    assert (got.cause, output) == ("signaled", b"")
    got, output = pool.run("/bin/sh", "-c", "sleep 9 & kill -9 $!; echo $?").end()
    assert [d.count for d in got.denied] == [1]  # this filter notifies every kill(_, 9)
    assert b"1" in output


def test_snapshot_version_comes_with_later_sandboxes(pool_of: Callable[..., Pool]) -> None:
    pool = pool_of()
    assert pool.leave().version == 0
    fd = lib.sealed(b"state")
    pool.launcher.tell(lib.SNAPSHOT, pool.number, 7, fmt="QQ", fds=[fd])
    os.close(fd)
    pool.launcher.tell(lib.GROW, pool.number, 1, 0, fmt="QII")
    assert pool.leave().version == 7


def test_full_queue_of_the_host_is_caught_up_with(pool_of: Callable[..., Pool]) -> None:
    pool = pool_of(n_waiting=0)
    pool.launcher.tell(lib.GROW, pool.number, 300, 0, fmt="QII")
    jobs = {pool.leave().job_id for _ in range(300)}
    assert len(jobs) == 300


def test_wait_after_the_end_still_gets_its_answer(pool_of: Callable[..., Pool]) -> None:
    pool = pool_of()
    job = pool.run("/bin/true")
    first, _ = job.end()
    assert pool.launcher.wait(job.job_id) == first
    assert pool.launcher.wait(12345).cause == "lost"


def test_grow_makes_more_than_the_pool_keeps(pool_of: Callable[..., Pool]) -> None:
    pool = pool_of(n_waiting=0)
    assert not select.select([pool.sock], [], [], 0.2)[0]
    pool.launcher.tell(lib.GROW, pool.number, 3, 0, fmt="QII")
    jobs = {pool.leave().job_id for _ in range(3)}
    assert len(jobs) == 3


def test_dropped_pool_kills_what_waits_and_keeps_what_runs(pool_of: Callable[..., Pool]) -> None:
    pool = pool_of(n_waiting=2)
    running = pool.run("/bin/sh", "-c", "sleep 0.3; echo done")
    waiting = pool.leave()
    pool.launcher.tell(lib.DROP_POOL, pool.number)
    assert pool.launcher.wait(waiting.job_id).cause == "cancelled"
    got, output = running.end()
    assert (got.cause, output) == ("exited", b"done\n")


def test_dropped_pool_keeps_a_short_call_that_was_not_announced(
    pool_of: Callable[..., Pool],
) -> None:
    pool = pool_of()
    running = pool.run("/bin/sh", "-c", "sleep 0.3; echo done", is_announced=False)
    pool.launcher.tell(lib.DROP_POOL, pool.number)
    got, output = running.end()
    assert (got.cause, output) == ("exited", b"done\n")


def test_closed_pool_socket_drops_the_pool(pool_of: Callable[..., Pool]) -> None:
    pool = pool_of()
    waiting = pool.leave()
    pool.sock.close()
    assert pool.launcher.wait(waiting.job_id).cause == "cancelled"


def test_cpu_quota_slows_the_tree(pool_of: Callable[..., Pool], started: Launcher) -> None:
    pool = pool_of(quota_us=20_000)
    job = pool.run("/bin/sh", "-c", "while :; do :; done", deadline_ns=800_000_000)
    got, _ = job.end()
    assert got.cause == "timeout"
    if got.memory_source != 2:
        pytest.skip("machine lacks: control groups")
    assert got.utime_us + got.stime_us < 400_000


def test_dead_zygote_loses_its_jobs_and_says_so(pool_of: Callable[..., Pool]) -> None:
    pool = pool_of()
    job = pool.run("/bin/sleep", "60")
    waiting = pool.leave()
    asked = pool.launcher.ask(struct.pack("=IIQ", lib.WAIT, 0, waiting.job_id), [])
    pool.launcher.tell(lib.DROP_TEMPLATE, pool.template)  # type: ignore[attr-defined]
    assert job.end()[0].cause == "lost"
    assert pool.launcher.exit_of(asked).cause == "lost"
    assert pool.take().err.stage != 0
    assert pool.sock.recv(10) == b""


def test_failing_set_up_reports_the_operation(started: Launcher) -> None:
    started.hello()
    _, usr = started.mount("/usr", attr=1)
    template, _ = started.template(lib.command_template(), [usr])
    plan = lib.Plan(2, flags=14).op("DETACH", "/.pools").op("DETACH", "/not-there")
    pool, err = started.pool(template, plan, [])
    assert err.stage == 0
    assert pool.take().err[:3] == (11, 1, 2)
    assert not select.select([pool.sock], [], [], 0.2)[0]  # and is not tried again by itself
    plan = lib.Plan(1).op("TMPFS", "/").op("BIND", "/usr", arg=0)
    assert started.template(plan, [])[1].stage != 0
    os.close(usr)


@pytest.mark.skipif(not IS_ROOT, reason="machine lacks: root (id-mapped mounts)")
def test_idmapped_grant_is_the_jobs_own_and_new_files_are_the_owners(binary: Path) -> None:
    directory = tempfile.mkdtemp(dir="/tmp")
    os.chown(directory, ORDINARY, ORDINARY)
    try:
        with Launcher(binary) as it:
            base = it.hello().uid_base + 1
            _, usr = it.mount("/usr", attr=1)
            err, data = it.mount(directory, maps=(ORDINARY, ORDINARY, base, base))
            assert err.stage == 0, err
            template, err = it.template(lib.command_template(), [usr])
            pool, err = it.pool(template, lib.command_job(binds=1), [data], uid_index=1)
            assert err.stage == 0, err
            got, output = pool.run(
                "/bin/sh", "-c", "echo hello > /data0/new && stat -c %u /data0"
            ).end()
            assert (got.cause, output) == ("exited", b"1000\n")
            os.close(usr)
            os.close(data)
        st = os.stat(f"{directory}/new")
        assert (st.st_uid, st.st_gid) == (ORDINARY, ORDINARY)
    finally:
        shutil.rmtree(directory)


def test_many_calls_leave_nothing_behind(pool_of: Callable[..., Pool]) -> None:
    pool = pool_of(n_waiting=2, memory=256 * MIB)
    broker = pool.launcher.process.pid
    (supervisor,) = (
        int(p) for p in Path(f"/proc/{broker}/task/{broker}/children").read_text().split()
    )

    def counts() -> tuple[int, int, int]:
        time.sleep(0.3)
        fds = len(os.listdir(f"/proc/{supervisor}/fd")) if IS_ROOT else 0
        slots = sum(len(glob.glob(f"{g}/slot-*")) for g in own_groups(broker))
        return fds, slots, len(descendants(broker))

    def calls(n: int) -> None:
        for _ in range(n):
            assert pool.run("/bin/true").end()[0].cause == "exited"

    calls(300)
    fds, slots, processes = counts()
    # A few slots (of four directories, eight descriptors each) stay for reuse.
    assert (fds < 100, slots <= 32, processes) == (True, True, 4), (fds, slots, processes)


def test_unknown_and_short_messages_do_not_end_the_supervisor(started: Launcher) -> None:
    started.hello()
    for message in (
        b"x",
        b"\0" * 8,
        struct.pack("=II", 99, 0),
        struct.pack("=IIQ", lib.KILL, 0, 1),
    ):
        started.control.send(message)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    socket.send_fds(
        started.control, [struct.pack("=IIQII", lib.TEMPLATE, 0, 1, 5, 0)], [theirs.fileno()]
    )
    theirs.close()
    assert started.reply(ours).errno == 71
