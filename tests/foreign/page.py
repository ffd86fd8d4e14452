"""The table of docs/explanation/foreign-programs.md, made from the rows: run this to write it."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from foreign.tool_rows import ROWS, Row

__all__ = ["pinned", "table"]

_BEGIN, _END = "<!-- table -->\n", "<!-- end of table -->\n"
_PAGE = Path(__file__).parents[2] / "docs/explanation/foreign-programs.md"


def pinned() -> dict[str, str]:
    """Return the packages of both lists with their versions."""
    names = ("requirements.txt", "without-dependencies.txt")
    text = "".join(Path(__file__).with_name(name).read_text() for name in names)
    return dict(line.split("==") for line in text.splitlines() if line[:1].isalpha())


def table() -> str:
    """Return the table in Markdown: a part for each package, a line for each tool."""
    versions = pinned()
    lines: list[str] = []
    for package in dict.fromkeys(row.package for row in ROWS):
        lines += [f"\n### {package} {versions[package]}\n", "| tool | rule | |", "|---|---|---|"]
        rows = [row for row in ROWS if row.package == package]
        for tool in dict.fromkeys(row.tool for row in rows):
            lines += _lines([row for row in rows if row.tool == tool])
    return _BEGIN + "\n".join(lines) + "\n\n" + _END


def _lines(rows: list[Row]) -> list[str]:
    """Return one line for each way in which the calls of a tool end."""
    shown: dict[tuple[str, str], int] = {}
    for row in rows:
        rule = ", ".join(f"`{k}={[str(v) for v in values]}`" for k, values in row.rules.items())
        rule = rule.replace("'{here}'", "here") + (f": {row.why}" if row.why else "")
        end = f"differs: {row.because}" if row.differs else "the same"
        shown[rule, end] = shown.get((rule, end), 0) + 1
    tool = rows[0].tool.replace("|", "\\|")
    return [
        f"| `{tool}` | {rule} | {end}{f' ({count} calls)' if count > 1 else ''} |"
        for (rule, end), count in shown.items()
    ]


def main() -> None:
    """Write the table into the page."""
    text = _PAGE.read_text()
    before, _, rest = text.partition(_BEGIN)
    _PAGE.write_text(before + table() + rest.partition(_END)[2])


if __name__ == "__main__":
    main()
