"""A backend for matplotlib in cells: `plt.show()` shows the open figures as displays of the cell.

Loaded by matplotlib, in a session's interpreter, and by nothing else.
"""

from __future__ import annotations

from typing import Any

from matplotlib.backend_bases import FigureManagerBase as FigureManager
from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas

from agentsbx._kernel_display import figures

__all__ = ["FigureCanvas", "FigureManager", "show"]


def show(*_args: Any, **_options: Any) -> None:
    """Show and close all open figures."""
    figures()
