"""Plant what the host's own tools run: hooks, editor tasks, shell and import configuration.

Source: CVE-2026-25725 (absent at the start), CVE-2025-59944 (case), CVE-2026-55607
(worktree), CVE-2023-37273; security.md section 4 rows "protected file absent at start",
"case-insensitive or Unicode-equal names".
"""

from __future__ import annotations

from pathlib import Path

ROUTES = (
    ".git/hooks/pre-commit",
    ".git/config",
    ".GIT/Hooks/pre-commit",
    ".envrc",
    ".mcp.json",
    ".vscode/tasks.json",
    ".idea/workspace.xml",
    ".claude/settings.json",
    ".cursor/mcp.json",
    ".husky/pre-commit",
    ".gitmodules",
    "sub/.git/hooks/pre-commit",
    "sub/.git",
    "attack.pth",
    "sub/.envrc",
    ".Envrc",
    ".Vscode/tasks.json",
    "parent renamed",
    "late symlink",
    "git moved away",
    "hard link over",
    "rename over",
    "Attack.PTH",
    "conftest-free sitecustomize.py",
)
NEEDS = {"hard link over": "", "conftest-free sitecustomize.py": ""}


def attempt(canary: dict[str, str]) -> str | None:
    import os

    route, granted = canary["route"], canary["rw"]

    def plant(name: str) -> None:
        place = os.path.join(granted, name)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w") as file:
            file.write("#!/bin/sh\nattacked\n")

    if route == "parent renamed":
        plant("other/hooks/pre-commit")
        os.rename(os.path.join(granted, ".git"), os.path.join(granted, "old"))
        os.rename(os.path.join(granted, "other"), os.path.join(granted, ".git"))
    elif route == "git moved away":
        os.rename(os.path.join(granted, ".git"), os.path.join(granted, "old"))
        plant(".git/hooks/pre-commit")
    elif route == "late symlink":
        plant("other/pre-commit")
        os.rename(os.path.join(granted, ".git/hooks"), os.path.join(granted, ".git/gone"))
        os.symlink(os.path.join(granted, "other"), os.path.join(granted, ".git/hooks"))
    elif route == "hard link over":
        plant("harmless")
        os.link(os.path.join(granted, "harmless"), os.path.join(granted, ".envrc"))
    elif route == "rename over":
        plant("harmless")
        os.rename(os.path.join(granted, "harmless"), os.path.join(granted, ".git/config"))
    elif route.startswith("conftest-free"):
        plant("attack-2.pth")
    else:
        plant(route)
    return None


def check(canary: dict[str, str]) -> str | None:
    granted = Path(canary["rw"])
    names = {
        "parent renamed": ".git/hooks/pre-commit",
        "git moved away": ".git/hooks/pre-commit",
        "late symlink": ".git/hooks/pre-commit",
        "hard link over": ".envrc",
        "rename over": ".git/config",
        "conftest-free sitecustomize.py": "attack-2.pth",
    }
    place = granted / names.get(canary["route"], canary["route"])
    if place.exists() and b"attacked" in place.read_bytes():
        return f"the host now has {place}"
    return None
