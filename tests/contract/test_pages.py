"""Pages that are written by a script are what the script writes now."""

from __future__ import annotations

import importlib.util

import pytest

from contract.tree import ROOT, need_checkout

PAGES = {
    "make_benign": "reference/benign.md",
    "make_messages": "reference/messages.md",
    "make_presets": "reference/presets.md",
    "make_stages": "reference/stages.md",
    "make_verbs": "reference/verbs.md",
}


@pytest.mark.parametrize("script", sorted(PAGES))
def test_page_is_as_its_script_writes_it(script: str) -> None:
    """If this fails: `python docs/<script>.py`."""
    need_checkout()
    spec = importlib.util.spec_from_file_location(script, ROOT / f"docs/{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / PAGES[script]).read_text() == module.page()
