"""Sessions as a user sees them: `Sandbox` and `AsyncSandbox`."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentsbx import (
    AsyncSandbox,
    MemoryLimitExceeded,
    ResultError,
    Sandbox,
    SandboxTimeout,
    SandboxUnavailable,
)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(output="1MB") as made:
        yield made


def test_a_list_of_words_and_a_shell_line(box: Sandbox) -> None:
    result = box.exec(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert box.exec("printf 'a b' | wc -c").text.strip() == "3"
    assert box.exec(["cat"], stdin=b"\0bytes\xff").stdout == b"\0bytes\xff"


def test_how_programs_end(box: Sandbox) -> None:
    missing = box.exec(["no-such-program"])
    assert missing.exit_code == 127
    assert b"no-such-program" in missing.stderr
    assert box.exec(["/etc"]).exit_code == 126
    assert box.exec("kill -TERM $$").exit_code == 128 + signal.SIGTERM
    with pytest.raises(FileNotFoundError, match="/nowhere"):
        box.exec("true", cwd="/nowhere")


def test_directory_and_variables(box: Sandbox) -> None:
    box.mkdir("place", parents=True)
    assert box.exec("pwd; echo $X", cwd="place", env={"X": "y"}).text.split() == [
        "/sandbox/home/place", "y",
    ]  # fmt: skip
    assert box.exec("echo $X").text == "\n"


def test_partial_output_when_the_time_is_over_and_nothing_lives_on(box: Sandbox) -> None:
    began = time.monotonic()
    result = box.exec("echo part; setsid sleep 50 & sleep 50", timeout=0.4)
    assert result.timed_out
    assert result.stdout == b"part\n"
    assert time.monotonic() - began < 10
    assert box.exec("grep -l sleep /proc/[0-9]*/comm").exit_code != 0


def test_too_much_output_is_cut_and_the_program_killed(box: Sandbox) -> None:
    result = box.exec("yes")
    assert result.truncated
    assert len(result.stdout) == 1_000_000
    assert box.exec("echo well").text == "well\n"


def test_background_survives_only_when_asked(box: Sandbox) -> None:
    box.exec("sleep 41 &")
    assert box.exec("grep -l sleep /proc/[0-9]*/comm").exit_code != 0
    box.exec("sleep 42 & echo $!", keep_background=True)
    assert box.exec("grep -l sleep /proc/[0-9]*/comm").exit_code == 0
    process = box.start(["sleep", "43"], background=True)
    assert box.processes[process.id] is process
    assert process.poll() is None
    process.kill()
    assert process.wait().exit_code == 137
    box.exec("pkill sleep; killall sleep; kill $(pidof sleep)")


def test_output_as_it_comes_and_input(box: Sandbox) -> None:
    process = box.start("read a; echo got $a; read b; echo got $b >&2", stdin=True)
    process.write("one\n")
    events = iter(process)
    assert next(events) == ("stdout", b"got one\n")
    process.write("two\n")
    assert next(events) == ("stderr", b"got two\n")
    assert list(events) == []
    assert process.wait().exit_code == 0


def test_signals(box: Sandbox) -> None:
    process = box.start("trap 'echo usr1; exit 5' USR1; echo ready; while :; do sleep 0.05; done")
    assert next(iter(process)) == ("stdout", b"ready\n")
    assert process.send_signal(signal.SIGUSR1)
    result = process.wait(10)
    assert (result.exit_code, result.stdout) == (5, b"ready\nusr1\n")
    assert not process.send_signal(signal.SIGUSR1)


def test_a_terminal(box: Sandbox) -> None:
    seen = box.exec("test -t 0 && test -t 1 && stty size", tty=True)
    assert (seen.exit_code, seen.stdout.split()) == (0, [b"24", b"80"])
    process = box.start(
        "trap 'stty size; exit' WINCH; echo up; while :; do sleep 0.05; done", tty=True
    )
    assert b"up" in next(iter(process))[1]
    process.resize(10, 33)
    assert b"10 33" in process.wait(10).stdout
    # Not a shell: one that is just about to start its next program keeps the signal for later.
    code = "import time; print('up', flush=True); time.sleep(30)"
    interrupted = box.start(["python3", "-c", code], tty=True)
    assert b"up" in next(iter(interrupted))[1]
    interrupted.write("\x03")
    assert interrupted.wait(10).exit_code == 128 + signal.SIGINT


def test_terminals_are_not_each_others(box: Sandbox) -> None:
    first, second = (box.start("read x; echo got $x", tty=True) for _ in range(2))
    first.write("1\n")
    second.write("2\n")
    assert b"got 1" in first.wait(10).stdout
    assert b"got 2" in second.wait(10).stdout


def test_typing_into_a_terminal_by_ioctl_is_denied(box: Sandbox) -> None:
    """CVE-2017-5226: TIOCSTI; it would only reach the program's own terminal, and does not."""
    code = "import fcntl; fcntl.ioctl(0, 0x5412, b'x')"
    result = box.exec(["python3", "-c", code], tty=True)
    assert result.exit_code == 1
    assert b"OSError" in result.stdout


def test_files_are_byte_exact(box: Sandbox) -> None:
    data = bytes(range(256)) * 8000
    box.write("blob", data, mode=0o600)
    assert box.read("blob", max_bytes=len(data)) == data
    info = box.stat("blob")
    assert (info.kind, info.size, info.mode) == ("file", len(data), 0o600)
    with pytest.raises(ResultError, match="more than"):
        box.read("blob", max_bytes=len(data) - 1)
    box.write("blob", b"short")
    assert box.read("blob") == b"short"
    box.write("blob", b"er", append=True)
    assert box.read("blob") == b"shorter"
    with pytest.raises(FileExistsError):
        box.write("blob", b"x", new=True)
    assert box.exec("cat blob").stdout == b"shorter"
    box.write("empty", b"")
    assert box.read("empty") == b""
    box.remove("blob")
    with pytest.raises(FileNotFoundError, match="blob"):
        box.read("blob")


def test_files_of_the_kernel_are_read_too(box: Sandbox) -> None:
    assert box.read("/proc/1/comm").strip()
    assert box.read("/proc/self/status").startswith(b"Name:")


def test_directories_and_links(box: Sandbox) -> None:
    box.mkdir("d/e", parents=True)
    box.mkdir("d/e", parents=True)
    with pytest.raises(FileExistsError):
        box.mkdir("d/e")
    box.exec("ln -s /etc/passwd d/link; mkfifo d/fifo; touch d/file d/e/deep")
    kinds = {f.name: f.kind for f in box.list("d")}
    assert kinds == {"e": "directory", "link": "link", "fifo": "other", "file": "file"}
    assert box.stat("d/link", follow=False).kind == "link"
    with pytest.raises(OSError, match="d/fifo"):
        box.read("d/fifo")
    with pytest.raises(IsADirectoryError):
        box.read("d/e")
    with pytest.raises(OSError, match="d"):
        box.remove("d")
    box.rename("d/file", "d/e/moved")
    with pytest.raises(FileExistsError):
        box.rename("d/e/moved", "d/e/deep", replace=False)
    box.remove("d", recursive=True)
    assert "d" not in [f.name for f in box.list()]
    assert box.exec("test -e /etc/passwd || echo hidden").stdout in (b"", b"hidden\n")


def test_upload_and_download(box: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.bin").write_bytes(b"\0\1")
    (source / "sub/run.sh").write_text("#!/bin/sh\necho hi\n")
    (source / "sub/run.sh").chmod(0o755)
    (source / "out").symlink_to("/etc/passwd")
    box.upload(source, "copy")
    assert box.exec("find copy -type f -o -type l | sort").text.split() == [
        "copy/a.bin", "copy/sub/run.sh",
    ]  # fmt: skip
    assert box.exec("copy/sub/run.sh").text == "hi\n"
    box.exec("ln -s /etc/passwd copy/planted; chmod u+s copy/sub/run.sh; mkfifo copy/fifo")
    box.download("copy", tmp_path / "back")
    assert sorted(p.name for p in (tmp_path / "back").rglob("*")) == ["a.bin", "run.sh", "sub"]
    mode = (tmp_path / "back/sub/run.sh").stat().st_mode
    assert mode & 0o7777 & ~0o777 == 0
    assert mode & stat.S_IXUSR
    with pytest.raises(FileExistsError):
        box.download("copy", tmp_path / "back")
    with pytest.raises(ResultError, match="more than"):
        box.download("copy/a.bin", tmp_path / "small", max_bytes=1)


def test_a_link_on_the_host_is_not_written_through(box: Sandbox, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "target").symlink_to(victim)
    box.write("evil", b"evil")
    with pytest.raises(FileExistsError):
        box.download("evil", tmp_path / "target")
    assert victim.read_text() == "mine"


def test_first_uses_at_once_make_one_sandbox() -> None:
    with Sandbox() as shared:
        seen: list[str] = []

        def use(i: int) -> None:
            shared.exec(f"echo {i} >> all")
            seen.append(shared.id)

        threads = [threading.Thread(target=use, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(int, shared.read("all").split())) == list(range(8))
        assert set(seen) == {shared.id}


def test_two_sessions_do_not_meet() -> None:
    with Sandbox() as a, Sandbox() as b:
        a.write("/sandbox/tmp/mine", "a")
        assert a.id != b.id
        sleeper = a.start(["sleep", "44"], background=True)
        assert b.exec("cat /sandbox/tmp/mine").exit_code != 0
        assert b.exec("grep -l sleep /proc/[0-9]*/comm").exit_code != 0
        assert b.exec(f"sleep 0.3; kill -9 {sleeper.pid}; kill -9 -1").exit_code != 0
        assert sleeper.poll() is None


def test_memory_ends_the_session_with_its_own_error() -> None:
    with Sandbox(memory="64MB") as small:
        code = "x = b'1' * 300_000_000; print(len(x))"
        try:
            result = small.exec(["python3", "-c", code])
        except MemoryLimitExceeded:
            lengths = set()
            for _ in range(3):
                with pytest.raises(MemoryLimitExceeded) as raised:
                    small.exec("true")
                lengths.add(len(raised.traceback))
            assert len(lengths) == 1  # the same error each time, not with the frames of all before
        else:  # by rlimits alone it is the program that gets the MemoryError
            assert result.exit_code != 0


def test_a_profile_without_programs_is_named() -> None:
    with Sandbox("strict") as strict, pytest.raises(SandboxUnavailable, match="strict"):
        strict.exec(["true"])


def test_ttl_idle_and_close() -> None:
    short = Sandbox(ttl=0.7)
    assert short.exec("echo x").ok
    with pytest.raises(SandboxTimeout, match="ttl"):
        short.exec("sleep 20")
    with pytest.raises(SandboxTimeout, match="ttl"):
        short.exec("true")
    idle = Sandbox(idle=0.3)
    assert idle.exec("sleep 0.6").ok  # in use all the time
    time.sleep(1.0)
    with pytest.raises(SandboxUnavailable, match="idle"):
        idle.exec("true")
    closed = Sandbox()
    closed.exec("true")
    closed.close()
    closed.close()
    with pytest.raises(SandboxUnavailable, match="closed"):
        closed.exec("true")


def test_what_cannot_be_had_is_said() -> None:
    with pytest.raises(SandboxUnavailable, match="user="):
        Sandbox().exec("id", user="nobody")
    with pytest.raises(TypeError, match="session"):
        Sandbox(raises=[KeyError])
    with pytest.raises(ValueError, match="absolute"):
        Sandbox(cwd="relative")


def test_grants_and_walls_are_those_of_the_policy(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("data")
    with Sandbox(read=[tmp_path]) as granted:
        assert granted.exec(["cat", f"{tmp_path}/in.txt"]).stdout == b"data"
        assert granted.read(tmp_path / "in.txt") == b"data"
        with pytest.raises(OSError, match=r"in\.txt"):
            granted.write(tmp_path / "in.txt", b"changed")
        with pytest.raises(OSError, match="passwd"):
            granted.read("/etc/../root/passwd")
    assert (tmp_path / "in.txt").read_text() == "data"


def test_python_and_call_share_the_files(box: Sandbox) -> None:
    box.write("n.txt", "20")
    assert box.python("n = int(open('n.txt').read())\nn + 1").value == 21
    assert box.python("n").value == 20
    assert box.call(lambda k: k * 2, 21) == 42
    failed = box.python("1/0")
    assert isinstance(failed.error, ZeroDivisionError)
    assert "<cell" in failed.traceback


async def test_async_verbs_and_two_at_once() -> None:
    async with AsyncSandbox() as other:
        results = await asyncio.gather(*(other.exec(f"echo {i}") for i in range(6)))
        assert [r.stdout for r in results] == [f"{i}\n".encode() for i in range(6)]
        await other.write("a", "b")
        assert await other.read("a") == b"b"
        assert [f.name for f in await other.list()] == ["a"]
        process = await other.start("echo 1; echo 2 >&2")
        assert sorted([event async for event in process]) == [
            ("stderr", b"2\n"),
            ("stdout", b"1\n"),
        ]
        assert (await process.wait()).exit_code == 0
        assert (await other.python("40 + 2")).value == 42
        assert await other.call(len, [1, 2]) == 2


async def test_cancelling_kills_the_tree_of_that_program_alone() -> None:
    async with AsyncSandbox() as other:
        lives = await other.start(["sleep", "45"], background=True)
        task = asyncio.create_task(other.exec("setsid sleep 46 & sleep 46"))
        while b"46" not in (await other.exec("cat /proc/[0-9]*/cmdline")).stdout:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left = (await other.exec("cat /proc/[0-9]*/cmdline")).stdout
        assert b"sleep\x0046" not in left
        assert b"sleep\x0045" in left
        lives.kill()


def test_several_loops_use_one_session() -> None:
    shared = AsyncSandbox()

    async def use() -> bytes:
        return (await shared.exec("echo x")).stdout

    assert [asyncio.run(use()) for _ in range(2)] == [b"x\n", b"x\n"]
    asyncio.run(shared.close())


def test_nothing_is_left_on_the_host() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    with Sandbox() as warm:
        warm.exec("true")
    before = count()
    for _ in range(5):
        with Sandbox() as one:
            one.exec("true")
            one.write("a", "b")
            one.read("a")
            one.exec("tty", tty=True)
            one.start(["sleep", "9"])
            one.python("1")
    deadline = time.monotonic() + 5
    while count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count() <= before
