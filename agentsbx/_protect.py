"""Protected names inside write grants: files that make the host run code (design section 9).

A write grant of a project must not let a job plant a git hook or an editor task. What exists is
mounted read-only over itself in the job, `.git` itself is pinned so that it cannot be renamed away;
what is absent at the start is found after the call by `Watch`, moved aside and reported. Names are
compared casefolded in NFC.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentsbx import _compile, _host

if TYPE_CHECKING:
    from agentsbx.result import Violation

FILES = frozenset(
    {".envrc", ".mcp.json", ".gitmodules", ".bashrc", ".bash_profile", ".profile", ".zshrc",
     ".zshenv", ".netrc", ".pypirc", ".pre-commit-config.yaml", "sitecustomize.py",
     "usercustomize.py", "agentsbx.toml"}
)  # fmt: skip
DIRS = frozenset({".vscode", ".idea", ".claude", ".cursor", ".husky", ".devcontainer"})
GIT = frozenset({"hooks", "config", "info", "config.worktree"})
REFUSED = ".agentsbx-refused"
MAX_ENTRIES = 20_000


def fold(name: str) -> str:
    """The form in which names are compared.

    >>> fold(".GIT") == fold(".git")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_protected(name: str) -> bool:
    """Whether a name directly inside a grant is protected.

    >>> is_protected(".Envrc"), is_protected("evil.pth"), is_protected("notes.txt")
    (True, True, False)
    """
    folded = fold(name)
    return folded in FILES or folded in DIRS or folded.endswith(".pth")


def _protected_paths(root: str) -> list[str]:
    """Protected paths below a granted directory: a `.git` before what lies in it.

    Bounded: `MAX_ENTRIES` names in all, nearest to the top first. Links are not followed.
    """
    found: list[str] = []
    folders = deque([root])
    n = 0
    while folders and n < MAX_ENTRIES:
        folder = folders.popleft()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    n += 1
                    if entry.name == REFUSED or entry.name.endswith(REFUSED):
                        continue
                    is_dir = entry.is_dir(follow_symlinks=False)
                    if is_protected(entry.name):
                        found.append(entry.path)
                    elif fold(entry.name) == ".git":
                        found.append(entry.path)
                        if is_dir:
                            found += _inside_git(entry.path)
                    elif is_dir:
                        folders.append(entry.path)
        except OSError:
            continue
    return found


def _inside_git(path: str) -> list[str]:
    try:
        return [os.path.join(path, name) for name in os.listdir(path) if fold(name) in GIT]
    except OSError:
        return []


def protected_mounts(grants: Iterable[_compile.Mount]) -> list[_compile.Mount]:
    """Mounts that hold what exists: read-only, or (a `.git` directory) pinned but writable."""
    out: list[_compile.Mount] = []
    for g in grants:
        if g.found.is_file:
            continue
        for path in _protected_paths(g.found.real):
            st = os.lstat(path)
            if not (stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode)):
                continue  # a link: its own name cannot be mounted over; Watch sees a change
            found = _host.Found(
                path, path, st.st_dev, st.st_ino, st.st_uid, st.st_gid, not stat.S_ISDIR(st.st_mode)
            )
            at = os.path.join(g.at, os.path.relpath(path, g.found.real))
            pinned = fold(os.path.basename(path)) == ".git" and stat.S_ISDIR(st.st_mode)
            out.append(_compile.Mount(at, found, is_write=pinned, is_protected=True))
    return out


class Watch:
    """Protected names of the write grants before a call, to compare with after it."""

    def __init__(self, grants: Iterable[_compile.Mount]) -> None:
        self._roots = [g.found.real for g in grants if g.is_write and not g.found.is_file
                       and not g.is_protected]  # fmt: skip
        self._before = {p: self._identity(p) for r in self._roots for p in _protected_paths(r)}

    @staticmethod
    def _identity(path: str) -> tuple[int, int, str]:
        st = os.lstat(path)
        link = os.readlink(path) if stat.S_ISLNK(st.st_mode) else ""
        return st.st_dev, st.st_ino, link

    def planted(self) -> list[str]:
        """Move aside whatever appeared under a protected name; returns the paths.

        The job is dead by now. Renamed within its directory, never followed, never deleted.
        """
        out: list[str] = []
        for root in self._roots:
            for path in sorted(_protected_paths(root), reverse=True):
                try:
                    now = self._identity(path)
                except OSError:
                    continue
                if self._before.get(path) == now:
                    continue
                if (
                    fold(os.path.basename(path)) == ".git"
                    and _is_dir(path)
                    and path in self._before
                ):
                    continue
                if fold(os.path.basename(path)) == ".git" and _is_dir(path):
                    continue  # a new repository is fine; its hooks and config are not
                os.rename(path, _free_name(path))
                out.append(path)
        return out


def _is_dir(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _free_name(path: str) -> str:
    name = path + REFUSED
    n = 1
    while os.path.lexists(name):
        n += 1
        name = f"{path}{REFUSED}{n}"
    return name


def planted_error(
    paths: list[str], error: BaseException | None
) -> tuple[BaseException, list[Violation]]:
    """The violation of a job that touched protected names, chained to what it raised itself."""
    from agentsbx._explain_words import violation
    from agentsbx.errors import SandboxViolation

    found = [
        violation(
            "write", path, "protected name",
            f"the job created or replaced {path!r}, which would make the host run code; it was moved "
            "aside", todo="nothing in a write grant may touch that name",
        )
        for path in paths
    ]  # fmt: skip
    new = SandboxViolation(violation=found[0])
    new.__cause__ = error
    return new, found
