"""Write docs/reference/benign.md from agentsbx/data/benign.toml: `python docs/make_benign.py`."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# Benign probes

What libc, terminals, interpreters and common libraries look for at their start, and do without.
`strict_violations=True` [does not raise](../howto/debug-a-denial.md#denials-that-were-swallowed)
for these. `*` stands for anything within one name, `**` for anything.

<!-- written by docs/make_benign.py from agentsbx/data/benign.toml -->

| | on | who looks | why it tells nothing |
|---|---|---|---|
"""


def page() -> str:
    """Return the page's text."""
    rows = tomllib.loads((ROOT / "agentsbx/data/benign.toml").read_text())["benign"]
    return HEAD + "".join(
        f"| {row['operation']} | {', '.join(f'`{t}`' for t in row['targets'])} "
        f"| {row['who']} | {row['reason']} |\n"
        for row in rows
    )


if __name__ == "__main__":
    (ROOT / "docs/reference/benign.md").write_text(page())
