"""`explain=True`: a command under its own pid 1's trace: what was denied, and no wall less."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest

import agentsbx
from agentsbx.policy import Policy
from agentsbx.result import Result, Violation

PYTHON = "/usr/bin/python3"

needs_python = pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"no {PYTHON}")


def traced(*argv: str, **keywords: object) -> Result:
    return agentsbx.run(list(argv), explain=True, **keywords)  # type: ignore[arg-type]


def targets(result: Result) -> list[str]:
    return [v.target for v in result.violations]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "hidden" / "key"
    path.parent.mkdir()
    path.write_text("secret\n")
    return path


def test_a_swallowed_denial_is_told_with_the_rule_that_allows_it(secret: Path) -> None:
    command = f"cat {secret} 2>/dev/null; cd {secret.parent} 2>/dev/null; true"
    plain = agentsbx.run(["sh", "-c", command])
    assert plain.value == 0
    assert not plain.violations, "without a trace nobody can know"
    result = traced("sh", "-c", command)
    assert result.value == 0
    assert targets(result) == [str(secret), str(secret.parent)]
    assert result.violations[0].rule == f"read=['{secret}']"


def test_the_rule_that_is_told_allows_the_call(secret: Path) -> None:
    (violation,) = traced("cat", str(secret)).violations
    assert violation.rule is not None
    keyword, _, value = violation.rule.partition("=")
    allowed = traced("cat", str(secret), **{keyword: eval(value)})
    assert (allowed.value, allowed.stdout, allowed.violations) == (0, b"secret\n", [])


@pytest.mark.parametrize(
    ("script", "operation", "target"),
    [
        ("echo x > /etc/new", "write", "/etc/new"),
        ("mkdir /usr/new", "write", "/usr/new"),
        ("cd /usr && mkdir new", "write", "/usr/new"),
        ("rm -f /usr/bin/env", "write", "/usr/bin/env"),
        ("ln -s x /etc/new", "write", "/etc/new"),
        ("mv /usr/bin/env /usr/bin/new", "write", "/usr/bin/new"),
        ("head -c 3000000 /dev/zero > $TMPDIR/f", "write", "/sandbox/tmp/f"),
    ],
)
def test_operation_and_absolute_name(script: str, operation: str, target: str) -> None:
    result = traced("sh", "-c", script + " 2>/dev/null; true", file_size="2MB")
    assert [(v.operation, v.target) for v in result.violations] == [(operation, target)]


def test_what_is_nowhere_is_no_denial() -> None:
    result = traced("sh", "-c", "cat /no/such/file; command -v no-such-program; true")
    assert result.value == 0
    assert result.violations == []


@needs_python
def test_every_thread_and_child_is_seen(secret: Path) -> None:
    script = textwrap.dedent(f"""
        import os, subprocess, threading
        def look(n):
            try: open({str(secret.parent)!r} + "/" * n + "key")
            except OSError: pass
            subprocess.run(["cat", {str(secret)!r}], stderr=subprocess.DEVNULL)
        threads = [threading.Thread(target=look, args=(n,)) for n in range(1, 9)]
        for t in threads: t.start()
        for t in threads: t.join()
        for n in range(3):
            pid = os.fork()
            if not pid:
                os.access({str(secret)!r}, os.R_OK)
                os._exit(n)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), end=" ")
    """)
    result = traced(PYTHON, "-c", script)
    assert (result.value, result.stdout) == (0, b"0 1 2 ")
    assert set(targets(result)) == {str(secret)}


@needs_python
def test_what_the_filter_denies_is_told_too() -> None:
    script = "import socket\ntry: socket.socket()\nexcept OSError as e: print(e.errno)"
    result = traced(PYTHON, "-c", script)
    assert result.stdout.strip() == b"97"
    assert [v.syscall for v in result.violations] == ["socket"]


def test_limits_of_processes(tmp_path: Path) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
    result = traced("sh", "-c", script, processes=5)
    assert [v.limit for v in result.violations] == ["processes"]
    assert result.limits["processes"].hit


@pytest.mark.parametrize(
    ("script", "value"),
    [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("exec /no/such", 127)],
)
def test_the_end_is_the_commands_own(script: str, value: int) -> None:
    result = traced("sh", "-c", script)
    assert result.value == value
    assert result.exit == agentsbx.run(["sh", "-c", script]).exit


def test_signals_arrive(tmp_path: Path) -> None:
    script = "trap 'echo got' USR1; kill -USR1 $$; sleep 0.05 & wait; kill -CHLD $$; echo end"
    assert traced("sh", "-c", script).stdout == b"got\nend\n"


def test_a_missing_program() -> None:
    result = traced("no-such-program")
    assert (result.value, result.exit.code) == (127, 127)


def test_a_timeout_ends_all_and_keeps_what_was_seen(secret: Path) -> None:
    result = traced("sh", "-c", f"cat {secret}; sleep 60 & sleep 60", timeout="1s")
    assert isinstance(result.error, TimeoutError)
    assert targets(result) == [str(secret)]


@needs_python
def test_a_flood_of_denials_is_bounded() -> None:
    script = textwrap.dedent("""
        import os
        for n in range(6000):
            try: os.mkdir(f"/usr/{n}")
            except OSError: pass
        print("done")
    """)
    result = traced(PYTHON, "-c", script)
    assert result.stdout == b"done\n"
    assert len(result.violations) == 64


@needs_python
def test_a_name_that_cannot_be_read_or_is_hostile() -> None:
    script = textwrap.dedent("""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mkdir(ctypes.c_void_p(1), 0o700)
        assert ctypes.get_errno() == 14
        for name in (b"/usr/" + b"a" * 200, b"/usr/\\xff\\x1b[2J", b"/usr/" + b"b/" * 2000):
            try: os.mkdir(name)
            except OSError as e: pass
        print("done")
    """)
    result = traced(PYTHON, "-c", script)
    assert result.stdout == b"done\n"
    assert all(len(v.message) <= 300 and "\x1b" not in v.message for v in result.violations)


STEER = textwrap.dedent("""
    import ctypes, os, sys, time
    libc = ctypes.CDLL(None, use_errno=True)
    PTRACE, READV = {"x86_64": (101, 310), "aarch64": (117, 270)}[os.uname().machine]
    def call(*args):
        ctypes.set_errno(0)
        got = libc.syscall(*(ctypes.c_long(a) for a in args))
        return got, ctypes.get_errno()
    text = ctypes.create_string_buffer(b"mine")
    class iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
    pid = int(sys.argv[1]) or os.fork()
    if pid == 0:
        time.sleep(5)
        os._exit(0)
    time.sleep(0.1)
    into = ctypes.create_string_buffer(8)
    to, at = iovec(ctypes.addressof(into), 4), iovec(ctypes.addressof(text), 4)
    read = call(READV, pid, ctypes.addressof(to), 1, ctypes.addressof(at), 1, 0)
    seize = call(PTRACE, 0x4206, pid, 0, 0)
    print(read[0], seize[0], into.value.decode())
    if not int(sys.argv[1]):
        os.kill(pid, 9)
""")


@needs_python
def test_the_command_itself_can_trace_nobody() -> None:
    """Its pid 1 may; it may not, neither its own child nor pid 1."""
    outside = subprocess.run(
        [PYTHON, "-c", STEER, "0"], capture_output=True, text=True, check=False, timeout=30
    )
    assert outside.stdout.split() == ["4", "0", "mine"], "the attempt works without a sandbox"
    for pid in ("0", "1"):
        inside = traced(PYTHON, "-c", STEER, pid)
        assert inside.stdout.split() == [b"-1", b"-1"], inside.stderr


@needs_python
def test_a_filter_of_the_commands_own_does_not_steer_the_tracer() -> None:
    """RET_TRACE with any number, on any call: pid 1 goes on, the command gets what it would."""
    script = textwrap.dedent("""
        import ctypes, os, struct
        libc = ctypes.CDLL(None, use_errno=True)
        nr = {"x86_64": 110, "aarch64": 173}[os.uname().machine]  # getppid
        for data in (0, 3, 60, 0xffff):
            rows = [(0x20, 0, 0, 0), (0x15, 0, 1, nr), (0x06, 0, 0, 0x7ff00000 | data),
                    (0x06, 0, 0, 0x7fff0000)]
            code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *r) for r in rows))
            class prog(ctypes.Structure):
                _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
            p = prog(len(rows), ctypes.addressof(code))
            assert libc.prctl(22, 2, ctypes.byref(p), 0, 0) == 0, ctypes.get_errno()
            os.getppid()
        print("done")
    """)
    assert traced(PYTHON, "-c", script).stdout == b"done\n"


def test_an_untraced_command_cannot_have_its_pid_1_trace() -> None:
    """The two calls are allowed in the filter of a traced run only."""
    from agentsbx._filter import build_filter

    assert build_filter("python") != build_filter("python", traces=True)
    assert build_filter("python") == build_filter("python", traces=False)


def test_commands_without_a_trace_read_off_what_was_printed(secret: Path) -> None:
    assert targets(agentsbx.run(["cat", str(secret)])) == [str(secret)]


def test_words_for_a_machine_that_refuses_it() -> None:
    from agentsbx.errors import ErrRecord, Stage, unavailable

    error = unavailable(ErrRecord(Stage.TRACE, 0, 1, 0))
    assert "trac" in str(error)
    assert "yama" in str(error).lower() + " ".join(getattr(error, "__notes__", ())).lower()


def frame(nr: int, err: int, *names: bytes, creates: int = 0) -> bytes:
    from agentsbx._wire import DENIAL

    return DENIAL.pack(nr, err, creates) + b"".join(n + b"\0" for n in names)


@pytest.mark.parametrize(
    "raw", [b"", b"\0" * 11, frame(2**32 - 1, 2**32 - 1, b"\xff" * 9000), frame(0, 13)]
)
def test_frames_that_make_no_sense_make_no_words(raw: bytes) -> None:
    from agentsbx._traced import violations

    assert all(isinstance(v, Violation) for v in violations([raw], Policy(), "/"))
