"""What users are told, word for word: `messages.toml`. Semantics section 9; design: 300 characters.

Each message is provoked, not made; the change that it asks for makes the code pass, and without it
the code fails again with the same words.
"""

from __future__ import annotations

import json
import linecache
import os
import re
import subprocess
import sys
import textwrap
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest

import _machine
import agentsbx
from agentsbx import sandbox
from agentsbx.errors import MAX_MESSAGE, ErrRecord, Stage, unavailable

MESSAGES: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("messages.toml").read_text()
)["message"]
HERE = [m for m in MESSAGES if "machine" not in m]
ASKED = re.compile(r"(?:allow (?:it|more)|grant it) with (\w+=(?:\[.*?\]|\"[^\"]*\"|'[^']*'|\d+))")


def ids(messages: list[dict[str, Any]]) -> list[str]:
    return [m["anchor"] for m in messages]


@pytest.fixture
def here(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the code of a message runs."""
    (scratch / "data").mkdir()
    (scratch / "data/report.csv").write_text("city,sales\nOslo,3\n")
    (scratch / "secrets").mkdir()
    (scratch / "secrets/key.txt").write_text("key")
    for path in scratch.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    monkeypatch.chdir(scratch)
    monkeypatch.setenv("API_KEY", "")
    monkeypatch.setattr(sys, "path", sys.path[:])
    return scratch


def play(code: str, apply: dict[str, Any] | None = None) -> list[tuple[str, str, str]]:
    """Run the code of a message: what was raised and warned, as (class, where, words).

    `apply` are keywords that its function gets in the end.
    """
    world: dict[str, Any] = {"__name__": "golden", "sandbox": sandbox, "os": os, "sys": sys}
    if apply is not None:
        code = re.sub(r"^(tool)\(", r"\1.options(**APPLY)(", code, flags=re.MULTILINE)
        world["APPLY"] = apply
    said: list[tuple[str, str, str]] = []
    linecache.cache["tool.py"] = len(code), None, code.splitlines(keepends=True), "tool.py"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # the code is short on purpose
        try:
            exec(compile(code, "tool.py", "exec"), world)
        except Exception as error:
            name = type(error).__name__
            said.append((name, "message", str(error)))
            said += [(name, "note", note) for note in getattr(error, "__notes__", ())]
    return said + [(w.category.__name__, "warning", str(w.message)) for w in seen]


def is_said(message: dict[str, Any], here: Path, said: list[tuple[str, str, str]]) -> bool:
    text = re.escape(message["text"].replace("{here}", str(here))).replace(r"\{\*\}", ".*")
    return any(
        (kind, where) == (message["error"], message["where"]) and re.fullmatch(text, words)
        for kind, where, words in said
    )


def changed(message: dict[str, Any]) -> str:
    old, new = message["change"]
    assert message["code"].count(old), "the change names a piece of the code"
    return str(message["code"].replace(old, new))


@pytest.mark.parametrize("message", HERE, ids=ids(HERE))
def test_9_message_and_the_change_that_it_asks_for(message: dict[str, Any], here: Path) -> None:
    said = play(message["code"])
    assert is_said(message, here, said), said
    rules = ASKED.findall(message["text"].replace("{here}", str(here)))
    if message.get("rule", True):
        for rule in rules:
            keywords = eval(f"dict({rule})", {})
            assert play(message["code"], keywords) == [], "the rule, as it is written, helps"
    _clean(here)
    assert play(changed(message)) == []
    _clean(here)
    assert is_said(message, here, play(message["code"])), "without the change it fails again"


def _clean(here: Path) -> None:
    """What an earlier run of the code has left is no part of the next."""
    for name in ("data/git", "data/.git", "report.txt", "results"):
        subprocess.run(["rm", "-rf", here / name], check=True)


@pytest.mark.parametrize("message", MESSAGES, ids=ids(MESSAGES))
def test_9_messages_are_short_and_whole(message: dict[str, Any]) -> None:
    text = message["text"].replace("{here}", "/home/somebody/a-project/of/usual/depth")
    assert len(text.removeprefix("agentsbx: ")) <= MAX_MESSAGE
    assert text.isprintable()
    assert message["title"]
    assert message["why"]
    assert message["todo"]
    assert "TODO" not in text
    # what happened; then what to do
    assert re.search(r"[;?:] ", text)


def test_9_rules_are_applied_wherever_one_is_named() -> None:
    """A message that names a rule and is not checked for it says so in the file."""
    for message in MESSAGES:
        if message.get("rule") is False:
            continue
        assert ASKED.search(message["text"]) or "=" not in message["text"], message["anchor"]


def test_9_anchors_are_unique_and_the_list_of_the_semantics_is_whole() -> None:
    anchors = ids(MESSAGES)
    assert len(anchors) == len(set(anchors))
    assert set(anchors) >= {
        "hidden-variable", "hidden-path", "file-permission", "capture", "return-value", "memory",
        "timeout", "no-user-namespaces", "bad-unit", "mistyped-keyword", "nested-policy",
        "missing-interpreter", "refused-host", "full-private-disk", "killed",
    }  # fmt: skip


LAYER = """
import json, sys, tomllib
sys.path[:0] = {path!r}
import golden.test_messages as golden
message = next(m for m in golden.MESSAGES if m["anchor"] == sys.argv[1])
print(json.dumps([golden.play(code) for code in
                  (message["code"], golden.changed(message), message["code"])]))
import agentsbx
agentsbx.shutdown()
"""
MACHINE = [m for m in MESSAGES if "machine" in m]


@pytest.mark.needs("userns")
@pytest.mark.parametrize("message", MACHINE, ids=ids(MACHINE))
def test_9_message_of_a_machine(message: dict[str, Any], tmp_path: Path) -> None:
    """In a throw-away layer, whose sysctls are its own."""
    root = Path(agentsbx.__file__).parents[1]
    code = LAYER.format(path=[str(Path(__file__).parents[1]), str(root)])
    argv = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run(
        [*argv, sys.executable, "-c", textwrap.dedent(code), message["anchor"]],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, third = json.loads(done.stdout)
    assert is_said(message, tmp_path, [tuple(s) for s in first]), first
    assert second == []
    assert is_said(message, tmp_path, [tuple(s) for s in third]), third


def test_9_what_distributions_switch_off_has_words_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _machine.lacks("linux") is None
    monkeypatch.setattr("agentsbx._remedies.is_filtered", lambda: False)
    words = (
        "cannot sandbox here: creating a user namespace failed: user namespaces are refused to "
        "this program; allow them: sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu; "
        "or an AppArmor profile for the launcher), kernel.unprivileged_userns_clone=1 (Debian)"
    )
    assert str(unavailable(ErrRecord(Stage.USERNS, 0, 1, 0))) == words


def test_9_what_a_container_refuses_has_words_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentsbx._remedies.is_filtered", lambda: True)
    words = (
        "cannot sandbox here: creating a user namespace failed: a container's or sandbox's filter "
        "refuses it; docker: --security-opt seccomp=unconfined --security-opt "
        "systempaths=unconfined; Kubernetes: seccompProfile Unconfined, procMount Unmasked"
    )
    assert str(unavailable(ErrRecord(Stage.USERNS, 0, 1, 0))) == words
