"""Policy files: places of errors, extends, widen, and writing back."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentsbx
from agentsbx import sandbox
from agentsbx._policy_toml import find_line
from agentsbx.errors import PolicyError
from agentsbx.policy import Grant, Policy, policy_schema


def write(folder: pathlib.Path, text: str, name: str = "p.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


FULL = """\
# a comment
extends = "strict"
read = ["data", { path = "link", follow = true }]
write = "out"
env = ["LANG"]
net = ["api.example.com:443"]
widen = ["timeout"]
strict = true

[limits]
memory = "1GiB"
timeout = 10
cpu_time = "unlimited"
"""


def test_a_whole_file(tmp_path: pathlib.Path) -> None:
    policy = Policy.from_file(write(tmp_path, FULL))
    here = str(tmp_path)
    assert policy.read == (Grant(f"{here}/data"), Grant(f"{here}/link", follow=True))
    assert policy.write == (Grant(f"{here}/out"),)
    assert (policy.env, policy.net) == (("LANG",), ("api.example.com:443",))
    assert (policy.limits.memory, policy.limits.timeout) == (2**30, 10.0)
    assert policy.limits.processes == 16  # of the preset
    assert (policy.profile, policy.strict_limits, policy.extends) == ("strict", True, "strict")
    assert (policy.widen, policy.origin) == (("timeout",), f"{here}/p.toml")
    assert Policy.from_file(tmp_path / "p.toml", base="/srv").write == (Grant("/srv/out"),)


def test_json_means_the_same(tmp_path: pathlib.Path) -> None:
    text = '{"read": "data", "env": {"MODE": "x"}, "limits": {"memory": "1GB"}}'
    policy = Policy.from_file(write(tmp_path, text, "p.json"))
    assert policy.limits.memory == 10**9
    assert policy.env == ("MODE=x",)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("\n\nraed = []\n", 3, "did you mean 'read'?"),
        ("[limits]\n\nmemory = 512\n", 3, 'did you mean "512MB"?'),
        ("[limits]\nmemroy = '1GB'\n", 2, "did you mean 'memory'?"),
        ("[limits]\ncpu = 1\n", 2, "cpus="),
        ("limits.timeout = 'soon'\n", 1, "not a number with a unit"),
        ("limits = { timeout = 'soon' }\n", 1, "not a number with a unit"),
        ("a = 1\nread = [\n'/x',\n]\n", 1, "unknown key 'a'"),
        ("memory = '1GB'\n", 1, "below [limits]"),
        ("captures = []\n", 1, "option of the call"),
        ("limits = 3\n", 1, "limits is a table"),
        ("\nread = ['/x']\nwrite = ['/x']\n", 3, "stands in read= and in write="),
        ("net = true\n", 1, "not a rule"),
        ("\nextends = 'srict'\n", 2, "did you mean 'strict'?"),
        ("extends = 3\n", 1, "not a name or a file"),
        ("widen = ['tmeout']\n", 1, "did you mean 'timeout'?"),
        ("read = [\n", 1, "no valid TOML"),
        ("x = 1\nx = 2\n", 2, "no valid TOML"),
        ("[env]\nPORT = 1\n", 1, '"PORT": "1"'),
    ],
)
def test_errors_name_file_line_and_hint(
    tmp_path: pathlib.Path, text: str, line: int, words: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PolicyError) as caught:
        Policy.from_file(path)
    error = caught.value
    assert words in str(error)
    assert error.file == path
    if "no valid TOML" not in words:
        assert error.line == line
        assert str(error).startswith(f"{path}:{line}: ")
    else:
        assert error.line is not None


def test_unreadable_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        Policy.from_file(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"# ok\nread = '\xff'\n")
    with pytest.raises(PolicyError, match=r"latin.toml:2: .*not UTF-8"):
        Policy.from_file(tmp_path / "latin.toml")
    write(tmp_path, "# " + "x" * 2**20, "big.toml")
    with pytest.raises(PolicyError, match="1 MiB"):
        Policy.from_file(tmp_path / "big.toml")
    for text in ("[1]", "{", "nul"):
        with pytest.raises(PolicyError, match=r"p.json"):
            Policy.from_file(write(tmp_path, text, "p.json"))


def test_extends_adds_to_lists_and_replaces_values(tmp_path: pathlib.Path) -> None:
    (tmp_path / "base").mkdir()
    write(
        tmp_path / "base",
        "read = ['r', 'x']\nwrite = 'w'\nenv = ['A', 'M=1']\n[limits]\nmemory='1GB'\ntimeout=1\n",
    )
    path = write(
        tmp_path,
        "extends = 'base/p.toml'\nread = 'base/w'\nwrite = 'base/x'\nenv = ['B', 'M=2']\n"
        "[limits]\ntimeout = 2\n",
    )
    policy = Policy.from_file(path)
    base = f"{tmp_path}/base"
    assert [g.path for g in policy.read] == [f"{base}/r", f"{base}/w"]
    assert [g.path for g in policy.write] == [f"{base}/x"]
    assert policy.env == ("A", "B", "M=2")
    assert (policy.limits.memory, policy.limits.timeout) == (10**9, 2.0)


def test_an_error_in_the_extended_file_names_that_file(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "\nraed = 1\n", "base.toml")
    with pytest.raises(PolicyError, match=r"base.toml:2: unknown key 'raed'"):
        Policy.from_file(write(tmp_path, "extends = './base.toml'\n"))


def test_extends_in_a_circle_ends(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "extends = './b.toml'\n", "a.toml")
    write(tmp_path, "extends = './a.toml'\n", "b.toml")
    with pytest.raises(PolicyError, match="back to itself"):
        Policy.from_file(tmp_path / "a.toml")


def test_the_way_back_is_named_with_file_and_line(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "extends = './b.toml'\n", "a.toml")
    write(tmp_path, "\nextends = ['strict', './a.toml']\n", "b.toml")
    with pytest.raises(PolicyError, match=r"b\.toml:2: .*a\.toml -> b\.toml -> a\.toml"):
        Policy.from_file(tmp_path / "a.toml")


def test_a_missing_file_is_told_where_it_is_named(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, "read = []\nextends = './absent.toml'\n")
    with pytest.raises(PolicyError, match=r"p\.toml:2: .*there is no file '/.*absent\.toml'"):
        Policy.from_file(path)


def test_extends_is_not_deeper_than_eight_files(tmp_path: pathlib.Path) -> None:
    for n in range(9):
        write(tmp_path, f"extends = './{n + 1}.toml'\n", f"{n}.toml")
    write(tmp_path, "\n", "9.toml")
    assert Policy.from_file(tmp_path / "2.toml").origin == f"{tmp_path}/2.toml"
    with pytest.raises(PolicyError, match=r"7\.toml:1: extends is more than 8 files deep"):
        Policy.from_file(tmp_path / "0.toml")


def test_a_list_is_laid_one_on_top_of_the_other(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "read = 'a'\n[limits]\nmemory = '3GB'\n", "base.toml")
    policy = Policy.from_file(
        write(tmp_path, "extends = ['build', './base.toml', 'strict']\nread = 'b'\n")
    )
    assert [g.path for g in policy.read] == [f"{tmp_path}/a", f"{tmp_path}/b"]
    assert (policy.profile, policy.limits.memory) == ("strict", 256 * 10**6)
    assert policy.limits.output == 64 * 2**20, "of build, as nothing after it names it"
    assert policy.extends == ("build", "./base.toml", "strict")


SECTIONS = """
read = "data"
widen = "timeout"
[limits]
memory = "1GB"
[function."tools:fetch"]
env = ["API_KEY"]
[function."tools:fetch".limits]
timeout = "5s"
[function."tools:Box.open"]
profile = "strict"
"""


def test_a_section_is_the_whole_policy_of_one_function(tmp_path: pathlib.Path) -> None:
    policy = Policy.from_file(write(tmp_path, SECTIONS))
    fetch = policy.for_function("tools:fetch")
    assert (fetch.env, fetch.limits.timeout, fetch.limits.memory) == (("API_KEY",), 5, 10**9)
    assert [g.path for g in fetch.read] == [f"{tmp_path}/data"]
    assert (fetch.section, fetch.functions, fetch.widen) == ("tools:fetch", (), ("timeout",))
    assert policy.for_function("tools:Box.open").profile == "strict"
    other = policy.for_function("tools:other")
    assert (other.env, other.section, other.functions) == ((), "", ())
    with pytest.raises(PolicyError, match="env API_KEY"):
        other.extend(env=["API_KEY"])


def test_keywords_change_every_section(tmp_path: pathlib.Path) -> None:
    policy = Policy.from_file(write(tmp_path, SECTIONS))
    changed = policy.extend(timeout="4s").for_function("tools:fetch")
    assert (changed.limits.timeout, changed.env) == (4, ("API_KEY",))
    with pytest.raises(PolicyError, match="timeout 20s, not 5s"):
        policy.narrow(timeout="20s")


def test_a_file_on_top_keeps_sections_and_changes_them(tmp_path: pathlib.Path) -> None:
    write(tmp_path, SECTIONS, "base.toml")
    top = "extends = './base.toml'\nread = 'more'\n[function.'tools:fetch']\nnet = ['a.b:1']\n"
    fetch = Policy.from_file(write(tmp_path, top)).for_function("tools:fetch")
    assert [g.path for g in fetch.read] == [f"{tmp_path}/data", f"{tmp_path}/more"]
    assert (fetch.env, fetch.net, fetch.limits.timeout) == (("API_KEY",), ("a.b:1",), 5)


def test_wrong_sections_are_told_with_their_line(tmp_path: pathlib.Path) -> None:
    for text, line, words in (
        ("[function.fetch]\n", 1, "not a module and a function"),
        ("\n[function.'a:b']\nraed = 1\n", 3, "unknown key 'raed'; did you mean 'read'"),
        ("[function.'a:b']\n[function.'a:b'.limits]\nmemory = 'x'\n", 3, "memory"),
        ("[function.'a:b']\nwiden = 'read'\n", 2, "stands above all sections"),
        ("function = 3\n", 1, "a table of tables"),
    ):
        with pytest.raises(PolicyError, match=rf"p\.toml:{line}: .*{re.escape(words)}"):
            Policy.from_file(write(tmp_path, text))


def test_decorated_functions_take_their_section(tmp_path: pathlib.Path) -> None:
    name = f"{tool.__module__}:tool"
    path = write(tmp_path, f"[function.'{name}'.limits]\ntimeout = 7\n")
    decorated = sandbox(str(path))(tool)
    assert decorated.policy.limits.timeout == 7
    assert f"section {name}" in decorated.explain()
    assert sandbox(str(path), memory="1MB")(tool).policy.limits.timeout == 7
    assert sandbox(str(path))(len).policy.limits.timeout == 30


def tool() -> None:
    """Only decorated."""


def test_a_program_is_named_after_its_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "p.toml").write_text('[function."prog:tool".limits]\ntimeout = 7\n')
    (tmp_path / "prog.py").write_text(
        "from agentsbx import sandbox\n@sandbox('./p.toml')\ndef tool(): ...\n"
        "print(tool.policy.limits.timeout)\n"
    )
    for argv in (["prog.py"], ["-m", "prog"]):
        done = subprocess.run(
            [sys.executable, *argv], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(pathlib.Path(agentsbx.__file__).parent.parent)},
        )  # fmt: skip
        assert done.stdout == "7.0\n", done.stderr


def test_the_shipped_schema_is_the_real_one() -> None:
    """If this fails: `agentsbx policy schema > agentsbx/data/policy.schema.json`."""
    shipped = pathlib.Path(agentsbx.__file__).parent / "data/policy.schema.json"
    assert json.loads(shipped.read_text()) == policy_schema()


def test_a_file_may_name_its_schema(tmp_path: pathlib.Path) -> None:
    policy = Policy.from_file(write(tmp_path, '{"$schema": "./policy.schema.json"}', "p.json"))
    assert policy.limits == Policy().limits


def test_code_widens_a_file_only_where_it_says_so(tmp_path: pathlib.Path) -> None:
    policy = Policy.from_file(write(tmp_path, FULL))
    assert policy.extend(timeout="5s", memory="1MB").limits.timeout == 5
    assert policy.extend(timeout="10m").limits.timeout == 600
    with pytest.raises(PolicyError, match=r'more than p\.toml: memory 2GB.*widen = \["memory"\]'):
        policy.extend(memory="2GB")
    with pytest.raises(PolicyError, match=r"read /srv"):
        policy.extend(read=["/srv"])
    with pytest.raises(PolicyError, match="timeout"):
        policy.narrow(timeout="10m")


def test_code_cannot_set_the_files_own_words(tmp_path: pathlib.Path) -> None:
    policy = Policy.from_file(write(tmp_path, FULL))
    for word in ("widen", "origin", "extends", "limits"):
        with pytest.raises(PolicyError, match="unknown keyword"):
            policy.extend(**{word: "*"})


def test_mapping_is_made_in_code(tmp_path: pathlib.Path) -> None:
    policy = Policy.from_mapping({"read": "data", "limits": {"timeout": 1}}, base="/srv")
    assert policy.read == (Grant("/srv/data"),)
    assert policy.extend(timeout=2).limits.timeout == 2


def test_written_policy_reads_back(tmp_path: pathlib.Path) -> None:
    policy = Policy.from_keywords(
        read=['/srv/ü"\\\n', Grant("/srv/l", follow=True)],
        write=Grant("/srv/w", code=True),
        env={"A": None, "M": "x=\x7f"},
        net=["*.b.c:1-2"],
        syscalls="mlock",
        preload="numpy",
        python="/srv/venv",
        packages=["/srv/b", "/srv/a"],
        strict=True,
        reveal=False,
        on_violation="record",
        cpus=0.5,
        cpu_time="1.5s",
        memory=1234567,
        processes="unlimited",
    )
    back = Policy.from_file(write(tmp_path, policy.to_toml()))
    assert not back.differences(policy)
    assert not policy.differences(back)
    assert back.to_toml() == policy.to_toml()
    assert back.limits == policy.limits
    assert (back.read, back.write, back.env) == (policy.read, policy.write, policy.env)
    assert (back.python, back.packages) == (policy.python, policy.packages)


def test_folders_of_a_file_are_searched_before_those_of_the_one_it_extends(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "base.toml").write_text('python = "venv"\npackages = ["a", "b"]\n')
    (tmp_path / "p.toml").write_text('extends = "./base.toml"\npackages = "c"\n')
    policy = Policy.from_file(tmp_path / "p.toml")
    assert policy.packages == tuple(str(tmp_path / name) for name in "cab")
    assert policy.python == str(tmp_path / "venv")


@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_a_policy_error(text: str) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(text.replace("\ud800", ""))
        file.flush()
        try:
            Policy.from_file(file.name)
        except PolicyError as error:
            wrong = error.file
        else:
            wrong = file.name
    assert wrong == file.name


def test_lines_of_keys() -> None:
    text = 'a = 1\n"b" = 2\n[limits]\n memory = 1\n[ x . "y" ]\nz = 3\n[env]\nM = 1\nl.q = 2\n'
    assert find_line(text, "a") == 1
    assert find_line(text, "b") == 2
    assert find_line(text, "limits.memory") == 4
    assert find_line(text, "limits") == 3
    assert find_line(text, "x.y.z") == 6
    assert find_line(text, "env") == 7
    assert find_line(text, "env.l.q") == 9
    assert find_line(text, "nothing") is None
    assert find_line(text, "") is None


@pytest.mark.parametrize(
    ("text", "name", "match"),
    [
        ('{"limits":' * 3000, "p.json", "no valid JSON"),
        ('{"env":' + "[" * 20 + "]" * 20 + "}", "p.json", "nested too deeply"),
        ("a." * 40 + "a = 1", "p.toml", "more than 32 parts"),
        (f"processes = {'9' * 5000}", "p.toml", "no valid TOML"),
        (f"[limits]\nprocesses = {'9' * 50}", "p.toml", "out of range"),
        ('[limits]\ntimeout = "' + "1" * 6000 + 's"', "p.toml", "timeout"),
    ],
)
def test_a_file_that_means_harm_is_a_policy_error(
    tmp_path: pathlib.Path, text: str, name: str, match: str
) -> None:
    with pytest.raises(PolicyError, match=match):
        Policy.from_file(write(tmp_path, text, name))
