"""Names inside write grants that would make the host run code: held, or found and moved aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentsbx import _compile, _host, _protect
from agentsbx.errors import SandboxViolation


def grant(root: Path, *, is_write: bool = True) -> _compile.Mount:
    return _compile.Mount(str(root), _host.look_up(str(root)), is_write)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Make a project with a repository, an editor's folder, a nested project and ordinary files."""
    for name in (".git/hooks/pre-commit", ".git/config", ".git/objects/aa", ".vscode/tasks.json",
                 "src/main.py", "sub/.envrc", "sub/.git/config", "notes.txt"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [".envrc", ".ENVRC", ".Bashrc", "sitecustomize.py", "evil.pth", "EVIL.PTH", ".vscode",
     ".Claude", "agentsbx.toml", ".pre-commit-config.yaml", ".mcp.json"],
)  # fmt: skip
def test_names_are_protected_whatever_their_case(name):
    assert _protect.is_protected(name)


@pytest.mark.parametrize("name", ["envrc", "main.py", "a.pth.txt", ".github", "vscode", ".git"])
def test_other_names_are_not(name):
    assert not _protect.is_protected(name)


def test_names_are_compared_as_a_case_insensitive_disk_would():
    assert _protect.fold(".GİT") != _protect.fold(".git")  # a dotted capital I is another letter
    assert _protect.fold("\uff21") == _protect.fold("\uff41")  # full-width letters
    assert _protect.fold("é") == _protect.fold("É") == _protect.fold("E\u0301")


def test_what_exists_is_mounted_over_and_a_repository_is_pinned(repo):
    mounts = {m.at: m for m in _protect.protected_mounts([grant(repo)])}
    inside = {os.path.relpath(at, repo) for at in mounts}
    assert inside == {
        ".git", ".git/hooks", ".git/config", ".vscode", "sub/.envrc", "sub/.git", "sub/.git/config",
    }  # fmt: skip
    assert all(m.is_protected for m in mounts.values())
    writable = {os.path.relpath(at, repo) for at, m in mounts.items() if m.is_write}
    assert writable == {".git", "sub/.git"}
    order = list(mounts)
    assert order.index(str(repo / ".git")) < order.index(str(repo / ".git/hooks"))


def test_links_are_neither_followed_nor_mounted(tmp_path):
    outside = tmp_path / "outside"
    (outside / ".git").mkdir(parents=True)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside)
    (root / ".envrc").symlink_to("/etc/passwd")
    assert _protect.protected_mounts([grant(root)]) == []


def test_grants_of_single_files_hold_no_names(tmp_path):
    file = tmp_path / ".envrc"
    file.write_text("x")
    assert _protect.protected_mounts([grant(file)]) == []
    assert _protect.Watch([grant(file)]).planted() == []


def test_nothing_planted_nothing_moved(repo):
    watch = _protect.Watch([grant(repo)])
    (repo / "src/new.py").write_text("fine")
    (repo / ".git/objects/bb").write_text("fine too")
    assert watch.planted() == []
    assert watch.is_complete


@pytest.mark.parametrize(
    "name",
    [".envrc", "deep/er/.envrc", ".git/hooks2/../config.worktree", "site/x.pth", ".idea/a.xml",
     "new/.git/hooks/post-checkout", ".GIT/config"],
)  # fmt: skip
def test_what_appears_is_moved_aside_and_never_deleted(repo, name):
    watch = _protect.Watch([grant(repo)])
    path = repo / os.path.normpath(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("planted")
    moved = watch.planted()
    assert len(moved) == 1
    assert not os.path.lexists(moved[0])
    kept = [p for p in repo.rglob("*") if p.is_file() and p.read_text() == "planted"]
    assert len(kept) == 1
    assert _protect.REFUSED in str(kept[0])
    assert _protect.Watch([grant(repo)]).planted() == []


def test_what_was_replaced_is_moved_aside(repo):
    watch = _protect.Watch([grant(repo)])
    (repo / "other").write_text("planted")
    (repo / "other").rename(repo / "sub/.envrc")
    assert watch.planted() == [str(repo / "sub/.envrc")]


def test_a_link_under_a_protected_name_is_moved_not_followed(repo):
    target = repo / "target"
    target.write_text("mine")
    watch = _protect.Watch([grant(repo)])
    (repo / ".netrc").symlink_to(target)
    assert watch.planted() == [str(repo / ".netrc")]
    assert target.read_text() == "mine"
    assert (repo / f".netrc{_protect.REFUSED}").is_symlink()


def test_a_link_that_points_elsewhere_now_is_moved(repo):
    (repo / ".netrc").symlink_to("one")
    watch = _protect.Watch([grant(repo)])
    (repo / ".netrc").unlink()
    (repo / ".netrc").symlink_to("two")
    assert watch.planted() == [str(repo / ".netrc")]


def test_a_pipe_that_became_a_file_is_moved_though_its_number_may_be_the_same(repo):
    os.mkfifo(repo / ".netrc")
    watch = _protect.Watch([grant(repo)])
    (repo / ".netrc").unlink()
    (repo / ".netrc").write_text("planted")
    assert watch.planted() == [str(repo / ".netrc")]


def test_second_plants_do_not_overwrite_what_was_moved_first(repo):
    for text in ("one", "two"):
        watch = _protect.Watch([grant(repo)])
        (repo / ".envrc").write_text(text)
        assert watch.planted() == [str(repo / ".envrc")]
    kept = sorted(p.read_text() for p in repo.glob(f".envrc{_protect.REFUSED}*"))
    assert kept == ["one", "two"]


def test_read_grants_are_not_watched(repo):
    watch = _protect.Watch([grant(repo, is_write=False)])
    (repo / ".envrc").write_text("the user's own")
    assert watch.planted() == []


def test_a_tree_made_too_big_to_check_counts_as_planted(repo, monkeypatch):
    monkeypatch.setattr(_protect, "MAX_ENTRIES", 30)
    watch = _protect.Watch([grant(repo)])
    for i in range(40):
        (repo / f"f{i}").write_text("")
    assert str(repo) in watch.planted()


def test_a_tree_that_was_too_big_before_is_said_to_be(repo, monkeypatch):
    monkeypatch.setattr(_protect, "MAX_ENTRIES", 3)
    watch = _protect.Watch([grant(repo)])
    assert not watch.is_complete


def test_the_error_names_what_was_planted_and_keeps_the_jobs_own():
    own = KeyError("mine")
    error, violations = _protect.planted_error(["/p/.envrc", "/p/x.pth"], own)
    assert isinstance(error, SandboxViolation)
    assert error.__cause__ is own
    assert "/p/.envrc" in str(error)
    assert [v.target for v in violations] == ["/p/.envrc", "/p/x.pth"]


def test_the_error_is_bounded():
    _, violations = _protect.planted_error([f"/p/{i}.pth" for i in range(10_000)], None)
    assert len(violations) == _protect.MAX_TOLD
