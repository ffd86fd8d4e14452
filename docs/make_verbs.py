"""Write docs/reference/verbs.md from tests/semantics/verbs.toml: `python docs/make_verbs.py`.

The tests run every cell of that table (`tests/semantics/test_6_table.py`).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# Verbs

What each verb of a decorated function gives, by the kind of function. Every cell is run by a test.

<!-- written by docs/make_verbs.py from tests/semantics/verbs.toml -->

"""
FOOT = """
Verbs of a method take the object first: `K.method.run(k, 2)`. `fn.run` and `fn.run.aio` never raise
for the body: the [`Result`](result.md) has the error, `unwrap()` raises it.
"""


def page() -> str:
    """Return the page's text."""
    table: dict[str, Any] = tomllib.loads((ROOT / "tests/semantics/verbs.toml").read_text())
    kinds = table["kinds"]
    lines = [f"| | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for verb in table["verb"]:
        cells = [_cell(table, verb, kind) for kind in kinds]
        lines.append(f"| `{verb['shown']}` | {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n" + FOOT


def _cell(table: dict[str, Any], verb: dict[str, Any], kind: str) -> str:
    present = table["present"]
    has = present.get(verb.get("needs"), True) and (
        "generator" not in kind or present["generators"]
    )
    return table["outcome"][verb[kind]] if has else "not in this version"


if __name__ == "__main__":
    (ROOT / "docs/reference/verbs.md").write_text(page())
