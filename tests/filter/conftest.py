"""Filter tests: compile with the extension, or with filter.c alone where that is not built."""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # filter_bpf, whatever the import mode is


def _bare_compiler(folder: Path) -> Callable[[bytes, int], bytes]:
    source = HERE.parents[1] / "csrc" / "plan" / "filter.c"
    library = folder / "filter.so"
    subprocess.run(
        ["cc", "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared",
         "-o", str(library), str(source)],
        check=True,
        timeout=60,
    )  # fmt: skip
    build = ctypes.CDLL(str(library)).sbx_filter_build
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]

    def compile_filter(rules: bytes, default_action: int) -> bytes:
        out, size = ctypes.c_void_p(), ctypes.c_size_t()
        err = ctypes.create_string_buffer(12)
        code = build(
            rules, ctypes.c_size_t(len(rules) // 112), ctypes.c_uint32(default_action),
            ctypes.byref(out), ctypes.byref(size), err,
        )  # fmt: skip
        if code:
            raise OSError(-code, "sbx_filter_build")
        try:
            return ctypes.string_at(out, size.value)
        finally:
            free(out)

    return compile_filter


@pytest.fixture(scope="session")
def compile_rules(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes, int], bytes]:
    """Return ``(rules, default_action) -> BPF``."""
    filter_module: Any = importlib.import_module("agentsbx._filter")
    try:
        if os.environ.get("AGENTSBX_TEST_BARE_FILTER") == "1":  # filter.c of the tree, not as built
            raise ImportError
        compiled: Callable[[bytes, int], bytes] = importlib.import_module(
            "agentsbx._core"
        ).compile_filter
    except (ImportError, AttributeError):
        compiled = _bare_compiler(tmp_path_factory.mktemp("filter"))
        filter_module._compile = compiled  # the session's build_filter uses it too
    return compiled


@pytest.fixture(autouse=True)
def _can_compile(compile_rules: Callable[[bytes, int], bytes]) -> None:
    """Every test of this folder may call build_filter."""
