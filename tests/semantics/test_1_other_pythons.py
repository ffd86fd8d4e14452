"""`python=` and `packages=`: which interpreter and libraries run a tool (rules 1.2, 1.4, 4.5, 5.6).

The environments are made here, without pip; what stands in their site-packages is written by hand.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import agentsbx
from agentsbx import Grant, Policy, PolicyError, SandboxUnavailable, sandbox

XY = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Env:
    """A virtual environment in a folder."""

    def __init__(self, folder: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60
        )
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.site = folder / "lib" / f"python{XY}" / "site-packages"

    def add(self, name: str, text: str) -> None:
        write_package(self.site, name, text)


def write_package(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "__init__.py").write_text(text)


@pytest.fixture
def env(tmp_path: Path) -> Env:
    made = Env(tmp_path / "env")
    made.add("only_there", "VALUE = 'of the environment'\ndef where():\n    return __file__\n")
    return made


def use_lib() -> tuple[str, str]:
    import only_there  # the host has no such library

    return only_there.VALUE, only_there.where()


# -- which interpreter, which libraries -----------------------------------------------------------


@pytest.mark.parametrize("named", ["folder", "python"])
def test_1_2_a_tool_runs_under_the_interpreter_and_packages_of_an_environment(
    env: Env, named: str
) -> None:
    def tool() -> tuple[str, str, str, list[str]]:
        import only_there

        return only_there.VALUE, only_there.where(), sys.executable, sys.path

    assert importlib.util.find_spec("only_there") is None, "the host must not have it"
    value, where, executable, path = sandbox(python=getattr(env, named))(tool)()
    assert value == "of the environment"
    assert where == str(env.site / "only_there/__init__.py")
    assert executable == str(env.python)
    assert str(env.site) in path


def test_1_2_what_only_the_host_has_is_not_found_there_and_the_error_says_where(env: Env) -> None:
    @sandbox(python=env.folder)
    def tool() -> None:
        import pytest  # noqa: F401 - the host has it, this very moment

    with pytest.raises(ModuleNotFoundError, match="pytest") as raised:
        tool()
    assert str(env.folder) in raised.value.__notes__[-1]


def test_1_2_a_library_that_both_have_is_the_one_of_the_environment(env: Env) -> None:
    env.add("msgspec", "__version__ = 'theirs'\n")

    @sandbox(python=env.folder)
    def tool() -> tuple[str, str]:
        import msgspec

        return msgspec.__version__, msgspec.__file__

    assert tool() == ("theirs", str(env.site / "msgspec/__init__.py"))
    assert sandbox(tool.local)()[0] == msgspec.__version__ != "theirs"


def test_1_2_our_own_needs_are_found_where_the_environment_has_none(env: Env) -> None:
    @sandbox(python=env.folder)
    def tool() -> tuple[bool, str]:
        import cloudpickle
        import msgspec

        return cloudpickle is not msgspec, msgspec.__version__

    assert tool() == (True, msgspec.__version__)


def test_1_2_another_agentsbx_in_the_environment_is_never_the_one_that_serves(env: Env) -> None:
    env.add("agentsbx", "raise ImportError('the wrong one')\n")

    @sandbox(python=env.folder)
    def tool() -> str:
        import agentsbx

        return agentsbx.__version__

    assert tool() == agentsbx.__version__


class Point(msgspec.Struct):
    x: int
    y: int = 0


def test_3_1_structs_come_back_when_the_tool_has_a_msgspec_of_its_own(env: Env) -> None:
    shutil.copytree(Path(msgspec.__file__).parent, env.site / "msgspec")

    @sandbox(python=env.folder)
    def tool(p: Point) -> tuple[Point, str]:
        return Point(p.x + 1, p.y), sys.modules["msgspec"].__file__ or ""

    point, file = tool(Point(1, 2))
    assert file.startswith(str(env.site)), "this is to be tested with two msgspecs in one process"
    assert point == Point(2, 2)


def test_1_2_packages_are_searched_before_the_interpreters_own_and_in_order(
    tmp_path: Path, env: Env
) -> None:
    write_package(tmp_path / "a", "first_one", "WHERE = 'a'\n")
    write_package(tmp_path / "b", "first_one", "WHERE = 'b'\n")
    write_package(tmp_path / "b", "only_there", "VALUE = 'of b'\ndef where():\n    return 'b'\n")
    write_package(tmp_path / "a", "json", "raise ImportError('shadows the standard library')\n")

    def tool() -> tuple[str, str, str]:
        import json

        import first_one
        import only_there

        return first_one.WHERE, only_there.VALUE, json.dumps(1)

    folders = [tmp_path / "a", tmp_path / "b"]
    assert sandbox(python=env.folder, packages=folders)(tool)() == ("a", "of b", "1")
    assert sandbox(packages=folders)(tool)() == ("a", "of b", "1")
    assert sandbox(packages=folders[::-1])(tool)()[0] == "b"


def test_1_2_with_packages_the_hosts_own_libraries_stay(tmp_path: Path) -> None:
    write_package(tmp_path / "more", "extra_lib", "VALUE = 3\n")

    @sandbox(packages=tmp_path / "more")
    def tool() -> tuple[int, str]:
        import extra_lib
        import pluggy

        return extra_lib.VALUE, pluggy.__file__

    import pluggy

    assert tool() == (3, pluggy.__file__)


def test_1_2_system_site_packages_count_only_where_the_environment_says_so(
    tmp_path: Path,
) -> None:
    """The installation behind an environment lies on the disk, but is not searched."""
    own = Env(tmp_path / "own")
    cfg = own.folder / "pyvenv.cfg"
    assert "include-system-site-packages = false" in cfg.read_text()

    @sandbox(python=own.folder)
    def tool() -> list[str]:
        return [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]

    assert tool() == [str(own.site)]
    cfg.write_text(cfg.read_text().replace("= false", "= true"))
    assert tool()[0] == str(own.site)
    assert len(tool()) >= 2


def test_1_1_a_captured_project_class_and_closure_work_there(env: Env) -> None:
    factor = 3

    @sandbox(python=env.folder)
    def tool(p: Point) -> Point:
        return Point(p.x * factor, len(use_lib()[0]))

    assert tool(Point(2)) == Point(6, len("of the environment"))


# -- walls ----------------------------------------------------------------------------------------


def test_1_4_the_environment_can_be_read_and_not_changed(env: Env) -> None:
    site = str(env.site)

    @sandbox(python=env.folder)
    def tool() -> str:  # no assert: pytest makes one use a library that is not there
        os.listdir(site)
        with open(os.path.join(site, "planted.py"), "w") as file:
            file.write("x")
        return "written"

    with pytest.raises(OSError, match="planted"):
        tool()
    assert not (env.site / "planted.py").exists()


def test_1_4_nothing_else_beside_the_environment_is_shown(env: Env) -> None:
    (env.folder / "secret.txt").write_text("s")
    (env.folder.parent / "secret.txt").write_text("s")
    names = [str(env.folder / "secret.txt"), str(env.folder.parent / "secret.txt")]

    @sandbox(python=env.folder)
    def tool() -> list[bool]:
        return [os.path.exists(name) for name in names]

    assert tool() == [False, False]


def test_nothing_of_the_environment_runs_outside_the_walls_of_a_job(
    env: Env, tmp_path: Path
) -> None:
    """Neither in the host nor in the zygote: not its interpreter, its .pth files, its libraries."""
    mark = tmp_path / "ran"
    note = f"open({str(mark)!r}, 'w').close()\n"
    (env.site / "evil.pth").write_text(f"import os; {note}")
    (env.site / "sitecustomize.py").write_text(note)
    pid = "import os\nPID = os.getpid()\n"
    env.add("msgspec", pid)
    env.add("cloudpickle", pid)
    env.add("only_there", pid)

    @sandbox(python=env.folder)
    def tool() -> tuple[bool, dict[str, bool]]:
        names = ("msgspec", "only_there")
        before = {name: name in sys.modules for name in names}
        import msgspec
        import only_there

        # A job is pid 1 of its own namespace, as its zygote is of another: what tells is that
        # the modules were not there before.
        return msgspec.PID == only_there.PID == os.getpid(), before

    assert tool() == (True, {"msgspec": False, "only_there": False})
    assert not mark.exists()


def test_what_comes_to_shadow_a_library_of_the_host_is_not_imported_ahead(
    tmp_path: Path,
) -> None:
    """The host's own file may be imported ahead of the call; what replaces it may not."""
    import pluggy

    (tmp_path / "libs").mkdir()

    def tool() -> tuple[bool, str]:
        before = "pluggy" in sys.modules
        import pluggy

        return before, pluggy.__file__

    confined = sandbox(packages=tmp_path / "libs")(tool)
    assert confined() == (True, pluggy.__file__)
    write_package(tmp_path / "libs", "pluggy", "")
    assert confined() == (False, str(tmp_path / "libs/pluggy/__init__.py"))
    assert sandbox(packages=tmp_path / "libs")(tool)()[0] is False


def test_preload_is_the_explicit_word_to_import_ahead(env: Env) -> None:
    @sandbox(python=env.folder, preload="only_there")
    def tool() -> bool:
        return "only_there" in sys.modules

    assert tool()


def test_4_7_a_tool_cannot_write_what_its_next_call_runs(env: Env, tmp_path: Path) -> None:
    shared = tmp_path / "libs"
    shared.mkdir()
    for keywords in (
        {"python": env.folder, "write": env.site},
        {"python": env.python, "write": env.folder.parent},
        {"packages": shared, "write": shared},
        {"packages": shared, "write": tmp_path},
    ):
        with pytest.raises(PolicyError, match="code=True"):
            sandbox(**keywords)(len)([])  # type: ignore[arg-type]
    allowed = sandbox(packages=shared, write=Grant(str(shared), code=True))
    assert allowed(len)([]) == 0


def test_links_that_a_job_may_have_put_there_are_not_followed(env: Env, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "key").write_text("k")
    link = tmp_path / "libs"
    link.symlink_to(hidden)
    with pytest.raises(PolicyError, match="symbolic link"):
        sandbox(packages=link)(len)([])
    cfg = env.folder / "pyvenv.cfg"
    cfg.rename(tmp_path / "cfg")
    cfg.symlink_to(tmp_path / "cfg")
    with pytest.raises(PolicyError, match="symbolic link"):
        sandbox(python=env.folder)(len)([])


def test_an_environment_that_points_at_something_else_shows_none_of_it(
    env: Env, tmp_path: Path
) -> None:
    """`home` and the interpreter's link lead out of the environment: only to an installation."""
    hidden = tmp_path / "home"
    (hidden / "bin").mkdir(parents=True)
    (hidden / "lib").mkdir()
    (hidden / "bin" / "key").write_text("k")
    cfg = env.folder / "pyvenv.cfg"
    cfg.write_text(f"home = {hidden}/bin\n")
    key = str(hidden / "bin" / "key")
    assert sandbox(python=env.folder)(os.path.exists)(key) is False
    target = hidden / "bin" / "python"
    target.write_text("#!/bin/sh\n")
    target.chmod(0o755)
    env.python.unlink()
    env.python.symlink_to(target)
    with pytest.raises(PolicyError, match="no standard library"):
        sandbox(python=env.folder)(os.path.exists)(key)


# -- what is wrong is said at the first call ------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"python": "missing"}, r"python='.*/missing': there is no such file"),
        ({"python": "empty"}, r"there is no '.*/empty/bin/python'"),
        ({"python": "text"}, "not an executable file"),
        ({"python": "/bin/sh"}, "not a Python interpreter"),
        ({"packages": "missing"}, r"packages='.*/missing': there is no such file"),
        ({"packages": "text"}, "not a folder"),
    ],
)
def test_4_1_a_wrong_path_is_an_error_at_the_first_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keywords: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("x")
    tool = sandbox(**keywords)(len)
    with pytest.raises(PolicyError, match=words) as raised:
        tool([])
    assert raised.value.path == next(iter(keywords))
    assert len(str(raised.value)) <= 300


def other_installation(folder: Path, version: str) -> Path:
    """Make what looks like an installation of that version."""
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / f"python{version}").mkdir(parents=True)
    (folder / "lib" / f"python{version}" / "os.py").write_text("")
    python = folder / "bin" / f"python{version}"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    (folder / "bin" / "python").symlink_to(python.name)
    return folder


@pytest.mark.parametrize("version", ["3.9", "3.99", f"{XY}t"])
def test_another_version_is_refused_with_both_named(tmp_path: Path, version: str) -> None:
    folder = other_installation(tmp_path / "py", version)
    with pytest.raises(PolicyError) as raised:
        sandbox(python=folder)(len)([])
    words = str(raised.value)
    assert f"Python {version}" in words
    assert f"Python {XY}" in words
    assert "agentsbx.run" in words
    assert len(words) <= 300


def test_an_interpreter_that_does_not_start_is_told_as_such(tmp_path: Path) -> None:
    folder = other_installation(tmp_path / "py", XY)
    with pytest.raises(SandboxUnavailable) as raised:
        sandbox(python=folder)(len)([])
    assert f"{folder}/bin/python did not start" in str(raised.value)
    assert sandbox(len)([1]) == 1, "other tools go on"


# -- changes --------------------------------------------------------------------------------------


def test_4_5_an_environment_made_anew_is_seen_new(env: Env) -> None:
    tool = sandbox(python=env.folder)(use_lib)
    assert tool()[0] == "of the environment"
    shutil.rmtree(env.folder)
    with pytest.raises(PolicyError, match="there is no"):
        tool()
    made = Env(env.folder)
    made.add("only_there", "VALUE = 'of the new one'\ndef where():\n    return __file__\n")
    assert tool()[0] == "of the new one"


@pytest.mark.parametrize("preload", [[], ["only_there"]])
def test_4_5_a_library_that_is_installed_anew_is_seen_new(env: Env, preload: list[str]) -> None:
    tool = sandbox(python=env.folder, preload=preload)(use_lib)
    for n in range(3):
        shutil.rmtree(env.site / "only_there")
        env.add("only_there", f"VALUE = {'x' * n!r}\ndef where():\n    return __file__\n")
        assert tool()[0] == "x" * n


def test_4_5_packages_made_anew_are_seen_new(tmp_path: Path) -> None:
    folder = tmp_path / "libs"
    text = "VALUE = {!r}\ndef where():\n    return __file__\n"
    write_package(folder, "only_there", text.format("old"))
    tool = sandbox(packages=folder)(use_lib)
    assert tool()[0] == "old"
    folder.rename(tmp_path / "gone")
    write_package(folder, "only_there", text.format("new"))
    assert tool()[0] == "new"


def test_calls_while_nothing_changes_share_one_template(env: Env) -> None:
    from agentsbx import _engine

    tool = sandbox(python=env.folder)(use_lib)
    other = sandbox(python=env.folder, timeout=20)(use_lib)
    tool()
    before = set(_engine.current().pools._templates.values())
    tool()
    other()
    assert set(_engine.current().pools._templates.values()) == before


# -- as part of the policy ------------------------------------------------------------------------


def test_5_6_a_nested_tool_with_other_libraries_is_refused(env: Env, tmp_path: Path) -> None:
    write_package(tmp_path / "libs", "x", "")
    inner = sandbox(python=env.folder)(use_lib)
    more = sandbox(packages=tmp_path / "libs")(len)

    def outer() -> Any:
        return inner()

    def outer_more() -> Any:
        return more([])

    with pytest.raises(agentsbx.RemoteError, match="interpreter"):
        sandbox(outer)()
    with pytest.raises(agentsbx.RemoteError, match="packages"):
        sandbox(outer_more)()
    assert sandbox(python=env.folder)(outer)()[0] == "of the environment"


def test_7_a_policy_file_names_them_and_code_cannot_exchange_them(env: Env, tmp_path: Path) -> None:
    (tmp_path / "libs").mkdir()
    (tmp_path / "p.toml").write_text('python = "env"\npackages = "libs"\n')
    policy = Policy.from_file(tmp_path / "p.toml")
    assert policy.python == str(env.folder)
    assert policy.packages == (str(tmp_path / "libs"),)
    tool = sandbox(policy)(use_lib)
    assert tool()[0] == "of the environment"
    for keywords in ({"python": sys.executable}, {"packages": tmp_path}):
        with pytest.raises(PolicyError, match="allows more"):
            tool.options(**keywords)


def test_explain_names_them(env: Env, tmp_path: Path) -> None:
    text = sandbox(python=env.folder, packages=tmp_path)(use_lib).explain()
    assert str(env.folder) in text
    assert f"{tmp_path}, searched before" in text


# -- commands -------------------------------------------------------------------------------------


def test_a_command_finds_that_interpreter_first(env: Env) -> None:
    words = ["python", "-c", "import sys, only_there; print(sys.prefix, only_there.VALUE)"]
    result = agentsbx.run(words, python=env.folder, check=True)
    assert result.text.split(maxsplit=1) == [str(env.folder), "of the environment\n"]
    assert agentsbx.run(words).value != 0


def test_the_command_line_takes_them(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentsbx.cli import main

    monkeypatch.chdir(env.folder.parent)
    (env.folder.parent / "tool.py").write_text(
        "def use():\n    import only_there\n    return only_there.VALUE\n"
    )
    words = ["python", "-c", "import sys; sys.exit(sys.prefix != " + repr(str(env.folder)) + ")"]
    assert main(["run", "--python", "env", "--", *words]) == 0
    assert main(["run", "--", *words]) == 1
    assert main(["call", "--python", "env", "tool.py:use"]) == 0
    assert main(["call", "--packages", str(env.site), "tool.py:use"]) == 0
    assert main(["call", "tool.py:use"]) == 1


def test_packages_are_refused_for_commands(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="PYTHONPATH"):
        agentsbx.run(["true"], packages=tmp_path)


# -- the trap -------------------------------------------------------------------------------------


def test_a_naive_stand_in_keeps_none_of_this(env: Env, tmp_path: Path) -> None:
    """Running the interpreter to ask it, as most tools do, runs what lies in the environment."""
    mark = tmp_path / "ran"
    (env.site / "evil.pth").write_text(f"import os; open({str(mark)!r}, 'w').close()\n")
    subprocess.run([env.python, "-c", "import sys; print(sys.path)"], check=True, timeout=60)
    assert mark.exists()
