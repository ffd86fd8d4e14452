"""The host's end of broker and supervisor: starts them, asks them, one message at a time.

Host process only. Thread-safe: requests that have an answer carry a reply socket of their own
(``csrc/base/wire.h``), broker requests are serialised by a lock. Everything that fails is a typed
error of `agentsbx.errors`; a supervisor that is gone is `SupervisorGone`, which the runtime answers
by starting anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import threading
import time

from agentsbx import _core, _shortage, _transfer
from agentsbx._boxes import Box, Pool, PoolGone, SharedFd
from agentsbx._compile import Job, MountSpec, Template
from agentsbx._wire import (
    EXIT_SIZE,
    GROW,
    HELLO,
    ID,
    KILL,
    MAX_MOUNTS,
    MOUNT,
    NO_ID,
    POOL,
    PUB,
    REPLY,
    SNAPSHOT,
    START,
    TEMPLATE,
    Cause,
    ExitRecord,
    Hello,
    Msg,
)  # fmt: skip
from agentsbx.errors import AgentsbxError, ErrRecord, SandboxUnavailable, Stage, unavailable

LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_bin", "agentsbx-launcher")
START_TIMEOUT_MS = 20_000
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_WORN_OUT = (errno.ENOSPC, errno.ENOTDIR, errno.EISDIR)
MAX_SPARE = 32
# Too many descriptors of this user are in unread messages (unix(7)), or no memory: it passes.
_PASSING = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)
SEND_TRIES, SEND_PAUSE_S = 200, 0.005
_SOCKETS_HIGH = 10  # child ends live here until they are put on 3, 4, 5


class SupervisorGone(AgentsbxError):
    """The supervisor ended (killed, or its machine is out of memory)."""


def sealed_memfd(name: str, data: bytes) -> int:
    """A memfd that nobody can change any more."""
    fd = _transfer.new_memfd(name)
    try:
        _transfer.pwrite_all(fd, memoryview(data), 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Starting:
    """A zygote on its way: it imports while the host does something else."""

    __slots__ = ("id", "places", "reply")

    def __init__(self, template_id: int, reply: int, places: tuple[str, ...]) -> None:
        self.id = template_id
        self.reply = reply
        self.places = places

    def finish(self, sup: Supervisor) -> None:
        """Wait until it serves; raises what it died of. Once."""
        reply, self.reply = self.reply, -1
        if reply >= 0:
            sup.finish(reply, self.places)

    def close(self) -> None:
        """Nobody waits for it any more."""
        reply, self.reply = self.reply, -1
        _core.close_all(reply)


class Supervisor:
    """One broker and supervisor pair of this process."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._broker_lock = threading.Lock()
        self.owner = os.getpid()
        self.pid = -1
        self.control, self.broker = SharedFd(-1), SharedFd(-1)
        self.hello = self._start()

    # -- life ----------------------------------------------------------------------------------

    def _start(self) -> Hello:
        if not os.access(LAUNCHER, os.X_OK):
            raise SandboxUnavailable(
                "the program agentsbx-launcher is missing from the package",
                missing=["agentsbx-launcher"],
                hint="reinstall agentsbx on Linux with a C compiler",
            )
        host = -1
        ends: list[int] = []
        try:
            mine, theirs = _core.socketpair()
            self.control = SharedFd(mine)
            ends.append(theirs)
            mine, theirs = _core.socketpair()
            self.broker = SharedFd(mine)
            ends.append(theirs)
            host = os.pidfd_open(os.getpid())
            high: list[int] = []
            for fd in (*ends[:2], host):
                high.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SOCKETS_HIGH))
                ends.append(high[-1])  # closed also where the next finds no number
            actions = [(os.POSIX_SPAWN_DUP2, fd, 3 + i) for i, fd in enumerate(high)]
            argv = [LAUNCHER, "broker", "3", "4", "5"]
            if os.environ.get("AGENTSBX_DEBUG"):
                argv.append("--debug")  # zygotes keep our stderr
            # An empty environment: no secret reaches any process of ours.
            self.pid = os.posix_spawn(LAUNCHER, argv, {}, file_actions=actions)
        except OSError as e:
            self.control.close()
            self.broker.close()
            record = ErrRecord(1, 0, e.errno or errno.EIO, 0)
            raise unavailable(record, object=LAUNCHER) from e
        finally:
            for fd in (*ends, host):
                if fd >= 0:
                    os.close(fd)
        control = self.control.hold()
        try:
            got = _core.recv(control, HELLO.size, 0, START_TIMEOUT_MS)
        finally:
            self.control.release()
        if not got or len(got[0]) != HELLO.size:
            self.close()
            raise SandboxUnavailable(
                "the supervisor did not start", missing=["supervisor"],
                hint="`agentsbx doctor` tries each step and says which one fails",
            )  # fmt: skip
        hello = Hello.unpack(got[0])
        if hello.err.stage:
            self.close()
            raise unavailable(hello.err)
        return hello

    def close(self) -> None:
        """End it: everything in its pid namespace dies with it."""
        with contextlib.suppress(SupervisorGone):
            self._send(ID.pack(Msg.STOP, 0, 0))
        self.control.close()
        self.broker.close()
        if self.pid > 0:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.pid = -1

    def abandon(self) -> None:
        """In a forked child: it is the parent's."""
        self.control.abandon()
        self.broker.abandon()

    # -- requests ------------------------------------------------------------------------------

    def _send(self, message: bytes, fds: tuple[int, ...] = ()) -> None:
        control = self.control.hold()
        if control < 0:
            raise SupervisorGone("the supervisor is gone")
        try:
            for left in range(SEND_TRIES, -1, -1):
                try:
                    _core.send(control, message, fds)
                    break
                except OSError as e:
                    if e.errno not in _PASSING or not left:
                        raise SupervisorGone("the supervisor is gone", errno=e.errno) from None
                time.sleep(SEND_PAUSE_S)
        finally:
            self.control.release()

    def _ask(
        self, message: bytes, fds: tuple[int, ...], size: int, timeout_ms: int = -1
    ) -> bytes | None:
        """The answer on a reply socket of its own; None when the time is over."""
        mine, theirs = _shortage.pair()
        try:
            try:
                self._send(message, (*fds, theirs))
            finally:
                os.close(theirs)
            got = _core.recv(mine, size, 0, timeout_ms)
        finally:
            os.close(mine)
        if got is None:
            return None
        if not got[0]:
            raise SupervisorGone("the supervisor closed without an answer")
        return got[0]

    def mount(self, spec: MountSpec, to_uid: int) -> int:
        """A detached mount of what `spec` names: a descriptor.

        Raises `SandboxUnavailable`, FileNotFoundError (the name is gone), OSError(ESTALE) (another
        object stands there now).
        """
        f = spec.found
        raw = os.fsencode(f.real)
        idmap = spec.idmap and to_uid != NO_ID
        ids = (f.uid, f.gid, to_uid, to_uid) if idmap else (0, 0, NO_ID, NO_ID)
        msg = MOUNT.pack(
            Msg.MOUNT,
            len(raw),
            f.dev,
            f.ino,
            1 if spec.is_rdonly else 0,
            int(spec.recursive),
            *ids,
            0,
        )
        with self._broker_lock:
            broker = self.broker.hold()
            if broker < 0:
                raise SupervisorGone("the broker is gone")
            try:
                _core.send(broker, msg + raw)
                got = _core.recv(broker, REPLY.size, 1)
            except OSError as e:
                raise SupervisorGone("the broker is gone", errno=e.errno) from None
            finally:
                self.broker.release()
        if not got or len(got[0]) != REPLY.size:
            raise SupervisorGone("the broker closed without an answer")
        err = ErrRecord.unpack(REPLY.unpack(got[0])[3])
        if not err.stage:
            return got[1].take()[0]
        if err.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ELOOP):
            raise OSError(err.errno, os.strerror(err.errno), f.path)
        raise unavailable(err, object=f.path)

    def _mounts(self, specs: tuple[MountSpec, ...], to_uid: int) -> list[int]:
        if len(specs) > MAX_MOUNTS:
            raise SandboxUnavailable(
                f"{len(specs)} mounts are more than {MAX_MOUNTS}", missing=["mounts"]
            )
        fds: list[int] = []
        try:
            for spec in specs:
                fds.append(self.mount(spec, to_uid))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return fds

    def template(self, t: Template) -> Starting:
        """Begin to start a zygote; `Starting.finish` waits until it serves."""
        template_id = next(self._ids)
        fds: list[int] = []
        try:
            fds.append(sealed_memfd("template", t.plan))
            fds += self._mounts(t.mounts, NO_ID)
            msg = TEMPLATE.pack(Msg.TEMPLATE, 0, template_id, len(t.mounts), int(t.is_command))
            mine, theirs = _core.socketpair()
            fds.append(theirs)
            try:
                self._send(msg, tuple(fds))
            except BaseException:
                os.close(mine)
                raise
        finally:
            for fd in fds:
                os.close(fd)
        return Starting(template_id, mine, t.places)

    def pool(self, template_id: int, job: Job, n_waiting: int, uid_index: int) -> Pool:
        """Make a pool of `n_waiting` waiting sandboxes."""
        pool_id = next(self._ids)
        to_uid = self.hello.uid_base + uid_index if self.hello.is_root else NO_ID
        mine, theirs = _core.socketpair()
        fds: list[int] = [theirs]
        try:
            plan = sealed_memfd("plan", job.plan)
            fds.append(plan)
            mounts = self._mounts(job.mounts, to_uid)
            fds += mounts
            msg = POOL.pack(
                Msg.POOL, 0, template_id, pool_id, len(mounts), n_waiting, uid_index,
                int(job.poll_memory), job.memory, job.cpu_time_ns, job.cpu_quota_us, job.processes,
                job.want_cgroup, 1,
            )  # fmt: skip
            raw = self._ask(msg, (plan, *mounts, theirs), REPLY.size)
            if raw is not None and len(raw) == REPLY.size:
                err = ErrRecord.unpack(REPLY.unpack(raw)[3])
                if err.stage == Stage.FORK and err.errno == errno.ECHILD:
                    raise PoolGone("the zygote died", template_id=template_id)
            self._answer(raw, job.places)
        except BaseException:
            os.close(mine)
            raise
        finally:
            for fd in fds:
                os.close(fd)
        return Pool(pool_id, mine, job, template_id, uid_index)

    def finish(self, reply: int, places: tuple[str, ...]) -> None:
        """Wait for the answer to a `template`."""
        try:
            got = _core.recv(reply, REPLY.size, 0, -1)
        finally:
            os.close(reply)
        self._answer(None if got is None else got[0], places)

    @staticmethod
    def _answer(raw: bytes | None, places: tuple[str, ...]) -> None:
        if raw is None or len(raw) != REPLY.size:
            raise SupervisorGone("the supervisor gave no answer")
        err = ErrRecord.unpack(REPLY.unpack(raw)[3])
        if err.stage:
            place = places[err.op] if err.op < len(places) and err.stage > 8 else None
            raise unavailable(err, object=place)

    def snapshot(self, pool: Pool, version: int, fd: int) -> None:
        """From now on new sandboxes of the pool load this snapshot before they wait."""
        pool.version = version
        self._send(SNAPSHOT.pack(Msg.SNAPSHOT, 0, pool.id, version), (fd,) if fd >= 0 else ())

    def take(self, pool: Pool, timeout_ms: int, *, asked: bool = False) -> Box:
        """The next waiting sandbox; asks for one where none waits.

        `SandboxUnavailable` with the stage that failed, `PoolGone` when the pool was dropped or its
        zygote died.
        """
        if pool.spare:
            with pool.lock:
                if pool.spare:
                    return pool.spare.pop()
        sock = pool.sock.hold()
        if sock < 0:
            raise PoolGone("the pool was dropped")
        try:
            got = _core.recv(sock, PUB.size, 3, 0)
            if got is not None:
                if pool.n_waiting and not asked:
                    self.grow(pool)  # we took what a waiting thread had asked for
            else:
                with pool.lock:
                    pool.n_waiting += 1
                if not asked:
                    self.grow(pool)
                try:
                    got = _core.recv(sock, PUB.size, 3, timeout_ms)
                finally:
                    with pool.lock:
                        pool.n_waiting -= 1
        finally:
            pool.sock.release()
        if got is None:
            raise SandboxUnavailable(
                f"no sandbox became ready within {timeout_ms // 1000} s", missing=["job"],
                hint="the machine is overloaded, or out of memory",
            )  # fmt: skip
        if len(got[0]) != PUB.size:
            raise PoolGone("the pool's queue closed", template_id=pool.template_id)
        _, _, pool_id, job_id, version, err, _ = PUB.unpack(got[0])
        if len(got[1]) == 3 and pool_id == pool.id:
            return Box(job_id, version, got[1], pool)
        record = ErrRecord.unpack(err)
        if record.stage == Stage.FORK and record.errno == errno.ECHILD:
            raise PoolGone("the zygote died", template_id=pool.template_id)
        places = pool.job.places
        error = unavailable(record, object=places[record.op] if record.op < len(places) else None)
        if record.stage in (Stage.ROOT, Stage.MOUNT) and record.errno in _WORN_OUT:
            # Mount points that other pools left in the template's root: a new one has none.
            raise PoolGone("the template is worn out", template_id=pool.template_id, error=error)
        raise error

    def grow(self, pool: Pool, n: int = 1) -> None:
        """Ask for `n` sandboxes now: a thread waits for each."""
        self._send(GROW.pack(Msg.GROW, 0, pool.id, n, 0))

    def wait_ready(self, pool: Pool, n: int, timeout_ms: int) -> None:
        """Ask for `n` waiting sandboxes, and wait for the first of them (at most `MAX_SPARE`)."""
        self.grow(pool, n)
        boxes = [self.take(pool, timeout_ms, asked=True) for _ in range(min(n, MAX_SPARE))]
        with pool.lock:
            pool.spare += boxes

    def start(self, job_id: int, start_ns: int, deadline_ns: int) -> None:
        """The job runs from now: deadline, polling, refill."""
        self._send(START.pack(Msg.START, 0, job_id, start_ns, deadline_ns))

    def kill(self, job_id: int, cause: Cause) -> None:
        """Kill the whole tree of a job."""
        self._send(KILL.pack(Msg.KILL, 0, job_id, cause, _core.cpu_current()))

    def wait(self, job_id: int) -> ExitRecord:
        """How the job ended; blocks until it has."""
        return self.wait_for(job_id, -1) or ExitRecord.lost(job_id)

    def wait_for(self, job_id: int, timeout_ms: int) -> ExitRecord | None:
        """The same, None when it has not ended within the time."""
        try:
            raw = self._ask(ID.pack(Msg.WAIT, 0, job_id), (), EXIT_SIZE, timeout_ms)
        except SupervisorGone:
            return ExitRecord.lost(job_id)
        record = None if raw is None else ExitRecord.unpack(raw)
        # Where too many wait the supervisor answers at once: it lives.
        return None if record is None or record.is_alive else record

    def drop_pool(self, pool: Pool) -> None:
        """Kill its waiting sandboxes and forget it."""
        pool.close()
        self._send(ID.pack(Msg.DROP_POOL, 0, pool.id))

    def drop_template(self, template_id: int) -> None:
        """Kill a zygote and all its jobs."""
        self._send(ID.pack(Msg.DROP_TEMPLATE, 0, template_id))
