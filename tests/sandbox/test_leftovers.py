"""What a job leaves in its private places: told, kept, bounded, saved only where the user said."""

from __future__ import annotations

import os
import pickle
import random
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentsbx
from agentsbx import (
    Discarded,
    Files,
    KeptFile,
    LeftFile,
    PolicyError,
    Result,
    ResultError,
    _compile,
    _core,
    sandbox,
)
from agentsbx._kept import PLACES


def leave(files: dict[str, int], links: dict[str, str] | None = None) -> int:
    """Make files of so many bytes below the private places."""
    import os

    for name, size in files.items():
        path = os.path.expandvars(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x" * size)
    for name, target in (links or {}).items():
        os.symlink(target, os.path.expandvars(name))
    return len(files)


def shown(result: Result) -> dict[str, int]:
    assert result.error is None, result.error
    assert result.discarded is not None
    return {file.shown: file.size for file in result.discarded}


# -- what is listed ----------------------------------------------------------------------------


def test_nothing_left_is_an_empty_list() -> None:
    result = sandbox(leave).run({})
    assert result.discarded == ()
    assert not result.discarded
    assert dict(result.files) == {}


def test_folders_alone_are_nothing() -> None:
    @sandbox
    def f() -> None:
        os.makedirs(os.path.expanduser("~/.cache/tool/deep"))

    assert f.run().discarded == ()


def test_what_was_removed_again_is_nothing() -> None:
    @sandbox
    def f() -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder, open(folder + "/x", "w") as file:
            file.write("x")

    assert f.run().discarded == ()


def test_places_names_and_sizes_are_those_of_the_job() -> None:
    files = {"$HOME/a.txt": 1, "$TMPDIR/deep/er/b": 70_000, "/dev/shm/c": 3}
    result = sandbox(leave).run(files, {"$HOME/link": "/etc/passwd"})
    assert shown(result) == {
        "$HOME/a.txt": 1, "$HOME/link": 11, "$TMPDIR/deep/er/b": 70_000, "/dev/shm/c": 3,
    }  # fmt: skip
    assert result.discarded is not None
    assert {f.name: f.kind for f in result.discarded}["/sandbox/home/link"] == "link"
    assert result.discarded.n_bytes == 70_015
    assert result.discarded.is_complete
    assert "$HOME/a.txt" in result.summary()


def test_a_file_in_slash_tmp_is_told_by_that_name() -> None:
    result = agentsbx.run(["sh", "-c", "echo x > /tmp/x.txt"], keep="/tmp/*")
    if result.value:  # a library or a grant lies below /tmp: then it is closed
        pytest.skip("machine lacks: an interpreter outside /tmp")
    assert result.files["x.txt"].path == "/tmp/x.txt"


def test_names_of_places_are_those_of_the_plan() -> None:
    assert list(PLACES)[:2] == [_compile.HOME, _compile.TMPDIR]
    from agentsbx._site_keys import _SHORT

    home, tmpdir = _compile.HOME, _compile.TMPDIR
    assert {"~": home, "$HOME": home, "$TMPDIR": tmpdir} == _SHORT
    assert set(PLACES) == {home, tmpdir, "/tmp", "/dev/shm"}


def test_an_error_of_the_function_changes_nothing() -> None:
    @sandbox(keep="*.txt")
    def f() -> None:
        leave({"$HOME/a.txt": 1, "$HOME/b": 2})
        raise ValueError("no")

    result = f.run()
    assert isinstance(result.error, ValueError)
    assert list(result.files) == ["a.txt"]
    assert [file.shown for file in result.discarded or ()] == ["$HOME/b"]


def test_after_a_kill_nobody_knows() -> None:
    @sandbox(timeout="0.3s")
    def f() -> None:
        leave({"$HOME/a.txt": 1})
        time.sleep(5)

    assert f.run().discarded is None
    assert agentsbx.run(["sh", "-c", "echo x > $HOME/x; sleep 5"], timeout="0.3s").discarded is None

    @sandbox
    def dies() -> None:
        leave({"$HOME/a.txt": 1})
        os._exit(3)

    assert dies.run().discarded is None


def test_a_thousand_are_listed_and_the_rest_counted() -> None:
    @sandbox
    def f(n: int) -> None:
        os.chdir(os.path.expanduser("~"))
        for i in range(n):
            with open(f"f{i}", "w") as file:
                file.write("xy")

    found = f.run(2500).discarded
    assert found is not None
    assert (len(found), found.n_more, found.more_bytes) == (1000, 1500, 3000)
    assert found.is_complete
    assert "2495 more" in found.summary()


def test_more_than_can_be_looked_at_says_so() -> None:
    @sandbox(inodes=40_000)
    def f() -> None:
        os.chdir(os.path.expanduser("~"))
        for i in range(30_000):
            os.mknod(f"f{i}")

    found = f.run().discarded
    assert found is not None
    assert not found.is_complete
    assert len(found) == 1000
    assert found.n_more >= 15_000


def test_deep_and_closed_folders_say_that_there_is_more() -> None:
    @sandbox
    def deep() -> None:
        os.chdir(os.path.expanduser("~"))
        for _ in range(200):
            os.mkdir("d")
            os.chdir("d")
        os.mknod("bottom")

    found = deep.run().discarded
    assert found is not None
    assert len(found) == 0
    assert found, "there may be more: not the same as nothing"
    assert not found.is_complete

    @sandbox
    def closed() -> None:
        leave({"$HOME/d/x": 1})
        os.chmod(os.path.expanduser("~/d"), 0)

    found = closed.run().discarded
    assert found is not None
    assert not found.is_complete


@pytest.mark.parametrize("kind", ["function", "command"])
def test_names_that_steer_a_terminal_are_shown_as_escapes(kind: str) -> None:
    name = b"a\x1b[2J\n\xff\xe2\x80\xae.txt"
    if kind == "function":

        @sandbox(keep="*.txt")
        def f(name: bytes) -> None:
            os.chdir(os.path.expanduser("~"))
            os.close(os.open(name, os.O_CREAT))

        with pytest.warns(RuntimeWarning, match="not kept"):
            result = f.run(name)
    else:
        script = b'touch "$HOME"/\'' + name + b"'"
        result = agentsbx.run(["sh", "-c", os.fsdecode(script)], keep="*.txt")
    assert result.discarded is not None
    (file,) = result.discarded
    assert file.shown == "$HOME/a\\x1b[2J\\x0a\\xff\\u202e.txt"
    assert "not printable" in file.why
    assert not result.files


# -- what is kept ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 16 * 1024 + 1, 3_000_000])
def test_contents_come_back_whole(size: int) -> None:
    @sandbox(keep="*.bin")
    def f(data: bytes) -> None:
        with open(os.path.expanduser("~/x.bin"), "wb") as file:
            file.write(data)

    data = random.Random(size).randbytes(size)
    file = f.run(data).files["x.bin"]
    assert file.read_bytes() == bytes(file.view) == data
    assert file.size == size
    assert file.view.readonly
    assert pickle.loads(pickle.dumps(file)).read_bytes() == data
    script = "cat > $TMPDIR/y.bin"
    assert (
        agentsbx.run(["sh", "-c", script], input=data, keep="y*").files["y.bin"].read_bytes()
        == data
    )


def test_holes_stay_holes_and_count_as_what_they_show() -> None:
    @sandbox(keep="*", memory="100MB", file_size="1GB")
    def f() -> None:
        with open(os.path.expanduser("~/sparse"), "wb") as file:
            file.write(b"a")
            file.seek(400_000_000)
            file.write(b"z")

    result = f.run()
    assert result.error is None, "the copy of a hole takes no memory"
    file = result.files["sparse"]
    assert file.size == 400_000_001
    assert (file.view[0], file.view[200_000_000], file.view[-1]) == (97, 0, 122)


@pytest.mark.filterwarnings("ignore:f. sets global:RuntimeWarning")
def test_what_open_files_still_hold_is_written_out() -> None:
    @sandbox(keep="*")
    def f() -> None:
        global held
        held = open(os.path.expanduser("~/x.csv"), "w")  # noqa: SIM115
        held.write("1,2\n")

    assert f.run().files["x.csv"].read_text() == "1,2\n"


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ("*.png", {"a.png", "out/b.png", "out/deep/c.png"}),
        (["out/*"], {"out/b.png"}),
        (["out/**"], {"out/b.png", "out/deep/c.png"}),
        (["./out/**/c.png"], {"out/deep/c.png"}),
        (["~/a.png", "$TMPDIR/t.txt"], {"a.png", "t.txt"}),
        ([Path("/dev/shm/?")], {"s"}),
        ("**", {"a.png", "out/b.png", "out/deep/c.png", "t.txt", "s"}),
        ("nothing", set()),
        ([], set()),
    ],
)
@pytest.mark.parametrize("kind", ["function", "command"])
def test_patterns(kind: str, patterns: Any, names: set[str]) -> None:
    paths = ["$HOME/a.png", "$HOME/out/b.png", "$HOME/out/deep/c.png", "$TMPDIR/t.txt",
             "/dev/shm/s"]  # fmt: skip
    if kind == "function":
        result = sandbox(keep=patterns)(leave).run(dict.fromkeys(paths, 1))
    else:
        script = "mkdir -p $HOME/out/deep; for f in " + " ".join(paths) + "; do echo > $f; done"
        result = agentsbx.run(["sh", "-c", script], keep=patterns)
    assert set(result.files) == names
    assert len(result.discarded or ()) == len(paths) - len(names)


@pytest.mark.parametrize(
    "wrong",
    ["", "/etc/passwd", "../x", "a//b", "out/", "~", "/tmp", "*.[ch]", "*.{a,b}", "a\0b", 3, [3],
     {"a": 1}, ["x"] * 65, "x" * 2000, "~root/x/../y"],
)  # fmt: skip
def test_wrong_patterns_are_errors_at_the_decoration(wrong: Any) -> None:
    with pytest.raises(PolicyError, match="keep="):
        sandbox(keep=wrong)(leave)
    with pytest.raises(PolicyError, match="keep="):
        agentsbx.run(["true"], keep=wrong)


def test_two_places_with_one_name_lose_nothing() -> None:
    files = {"$HOME/a": 1, "$TMPDIR/a": 2, "/dev/shm/a": 3}
    kept = sandbox(keep="*")(leave).run(files).files
    assert {name: f.size for name, f in kept.items()} == {
        "a": 1, "sandbox/tmp/a": 2, "dev/shm/a": 3,
    }  # fmt: skip


def test_what_does_not_fit_is_listed_with_the_reason() -> None:
    with pytest.warns(RuntimeWarning, match="not kept: .*buffers="):
        result = sandbox(keep="*", buffers="10KB")(leave).run({"$HOME/a": 4000, "$HOME/b": 9000})
    assert len(result.files) == 1
    (left,) = result.discarded or ()
    assert "buffers=" in left.why
    assert result.value == 2


def test_a_thousand_files_are_kept_and_the_rest_listed() -> None:
    files = {f"$HOME/{i}": 1 for i in range(1100)}
    with pytest.warns(RuntimeWarning, match=r"not kept: .* \(and 99 more\)"):
        result = sandbox(keep="*")(leave).run(files)
    assert len(result.files) == 1000
    assert {f.why for f in result.discarded or ()} == {"more than 1000 files"}


def test_links_pipes_and_closed_files_are_not_kept() -> None:
    @sandbox(keep="*")
    def f() -> None:
        os.chdir(os.path.expanduser("~"))
        os.symlink("/etc/passwd", "link")
        os.mkfifo("pipe")
        leave({"$HOME/closed": 1})
        os.chmod("closed", 0)

    with pytest.warns(RuntimeWarning, match="not kept"):
        result = f.run()
    assert not result.files
    assert {x.shown: x.why for x in result.discarded or ()} == {
        "$HOME/link": "no regular file", "$HOME/pipe": "no regular file",
        "$HOME/closed": "it could not be read",
    }  # fmt: skip


RESTLESS = r"""
import os, subprocess, sys, time
path = os.path.expanduser("~/x")
loop = "import os, sys\nwhile 1:\n"
for line in (
    "os.truncate(sys.argv[1], 10)", "open(sys.argv[1], 'wb').write(b'b' * 9999999)",
    "os.unlink(sys.argv[1])", "os.mkfifo(sys.argv[1])", "os.unlink(sys.argv[1])",
    "open(sys.argv[1], 'wb').write(b'a' * 5000000)",
):
    loop += f" try: {line}\n except OSError: pass\n"
for _ in range(3):
    subprocess.Popen([sys.executable, "-I", "-S", "-c", loop, path])
time.sleep(0.2)
"""


@pytest.mark.parametrize("kind", ["function", "command"])
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_file_that_changes_while_it_is_read(kind: str) -> None:
    """Daemons of the job go on writing, cutting and replacing."""
    if kind == "function":

        @sandbox(keep="x", timeout="20s")
        def f(code: str) -> None:
            exec(code, {})

        results = [f.run(RESTLESS) for _ in range(3)]
    else:
        argv = ["python3", "-I", "-S", "-c", RESTLESS]
        results = [agentsbx.run(argv, keep="x", timeout="20s") for _ in range(3)]
    for result in results:
        assert result.error is None, result.error
        for file in result.files.values():
            assert set(file.read_bytes()) <= set(b"ab\0")


def test_async_functions_keep_too() -> None:
    @sandbox(keep="*")
    async def f() -> int:
        return leave({"$HOME/a": 1})

    import asyncio

    assert set(asyncio.run(f.run()).files) == {"a"}


def test_kept_files_live_as_long_as_they_are_used() -> None:
    view = sandbox(keep="*")(leave).run({"$HOME/a": 100_000}).files["a"].view
    agentsbx.shutdown()
    assert bytes(view) == b"x" * 100_000


# -- a plain call ------------------------------------------------------------------------------


def test_a_plain_call_warns_once_and_then_asks_no_more() -> None:
    f = sandbox(leave)
    f({})
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(4):
            assert f({"$TMPDIR/report.png": 1}) == 1
    words = (
        "leave: report.png was written to $TMPDIR and is gone: keep=['*.png'] and leave.run(...) "
        "bring it back"
    )
    assert [str(w.message) for w in seen] == [words]
    assert seen[0].filename == __file__
    assert f.__agentsbx_site__.call_site(leave).quick is not None  # type: ignore[attr-defined]


def test_a_plain_call_with_keep_points_at_run() -> None:
    f = sandbox(keep="*.png")(leave)
    with pytest.warns(RuntimeWarning, match=r"comes back with leave\.run\(\.\.\.\)"):
        f({"$TMPDIR/report.png": 1})


@pytest.mark.parametrize(
    "name", ["$HOME/.cache/fonts.json", "/dev/shm/psm_1", "$HOME/pkg/__pycache__/x.pyc"]
)
def test_caches_and_shared_memory_are_nobodys_result(name: str) -> None:
    f = sandbox(leave)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f({name: 1})
    assert name in shown(f.run({name: 1}))


def test_a_result_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sandbox(leave).run({"$HOME/x": 1})


# -- saving ------------------------------------------------------------------------------------


def kept(*names: str) -> Files:
    return Files([KeptFile(name, f"/tmp/{name}", b"data") for name in names])


def test_saving_writes_below_the_folder_and_replaces_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("much longer than the new one")
    os.link(tmp_path / "a", tmp_path / "other")
    saved = kept("a", "out/deep/b").save(tmp_path)
    assert saved == [tmp_path / "a", tmp_path / "out/deep/b"]
    assert [path.read_text() for path in saved] == ["data", "data"]
    assert "longer" in (tmp_path / "other").read_text()
    assert not saved[0].stat().st_mode & 0o111
    assert sorted(os.listdir(tmp_path)) == ["a", "other", "out"]


def test_saving_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "out").symlink_to(outside)
    (folder / "victim").symlink_to(outside / "victim")
    with pytest.raises(OSError, match="out"):
        kept("out/x").save(folder)
    kept("victim").save(folder)
    assert (outside / "victim").read_text() == "mine"
    assert os.listdir(outside) == ["victim"]
    assert not (folder / "victim").is_symlink()


def test_saving_one_file(tmp_path: Path) -> None:
    file = kept("out/a.txt")["out/a.txt"]
    assert file.save(tmp_path) == tmp_path / "a.txt"
    assert file.save(tmp_path / "b.txt").read_text() == "data"
    os.mkfifo(tmp_path / "pipe")
    assert file.save(tmp_path / "pipe").read_text() == "data"
    with pytest.raises(FileNotFoundError):
        file.save(tmp_path / "no" / "b.txt")


@pytest.mark.parametrize(
    "name", ["x.pth", ".envrc", ".GIT/hooks/pre-commit", "a/.vscode/tasks.json", "sitecustomize.py"]
)
def test_names_that_make_the_host_run_code_are_not_saved(name: str, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="run code"):
        kept("a", name).save(tmp_path)
    assert os.listdir(tmp_path) == []
    if "/" not in name:
        with pytest.raises(ResultError, match="run code"):
            kept(name)[name].save(tmp_path)
    assert kept(name)[name].save(tmp_path / "plain.txt").read_text() == "data"


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        kept("a").save(tmp_path)
    assert os.listdir(tmp_path) == ["a"]


# -- small things ------------------------------------------------------------------------------


def by_regex(pattern: str, name: str) -> bool:
    """What `csrc/base/glob.h` says, said again as a regular expression."""
    if "/" not in pattern:
        pattern = f"**/{pattern}"
    parts = pattern.split("/")
    out = ""
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if part == "**":
            out += ".+" if last else "(?:[^/]+/)*"
            continue
        for c in re.split(r"(\*+|\?)", part):
            out += "[^/]*" if c[:1] == "*" else "[^/]" if c == "?" else re.escape(c)
        out += "" if last else "/"
    return re.fullmatch(out, name, re.DOTALL) is not None


_PART = st.text("ab*?", min_size=1, max_size=5)
_NAME = st.text("abé", min_size=1, max_size=5)


@given(
    st.lists(st.one_of(_PART, st.just("**")), min_size=1, max_size=5),
    st.lists(_NAME, min_size=1, max_size=5),
)
def test_the_matcher_means_what_its_header_says(pattern: list[str], name: list[str]) -> None:
    p, n = "/".join(pattern), "/".join(name)
    assert _core.glob_match(p.encode(), n.encode()) == by_regex(p, n)


def test_the_matcher_does_not_blow_up() -> None:
    start = time.monotonic()
    assert not _core.glob_match(b"*a" * 100 + b"b", b"a" * 250)
    assert not _core.glob_match(b"**/a/" * 50 + b"b", b"a/" * 500 + b"a")
    assert time.monotonic() - start < 0.5


def test_values_are_plain_and_pickle() -> None:
    found = Discarded([LeftFile(name="/tmp/x", size=5)], n_more=2, more_bytes=7, is_complete=False)
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.n_more, again.more_bytes, again.is_complete) == (found, 2, 7, False)
    files = pickle.loads(pickle.dumps(kept("a", "b/c")))
    assert {name: file.read_text() for name, file in files.items()} == {"a": "data", "b/c": "data"}
    assert "'a' 4 bytes" in repr(files)
    assert kept("a")["a"].open().read() == b"data"


def test_plain_calls_from_many_threads_warn_once() -> None:
    f = sandbox(leave)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=f, args=({"$HOME/x": 1},)) for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert ["is gone" in str(w.message) for w in seen if w.category is RuntimeWarning] == [True]


@pytest.mark.filterwarnings("ignore:f. sets global:RuntimeWarning")
def test_the_walk_runs_without_descriptors_to_spare() -> None:
    """All descriptors are in use: then it says that it could not look, and the call is whole."""

    @sandbox(open_files=32)
    def f() -> int:
        global hoard
        leave({"$HOME/a": 1})
        hoard = []
        try:
            while True:
                hoard.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            return 7

    result = f.run()
    assert result.value == 7
    assert result.discarded is not None
    assert not result.discarded.is_complete


def test_no_descriptor_is_left_open(make_scratch: Callable[[str], Path]) -> None:
    f = sandbox(keep="*")(leave)
    f.run({"$HOME/a": 100_000})
    before = len(os.listdir("/proc/self/fd"))
    held = [f.run({f"$HOME/{i}": 20_000 for i in range(50)}).files for _ in range(5)]
    held[0].save(make_scratch("kept"))
    assert len(os.listdir("/proc/self/fd")) <= before + 4


# -- command line ------------------------------------------------------------------------------


def cli(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(Path(agentsbx.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "agentsbx", *words], env=env, cwd=cwd, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip


def test_cli_saves_what_is_kept(tmp_path: Path) -> None:
    script = "echo 1 > $HOME/a.txt; echo 2 > $TMPDIR/b.txt; ln -s a.txt $HOME/c.txt; exit 3"
    words = ("run", "--keep", "*.txt", "--keep-to", "out/put", "--", "sh", "-c", script)
    done = cli(*words, cwd=tmp_path)
    assert done.returncode == 3
    assert sorted(os.listdir(tmp_path / "out/put")) == ["a.txt", "b.txt"]
    assert "c.txt: no regular file" in done.stderr
    (tmp_path / "tool.py").write_text(
        "import os\ndef f():\n    with open(os.path.expanduser('~/d.txt'), 'w') as file:\n"
        "        file.write('x')\n"
    )
    done = cli("call", "--keep", "*.txt", "--keep-to", "more", "tool.py:f", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "more" / "d.txt").read_text() == "x"


def test_cli_refuses_one_flag_without_the_other(tmp_path: Path) -> None:
    assert "go together" in cli("run", "--keep", "*", "true", cwd=tmp_path).stderr
    assert "go together" in cli("run", "--keep-to", ".", "true", cwd=tmp_path).stderr
    done = cli("run", "--keep", "/etc/*", "--keep-to", ".", "true", cwd=tmp_path)
    assert done.returncode == 125
    assert "keep=" in done.stderr


def test_cli_never_saves_what_the_host_would_run(tmp_path: Path) -> None:
    words = ("run", "--keep", "**", "--keep-to", ".", "--", "sh", "-c", "echo evil > $HOME/.envrc")
    done = cli(*words, cwd=tmp_path)
    assert done.returncode == 125
    assert "run code" in done.stderr
    assert os.listdir(tmp_path) == []


def test_cli_explain_tells_what_is_gone(tmp_path: Path) -> None:
    done = cli("run", "--explain", "sh", "-c", "echo x > $TMPDIR/x.log", cwd=tmp_path)
    assert "$TMPDIR/x.log (2 bytes)" in done.stderr


def test_cli_after_a_kill_says_that_nothing_came(tmp_path: Path) -> None:
    words = ("run", "--timeout", "0.3s", "--keep", "*", "--keep-to", ".", "--", "sh", "-c")
    done = cli(*words, "echo x > $HOME/x; sleep 5", cwd=tmp_path)
    assert done.returncode == 124
    assert "nothing could be kept" in done.stderr
