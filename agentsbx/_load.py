"""Loading what runs sandboxes: late, and with words where it is not there."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["load"]

_loaded: dict[str, Any] = {}


def load(name: str) -> Any:
    """Return the module `agentsbx.<name>`, one of those that need the compiled part.

    Raises `SandboxUnavailable` that says Linux where there is no compiled part: other systems
    install and import this package, and only calls fail.
    """
    module = _loaded.get(name)
    if module is not None:
        return module
    import importlib

    if sys.platform != "linux":
        from agentsbx.errors import SandboxUnavailable

        raise SandboxUnavailable(
            f"sandboxes need Linux (kernel 5.14 or later), this is {sys.platform}; nothing was run",
            missing=["Linux"],
            hint="run it on Linux: a virtual machine, a container host or WSL 2",
        )
    try:
        importlib.import_module("agentsbx._core")
    except ImportError as error:
        from agentsbx.errors import SandboxUnavailable

        words, hint = _not_compiled(error)
        missing = ["the extension agentsbx._core"]
        raise SandboxUnavailable(words, missing=missing, hint=hint) from None
    # Not from sys.modules: another thread may be in the middle of this import.
    _loaded[name] = module = importlib.import_module(f"agentsbx.{name}")
    return module


def _not_compiled(error: ImportError) -> tuple[str, str]:
    """Say why the compiled part is not there, and what to do.

    Python started in a checkout imports the sources, whatever is installed.
    """
    import os

    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.isdir(os.path.join(root, "csrc")):
        build = "python setup.py build_ext --inplace"
        return (
            f"agentsbx was imported from its sources in {root!r}, which are not built: {error}",
            f"start Python in another folder to use the installed one, or build these: {build}",
        )
    return (
        f"agentsbx was installed without its compiled part, which needs Linux: {error}",
        "reinstall it on Linux with a C compiler: pip install --force-reinstall agentsbx",
    )
