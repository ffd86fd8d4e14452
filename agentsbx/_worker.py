"""The Python side of one job: load the function, wait for the call, run it, answer, die.

Runs in the job only, as pid 1 of its namespaces, after every wall is up and proven. Everything that
it sends is untrusted to the host; everything that it reads comes from the host.
"""

from __future__ import annotations

import errno
import os
import posix
import sys

from agentsbx import _blas, _core, _generator, _header, _hooks, _injob, _seeds, _transfer
from agentsbx._codec import encode, encode_exception
from agentsbx._receive import Receiver
from agentsbx._wire import FRAME_INLINE, Event, Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHANNEL = 3
SNAPSHOT = 4
# Plain numbers: comparing with members of an enum would touch more pages, each to be copied.
_FRAME = int(Event.FRAME)
_CALL, _RESULT = int(Frame.CALL), int(Frame.RESULT)
_RESUME, _YIELD = int(Frame.RESUME), int(Frame.YIELD)
_HOST_CALL, _HOST_ANSWER = int(Frame.HOST_CALL), int(Frame.HOST_ANSWER)
_aside: list[Any] = []  # RESUME frames that came to a thread which waits for something else
_keep: bytes | None = None  # which files in private places the host wants (`_header.pack_call`)
_n_files = 0  # there, before any code of the user ran
# What an answer says besides: which request a session's interpreter answers; None: what the
# function left running, since that dies with this process.
marks: tuple[str, ...] | None = None


class HostGone(Exception):
    """The channel closed: nobody waits for a result."""


def _read_frame(want: int, channel: int = CHANNEL) -> tuple[bytes | memoryview, list[memoryview]]:
    """Next frame, which must be of that kind: (body, [view of the whole memfd] or [])."""
    while True:
        if _aside and want == _RESUME:
            return _aside.pop(0)  # type: ignore[no-any-return]
        body: bytes | memoryview
        event, kind, body, memfd, n_body, n_memfd = _core.wait_frame(channel, -1, -1, -1)
        whole = []
        if memfd >= 0:
            whole = [_transfer.map_private(memfd, n_memfd)]
            os.close(memfd)
            body = whole[0][:n_body]
        if event == _FRAME and kind == want:
            return body, whole
        if event != _FRAME or not _other(kind, body, whole):
            raise HostGone


def _other(kind: int, body: bytes | memoryview, whole: list[memoryview]) -> bool:
    """Take a frame that another thread, or a host call that was interrupted, waits for."""
    if kind == _RESUME:
        _aside.append((body, whole))
    elif kind == _HOST_ANSWER and _job is not None:
        # Loaded though nobody waits for it any more: the next pickle goes on from it.
        _job.receiver.heard(_job.answer(body, whole))
    return kind in (_RESUME, _HOST_ANSWER)


_job: _Job | None = None


def _send_host_call(body: bytes, buffers: list[memoryview]) -> None:
    _flush()
    _send(_HOST_CALL, body, buffers)


def _buffers(whole: list[memoryview], n_body: int, lengths: list[int]) -> list[memoryview]:
    return _transfer.split(whole[0], n_body, lengths)[1] if whole else []


def _send(kind: int, body: bytes, buffers: list[memoryview], channel: int = CHANNEL) -> None:
    lengths = [b.nbytes for b in buffers] if buffers else []
    said = () if kind in (_YIELD, _HOST_CALL) else _alive() if marks is None else marks
    packed = _header.pack_result(body, lengths, said)
    if not buffers and len(packed) <= FRAME_INLINE:
        _core.send_frame(channel, kind, packed)
        return
    fd, size = _transfer.write_memfd("result", packed, buffers, _transfer.JOB_SEALS)
    try:
        _core.send_frame(channel, kind, b"", (fd,), len(packed), size)
    except OSError as e:
        if e.errno != errno.ETOOMANYREFS:
            raise
        _send_parts(kind, fd, len(packed), size)
    os.close(fd)


def _send_parts(kind: int, fd: int, n_body: int, size: int) -> None:
    """Too many descriptors of this user are in flight (unix(7)).

    The memfd's bytes, frame by frame.
    """
    for at in range(0, size, FRAME_INLINE):
        _core.send_frame(CHANNEL, Frame.PART, os.pread(fd, FRAME_INLINE, at))
    _core.send_frame(CHANNEL, kind, n_body.to_bytes(8, "little"))


def _request_module(name: str) -> tuple[bytes, list[memoryview]]:
    """`import name` of project code: ask the host."""
    _core.send_frame(CHANNEL, Frame.IMPORT, name.encode("utf-8", "surrogatepass")[:1024])
    body, whole = _read_frame(Frame.MODULE)
    blob, lengths = _header.unpack(body)
    return blob, _buffers(whole, len(body), lengths)


def _apply(setup: tuple[Any, ...]) -> int:
    """Look like the host's process: environment, argv, main file ... (`_setup.Setup`).

    Returns the number of threads for the linear algebra libraries.
    """
    env, argv, main_file, blas_threads, policy, body_bytes, buffer_bytes, mirrored, watches = setup
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    sys.argv[:] = argv
    if main_file is not None:
        sys.modules["__main__"].__file__ = main_file
    _injob.enter(policy, body_bytes, buffer_bytes, watches)
    if mirrored is not None:
        _hooks.mirror(mirrored)
    n: int = blas_threads
    return n


class _Job:
    def __init__(self) -> None:
        self.blas_threads = 1
        self.receiver = Receiver()
        self.receiver.install_importer(_request_module)
        self.receiver.talk = _send_host_call, lambda: self.answer(*_read_frame(_HOST_ANSWER))

    def load_waiting(self, fd: int = SNAPSHOT) -> None:
        """Snapshot of the pool, given at the fork."""
        data = posix.pread(fd, FRAME_INLINE, 0)
        whole = None
        if len(data) == FRAME_INLINE:
            whole = _transfer.map_private(fd, os.fstat(fd).st_size)
        posix.close(fd)
        n_body = int.from_bytes((whole or data)[:8], "little")
        body = (whole or data)[8 : 8 + n_body]
        rest = whole[_transfer.align(8 + n_body) :] if whole else memoryview(data)
        self.load_snapshot(body, rest)

    def load_snapshot(self, body: bytes | memoryview, rest: memoryview) -> None:
        """Set-up and function; `rest`: what the buffers lie in."""
        setup, blob, lengths = _header.unpack(body)
        self.blas_threads = _apply(setup)
        buffers = _transfer.split(rest, 0, lengths)[1] if lengths else ()
        self.receiver.load_snapshot(blob, buffers)

    def answer(self, body: bytes | memoryview, whole: list[memoryview]) -> Any:
        """Rebuild what the host says to a host call."""
        blob, lengths, plain = _header.unpack(body)
        if not blob:
            return plain
        return self.receiver.load_more(blob, _buffers(whole, len(body), lengths))

    def run(self) -> None:
        global _keep
        body, whole = _read_frame(_CALL)
        _core.cpu_release()
        snapshot, blob, lengths, kind, seed, _keep = _header.unpack(body)
        buffers = _buffers(whole, len(body), lengths) if lengths else []
        if snapshot is not None:
            setup, code, own = _header.unpack(snapshot)
            self.blas_threads = _apply(setup)
            self.receiver.load_snapshot(code, buffers[: len(own)])
            buffers = buffers[len(own) :]
        _seeds.reseed(seed)
        _blas.restore(self.blas_threads)
        fn, args, kwargs = self.receiver.load_call(blob, buffers)
        if _injob.watches:
            _watch_body()
        try:
            if kind == 0:
                value = fn(*args, **kwargs)
            elif kind == 1:
                import asyncio

                value = asyncio.run(fn(*args, **kwargs))
            else:
                self._stream(fn(*args, **kwargs), kind)
                return
        except BaseException as e:
            _fail(e)
            return
        _answer(value)

    def _stream(self, generator: Any, kind: int) -> None:
        if kind == 2:
            how, value = _generator.serve(generator, _give, self._heard)
        else:
            import asyncio

            serving = _generator.aserve(generator, _give, self._heard, CHANNEL)
            how, value = asyncio.run(serving)
        if how == _generator.RETURNED:
            _answer(value)
        elif how == _generator.RAISED:
            _fail(value)
        else:
            _tell_watched()
            _finish(_n_files)
            _send(Frame.ERROR, b"", [])

    def _heard(self) -> tuple[int, Any]:
        """Next word of the host to a generator."""
        with self.receiver.lock:  # other threads may wait for answers of the host
            body, whole = _read_frame(_RESUME)
        word, blob, lengths = _header.unpack(body)
        if not blob:
            return word, None
        return word, self.receiver.load_more(blob, _buffers(whole, len(body), lengths))


def _give(item: Any) -> None:
    """Send one item of a generator."""
    body, buffers = encode(item, limits=_injob.limits())
    _flush()
    _send(_YIELD, body, buffers)


_watch: Any = None  # under `strict_violations`: what notes the exceptions of the body


def _watch_body() -> None:
    """Note the body's exceptions from now on, those too that it swallows."""
    global _watch
    from agentsbx._watch import Watch

    _watch = Watch()


def _tell_watched() -> None:
    """Send what was noted, ahead of the answer; what follows is our own code."""
    global _watch
    watch, _watch = _watch, None
    if watch is not None:
        watch.close()
        for frame in watch.frames:
            _core.send_frame(CHANNEL, Frame.DENIED, frame)


def _answer(value: Any) -> None:
    _tell_watched()
    try:
        body, buffers = encode(value, limits=_injob.limits())
    except Exception as e:
        # A limit is the host's to report: a job cannot raise one of its errors (semantics 3.3).
        which = getattr(e, "limit", None)
        if which in ("result", "buffers"):
            _finish(_n_files)
            _core.send_frame(CHANNEL, Frame.TOO_BIG, which.encode())
        else:
            _fail(e)
        return
    _finish(_n_files)
    try:
        _send(_RESULT, body, buffers)
    except OSError as e:
        if e.errno != errno.EFBIG:  # RLIMIT_FSIZE bounds the memfd too
            raise
        _core.send_frame(CHANNEL, Frame.TOO_BIG, b"file_size")


def _fail(exc: BaseException) -> None:
    _tell_watched()
    tb = exc.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename == __file__:
        tb = tb.tb_next  # our own frames say nothing to the user
    exc.__traceback__ = tb
    body, buffers = encode_exception(exc, limits=_injob.limits())
    _finish(_n_files)
    _send(Frame.ERROR, body, buffers)


def _alive() -> tuple[str, ...]:
    """Threads and processes that the function left behind: they die with this process."""
    threading = sys.modules.get("threading")
    if not _core.has_children() and (threading is None or threading.active_count() == 1):
        return ()
    out: list[str] = []
    if threading is not None and threading.active_count() > 1:
        current = threading.current_thread()
        out += [f"thread {t.name}" for t in threading.enumerate() if t is not current]
    try:
        # Pid 1 inherits every orphan: without a child there is nobody.
        pids = [p for p in os.listdir("/proc") if p.isdigit() and p != "1"]
    except OSError:
        return tuple(out)
    for pid in pids[:64]:
        try:
            with open(f"/proc/{pid}/stat", "rb") as f:
                stat = f.read(512)
        except OSError:
            continue
        name, _, rest = stat.partition(b"(")[2].rpartition(b")")
        if not rest.startswith(b" Z"):
            out.append(f"process {pid} ({name.decode('utf-8', 'replace')})")
    return tuple(out)


def _finish(n_files: int) -> None:
    """Before the answer: what was printed, and what lies in private places, if anything does."""
    _flush()
    if _keep is None or _core.count_leftovers() == n_files:
        return
    try:
        from agentsbx import _worker_files

        _worker_files.flush()
    except (
        Exception
    ):  # user code may have broken the imports: what is in files is told all the same
        pass
    try:
        _core.send_leftovers(CHANNEL, _keep, _injob.limits().buffer_bytes)
    except OSError:
        return  # nobody listens: the answer will find out


def _flush() -> None:
    for last in _hooks.at_end:
        last()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue  # the user closed or replaced it


_NO_ARGS = b"\x80\x05))\x86."  # pickle of ((), ()) that leaves no trace in the memo
_NO_SNAPSHOT = b"\x80\x05N)N\x87."  # pickle of (None, (), None), likewise
_NO_CALL = _header.pack_call(None, _NO_ARGS, [], kind=0, seed=None, keep=b"")


def _prefault(job: _Job) -> None:
    """Rehearse a call with itself: copy-on-write faults are taken now, while nobody waits."""
    global _keep
    try:
        host, own = _core.socketpair()
    except PermissionError:  # profile 'strict'
        return
    _core.send_frame(host, _CALL, _NO_CALL)
    body, _whole = _read_frame(_CALL, own)
    _snapshot, blob, _lengths, _kind, seed, _keep = _header.unpack(body)
    _seeds.reseed(seed)
    _blas.restore(0)
    job.receiver.load_call(blob, ())
    n_files = _core.count_leftovers()
    answer, buffers = encode([1, 2.5, "x", None, {"a": (1, 2)}], limits=_injob.limits())
    _finish(n_files)
    _send(_RESULT, answer, buffers, own)
    _core.wait_frame(host, -1, -1, 0)
    _core.close_all(host, own)


def prepare() -> _Job:
    """Zygote: make what each job needs, and rehearse until the code of a call is specialised.

    A job in which the interpreter did that would dirty those pages anew. Nothing of it stays.
    """
    setup: Any = (None, [""], None, 0, b"", 1 << 20, 1 << 20, None, False)
    body = _header.pack_snapshot(setup, _NO_SNAPSHOT, [])
    raw = len(body).to_bytes(8, "little") + body
    # A line that is printed is seen at once, and stays when the job is killed (semantics 8).
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    finders = sys.meta_path[:]
    for _ in range(20):
        sys.meta_path[:] = finders
        job = _Job()
        job.load_waiting(_transfer.write_memfd("rehearsal", raw, [], 0)[0])
        _prefault(job)
    sys.modules["__main__"].__dict__.pop("__file__", None)
    sys.meta_path[:] = finders
    _hooks.install()
    return _Job()


def run(job: _Job, version: int, cpu: int) -> None:
    """Entry of a forked job; never returns."""
    global _n_files, _job
    code = 0
    _job = job
    job.receiver.pid = posix.getpid()
    try:
        try:
            _n_files = _core.count_leftovers()
            if version:
                job.load_waiting()
            if not _core.readable(CHANNEL):  # else the call is here: no time to rehearse
                _prefault(job)
                _core.cpu_wait_on(cpu)
        except Exception as e:  # the function cannot be loaded: the error of the call
            _read_frame(_CALL)
            _fail(e)
        else:
            try:
                job.run()
            except HostGone:
                raise
            except BaseException as e:
                _fail(e)
    except HostGone:
        pass
    except BaseException:
        code = 125
    finally:
        os._exit(code)
