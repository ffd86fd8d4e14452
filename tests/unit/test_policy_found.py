"""Found policy files narrow; they widen only where the user's own record says so."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from agentsbx import Sandbox, _policy_found, _policy_trust, run, sandbox
from agentsbx._policy_code import refuse_code_writes
from agentsbx._policy_found import apply, digest_of, search
from agentsbx.errors import PolicyError, SandboxViolation
from agentsbx.policy import Policy


@pytest.fixture
def home(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own, with a project in it that is the working directory."""
    monkeypatch.setenv("HOME", str(scratch))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (scratch / "project/sub").mkdir(parents=True)
    monkeypatch.chdir(scratch / "project")
    monkeypatch.setattr(_policy_found, "_told", {})
    return scratch


def plant(home: Path, text: str, name: str = "agentsbx.toml", at: str = "project") -> Path:
    path = home / at / name
    path.write_text(text)
    path.chmod(0o644)
    return path


BASE = Policy.from_keywords(read=["/srv/a", "/srv/b"], env=["A", "B"], timeout=10, memory="1GB")


# -- narrowing ------------------------------------------------------------------------------------


def test_without_a_file_nothing_changes(home: Path) -> None:
    assert apply(BASE).policy is BASE
    assert search(str(home / "project/sub")) == ""


def test_only_the_named_keys_narrow(home: Path) -> None:
    plant(home, "read = ['/srv/a']\n[limits]\ntimeout = 5\n")
    got = apply(BASE)
    assert [g.path for g in got.policy.read] == ["/srv/a"]
    assert (got.policy.env, got.policy.limits.timeout) == (("A", "B"), 5)
    assert got.policy.limits.memory == 10**9
    assert (got.ignored, got.is_trusted) == ((), False)


def test_an_empty_list_allows_nothing(home: Path) -> None:
    plant(home, "env = []\n")
    assert apply(BASE).policy.env == ()


ASKS = [
    ("read = ['/etc']", "read"),
    ("write = ['/srv/a']", "write"),
    ("env = ['A', 'SECRET']", "env"),
    ("net = ['evil.example:443']", "net"),
    ("profile = 'build'", "profile"),
    ("syscalls = 'semget'", "syscalls"),
    ("python = '/tmp/evil'", "python"),
    ("packages = '/tmp/evil'", "packages"),
    ("preload = 'evil'", "preload"),
    ("on_missing = 'weaken'", "on_missing"),
    ("on_violation = 'record'", "on_violation"),
    ("widen = '*'\nlimits.memory = '2GB'", "limits.memory"),
    ("limits.timeout = 'unlimited'", "limits.timeout"),
    ("extends = 'build'", "limits.memory"),
]


@pytest.mark.parametrize(("text", "key"), ASKS)
def test_what_is_planted_widens_nothing_and_is_told_once(home: Path, text: str, key: str) -> None:
    """Each of these does widen where the code itself says it."""
    path = plant(home, text + "\n")
    named = Policy.from_file(path)
    assert named.differences(BASE) or named != Policy(), "the same text widens when it is named"
    with pytest.warns(RuntimeWarning, match="only narrows") as caught:
        got = apply(BASE)
    assert got.policy.differences(BASE) == []
    for field in ("preload", "python", "packages", "widen", "on_violation"):
        assert getattr(got.policy, field) == getattr(BASE, field)
    message = str(caught[0].message)
    assert message.startswith(f"{path}: ")
    assert key in message.partition(" ignored")[0]
    assert message.endswith(f"`agentsbx policy trust {path}`")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        apply(BASE)
        apply(BASE)
    assert len(told) == 1


def test_a_section_counts_for_its_function_alone(home: Path) -> None:
    plant(home, "[function.'m:f'.limits]\ntimeout = 1\n")
    assert apply(BASE, "m:f").policy.limits.timeout == 1
    assert apply(BASE, "m:g").policy == BASE


def test_a_named_file_is_not_narrowed_by_itself(home: Path) -> None:
    path = plant(home, "read = ['/srv/x']\n")
    named = Policy.from_file(path).extend(timeout=1)
    assert apply(named).policy is named


def test_pyproject_counts_with_our_table(home: Path) -> None:
    path = plant(home, "[project]\nname = 'x'\n", "pyproject.toml")
    assert search(str(path.parent)) == ""
    plant(home, "[tool.agentsbx.limits]\ntimeout = 2\n", "pyproject.toml")
    assert apply(BASE).policy.limits.timeout == 2
    assert Policy.from_file(path).limits.timeout == 2
    plant(home, "[project]\n[tool.agentsbx]\nraed = 1\n", "pyproject.toml")
    with pytest.raises(PolicyError, match=r"pyproject\.toml:3: unknown key 'raed'"):
        apply(BASE)
    plant(home, "# agentsbx\n[[[\n", "pyproject.toml")
    assert search(str(path.parent)) == ""


# -- finding --------------------------------------------------------------------------------------


def test_the_nearest_file_counts_up_to_the_home(home: Path) -> None:
    sub = str(home / "project/sub")
    top = plant(home, "", at=".")
    assert search(sub) == str(home / "agentsbx.toml") == str(top)
    near = plant(home, "")
    assert search(sub) == str(near)
    near.unlink()
    top.unlink()
    outside = home.parent / "agentsbx.toml"
    assert search(sub) == "", f"the search ends before {outside}"


def test_both_forms_in_one_folder_are_refused(home: Path) -> None:
    plant(home, "")
    plant(home, "[tool.agentsbx]\n", "pyproject.toml")
    with pytest.raises(PolicyError, match="both"):
        apply(BASE)


def test_the_search_ends_before_a_folder_that_all_may_write(home: Path) -> None:
    plant(home, "env = []\n")
    assert search(str(home / "project/sub"))
    (home / "project").chmod(0o777)
    assert search(str(home / "project/sub")) == ""


def test_files_of_others_links_and_pipes_are_refused(home: Path) -> None:
    path = plant(home, "env = []\n")
    assert apply(BASE).policy.env == ()
    path.chmod(0o666)
    with pytest.raises(PolicyError, match="all may write it"):
        apply(BASE)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(PolicyError, match="it is a link"):
        apply(BASE)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PolicyError, match="no regular file"):
        apply(BASE)
    path.unlink()
    path.mkdir()
    with pytest.raises(PolicyError, match="no regular file"):
        apply(BASE)


@pytest.mark.needs("root")
def test_a_file_of_another_user_is_refused(home: Path) -> None:
    path = plant(home, "env = []\n")
    os.chown(path, 12345, 12345)
    with pytest.raises(PolicyError, match="belongs to user 12345"):
        apply(BASE)
    os.chown(home / "project", 12345, 12345)
    assert search(str(home / "project")) == ""


def test_what_is_wrong_stops_the_call(home: Path) -> None:
    plant(home, "\nraed = 1\n")
    with pytest.raises(PolicyError, match=r"agentsbx\.toml:2: unknown key"):
        apply(BASE)
    plant(home, "x = '" + "y" * 2**20 + "'")
    with pytest.raises(PolicyError, match="larger than 1 MiB"):
        apply(BASE)
    plant(home, "extends = './big.toml'\n")
    (home / "project/big.toml").symlink_to("/dev/zero")
    with pytest.raises(PolicyError, match="it is a link"):
        apply(BASE)


# -- trust ----------------------------------------------------------------------------------------

WIDE = "env = ['A', 'SECRET']\n[limits]\nmemory = '2GB'\n"


def test_a_trusted_file_holds_until_it_changes(home: Path) -> None:
    path = plant(home, WIDE)
    with pytest.warns(RuntimeWarning):
        assert apply(BASE).policy.env == ("A",)
    _policy_trust.record(str(path), digest_of(str(path)))
    got = apply(BASE)
    assert got.is_trusted
    assert (got.policy.env, got.policy.limits.memory) == (("A", "SECRET"), 2 * 10**9)
    assert got.policy.read == BASE.read
    plant(home, WIDE + "# changed\n")
    with pytest.warns(RuntimeWarning, match=r"it changed since it was trusted; .*env"):
        assert apply(BASE).policy.env == ("A",)
    plant(home, "env = ['A']\n")
    with pytest.warns(RuntimeWarning, match="it changed since it was trusted; look at it"):
        apply(BASE)
    plant(home, WIDE)
    assert apply(BASE).is_trusted
    assert _policy_trust.forget(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not apply(BASE).is_trusted


def test_trust_covers_what_the_file_extends(home: Path) -> None:
    path = plant(home, "extends = './more.toml'\n")
    more = plant(home, "env = 'SECRET'\n", "more.toml")
    _policy_trust.record(str(path), digest_of(str(path)))
    assert apply(BASE).policy.env == ("SECRET",)
    more.write_text("env = ['SECRET', 'OTHER']\n")
    with pytest.warns(RuntimeWarning, match="it changed"):
        assert apply(BASE).policy.env == ()


def test_the_rest_of_a_pyproject_is_not_part_of_its_digest(home: Path) -> None:
    path = plant(home, "[tool.agentsbx]\nenv = 'SECRET'\n", "pyproject.toml")
    _policy_trust.record(str(path), digest_of(str(path)))
    plant(home, "[project]\nversion = '2'\n[tool.agentsbx]\nenv = 'SECRET'\n", "pyproject.toml")
    assert apply(BASE).is_trusted


def test_the_record_is_private(home: Path) -> None:
    path = plant(home, WIDE)
    old = os.umask(0)
    try:
        _policy_trust.record(str(path), digest_of(str(path)))
    finally:
        os.umask(old)
    store = Path(_policy_trust.store_path())
    assert store == home / ".config/agentsbx/trusted.toml"
    assert store.stat().st_mode & 0o777 == 0o600
    assert store.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(store.parent) == ["trusted.toml"], "no temporary file is left"


@pytest.mark.parametrize("damage", ["file-mode", "folder-mode", "link", "text"])
def test_a_record_that_others_could_have_written_is_not_believed(home: Path, damage: str) -> None:
    path = plant(home, WIDE)
    _policy_trust.record(str(path), digest_of(str(path)))
    assert apply(BASE).is_trusted
    store = Path(_policy_trust.store_path())
    if damage == "file-mode":
        store.chmod(0o644)
    elif damage == "folder-mode":
        store.parent.chmod(0o777)
    elif damage == "link":
        store.rename(home / "elsewhere")
        store.symlink_to(home / "elsewhere")
    else:
        store.write_text("trusted = [1]\n")
    with pytest.raises(PolicyError, match=r"not believed|damaged"):
        apply(BASE)


@pytest.mark.needs("root")
def test_a_record_of_another_user_is_not_believed(home: Path) -> None:
    path = plant(home, WIDE)
    _policy_trust.record(str(path), digest_of(str(path)))
    os.chown(_policy_trust.store_path(), 12345, 12345)
    with pytest.raises(PolicyError, match="belongs to user 12345"):
        apply(BASE)


def test_no_write_grant_may_hold_the_record(home: Path) -> None:
    """A job could else trust its own file: it has our user id."""
    for grant in (home, home / ".config", home / ".config/agentsbx",
                  home / ".config/agentsbx/trusted.toml"):  # fmt: skip
        policy = Policy.from_keywords(write=grant)
        with pytest.raises(PolicyError, match="the record of trusted policy files"):
            refuse_code_writes(policy, [], [])
    refuse_code_writes(Policy.from_keywords(write=home / "project"), [], [])


# -- calls ----------------------------------------------------------------------------------------


def test_a_function_is_narrowed_at_its_first_call(home: Path) -> None:
    plant(home, "[limits]\nopen_files = 50\n")
    box = sandbox(open_files=100)(limit)
    assert box.policy.limits.open_files == 100
    assert "agentsbx.toml was found and narrows this" in box.explain()
    assert box() == 50
    assert sandbox(open_files=100).__call__(limit).run().unwrap() == 50


def limit() -> int:
    """Runs in the job."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_job_cannot_widen_the_next_call(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes a policy into a folder that it may write; the next call runs there."""
    monkeypatch.setenv("CANARY", "secret")
    out = home / "project/out"
    out.mkdir(mode=0o755)
    box = sandbox(Policy.from_keywords(write=out))
    with pytest.raises(SandboxViolation, match=r"agentsbx\.toml'.*moved aside"):
        box(write_file)(str(out / "sub2"), "agentsbx.toml", "env = ['CANARY']\n")
    assert not (out / "sub2/agentsbx.toml").exists()
    text = "[tool.agentsbx]\nenv = ['CANARY']\n"
    box(write_file)(str(out / "sub"), "pyproject.toml", text)
    planted = out / "sub/pyproject.toml"
    assert planted.read_text() == text
    assert sandbox(planted)(see_canary)() == "secret", "it does grant, where it is named"
    monkeypatch.chdir(out / "sub")
    with pytest.warns(RuntimeWarning, match="env ignored"):
        assert sandbox(see_canary)() is None


def write_file(folder: str, name: str, text: str) -> None:
    """Runs in the job."""
    os.mkdir(folder)
    with open(f"{folder}/{name}", "w") as file:
        file.write(text)


def see_canary() -> str | None:
    """Runs in the job."""
    return os.environ.get("CANARY")


def test_commands_and_sessions_are_narrowed_too(home: Path) -> None:
    plant(home, "[limits]\nopen_files = 50\n")
    words = ["sh", "-c", "ulimit -n"]
    assert run(words, open_files=100).stdout == b"50\n"
    with Sandbox(open_files=100) as session:
        assert session.exec(words).stdout == b"50\n"


def test_a_nested_function_is_judged_by_what_it_is_let(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trusted file widens both; else the caller would allow more than the other."""
    monkeypatch.setenv("CANARY", "secret")
    inner = sandbox(see_canary)

    def outer() -> str | None:
        return inner()

    assert sandbox(outer)() is None
    path = plant(home, "env = ['CANARY']\n")
    _policy_trust.record(str(path), digest_of(str(path)))
    inner = sandbox(see_canary)
    assert sandbox(outer)() == "secret"
