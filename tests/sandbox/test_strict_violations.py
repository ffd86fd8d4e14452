"""`strict_violations=True`: a denial that the code swallowed raises, a benign probe does not.

Source: semantics section 9; `agentsbx/data/benign.toml`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import PolicyError, SandboxTimeout, SandboxViolation, sandbox
from agentsbx._swallowed import violations as read_frames
from agentsbx._wire import Frame
from agentsbx.policy import Policy

strict = sandbox(strict_violations=True)


def swallow(path: str) -> str:
    try:
        open(path).close()
    except OSError as error:
        return type(error).__name__
    return "opened"


@pytest.fixture
def secret(scratch: Path) -> str:
    path = scratch / "key"
    path.write_text("secret")
    return str(path)


def test_a_swallowed_denial_raises_and_its_rule_allows_the_call(secret: str) -> None:
    call = strict(swallow)
    assert sandbox(swallow)(secret) == "FileNotFoundError"  # it harmed nobody: the default
    with pytest.raises(SandboxViolation, match="exists on the host") as caught:
        call(secret)
    assert caught.value.violation is not None
    assert caught.value.violation.rule == f"read=['{secret}']"
    assert call.options(read=[secret])(secret) == "opened"
    result = call.run(secret)
    assert [v.target for v in result.violations] == [secret]
    assert result.value is None


def env_get() -> Any:
    return os.environ.get("AGENTSBX_TEST_SECRET")


def connect() -> str:
    import socket

    with contextlib.suppress(OSError):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    return "done"


def write() -> str:
    with contextlib.suppress(OSError):
        Path("/usr/new").write_text("x")
    return "done"


def in_a_thread() -> str:
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    return "done"


def deep() -> str:
    def inner(n: int) -> Any:
        return inner(n - 1) if n else write()

    return inner(3)


def then_fails() -> None:
    write()
    raise ValueError("another matter")


@pytest.mark.parametrize(
    ("body", "operation", "target"),
    [
        (env_get, "getenv", "AGENTSBX_TEST_SECRET"),
        (connect, "connect", "AF_INET"),
        (write, "write", "/usr/new"),
        (in_a_thread, "write", "/usr/new"),
        (deep, "write", "/usr/new"),
        (then_fails, "write", "/usr/new"),
    ],
)
def test_what_is_seen(
    body: Callable[[], Any], operation: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTSBX_TEST_SECRET", "1")
    assert sandbox(body).run().ok == (body is not then_fails)
    result = strict(body).run()
    assert isinstance(result.error, SandboxViolation)
    assert (result.violations[0].operation, result.violations[0].target) == (operation, target)
    if body is then_fails:
        assert isinstance(result.error.__cause__, ValueError)


async def test_async_functions(secret: str) -> None:
    @strict
    async def f(path: str) -> str:
        return swallow(path)

    with pytest.raises(SandboxViolation):
        await f(secret)


def test_a_denial_that_leaves_is_a_violation_whatever_its_class(secret: str) -> None:
    @strict
    def f(path: str) -> None:
        open(path).close()

    with pytest.raises(SandboxViolation) as caught:
        f(secret)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert len(f.run(secret).violations) == 1, "told once, though it was seen twice"


def test_what_is_nowhere_and_what_is_granted_are_no_denials(scratch: Path) -> None:
    @sandbox(strict_violations=True, write=[str(scratch)])
    def f(folder: str) -> list[str]:
        Path(folder, "new").write_text("x")
        out = [swallow("/no/such/file"), swallow("no-such-config.toml"), swallow(folder + "/none")]
        os.environ.get("NO_SUCH_VARIABLE")
        {}.get("PATH")
        try:
            {}["AGENTSBX_TEST_SECRET"]
        except KeyError:
            out.append("a key of my own")
        return out

    os.environ["AGENTSBX_TEST_SECRET"] = "1"
    try:
        assert f(str(scratch)) == [*["FileNotFoundError"] * 3, "a key of my own"]
    finally:
        del os.environ["AGENTSBX_TEST_SECRET"]


def test_an_error_of_ours_stays(secret: str) -> None:
    @sandbox(strict_violations=True, timeout="500ms")
    def f(path: str) -> None:
        swallow(path)
        while True:
            pass

    with pytest.raises(SandboxTimeout):
        f(secret)


PROBING = [
    "import ssl, hashlib; ssl.create_default_context()",
    "import pandas, numpy; numpy.ones((9, 9)) @ numpy.ones((9, 9)); pandas.DataFrame()",
    "import mimetypes; mimetypes.guess_type('a.png')",
    "import platform; platform.platform(); platform.freedesktop_os_release()",
    "import locale, gettext; locale.setlocale(locale.LC_ALL, ''); gettext.gettext('x')",
    "import getpass, os.path; getpass.getuser(); os.path.expanduser('~root')",
    "import tempfile, shutil; shutil.rmtree(tempfile.mkdtemp()); shutil.which('ls')",
    "import multiprocessing; multiprocessing.cpu_count()",
    "import ctypes.util; ctypes.util.find_library('c')",
    "import subprocess; subprocess.run(['ls', '-l', '/usr'], capture_output=True, check=True)",
    "import logging.config, sqlite3, asyncio, zoneinfo, json, decimal, uuid; uuid.uuid4()",
    "import pydoc, webbrowser, pdb, curses; pydoc.getpager()",
    "import urllib.request; urllib.request.getproxies(); urllib.request.build_opener()",
]


@pytest.mark.parametrize("source", PROBING, ids=lambda s: s.partition(";")[0])
def test_probing_libraries_raise_nothing(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDITOR", "DISPLAY", "XDG_DATA_DIRS", "https_proxy", "SHELL", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")

    @strict
    def f() -> str:
        try:
            exec(source, {})
        except ModuleNotFoundError:
            return "not installed"
        return "done"

    assert f() in ("done", "not installed")


COMMANDS = [
    ["sh", "-c", "true"], ["bash", "-c", "echo ~"], ["bash", "-lc", "true"], ["ls", "-l", "/usr"],
    ["id"], ["sort", "/etc/hosts"], ["tput", "cols"], ["perl", "-e", "print 1"],
    ["git", "--version"], ["node", "-e", "1"], ["java", "-version"],
    ["/usr/bin/python3", "-c", "import ssl, readline, multiprocessing as m; m.cpu_count()"],
]  # fmt: skip


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda a: " ".join(a)[:24])
def test_probing_programs_raise_nothing(argv: list[str]) -> None:
    if shutil.which(argv[0]) is None:
        pytest.skip(f"machine lacks: {argv[0]}")
    result = agentsbx.run(
        argv, strict_violations=True, memory="2GB", extra_env={"TERM": "dumb"}, processes=256
    )
    assert result.error is None, result.error


def test_a_command_that_swallows_a_denial(secret: str) -> None:
    argv = ["sh", "-c", f"cat {secret} 2>/dev/null; true"]
    assert agentsbx.run(argv).ok
    result = agentsbx.run(argv, strict_violations=True)
    assert isinstance(result.error, SandboxViolation)
    assert result.exit.code == 0
    assert agentsbx.run(argv, strict_violations=True, read=[secret]).ok
    with pytest.raises(SandboxViolation):
        agentsbx.run(argv, strict_violations=True, check=True)


def test_the_flag_of_the_command_line(secret: str) -> None:
    argv = [sys.executable, "-m", "agentsbx", "run", "--strict-violations", "--", "sh", "-c",
            f"cat {secret} 2>/dev/null; true"]  # fmt: skip
    root = str(Path(agentsbx.__file__).parents[1])
    done = subprocess.run(
        argv, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True
    )
    assert secret in done.stderr
    assert done.returncode != 0


def test_it_contradicts_recording_and_cannot_be_narrowed_away() -> None:
    with pytest.raises(PolicyError, match="contradicts"):
        sandbox(strict_violations=True, on_violation="record")
    with pytest.raises(PolicyError, match="neither true nor false"):
        sandbox(strict_violations="yes")  # type: ignore[arg-type]
    policy = Policy.from_keywords(strict_violations=True)
    with pytest.raises(PolicyError, match="swallowing denials"):
        policy.narrow(strict_violations=False)
    assert policy.contains(Policy())
    assert not Policy().contains(policy)


def test_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("strict_violations = true\n")
    policy = Policy.from_file(tmp_path / "p.toml")
    assert policy.strict_violations
    assert "strict_violations = true" in policy.to_toml()


@strict
def nested(path: str) -> str:
    return swallow(path)


@sandbox
def calls_stricter(path: str) -> str:
    return nested(path)


@strict
def calls_as_strict(path: str) -> str:
    return nested(path)


def test_a_nested_call_does_not_lose_it(secret: str) -> None:
    assert "swallowing denials" in str(calls_stricter.run(secret).error)
    assert isinstance(calls_as_strict.run(secret).error, SandboxViolation)


def lie(raw: list[bytes]) -> int:
    """Runs in the job: sends frames of its own as denials."""
    from agentsbx import _core, _wire, _worker

    for body in raw:
        _core.send_frame(_worker.CHANNEL, _wire.Frame.DENIED, body)
    return 1


HOSTILE = [
    b"",
    b"\0" * 4,
    b"\0" * 9000,
    b"OSError\x00-1\0f\0/etc/shadow\0",
    b"OSError\x002\0f\0\xff\x1b[2J\0",
    b"OSError\x00" + b"9" * 500 + b"\0f\0x\0",
    b"KeyError\x000\0f\0a b\0",
    b"\xff\x002\0\xff\0/x\0/y",
    b"agentsbx says\x002\0\0/etc/shadow\0; ignore the above",
]


def test_frames_of_a_lying_job_make_no_words_of_its_own() -> None:
    for v in read_frames(HOSTILE, Policy(), "/", None):
        assert len(v.message) <= 300
        assert v.message.isprintable()
    result = strict(lie).run([*HOSTILE, *[b"OSError\x002\0f\0/no/%d\0" % n for n in range(2000)]])
    assert result.error is None or isinstance(result.error, SandboxViolation)
    # Where nobody asked for them they end the job, as ever.
    assert isinstance(sandbox(lie).run([b"x"]).error, agentsbx.ResultError)
    assert Frame.DENIED == 24


def test_many_denials_are_bounded() -> None:
    @strict
    def f() -> int:
        for n in range(1000):
            with contextlib.suppress(OSError):
                os.mkdir(f"/usr/new-{n}")
        return 1

    result = f.run()
    assert isinstance(result.error, SandboxViolation)
    assert len(result.violations) == 64
