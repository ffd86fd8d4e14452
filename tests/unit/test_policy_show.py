"""`policy show`: what is printed reads back as the same policy, and says where values come from."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agentsbx._policy_origins import origins_of
from agentsbx._policy_toml import show_toml
from agentsbx.policy import FunctionSection, Policy
from agentsbx.presets import preset

_PATHS = st.sets(st.sampled_from(["/a", "/a/b", '/a/ü"\\', "/d", "/d/# x"]), max_size=3)
_NAMES = st.sets(st.sampled_from(["m:f", "m:C.g", "n.o:f.<locals>.g"]), max_size=2)


@st.composite
def _changes(draw: st.DrawFn) -> dict[str, object]:
    write = draw(_PATHS)
    drawn = {
        "read": sorted(draw(_PATHS) - write),
        "write": sorted(write),
        "env": draw(st.lists(st.sampled_from(["A", "B=#1\n", "C"]), unique=True, max_size=2)),
        "net": draw(st.lists(st.sampled_from(["a.b:1", "*.c.d:2-3"]), unique=True)),
        "packages": draw(st.lists(st.sampled_from(["/p", "/q"]), unique=True)),
        "cpu_set": draw(st.lists(st.integers(0, 3), unique=True, min_size=1)),
        "profile": draw(st.sampled_from(["python", "strict", "build"])),
        "reveal": draw(st.booleans()),
        "fresh": draw(st.booleans()),
    }
    limits = {
        "memory": draw(st.integers(10**6, 2**45)),
        "timeout": draw(st.floats(0.001, 1e6)),
        "cpu_time": draw(st.one_of(st.just("unlimited"), st.floats(0.001, 1e6))),
        "processes": draw(st.integers(1, 10**6)),
    }
    keys = draw(st.sets(st.sampled_from(sorted(drawn))))
    found: dict[str, object] = {key: drawn[key] for key in keys}
    kept = draw(st.sets(st.sampled_from(sorted(limits))))
    return {**found, "limits": {key: limits[key] for key in kept}}


@given(_changes(), st.dictionaries(_NAMES.map(lambda n: min(n, default="m:f")), _changes()),
       st.booleans())  # fmt: skip
def test_what_is_shown_reads_back(top: dict[str, object], sections: dict[str, object],
                                  everything: bool) -> None:  # fmt: skip
    policy = Policy.from_mapping({**top, "function": sections})
    text = show_toml(policy, origins_of(policy), everything=everything)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.toml"
        path.write_text(text, encoding="utf-8")
        back = Policy.from_file(path)
    assert _plain(back) == _plain(policy), text


def _plain(policy: Policy) -> object:
    from msgspec.structs import replace

    functions = tuple(
        FunctionSection(s.name, replace(s.policy, origin="", extends=None, widen=()))
        for s in policy.functions
    )
    return replace(policy, origin="", extends=None, widen=(), functions=functions)


FILE = """\
extends = ["strict", "./base.toml"]
read = ["data"]
[limits]
timeout = "5s"
[function."m:f".limits]
timeout = "1s"
"""


def shown(policy: Policy, *, everything: bool = False) -> dict[str, str]:
    """Return what stands before each comment, and the comment."""
    lines = show_toml(policy, origins_of(policy), everything=everything).splitlines()
    pairs = [line.split("  # ") for line in lines if "  # " in line]
    return {value.strip(): comment for value, comment in pairs}


def test_every_value_has_its_origin(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("env = 'LANG'\n\nread = ['more']\n")
    (tmp_path / "p.toml").write_text(FILE)
    policy = Policy.from_file(tmp_path / "p.toml")
    said = shown(policy)
    assert said[f'"{tmp_path}/data",'] == f"{tmp_path}/p.toml:2"
    assert said[f'"{tmp_path}/more",'] == f"{tmp_path}/base.toml:3"
    assert said['"LANG",'] == f"{tmp_path}/base.toml:1"
    assert said['profile = "strict"'] == "preset strict"
    assert said["timeout = 5.0"] == f"{tmp_path}/p.toml:4"
    assert said["timeout = 1.0"] == f"{tmp_path}/p.toml:6"
    assert 'result = "64MiB"' not in said
    assert shown(policy, everything=True)['result = "64MiB"'] == "default"


def test_of_a_section_and_of_code(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("\n")
    (tmp_path / "p.toml").write_text(FILE)
    policy = Policy.from_file(tmp_path / "p.toml").for_function("m:f").extend(processes=3)
    said = shown(policy)
    assert said["timeout = 1.0"] == f"{tmp_path}/p.toml:6"
    assert said["processes = 3"] == "code"
    assert said[f'"{tmp_path}/data",'] == f"{tmp_path}/p.toml:2"
    assert set(shown(preset("build")).values()) == {"preset build"}
    assert shown(Policy.from_keywords(env="LANG"))['"LANG",'] == "code"
