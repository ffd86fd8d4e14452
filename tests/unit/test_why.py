"""`policy why`: verdict, layer, deciding rule and smallest change of one operation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentsbx._why import judge, parse
from agentsbx.errors import PolicyError
from agentsbx.policy import Grant, Policy


def asked(policy: Policy, text: str) -> tuple[str, str, str]:
    said = judge(policy, *parse(text), cwd="/srv/work")
    return said.verdict, said.rule, said.change


POLICY = Policy.from_keywords(
    read=["/srv/data"],
    write=["/srv/out", "/srv/data/tmp"],
    env=["KEY", "MODE=x"],
    syscalls="semget",
)


@pytest.mark.parametrize(
    ("text", "verdict", "rule", "change"),
    [
        ("open /srv/data/x", "allow", "read=['/srv/data']", ""),
        ("open /srv/other", "deny", "nothing grants it", "read=['/srv/other']"),
        ("read ../data", "allow", "read=['/srv/data']", ""),
        ("write /srv/data/x", "deny", "read=['/srv/data'] grants only reading",
         "write=['/srv/data']"),
        ("write /srv/data/tmp/x", "allow", "write=['/srv/data/tmp']", ""),
        ("write /srv/out/.git/hooks/x", "deny", "'.git/hooks' is a protected name", ""),
        ("write /srv/out/deep/agentsbx.toml", "deny", "'agentsbx.toml' is a protected name", ""),
        ("write /srv/out/a.pth", "deny", "'a.pth' is a protected name", ""),
        ("write /usr/lib/x", "deny", "system folders", ""),
        ("open /etc/passwd", "allow", "its own /etc/passwd, not the host's", ""),
        ("open /etc/shadow", "deny", "nothing grants it", "read=['/etc/shadow']"),
        ("open /dev/mem", "deny", "a sandbox has its own /", ""),
        ("open /proc/self/status", "depends", "its own /proc", ""),
        ("write /sandbox/home/x", "allow", "its own /sandbox/home", ""),
        ("env KEY", "allow", "env=['KEY']", ""),
        ("env MODE", "allow", "env=['MODE=...']", ""),
        ("env HOME", "allow", "every sandbox has it", ""),
        ("env AWS_KEY", "deny", "nothing grants it", "env=['AWS_KEY']"),
        ("connect api.example.com:443", "deny", "no network", "net=['api.example.com:443']"),
        ("fork", "allow", "profile='python'", ""),
        ("syscall semget", "allow", "syscalls=['semget']", ""),
        ("syscall mlock", "deny", "no memory can be locked", ""),
        ("syscall getpid", "allow", "profile='python' has group", ""),
        ("syscall ptrace", "deny", "profile='python' has no group debug", ""),
        ("syscall ioctl", "depends", "by its arguments", ""),
        ("exec no-such-program", "deny", "it is not in the sandbox's PATH", ""),
        ("exec /bin/sh", "allow", "/usr is shown", ""),
    ],
)  # fmt: skip
def test_verdict_rule_and_change(text: str, verdict: str, rule: str, change: str) -> None:
    said = asked(POLICY, text)
    assert (said[0], said[2]) == (verdict, change)
    assert said[1].startswith(rule) or rule in said[1]


def test_the_change_that_is_named_helps() -> None:
    for text in ("open /srv/other", "env AWS_KEY", "connect a.b:1", "write /srv/new/x"):
        _, _, change = asked(POLICY, text)
        key, _, value = change.partition("=")
        wider = Policy.from_keywords(**{key: eval(value, {"Grant": Grant})})
        assert asked(wider, text)[0] == "allow"


def test_a_network_rule_is_named_with_what_this_version_makes_of_it() -> None:
    said = judge(POLICY, "connect", "a.b:1")
    assert said.change == "net=['a.b:1']"
    assert "refused" in said.note


def test_strict_starts_nothing() -> None:
    strict = Policy.from_keywords(profile="strict")
    for text in ("fork", "exec /bin/sh", "exec sh"):
        verdict, _, change = asked(strict, text)
        assert (verdict, change) == ("deny", "profile='python'")


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").write_text("x")
    (tmp_path / "in" / "away").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "near").symlink_to("away2")
    (tmp_path / "in" / "away2").write_text("x")
    policy = Policy.from_keywords(read=tmp_path / "in")
    assert asked(policy, f"open {tmp_path}/in/near")[0] == "allow"
    said = judge(policy, "read", f"{tmp_path}/in/away")
    assert said.verdict == "deny"
    assert "the link leads to" in said.note


def test_a_granted_link_needs_the_word(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    link = str(tmp_path / "link")
    said = judge(Policy.from_keywords(read=link), "read", link)
    assert (said.verdict, said.change) == ("deny", f"Grant({link!r}, follow=True)")
    follows = Policy.from_keywords(read=Grant(link, follow=True))
    assert judge(follows, "read", link).verdict == "allow"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("opn /x", "did you mean 'open'"),
        ("open", "needs a target"),
        ("fork /x", "takes no target"),
        ("syscall getpidd", "did you mean 'getpid'"),
    ],
)
def test_wrong_questions(text: str, words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        asked(POLICY, text)


def test_nothing_is_looked_up_for_the_job() -> None:
    """A name with a colon, a newline, a NUL or ten thousand characters is only a name."""
    for name in ("/srv/a:b", "/srv/\n", "/" + "x" * 10000):
        assert judge(POLICY, "read", name).verdict == "deny"
    assert os.getcwd()
