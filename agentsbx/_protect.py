"""Protected names inside write grants: files that make the host run code (design section 9).

A write grant of a project must not let a job plant a git hook or an editor task. What exists is
mounted read-only over itself in the job, `.git` itself is pinned so that it cannot be renamed away;
what is absent at the start is found after the call by `Watch`, moved aside and reported. Names are
compared casefolded in NFC.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentsbx import _compile, _host
from agentsbx._protected_names import GIT, fold, is_protected

if TYPE_CHECKING:
    from agentsbx.result import Violation

REFUSED = ".agentsbx-refused"
_MOVED_ASIDE = re.compile(re.escape(REFUSED) + r"\d*$")
MAX_ENTRIES = 50_000
MAX_TOLD = 20


def _protected_paths(root: str) -> tuple[list[str], bool]:
    """Protected paths below a granted directory, and whether all of it was seen.

    A `.git` comes before what lies in it. At most `MAX_ENTRIES` names, nearest to the top first.
    Links are not followed.
    """
    found: list[str] = []
    folders = deque([root])
    n = 0
    while folders:
        folder = folders.popleft()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    n += 1
                    if n > MAX_ENTRIES:
                        return found, False
                    if _MOVED_ASIDE.search(entry.name):
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
    return found, True


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
        for path in _protected_paths(g.found.real)[0]:
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
        self._before: dict[str, tuple[int, int, int, str]] = {}
        self._whole: dict[str, bool] = {}
        for root in self._roots:
            paths, self._whole[root] = _protected_paths(root)
            for path in paths:
                with contextlib.suppress(OSError):
                    self._before[path] = self._identity(path)

    @property
    def is_complete(self) -> bool:
        """Whether every name was seen; else only those nearest to the top are held."""
        return all(self._whole.values())

    @staticmethod
    def _identity(path: str) -> tuple[int, int, int, str]:
        st = os.lstat(path)
        link = os.readlink(path) if stat.S_ISLNK(st.st_mode) else ""
        # The kind too: only files and directories are mounted over, and the number of a deleted
        # pipe goes to the next file that is made.
        return st.st_dev, st.st_ino, stat.S_IFMT(st.st_mode), link

    def planted(self) -> list[str]:
        """Move aside whatever appeared under a protected name; returns the paths.

        The call's own job is dead by now; a sibling with the same grant may live, so each rename
        goes by descriptors that follow no link. Renamed within its directory, never deleted. A tree
        that the job made too big to be checked counts as planted itself.
        """
        out: list[str] = []
        for root in self._roots:
            paths, is_whole = _protected_paths(root)
            if self._whole[root] and not is_whole:
                out.append(root)
            for path in reversed(paths):
                try:
                    now = self._identity(path)
                except OSError:
                    continue
                if self._before.get(path) == now:
                    continue
                if fold(os.path.basename(path)) == ".git" and _is_dir(path):
                    continue  # a new repository is fine; its hooks and config are not
                with contextlib.suppress(OSError):
                    _move_aside(root, path)
                    out.append(path)
        return out


def _move_aside(root: str, path: str) -> None:
    """Rename a path below root, entering each directory without following a link."""
    *folders, name = os.path.relpath(path, root).split("/")
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(root, flags)
    try:
        for folder in folders:
            inner = os.open(folder, flags, dir_fd=fd)
            os.close(fd)
            fd = inner
        for n in itertools.count(1):
            new = f"{name}{REFUSED}{n if n > 1 else ''}"
            try:
                os.stat(new, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(name, new, src_dir_fd=fd, dst_dir_fd=fd)
                return
    finally:
        os.close(fd)


def _is_dir(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def planted_error(
    paths: list[str], error: BaseException | None
) -> tuple[BaseException, list[Violation]]:
    """The violation of a job that touched protected names, chained to what it raised itself."""
    from agentsbx._explain_words import violation
    from agentsbx.errors import SandboxViolation

    found = [
        violation(
            "write", path, "protected name",
            f"the job created or replaced {path!r}, which would make the host run code; it was "
            "moved aside", todo="nothing in a write grant may touch that name",
        )
        for path in paths[:MAX_TOLD]
    ]  # fmt: skip
    new = SandboxViolation(violation=found[0])
    new.__cause__ = error
    return new, found
