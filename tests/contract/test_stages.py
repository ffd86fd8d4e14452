"""One vocabulary of errors: stage.def = enum Stage = the table in the docs."""

from __future__ import annotations

import re

from agentsbx.errors import Stage
from contract.tree import CSRC, ROOT, need_checkout

STAGE = re.compile(r'^SBX_STAGE\((\w+), "([^"]*)", "([^"]*)"\)$', re.MULTILINE)
ROW = re.compile(r"^\| (\d+) \| `([a-z_]+)` \| (.+?) \|$", re.MULTILINE)


def stages() -> list[tuple[str, str, str]]:
    need_checkout()
    return STAGE.findall((CSRC / "base/stage.def").read_text())


def test_enum_has_the_stages_in_order() -> None:
    assert [(m.name, m.value) for m in Stage] == [(s[0], i) for i, s in enumerate(stages())]


def test_docs_table_has_the_stages_in_order() -> None:
    """`python docs/make_stages.py` writes the table."""
    rows = ROW.findall((ROOT / "docs/reference/stages.md").read_text())
    assert [(int(n), name, text) for n, name, text in rows] == [
        (i, s[1], s[2]) for i, s in enumerate(stages())
    ]
