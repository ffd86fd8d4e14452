"""Plain text tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Align columns; a column whose cells are all numbers goes to the right.

    >>> print(table([("a", "ms"), ("long", "1.5"), ("b", "10.0")]))
    a       ms
    long   1.5
    b     10.0
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(_is_number(cell) for cell in column[1:] if cell) for column in columns]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    return bool(text) and text.replace(".", "").replace("x", "").replace("-", "").isdigit()
