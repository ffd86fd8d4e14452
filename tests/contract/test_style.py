"""Habits that keep the tree readable: headers that explain, sorted exports, no host's paths."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from contract.tree import CSRC, PACKAGE, ROOT, need_checkout


def test_every_c_file_opens_with_what_it_is_for() -> None:
    need_checkout()
    wrong = []
    for path in sorted([*CSRC.rglob("*.[ch]"), *CSRC.rglob("*.def")]):
        if not re.match(rf"/\* {re.escape(path.name)} - \S", path.read_text()):
            wrong.append(str(path.relative_to(ROOT)))
    assert not wrong, f"first line is not '/* NAME - purpose': {wrong}"


def test_headers_explain_every_function_they_declare() -> None:
    """A comment stands above each declaration, or above the block of declarations it is in."""
    need_checkout()
    wrong = []
    for path in sorted(CSRC.rglob("*.h")):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if not re.match(r"^(?!static|typedef|return)[a-z][\w \*]*\bsbx_\w+\(", line):
                continue
            above = number - 1
            while above >= 0 and lines[above].strip() and not lines[above].rstrip().endswith("*/"):
                above -= 1
            if above > 0 and not lines[above].strip() and lines[above - 1].startswith("/* --"):
                continue  # a section's title speaks for the block below it
            if "/*" not in line and (above < 0 or not lines[above].strip()):
                wrong.append(f"{path.relative_to(ROOT)}:{number + 1}: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def python_files() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "data" not in p.relative_to(PACKAGE).parts)


def test_every_module_says_what_it_is_for() -> None:
    wrong = [p.name for p in python_files() if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not wrong


def in_order(name: str) -> tuple[int, str]:
    """Key of ruff's order (RUF022): CONSTANTS, Classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_exports_exist_once() -> None:
    import agentsbx

    assert len(set(agentsbx.__all__)) == len(agentsbx.__all__)
    assert not [name for name in agentsbx.__all__ if not hasattr(agentsbx, name)]


def test_every_all_is_sorted() -> None:
    wrong = []
    for path in python_files():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                names = list(ast.literal_eval(node.value))
                if names != sorted(names, key=in_order):
                    wrong.append(path.name)
    assert not wrong


def test_import_starts_nothing() -> None:
    """Neither process, thread nor probe at import (also the bar on its time is meant so)."""
    code = """
import os, sys, threading
before = set(os.listdir("/proc/self/fd"))
import agentsbx
assert threading.active_count() == 1, threading.enumerate()
assert set(os.listdir("/proc/self/fd")) == before
children = open("/proc/self/task/%d/children" % os.getpid()).read()
assert not children, children
heavy = {"numpy", "pandas", "pydantic", "asyncio", "subprocess", "ssl"} & set(sys.modules)
assert not heavy, heavy
"""
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["csrc", "agentsbx"])
def test_files_keep_to_one_duty(folder: str) -> None:
    """400 lines are the habit; 450 is where a file has taken on a second duty."""
    need_checkout()
    long = {
        str(p.relative_to(ROOT)): n
        for pattern in ("*.[ch]", "*.py")
        for p in (ROOT / folder).rglob(pattern)
        if (n := len(p.read_text().splitlines())) > 450
    }
    assert not long, long
