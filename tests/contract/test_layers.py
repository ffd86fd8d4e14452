"""Imports and includes go downwards only: A < B < C < D < E, L0 < L1 < L2 < L3 < L4."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.tree import CSRC, PACKAGE, need_checkout

# The same table as in docs/explanation/architecture.md. A new module is put into a layer here.
LAYERS = {
    "A": "errors policy presets result",
    "B": "_codec _compile _core _explain _filter _host _receive _ship _tables",
    "C": "_job _runtime _supervisor _worker _zygote",
    "D": "_decorator _executor _local _sandbox",
    "E": "__init__ __main__ adapters audit cli gateway jupyter pytest_plugin testing workspace",
}
# `_codec_types` is of `_codec` and shares its layer; helpers with other names are listed here.
HELPERS = {
    "A": (
        "_await _kept _kinds _policy _protected_names _python_result _remedies _session_result "
        "_site_keys _types _units"
    ),
    "B": (
        "_benign _blas _bridge_job _bridge_offers _displays _generator _header _hooks _injob "
        "_leftovers _lines _nested _plan _preload _protect _pythons _report _seeds _transfer "
        "_watch _wire"
    ),
    "C": "_arena _boxes _bridge _command _engine _exits _fast _gate _interpreter _kernel _live "
    "_mirror _notes _notices _noting _outcome _output _pools _prepare _reply _said _session "
    "_settle _setup _shortage _stream _swallowed _traced _turns",
    "D": "_calls _describe _futures _load _progress _signature _traps _verbs _why _wrappers",
}
THIRD_PARTY = {"msgspec", "cloudpickle"}

FOLDERS = {
    "base": 0, "plan": 1, "child": 2, "spawn": 3, "job": 3, "reaper": 3, "supervisor": 3,
    "gateway": 3, "py": 4,
}  # fmt: skip


def layer_of(module: str) -> str | None:
    """Return the layer of the first part of a module's name below agentsbx."""
    stem = module
    while stem.strip("_"):  # itself, or the longest listed name that it extends
        for layer, names in LAYERS.items():
            if stem in (*names.split(), *HELPERS.get(layer, "").split()):
                return layer
        stem = stem.rpartition("_")[0]
    return None


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "data" not in p.relative_to(PACKAGE).parts)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (dotted name, is_lazy or for types only) of every import in a file."""
    tree = ast.parse(path.read_text())
    package = ("agentsbx", *path.relative_to(PACKAGE).parts[:-1])
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        late = id(node) not in top
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, late
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                base = node.module or ""
            else:
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            if base == "agentsbx":
                for alias in node.names:
                    yield f"agentsbx.{alias.name}", late
            else:
                yield base, late


def test_every_module_has_a_layer() -> None:
    need_checkout()
    unknown = sorted({name_of(p) for p in modules() if layer_of(name_of(p)) is None})
    assert not unknown, f"say in tests/contract/test_layers.py which layer these are of: {unknown}"


def test_imports_go_downwards() -> None:
    """No module imports one of a higher layer; below E not even lazily."""
    need_checkout()
    wrong = []
    for path in modules():
        own = layer_of(name_of(path)) or "E"
        for name, _ in imports(path):
            parts = name.split(".")
            if parts[0] != "agentsbx" or len(parts) == 1:
                continue
            other = layer_of(parts[1])
            if other is not None and other > own:
                wrong.append(f"{path.relative_to(PACKAGE)} ({own}) imports {name} ({other})")
    assert not wrong, "\n".join(wrong)


def test_core_imports_only_stdlib_msgspec_and_cloudpickle() -> None:
    """At module level; a module for an optional package may, if it is itself loaded late."""
    need_checkout()
    core = [p for p in modules() if layer_of(name_of(p)) != "E" or name_of(p) == "__init__"]
    early = {name for path in core for name, late in imports(path) if not late}
    usual = {"agentsbx", *THIRD_PARTY, *sys.stdlib_module_names}
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in core
        for name, late in imports(path)
        if not late and name.split(".")[0] not in usual and f"agentsbx.{name_of(path)}" in early
    ]
    assert not wrong, "\n".join(wrong)


INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)


def c_includes() -> Iterator[tuple[Path, str, str]]:
    for path in sorted(CSRC.rglob("*.[ch]")):
        for kind, name in INCLUDE.findall(path.read_text()):
            yield path, kind, name


def test_c_includes_go_downwards() -> None:
    need_checkout()
    wrong = []
    for path, kind, name in c_includes():
        if kind == "<":
            continue
        target = (path.parent / name).resolve()
        if not target.is_file():
            wrong.append(f"{path.relative_to(CSRC)} includes {name}, which is not there")
            continue
        own, other = path.parent.name, target.parent.name
        if FOLDERS[other] > FOLDERS[own]:
            wrong.append(f"{path.relative_to(CSRC)} includes {other}/{target.name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("header", "allowed"),
    [("Python.h", "py/"), ("seccomp.h", "(none)")],  # filters are our own: decision 2
    ids=["Python.h", "seccomp.h"],
)
def test_header_stays_in_its_place(header: str, allowed: str) -> None:
    need_checkout()
    wrong = [
        str(path.relative_to(CSRC))
        for path, _, name in c_includes()
        if name == header and not str(path.relative_to(CSRC)).startswith(allowed)
    ]
    assert not wrong, f"{header} is included by {wrong}"


def test_child_includes_only_base_and_the_plan() -> None:
    need_checkout()
    wrong = [
        f"{path.name} includes {name}"
        for path, kind, name in c_includes()
        if kind == '"'
        and path.parent.name == "child"
        and not re.match(r"\.\./base/|\.\./plan/plan\.h$|[a-z_]+\.h$", name)
    ]
    assert not wrong, "\n".join(wrong)
