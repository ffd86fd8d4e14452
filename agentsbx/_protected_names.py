"""Names of files and folders that make the host run code (design section 9): one table.

Compared casefolded in NFC. `_protect` holds them in write grants; kept files are never saved under
one of them unless the user writes that name himself.
"""

from __future__ import annotations

import unicodedata

__all__ = ["DIRS", "FILES", "GIT", "fold", "is_protected"]

FILES = frozenset(
    {".envrc", ".mcp.json", ".gitmodules", ".bashrc", ".bash_profile", ".profile", ".zshrc",
     ".zshenv", ".netrc", ".pypirc", ".pre-commit-config.yaml", "sitecustomize.py",
     "usercustomize.py", "agentsbx.toml"}
)  # fmt: skip
DIRS = frozenset({".vscode", ".idea", ".claude", ".cursor", ".husky", ".devcontainer"})
GIT = frozenset({"hooks", "config", "info", "config.worktree"})


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
