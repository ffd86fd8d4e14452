"""Write docs/reference/presets.md from agentsbx/data/presets/*.toml: `python docs/make_presets.py`.

A line of a preset is `key = value  # reason`; a reason is asked of each (`rows` raises otherwise).
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "agentsbx/data/presets"
HEAD = """\
# Presets

Policies that ship with the package: `@sandbox("shell")`, `agentsbx run --policy shell`,
`extends = "shell"`. Code may widen them with keywords. None grants a path, a variable or a peer:
what a tool needs of these, the code names. What a preset does not name is as in `default`, which
is also called `python`.

<!-- written by docs/make_presets.py from agentsbx/data/presets/*.toml -->
"""
LINE = re.compile(r"(?P<key>\w+) = (?P<value>[^#]+?)\s+# (?P<reason>.+)")


def rows(text: str) -> list[tuple[str, str, str]]:
    """Return (key, value, reason) of every line that sets something."""
    found = []
    for line in text.splitlines():
        if not line or line.startswith(("#", "[")):
            continue
        said = LINE.fullmatch(line)
        if said is None:
            raise ValueError(f"no reason in this line: {line}")
        found.append((said["key"], said["value"], said["reason"]))
    return found


def page() -> str:
    """Return the page's text."""
    names = sorted((p.stem for p in FOLDER.glob("*.toml")), key=lambda n: (n != "default", n))
    parts = [HEAD]
    for name in names:
        text = (FOLDER / f"{name}.toml").read_text()
        purpose = re.match(r"# (.+)\n", text)
        if purpose is None:
            raise ValueError(f"{name}: the first line says what it is for")
        parts.append(f"\n## {name}\n\n{purpose[1]}\n\n| | | why |\n|---|---|---|\n")
        parts += [f"| `{key}` | `{value}` | {why} |\n" for key, value, why in rows(text)]
    return "".join(parts)


if __name__ == "__main__":
    (ROOT / "docs/reference/presets.md").write_text(page())
