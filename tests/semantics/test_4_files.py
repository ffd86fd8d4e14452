"""Semantics section 4: files, working directory, environment."""

from __future__ import annotations

import importlib
import os
import shutil
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentsbx
from agentsbx import Grant, Policy, PolicyError, SandboxViolation, sandbox


@pytest.fixture
def folder(make_scratch: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the working directory a folder of its own."""
    path = make_scratch("files")
    monkeypatch.chdir(path)
    return path  # type: ignore[return-value]


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def words(error: BaseException | None) -> str:
    return f"{error} {getattr(error, '__notes__', '')}"


def test_4_1_keyword_paths_resolve_at_decoration(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.txt").write_text("a")
    f = sandbox(read="a.txt")(read)
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    assert f(str(folder / "a.txt")) == "a"


def test_4_1_policy_file_paths_resolve_against_its_folder(folder: Path) -> None:
    (folder / "conf").mkdir()
    (folder / "conf" / "a.txt").write_text("a")
    (folder / "conf" / "p.toml").write_text('read = ["a.txt"]\n')
    assert sandbox("conf/p.toml")(read)("conf/a.txt") == "a"


def test_4_1_a_missing_grant_is_an_error_at_the_first_call(folder: Path) -> None:
    f = sandbox(read="later.txt")(read)
    with pytest.raises(agentsbx.AgentsbxError, match=r"later\.txt"):
        f("later.txt")
    (folder / "later.txt").write_text("now")
    assert f("later.txt") == "now"


def test_4_2_the_working_directory_is_the_hosts_path_empty_and_read_only(folder: Path) -> None:
    (folder / "secret.txt").write_text("s")

    @sandbox
    def f() -> tuple[str, list[str]]:
        return os.getcwd(), os.listdir(".")

    assert f() == (str(folder), [])
    result = sandbox(write).run("report.txt", "x")
    assert isinstance(result.error, OSError)
    assert "write=" in words(result.error)
    assert not (folder / "report.txt").exists()


def leave_in_cwd(how: str) -> None:
    """Write by a relative name, as users and libraries do."""
    import logging
    import pathlib
    import sqlite3
    import tempfile

    private = os.path.join(os.environ["TMPDIR"], "x")
    with open(private, "w") as file:
        file.write("x")
    ways: dict[str, Callable[[], Any]] = {
        "open w": lambda: open("report.txt", "w"),  # noqa: SIM115
        "open a": lambda: open("report.txt", "a"),  # noqa: SIM115
        "pathlib": lambda: pathlib.Path("report.txt").write_text("x"),
        "touch": lambda: pathlib.Path("report.txt").touch(),
        "mkdir": lambda: os.mkdir("out"),
        "makedirs": lambda: os.makedirs("a/b/c"),
        "rename": lambda: os.rename(private, "report.txt"),
        "link": lambda: os.link(private, "report.txt"),
        "symlink": lambda: os.symlink("x", "report.txt"),
        "copy": lambda: shutil.copy(private, "report.txt"),
        "move": lambda: shutil.move(private, "report.txt"),
        "mkfifo": lambda: os.mkfifo("report.txt"),
        "mknod": lambda: os.mknod("report.txt"),
        "log": lambda: logging.FileHandler("report.txt"),
        "temporary": lambda: tempfile.NamedTemporaryFile(dir="."),  # noqa: SIM115
        "sqlite": lambda: sqlite3.connect("report.db").execute("create table t (a)"),
        "chmod": lambda: os.chmod(".", 0o777),
        "utime": lambda: os.utime("."),
    }
    ways[how]()


WAYS = [
    "open w", "open a", "pathlib", "touch", "mkdir", "makedirs", "rename", "link", "symlink",
    "copy", "move", "mkfifo", "mknod", "log", "temporary", "sqlite", "chmod", "utime",
]  # fmt: skip


@pytest.mark.parametrize("how", WAYS)
def test_4_2_no_way_of_writing_by_a_relative_name_vanishes(how: str, folder: Path) -> None:
    result = sandbox(leave_in_cwd).run(how)
    assert result.error is not None
    assert f"write=['{folder}']" in words(result.error)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("how", WAYS)
def test_4_2_a_copied_folder_makes_them_vanish_without_a_word(how: str, folder: Path) -> None:
    """The naive stand-in: a fork in a scratch copy of the working directory."""
    copy = folder / "copy"
    copy.mkdir()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.chdir(copy)
            (folder / "tmp").mkdir()
            os.environ["TMPDIR"] = str(folder / "tmp")
            leave_in_cwd(how)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "nothing was said"
    shutil.rmtree(copy)


@pytest.mark.parametrize("place", ["/tmp", "/", "/usr/share", "/etc", "/var/tmp", "/dev"])
def test_4_2_whatever_the_working_directory_is(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cd /tmp; python tool.py`: the private /tmp is no place for a relative name."""
    monkeypatch.chdir(place)
    result = sandbox(write).run("report.txt", "x")
    assert isinstance(result.error, OSError), result.discarded
    assert "read-only" in words(result.error) or "write=" in words(result.error)


def test_4_2_a_working_directory_of_the_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/dev/shm")
    with pytest.raises(agentsbx.SandboxUnavailable, match="working directory '/dev/shm'"):
        sandbox(write)("report.txt", "x")


def test_4_2_the_working_directory_shows_no_names_of_other_policies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outside of /tmp mount points of all policies lie in one tree."""
    folder = Path(f"/var/tmp/agentsbx-test-{os.getpid()}")
    folder.mkdir()
    try:
        monkeypatch.chdir(folder)
        for name in ("one", "two"):
            (folder / name).write_text(name)
            assert sandbox(read=name)(lambda: os.listdir("."))() == [name]
        assert sandbox(lambda: (os.listdir("."), os.path.exists("one")))() == ([], False)
    finally:
        shutil.rmtree(folder)


def test_4_2_an_environment_below_the_working_directory_stays_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(sys.prefix).parent)

    @sandbox
    def f() -> tuple[list[str], bool]:
        import msgspec

        return os.listdir("."), bool(msgspec)

    names, is_there = f()
    assert is_there
    assert set(names) <= {Path(sys.prefix).name, *(p.name for p in Path.cwd().iterdir())}


@pytest.mark.parametrize("place", ["/sandbox", "/etc", "/usr", "/var/tmp", "/run", "/srv", "/"])
def test_4_2_no_other_place_takes_a_file(place: str, tmp_path: Path) -> None:
    result = sandbox(write).run(f"{place}/report.txt", "x")
    assert isinstance(result.error, OSError)
    assert result.discarded == ()


def test_4_2_home_and_tmpdir_are_private_and_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    @sandbox
    def f() -> tuple[str, str, list[str]]:
        import tempfile

        home = os.path.expanduser("~")
        with open(os.path.join(home, "x"), "w") as file:
            file.write("x")
        with tempfile.NamedTemporaryFile() as file:
            assert file.name.startswith(os.environ["TMPDIR"])
        return home, os.environ["TMPDIR"], os.listdir(home)

    home, _, names = f()
    assert home != os.path.expanduser("~")
    assert names == ["x"]
    assert f()[2] == ["x"]  # nothing is left of the first call


def test_4_3_a_hidden_path_keeps_its_errno_and_gets_a_note(folder: Path) -> None:
    (folder / "hidden.txt").write_text("s")
    result = sandbox(read).run(str(folder / "hidden.txt"))
    assert isinstance(result.error, FileNotFoundError)
    assert "hides it" in words(result.error)
    assert "read=[" in words(result.error)
    quiet = sandbox(reveal=False)(read).run(str(folder / "hidden.txt"))
    assert isinstance(quiet.error, FileNotFoundError)
    assert "hides" not in words(quiet.error)


def leave_report() -> None:
    """What a user's tool does: a report in the temporary folder, a picture at home."""
    with open(os.path.join(os.environ["TMPDIR"], "report.txt"), "w") as file:
        file.write("text")
    os.makedirs(os.path.expanduser("~/out"))
    with open(os.path.expanduser("~/out/x.png"), "wb") as file:
        file.write(b"png")


def test_4_4_what_was_left_in_private_places_is_listed() -> None:
    @sandbox
    def f() -> None:
        with open(os.path.expanduser("~/x.png"), "w") as file:
            file.write("x")

    result = f.run()
    assert result.discarded
    assert [(file.shown, file.size) for file in result.discarded] == [("$HOME/x.png", 1)]
    assert [file.shown for file in sandbox(leave_report).run().discarded or ()] == [
        "$HOME/out/x.png", "$TMPDIR/report.txt",
    ]  # fmt: skip
    assert sandbox(read).run(os.devnull).discarded == ()


def test_4_4_what_a_command_left_is_listed_too() -> None:
    result = agentsbx.run(["sh", "-c", "echo x > $HOME/a; echo > $TMPDIR/b"])
    assert [file.shown for file in result.discarded or ()] == ["$HOME/a", "$TMPDIR/b"]
    assert agentsbx.run(["true"]).discarded == ()


def test_4_4_keep_brings_it_back(tmp_path: Path) -> None:
    result = sandbox(keep=["*.png"])(leave_report).run()
    assert result.files["out/x.png"].read_bytes() == b"png"
    assert [file.shown for file in result.discarded or ()] == ["$TMPDIR/report.txt"]
    assert result.files.save(tmp_path) == [tmp_path / "out/x.png"]
    command = agentsbx.run(["sh", "-c", "echo x > $HOME/a.png"], keep=["*.png"])
    assert command.files["a.png"].read_text() == "x\n"


def test_4_4_a_plain_call_that_leaves_files_says_so() -> None:
    f = sandbox(leave_report)
    with pytest.warns(RuntimeWarning, match=r"x\.png \(and 1 more\) was written to \$HOME/out and"):
        f()


def test_4_4_a_fork_with_a_temporary_home_loses_them_without_a_word(tmp_path: Path) -> None:
    """The naive stand-in: what does the same without us, and tells nobody."""
    home = tmp_path / "home"
    home.mkdir()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pid = os.fork()
        if pid == 0:
            try:
                os.environ["HOME"] = os.environ["TMPDIR"] = str(home)
                leave_report()
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert sorted(os.listdir(home)) == ["out", "report.txt"], "they were there"
    shutil.rmtree(home)
    assert not [w for w in seen if "report" in str(w.message) or "png" in str(w.message)]


def test_4_3_every_way_of_looking_gets_the_note(folder: Path) -> None:
    (folder / "d").mkdir()
    (folder / "d" / "hidden.txt").write_text("s")
    ways: list[Callable[[], Any]] = [
        lambda: os.stat("d/hidden.txt"),
        lambda: os.listdir("d"),
        lambda: os.chdir("d"),
        lambda: os.open("d/hidden.txt", os.O_RDONLY),
        lambda: Path("d/hidden.txt").read_text(),
        lambda: shutil.copy("d/hidden.txt", "/dev/null"),
    ]
    for way in ways:
        result = sandbox(way).run()
        assert isinstance(result.error, FileNotFoundError)
        assert "read=['" in words(result.error)
        assert "hides" not in words(sandbox(reveal=False)(way).run().error)


def test_4_3_no_rule_is_offered_that_cannot_be_granted() -> None:
    result = sandbox(lambda: os.listdir("/")).run()
    assert isinstance(result.error, OSError)
    assert "name the folder that is meant" in words(result.error)
    assert "read=" not in words(result.error)
    result = sandbox(lambda: open("/dev/x", "w")).run()  # noqa: SIM115
    assert isinstance(result.error, OSError)
    assert "write=" not in words(result.error)


def test_4_5_a_replaced_file_is_seen_new(folder: Path) -> None:
    path = folder / "a.txt"
    path.write_text("one")
    f = sandbox(read="a.txt")(read)
    assert f("a.txt") == "one"
    other = folder / "b.txt"
    other.write_text("two")
    other.rename(path)
    assert f("a.txt") == "two"


def test_4_5_a_folder_made_anew_is_seen_new(folder: Path) -> None:
    (folder / "d").mkdir()
    (folder / "d" / "x").write_text("one")
    f = sandbox(read="d")(read)
    assert f("d/x") == "one"
    (folder / "d").rename(folder / "old")
    (folder / "d").mkdir()
    (folder / "d" / "x").write_text("two")
    assert f("d/x") == "two"


def test_4_6_new_files_belong_to_the_owner_of_their_folder(folder: Path) -> None:
    (folder / "out").mkdir()
    sandbox(write="out")(write)("out/new.txt", "text")
    made = (folder / "out" / "new.txt").stat()
    assert (made.st_uid, made.st_gid) == (folder.stat().st_uid, folder.stat().st_gid)
    assert (folder / "out" / "new.txt").read_text() == "text"
    closed = folder / "closed.txt"
    closed.write_text("mine")
    closed.chmod(0o600)
    assert sandbox(read="closed.txt")(read)("closed.txt") == "mine"


@pytest.mark.needs("root")
def test_4_6_what_belongs_to_others_says_whose_bits_refuse(folder: Path) -> None:
    (folder / "mixed" / "sub").mkdir(parents=True)
    theirs = folder / "mixed" / "sub" / "f"
    theirs.write_text("x")
    theirs.chmod(0o600)
    os.chown(theirs, 4321, 4321)
    os.chown(theirs.parent, 4321, 4321)
    for result in (
        sandbox(read="mixed")(read).run("mixed/sub/f"),
        sandbox(write="mixed")(write).run("mixed/sub/n", "x"),
    ):
        assert type(result.error) is PermissionError
        assert "its own owner or permission bits refuse" in words(result.error)


def test_4_6_what_a_command_makes_belongs_to_the_owner_too(folder: Path) -> None:
    (folder / "out").mkdir()
    if os.getuid() == 0:
        os.chown(folder / "out", 4321, 4321)
    owner = (folder / "out").stat()
    assert agentsbx.run(["sh", "-c", "mkdir out/d; echo > out/d/f"], write="out").value == 0
    made = (folder / "out" / "d" / "f").stat()
    assert (made.st_uid, made.st_gid) == (owner.st_uid, owner.st_gid)
    assert not made.st_mode & (stat.S_ISUID | stat.S_ISGID)


def test_4_7_the_word_works_from_keywords_and_from_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    (folder / "p.toml").write_text('write = [{ path = ".", code = true }]\n')
    for i, policy in enumerate(
        (
            Policy.from_keywords(write=Grant(str(folder), code=True)),
            Policy.from_mapping({"write": [{"path": str(folder), "code": True}]}),
            Policy.from_file(folder / "p.toml"),
        )
    ):
        sandbox(policy)(write)(f"{i}.txt", "x")
        assert (folder / f"{i}.txt").read_text() == "x"
        assert Policy.from_mapping({"write": [{"path": str(folder), "code": True}]}).contains(
            policy
        )
    with pytest.raises(PolicyError, match=r"code=True.*code = true"):
        sandbox(write=str(folder))(write)("x", "x")


def test_4_7_no_policy_file_of_this_program_can_be_rewritten(folder: Path) -> None:
    """Not the file itself, not what it extends, not another tool's."""
    (folder / "conf").mkdir()
    (folder / "conf" / "base.toml").write_text("")
    (folder / "p.toml").write_text('extends = "conf/base.toml"\n')
    sandbox(str(folder / "p.toml"))(read)
    for grant in (folder, folder / "conf", folder / "conf" / "base.toml"):
        with pytest.raises(PolicyError, match="holds the policy file"):
            sandbox(write=grant)(write)("x", "x")


def test_4_7_a_grant_that_leads_to_code_by_a_link_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "code").mkdir()
    (folder / "link").symlink_to("code")
    monkeypatch.syspath_prepend(str(folder / "code"))
    with pytest.raises(PolicyError, match="imports its code"):
        sandbox(write=Grant(str(folder / "link"), follow=True))(write)("link/x", "x")


def test_4_7_a_fork_writes_over_the_code_without_a_word(folder: Path) -> None:
    """The naive stand-in: by-reference workers write where their host imports from."""
    pid = os.fork()
    if pid == 0:
        try:
            write(str(folder / "tool.py"), "evil = True")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert (folder / "tool.py").read_text() == "evil = True"


def test_4_7_writing_where_code_is_imported_from_needs_a_word(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(PolicyError, match="code"):
        sandbox(write=[str(folder)])(write)("x.py", "x")
    with pytest.raises(PolicyError):
        sandbox(write=[sys.prefix])(write)("x", "x")


@pytest.mark.parametrize("name", [".git/hooks/pre-commit", ".envrc", ".vscode/tasks.json"])
def test_4_7_protected_names_hold_even_when_absent(folder: Path, name: str) -> None:
    (folder / ".git").mkdir()

    @sandbox(write=".")
    def f(path: str) -> None:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "w") as file:
            file.write("evil")

    result = f.run(name)
    assert result.error is not None
    assert not (folder / name).exists()


def test_4_8_granted_variables_are_read_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    @sandbox(env="MY_MODE")
    def f() -> str:
        return os.environ["MY_MODE"]

    monkeypatch.setenv("MY_MODE", "one")
    assert f() == "one"
    monkeypatch.setenv("MY_MODE", "two")
    assert f() == "two"


def test_4_8_granted_variables_are_there_before_a_module_reads_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`zoneinfo` reads PYTHONTZPATH once, when it is imported; the host has imported it."""
    importlib.import_module("zoneinfo")
    monkeypatch.setenv("PYTHONTZPATH", "/of/the/host")

    @sandbox(env="PYTHONTZPATH")
    def granted() -> tuple[str, ...]:
        import zoneinfo

        return zoneinfo.TZPATH

    @sandbox
    def hidden() -> tuple[str, ...]:
        import zoneinfo

        return zoneinfo.TZPATH

    for _ in range(3):
        assert granted() == ("/of/the/host",)
        assert "/of/the/host" not in hidden()


def test_4_8_a_template_that_imported_ahead_serves_no_call_with_variables() -> None:
    """A zygote that another tool filled with libraries imported them without the variable."""
    import hypothesis

    @sandbox
    def other() -> bool:
        return bool(hypothesis)

    @sandbox(env={"MINE": "x"})
    def sets() -> bool:
        return "hypothesis" in sys.modules

    @sandbox(env="HOME_OF_MINE")
    def granted() -> bool:
        return "hypothesis" in sys.modules

    agentsbx.shutdown()
    assert other()
    assert not granted()
    assert not sets()
    assert other()


def test_4_8_commands_get_granted_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "one")
    monkeypatch.setenv("OTHER", "two")
    assert agentsbx.run(["sh", "-c", "echo $MINE,$OTHER"], env="MINE").text == "one,\n"


def test_4_8_a_hidden_variable_gets_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "s3cret-value")

    @sandbox
    def f() -> str:
        return os.environ["MY_SECRET"]

    result = f.run()
    assert type(result.error) is KeyError
    assert "env=['MY_SECRET']" in words(result.error)
    assert "s3cret-value" not in words(result.error)


def test_4_9_argv_executable_and_main_look_like_the_hosts(tmp_path: Path) -> None:
    script = tmp_path / "tool.py"
    script.write_text(
        "import sys\nfrom agentsbx import sandbox\n@sandbox\ndef f():\n"
        "    import __main__, sys\n    return sys.argv, sys.executable, __main__.__file__\n"
        "print(f() == (sys.argv, sys.executable, __file__))\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(agentsbx.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(script), "a", "b"], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "True\n", done.stderr


ODD = [os.fsdecode(b"/srv/\xff.py"), "caf\u00e9", ""]


def test_4_9_bytes_that_are_no_text_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files and variables are bytes: what Python keeps as surrogates arrives as it was."""
    monkeypatch.setitem(os.environb, b"LC_ALL", b"\xff")
    monkeypatch.setitem(os.environb, b"MINE", b"a\xfe")
    monkeypatch.setattr(sys, "argv", tuple(ODD))

    @sandbox(env="MINE")
    def f() -> Any:
        return os.environb[b"LC_ALL"].hex(), os.environb[b"MINE"].hex(), list(map(ascii, sys.argv))

    @sandbox
    def plain() -> Any:
        return os.environb[b"LC_ALL"].hex(), "MINE" in os.environ

    agentsbx.shutdown()  # a zygote that was given the odd variable
    for _ in range(3):
        assert f() == ("ff", "61fe", list(map(ascii, ODD)))
        assert plain() == ("ff", False)
    assert agentsbx.run(["sh", "-c", 'printf %s "$LC_ALL"']).stdout == b"\xff"


def test_4_9_odd_entries_of_the_search_path_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/srv"), b"/srv", None])

    @sandbox
    def f() -> int:
        return 7

    assert f() == 7


def test_4_9_a_wrong_executable_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/blender")

    @sandbox
    def f() -> Any:
        return 1

    agentsbx.shutdown()
    with pytest.raises(agentsbx.SandboxUnavailable, match=r"sys\.executable"):
        f()


def test_a_denied_write_is_a_violation(folder: Path) -> None:
    (folder / "a.txt").write_text("a")
    result = sandbox(read="a.txt")(write).run("a.txt", "b")
    assert isinstance(result.error, SandboxViolation)
    assert result.violations[0].operation == "write"
    assert Policy().contains(Policy())


def move_between(first: str, second: str) -> list[str]:
    os.makedirs(f"{first}/a", exist_ok=True)
    os.makedirs(f"{second}/b", exist_ok=True)
    Path(first, "a/x").write_text("x")
    Path(first, "a/sub").mkdir()
    os.rename(f"{first}/a/x", f"{second}/b/y")
    os.rename(f"{first}/a/sub", f"{second}/b/sub")
    if first == second:
        os.link(f"{second}/b/y", f"{first}/a/z")
    return sorted(os.listdir(f"{second}/b"))


@pytest.mark.parametrize("place", ["/sandbox/home", "/sandbox/tmp", "/dev/shm", "grant"])
def test_4_3_names_move_between_directories(place: str, folder: Path) -> None:
    """Landlock's right to do so (REFER) is denied by any layer that does not grant it."""
    where = str(folder) if place == "grant" else place
    rules: Any = {"write": where} if place == "grant" else {}
    assert sandbox(**rules)(move_between)(where, where) == ["sub", "y"]


def test_4_3_names_move_between_private_places(folder: Path) -> None:
    assert sandbox(move_between)("/sandbox/home", "/sandbox/tmp") == ["sub", "y"]
