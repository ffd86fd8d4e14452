"""Write docs/reference/stages.md from csrc/base/stage.def: `python docs/make_stages.py`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# Stages of a set-up

When a sandbox cannot be made, the error names the step that failed: `AgentsbxError.stage`. The
steps are listed in the order in which they can happen. C reports the number;
`agentsbx.errors.Stage` has the members; a test holds the three together.

<!-- written by docs/make_stages.py from csrc/base/stage.def -->

| | stage | what failed |
|---|---|---|
"""


def page() -> str:
    """Return the page's text."""
    text = (ROOT / "csrc/base/stage.def").read_text()
    found = re.findall(r'^SBX_STAGE\(\w+, "([^"]*)", "([^"]*)"\)$', text, re.MULTILINE)
    rows = [f"| {i} | `{name}` | {what} |\n" for i, (name, what) in enumerate(found)]
    return HEAD + "".join(rows)


if __name__ == "__main__":
    (ROOT / "docs/reference/stages.md").write_text(page())
