"""Sphinx settings: Markdown by MyST, warnings are errors (`./dev docs`)."""

from __future__ import annotations

project = "agentsbx"
author = "The agentsbx authors"
copyright = "The agentsbx authors"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "A fresh kernel sandbox around each call",
    "page_width": "1100px",
}
nitpicky = True
