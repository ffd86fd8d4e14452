"""docs/tutorial/ten-tools.md is true: following its messages alone turns the first script into the
last one, and each message is what that version of the script says.

A step is a `<!-- step -->` with the message below it (`...` stands for anything), then what to do:
an `sh` block, and a `diff` block whose parts are separated by `@@`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.tree import PACKAGE, ROOT, need_checkout

PAGE = ROOT / "docs/tutorial/ten-tools.md"
SCRIPT = re.compile(r"<!-- script: (\w+) -->\n```python\n(.*?)```\n", re.DOTALL)
STEP = re.compile(
    r"<!-- step -->\n```text\n(?P<said>.*?)```\n.*?(?:```sh\n(?P<shell>[^`]*)```\n\s*)?"
    r"```diff\n(?P<diff>.*?)```\n",
    re.DOTALL,
)


def change(script: str, diff: str) -> str:
    """Apply a diff without line numbers; each part must fit in exactly one place."""
    for part in diff.split("@@\n"):
        lines = part.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert script.count(old) == 1, part
        script = script.replace(old, new)
    return script


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "tools.py").write_text(script)
    env = {**os.environ, "SHOP_API_KEY": "sk-shop-12345", "PYTHONPATH": str(PACKAGE.parent)}
    argv = [sys.executable, "tools.py"]
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.needs("userns", "module:pandas", "module:pydantic")
def test_following_the_messages_is_enough(make_scratch: Callable[[str], Path]) -> None:
    need_checkout()
    page = PAGE.read_text()
    folder = make_scratch("tools")
    prepare = page.partition("```sh\n")[2].partition("```")[0].replace("python -", "$PYTHON -")
    env = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(["sh", "-ec", prepare], cwd=folder, env=env, check=True, timeout=60)
    scripts = dict(SCRIPT.findall(page))
    script = scripts["first"]
    steps = list(STEP.finditer(page))
    assert len(steps) >= 8
    for step in steps:
        done = run(folder, script)
        said = re.escape(step["said"]).replace(r"\.\.\.", ".*")
        # Whole lines, one after another; a warning shows its line of code below it.
        pattern = "^" + said.replace("\\\n", "\n(?:  .*\n)?")
        assert re.search(pattern, done.stderr, re.MULTILINE), done.stderr
        if step["shell"]:
            subprocess.run(["sh", "-ec", step["shell"]], cwd=folder, check=True, timeout=60)
        script = change(script, step["diff"])
    assert script == scripts["last"]
    done = run(folder, script)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    output = page.rpartition("```text\n")[2].partition("```")[0]
    assert done.stdout == output
