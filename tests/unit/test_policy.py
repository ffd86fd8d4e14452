"""Policies from keywords: normal form, errors, narrowing and comparing."""

from __future__ import annotations

import os
import pathlib
import pickle
import sys
import types
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsbx import _policy_code, _policy_rules
from agentsbx.errors import PolicyError
from agentsbx.policy import Grant, Limits, Policy, policy_schema, split_keywords

new = Policy.from_keywords


def error_of(**keywords: Any) -> str:
    with pytest.raises(PolicyError) as caught:
        new(**keywords)
    assert len(str(caught.value)) <= 300
    assert caught.value.path is not None
    return str(caught.value)


def paths(grants: tuple[Grant, ...]) -> list[str]:
    return [grant.path for grant in grants]


def test_defaults_deny_and_bound() -> None:
    policy = new()
    assert policy == Policy()
    assert (policy.read, policy.write, policy.env, policy.net) == ((), (), (), ())
    limits = policy.limits
    assert (limits.timeout, limits.memory, limits.processes) == (30.0, 512 * 10**6, 64)
    assert (limits.open_files, limits.file_size, limits.disk) == (256, 256 * 10**6, 256 * 10**6)
    assert (limits.inodes, limits.output, limits.result) == (16384, 8 * 2**20, 64 * 2**20)
    assert (limits.cpu_time, limits.cpus, limits.buffers) == (-1, -1, 2**30)


def test_none_is_the_default_and_unlimited_is_a_word() -> None:
    assert new(memory=None, read=None) == Policy()
    assert new(memory="unlimited").limits.memory == -1


def test_a_bare_text_or_path_is_a_list_of_one() -> None:
    expected = ["/srv/data"]
    assert paths(new(read="/srv/data").read) == expected
    assert paths(new(read=pathlib.Path("/srv/data")).read) == expected
    assert paths(new(read=b"/srv/data").read) == expected
    assert paths(new(read=Grant("/srv/data")).read) == expected
    assert new(env="LANG").env == ("LANG",)
    assert new(net="a.example:1").net == ("a.example:1",)
    assert new(preload="numpy").preload == ("numpy",)
    assert new(python="/venv/").python == "/venv"
    assert new(packages=["/b", "/a", "/b"]).packages == ("/b", "/a"), "the order of searching"
    assert new(packages="/b").extend(packages=[]).packages == ()


def test_relative_paths_resolve_against_the_working_directory_now(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policy = new(read=["data", "./x/../y", "."])
    monkeypatch.chdir("/")
    here = os.fspath(tmp_path)
    assert paths(policy.read) == [here, f"{here}/data", f"{here}/y"]
    assert paths(new(folder="/srv", read="data").read) == ["/srv/data"]


def test_home_is_expanded_and_links_are_not_resolved(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    (tmp_path / "link").symlink_to("/usr")
    assert paths(new(read="~/link").read) == [f"{tmp_path}/link"]


def test_order_and_repetition_do_not_matter() -> None:
    one = new(read=["/b", "/a", "/a/"], env=["B", "A"], net=["b.c:1", "a.c:1", "B.c:1"])
    two = new(read=["/a", "/b", "//b"], env=["A", "B", "A"], net=["a.c:1", "b.c:1"])
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"memroy": "1GB"}, "did you mean memory=?"),
        ({"raed": "/x"}, "did you mean read=?"),
        ({"cpu": 1}, "cpus= (how many at once, 1.0) or cpu_time="),
        ({"network": True}, "write net="),
        ({"threads": 4}, "processes="),
        ({"xyzzy": 4}, "keywords: read, write"),
        ({"net": True}, "api.example.com:443"),
        ({"net": ["https://a.b"]}, "name host and port"),
        ({"read": "/"}, "whole file system"),
        ({"read": "/proc/self"}, "own /proc"),
        ({"write": "/dev/shm"}, "own /proc, /sys and /dev"),
        ({"read": ""}, '"." is the working directory'),
        ({"read": "a\0b"}, "not a path"),
        ({"read": 5}, 'write read=["..."]'),
        ({"read": [5]}, "5 is not a path"),
        ({"read": True}, "not a list"),
        ({"read": "$HOME/x"}, "variables are not expanded"),
        ({"read": "data/*.csv"}, "patterns are not expanded"),
        ({"read": "~nobody-has-this-name/x"}, "not known"),
        ({"read": {"path": "/x", "folow": True}}, "folow"),
        ({"read": Grant("/x", code=True)}, "word of write="),
        ({"read": "/srv/a", "write": "/srv/a/"}, "stands in read= and in write="),
        ({"env": ["A-B"]}, "not the name of a variable"),
        ({"env": ["AWS_*"]}, "not the name of a variable"),
        ({"env": {"PORT": 8080}}, '"PORT": "8080"'),
        ({"env": ["A", "A=1"]}, "given twice"),
        ({"env": {"A": "x\0"}}, "NUL"),
        ({"memory": 512}, 'did you mean "512MB"?'),
        ({"memory": "lots"}, "not a number with a unit"),
        ({"timeout": "3 fortnights"}, "unknown unit 'fortnights'"),
        ({"processes": 0}, "the least is 1"),
        ({"open_files": 3}, "the least is 16"),
        ({"disk": "unlimited"}, "needs a bound"),
        ({"output": "unlimited"}, "needs a bound"),
        ({"profile": "pyton"}, "did you mean 'python'?"),
        ({"on_missing": "warn"}, "'error', 'weaken'"),
        ({"strict": 1}, "neither true nor false"),
        ({"strict": True, "on_missing": "weaken"}, "contradicts"),
        ({"profile": "strict", "syscalls": ["execve"]}, "contradicts"),
        ({"syscalls": ["MOUNT!"]}, "not the name of a system call"),
        ({"preload": ["numpy as np"]}, "not the name of a module"),
        ({"python": 3}, "python: 3 is not a path"),
        ({"python": "$VENV"}, "variables are not expanded"),
        ({"packages": "/proc/x"}, "/proc/x cannot be granted"),
        ({"venv": "/v"}, "write python="),
    ],
)
def test_wrong_keywords_say_what_to_write(keywords: dict[str, Any], words: str) -> None:
    assert words in error_of(**keywords)


def test_nested_grants_are_no_contradiction() -> None:
    policy = new(read=["/srv/w/fixed", "/srv/r"], write=["/srv/w", "/srv/r/out"])
    levels = {
        p: _policy_rules.allows(policy, p) for p in ("/srv/w/x", "/srv/w/fixed/x", "/srv/r/x")
    }
    assert levels == {"/srv/w/x": "write", "/srv/w/fixed/x": "read", "/srv/r/x": "read"}
    assert _policy_rules.allows(policy, "/srv/r/out/x") == "write"
    assert _policy_rules.allows(policy, "/srv") == "nothing"
    assert _policy_rules.allows(policy, "/srv/wx") == "nothing"


def test_environment_grants_names_and_sets_values() -> None:
    policy = new(env={"MODE": "a=b", "LANG": None})
    assert policy.env == ("LANG", "MODE=a=b")
    assert policy.env_names == ("LANG",)
    assert policy.env_values == {"MODE": "a=b"}
    assert new(env=["LANG", "MODE=a=b"]) == policy


def test_split_keywords_separates_the_call_site() -> None:
    policy, site = split_keywords(
        {"memory": "1GB", "output": "capture", "seed": 3, "name": "x", "captures": [], "read": None}
    )
    assert policy == {"memory": "1GB"}
    assert site == {"output": "capture", "seed": 3, "name": "x", "captures": []}
    assert split_keywords({"output": "1MB"}) == ({"output": "1MB"}, {})
    with pytest.raises(PolicyError, match="did you mean captures="):
        split_keywords({"capture": []})


def test_the_constructor_refuses_what_is_not_resolved() -> None:
    with pytest.raises(PolicyError, match="from_keywords"):
        Policy(read=("data",))  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="from_keywords"):
        Policy(write=(Grant("data"),))
    with pytest.raises(PolicyError, match="reads units"):
        Limits(memory="512MB")  # type: ignore[arg-type]


# -- comparing ----------------------------------------------------------------------------------

WIDE = new(
    read=["/a", "/w/ro"], write="/w", env=["A"], net="*.b.c:443", cpu_time=10, syscalls="mlock"
)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"read": ["/a", "/w/ro", "/b"]}, "read /b"),
        ({"write": ["/w", "/a/x"]}, "write /a/x"),
        ({"read": ["/a"]}, "write /w/ro"),
        ({"write": "/"[:0] + "/w/ro/x"}, "write /w/ro/x"),
        ({"read": [Grant("/a", follow=True), "/w/ro"]}, "read /a with follow"),
        ({"env": ["A", "B"]}, "env B"),
        ({"env": {"A": "x"}}, "env A"),
        ({"net": "*.c.d:443"}, "net *.c.d:443"),
        ({"cpu_time": "unlimited"}, "cpu_time unlimited, not 10s"),
        ({"timeout": 31}, "timeout 31s, not 30s"),
        ({"memory": "1GB"}, "memory 1GB, not 512MB"),
        ({"profile": "build"}, "profile build, not python"),
        ({"syscalls": ["mlock", "mbind"]}, "syscalls mbind"),
        ({"on_missing": "weaken"}, "weakening"),
        ({"python": "/venv"}, "the interpreter /venv, not this program's interpreter"),
        ({"packages": ["/libs"]}, "packages /libs"),
    ],
)
def test_wider_is_named_and_refused_by_narrow(keywords: dict[str, Any], words: str) -> None:
    wider = WIDE.extend(**keywords)
    assert words in wider.differences(WIDE)
    assert not wider.contains(WIDE)
    with pytest.raises(PolicyError, match="this allows more than the policy"):
        WIDE.narrow(**keywords)


@pytest.mark.parametrize(
    "keywords",
    [
        {"read": ["/a/b", "/w/ro"]},
        {"write": "/w/x"},
        {"write": []},
        {"env": [], "net": "x.b.c:443", "timeout": 5, "memory": "1MiB", "profile": "strict"},
        {"strict": True, "reveal": False, "fresh": True, "on_violation": "record"},
        {"syscalls": [], "preload": "numpy"},
    ],
)
def test_narrower_is_free(keywords: dict[str, Any]) -> None:
    narrower = WIDE.narrow(**keywords)
    assert narrower.contains(WIDE)
    assert WIDE.contains(WIDE)


@pytest.mark.parametrize("word", ["strict", "fresh"])
def test_dropping_a_stricter_word_is_wider(word: str) -> None:
    assert not WIDE.contains(WIDE.extend(**{word: True}))


_PATH = st.sampled_from(["/a", "/a/b", "/a/b/c", "/d"])


@st.composite
def _policies(draw: st.DrawFn) -> Policy:
    write = draw(st.sets(_PATH))
    return new(read=list(draw(st.sets(_PATH)) - write), write=list(write))


@given(_policies(), _policies(), _policies())
def test_contains_is_an_order_and_agrees_with_allows(a: Policy, b: Policy, c: Policy) -> None:
    assert a.contains(a)
    if a.contains(b) and b.contains(c):
        assert a.contains(c)
    rank = ("nothing", "read", "write").index
    points = ["/a", "/a/x", "/a/b", "/a/b/x", "/a/b/c", "/a/b/c/x", "/d", "/d/x", "/e"]
    agree = all(
        rank(_policy_rules.allows(a, p)) <= rank(_policy_rules.allows(b, p)) for p in points
    )
    assert a.contains(b) is agree


def test_only_absolute_interpreters_and_packages() -> None:
    for keywords in ({"python": "venv"}, {"packages": ("libs",)}):
        with pytest.raises(PolicyError, match="not an absolute path"):
            Policy(**keywords)


def test_a_tool_may_be_given_fewer_libraries() -> None:
    both = new(packages=["/a", "/b"])
    assert both.narrow(packages="/b").packages == ("/b",)
    with pytest.raises(PolicyError, match="packages /c"):
        both.narrow(packages="/c")


# -- writing where code lies --------------------------------------------------------------------


@pytest.mark.parametrize("grant", ["/srv/app", "/srv", "/venv/lib/x"])
def test_writing_over_the_hosts_code_needs_a_word(grant: str) -> None:
    with pytest.raises(PolicyError, match=r"code=True"):
        _policy_code.refuse_code_writes(new(write=grant), ["/srv/app"], ["/venv"])
    allowed = new(write=Grant(grant, code=True))
    _policy_code.refuse_code_writes(allowed, ["/srv/app"], ["/venv"])


def test_writing_elsewhere_needs_none(tmp_path: pathlib.Path) -> None:
    _policy_code.refuse_code_writes(new(write="/srv/app/out"), ["/srv/app"], ["/venv"])
    _policy_code.refuse_code_writes(new(write=tmp_path / "out"))


def test_writing_over_the_policy_file_needs_a_word() -> None:
    policy = msgspec.structs.replace(new(write="/srv/conf"), origin="/srv/conf/p.toml")
    with pytest.raises(PolicyError, match="holds the policy file"):
        _policy_code.refuse_code_writes(policy, [], [])


def test_every_policy_file_that_was_read_is_held(tmp_path: pathlib.Path) -> None:
    """A job that may rewrite the base of another tool's policy widens it for the next run."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "b.toml").write_text("")
    (tmp_path / "top.toml").write_text('extends = "base/b.toml"\n')
    Policy.from_file(tmp_path / "top.toml")
    with pytest.raises(PolicyError, match=r"holds the policy file .*b\.toml"):
        _policy_code.refuse_code_writes(new(write=tmp_path / "base"))


def test_links_lead_to_the_same_code(tmp_path: pathlib.Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(PolicyError, match="imports its code"):
        _policy_code.refuse_code_writes(new(write=tmp_path / "target"), [str(tmp_path / "link")])
    grant = new(write=Grant(str(tmp_path / "link"), follow=True))
    real = {str(tmp_path / "link"): str(tmp_path / "target")}
    with pytest.raises(PolicyError, match="imports its code"):
        _policy_code.refuse_code_writes(grant, [str(tmp_path / "target")], real=real)


def test_inside_installed_packages_and_the_stdlib_no_folder_is_free(tmp_path: pathlib.Path) -> None:
    site = tmp_path / "lib" / "site-packages"
    for grant in (site / "numpy", os.path.join(os.path.dirname(os.__file__), "json")):
        with pytest.raises(PolicyError, match="Python environment"):
            _policy_code.refuse_code_writes(new(write=grant), [str(site), b"/srv", None])


def test_code_that_is_loaded_from_elsewhere_is_held(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the finders of editable installs do it: the folder is not on `sys.path`."""
    (tmp_path / "mod.py").write_text("")
    module = types.ModuleType("editable_mod")
    module.__file__ = str(tmp_path / "mod.py")
    monkeypatch.setitem(sys.modules, "editable_mod", module)
    with pytest.raises(PolicyError, match=r"has loaded .*mod\.py"):
        _policy_code.refuse_code_writes(new(write=tmp_path))
    _policy_code.refuse_code_writes(new(write=tmp_path / "data"))


# -- schema -------------------------------------------------------------------------------------


def test_schema_offers_units_and_describes_every_key() -> None:
    schema = policy_schema()
    policy = schema["$defs"]["Policy"]
    assert policy["additionalProperties"] is False
    assert {"read", "limits", "strict", "extends", "widen"} <= set(policy["properties"])
    assert "origin" not in policy["properties"]
    memory = schema["$defs"]["Limits"]["properties"]["memory"]
    assert memory["type"] == ["number", "string"]
    assert "512MB" in memory["examples"]
    for name, prop in schema["$defs"]["Limits"]["properties"].items():
        assert prop["description"], name
    msgspec.json.encode(schema)
