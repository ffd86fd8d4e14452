"""The examples of README and tutorial run, and print what the text says they print.

An example is a fenced `python` block right below a line `<!-- example: NAME -->`; the next `text`
block is its output, in which `...` stands for anything. `<!-- example: NAME, with warnings -->` has
stderr in the output too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from contract.tree import CSRC, PACKAGE, ROOT, need_checkout

EXAMPLE = re.compile(
    r"<!-- example: (?P<name>[^,\n]+?)(?P<more>, with warnings)? -->\n```python\n(?P<code>.*?)```\n"
    r".*?```text\n(?P<output>.*?)```\n",
    re.DOTALL,
)
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]


def examples() -> list[tuple[str, str, str, str, bool]]:
    return [
        (page, m["name"], m["code"], m["output"], m["more"] is not None)
        for page in PAGES
        if (ROOT / page).is_file()
        for m in EXAMPLE.finditer((ROOT / page).read_text())
    ]


def test_no_marked_example_is_overlooked() -> None:
    need_checkout()
    marks = {p: (ROOT / p).read_text().count("<!-- example:") for p in PAGES}
    assert {p: n for p, n in marks.items() if n} == Counter(e[0] for e in examples())


@pytest.mark.parametrize(
    ("code", "output", "has_stderr"),
    [e[2:] for e in examples()],
    ids=[f"{e[0]}:{e[1]}" for e in examples()],
)
def test_example_prints_what_the_page_says(
    code: str, output: str, has_stderr: bool, tmp_path: Path
) -> None:
    need_checkout()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/report.csv").write_text("city,sales\nOslo,3\nRome,5\nOslo,4\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/key.txt").write_text("key")
    (tmp_path / "tool.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-u", "tool.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT if has_stderr else subprocess.PIPE, timeout=60,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr or done.stdout
    pattern = re.escape(output).replace(r"\.\.\.", ".*")
    shown = done.stdout.replace(f"{tmp_path}/tool.py", "tool.py")
    assert re.fullmatch(pattern, shown, re.DOTALL), shown


def test_every_listed_policy_default_is_the_real_one() -> None:
    """The tables of docs/reference/policy.md against Policy()."""
    need_checkout()
    from agentsbx.policy import Policy

    text = (ROOT / "docs/reference/policy.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE))
    policy = Policy()
    units = {"s": 1, "MB": 10**6, "MiB": 2**20, "GiB": 2**30}
    for name in type(policy.limits).__struct_fields__:
        shown, value = rows.pop(name), getattr(policy.limits, name)
        if shown == "unlimited":
            assert value == -1, name
        else:
            number, _, unit = shown.partition(" ")
            assert float(number) * units.get(unit, 1) == value, name
    fields = {**{f: f for f in type(policy).__struct_fields__}, "strict": "strict_limits"}
    for name, shown in rows.items():
        value = getattr(policy, fields[name])
        words = {"nothing": (), "this program's": "", "false": False, "true": True}
        expected = words.get(shown, shown.strip("`"))
        assert value == expected, name


def test_reference_names_every_keyword_and_flag() -> None:
    need_checkout()
    from agentsbx._policy_keys import FIELDS, LIMITS
    from agentsbx._site_keys import SITE_KEYWORDS
    from agentsbx.cli._flags import FLAG_HELP

    reference = ROOT / "docs/reference"
    policy = (reference / "policy.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)` \| [^|]+? \|", policy, re.MULTILINE))
    assert listed == {*FIELDS, *LIMITS}
    site = set(re.findall(r"^(\w+)\n: ", (reference / "python.md").read_text(), re.MULTILINE))
    assert site == {*SITE_KEYWORDS, "output"}
    flags = set(re.findall(r"--[a-z-]+", FLAG_HELP))
    assert not flags - set(re.findall(r"--[a-z-]+", (reference / "cli.md").read_text()))


def test_reference_names_everything_that_the_package_exports() -> None:
    need_checkout()
    import agentsbx

    text = "".join(p.read_text() for p in (ROOT / "docs/reference").glob("*.md"))
    missing = [n for n in agentsbx.__all__ if n[:1] != "_" and n not in text]
    assert not missing


def test_every_decision_is_listed() -> None:
    need_checkout()
    folder = ROOT / "docs/decisions"
    pages = sorted(p.stem for p in folder.glob("[0-9]*.md"))
    assert re.findall(r"^(\d{4}-\S+)$", (folder / "index.md").read_text(), re.MULTILINE) == pages


def test_architecture_names_every_module_and_c_file() -> None:
    need_checkout()
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    names = set(re.findall(r"\b_?[a-z]+(?:_[a-z]+)*\*?", page))
    families = tuple(n[:-1] for n in names if n.endswith("*"))
    missing = [
        p.stem
        for p in PACKAGE.glob("*.py")
        if p.stem not in names and not p.stem.startswith(families) and p.stem[:2] != "__"
    ]
    assert not missing
    readme = (CSRC / "README.md").read_text()
    assert not [p.name for p in CSRC.rglob("*.c") if p.stem not in readme]
