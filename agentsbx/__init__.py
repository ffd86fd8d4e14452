"""agentsbx: one call, one single-use sandbox.

    from agentsbx import sandbox

    @sandbox(read=["data"], memory="512MB", timeout="30s")
    def summarise(path: str) -> dict: ...

    summarise("data/report.csv")  # runs in a fresh sandbox that dies with the call

Importing this package starts nothing and loads little: names are loaded at first use.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; importing `typing` would cost half of all this
if TYPE_CHECKING:
    from agentsbx._decorator import sandbox
    from agentsbx._executor import SandboxExecutor
    from agentsbx._python_result import Display, PythonResult
    from agentsbx._sandbox import Sandbox
    from agentsbx._sandbox_async import AsyncProcess, AsyncSandbox
    from agentsbx._sandbox_core import Process
    from agentsbx._session_result import ExecResult, FileInfo
    from agentsbx._verbs import configure, probe, run, shutdown, warm
    from agentsbx.errors import (
        AgentsbxError,
        JobDied,
        LimitExceeded,
        MemoryLimitExceeded,
        PolicyError,
        RemoteError,
        ResultError,
        SandboxBusy,
        SandboxTimeout,
        SandboxUnavailable,
        SandboxViolation,
        SerializationError,
    )
    from agentsbx.policy import Grant, Limits, Policy, policy_schema
    from agentsbx.result import (
        Discarded,
        Exit,
        Files,
        KeptFile,
        LeftFile,
        Limit,
        Result,
        Usage,
        Violation,
    )

__all__ = [
    "AgentsbxError",
    "AsyncProcess",
    "AsyncSandbox",
    "Discarded",
    "Display",
    "ExecResult",
    "Exit",
    "FileInfo",
    "Files",
    "Grant",
    "JobDied",
    "KeptFile",
    "LeftFile",
    "Limit",
    "LimitExceeded",
    "Limits",
    "MemoryLimitExceeded",
    "Policy",
    "PolicyError",
    "Process",
    "PythonResult",
    "RemoteError",
    "Result",
    "ResultError",
    "Sandbox",
    "SandboxBusy",
    "SandboxExecutor",
    "SandboxTimeout",
    "SandboxUnavailable",
    "SandboxViolation",
    "SerializationError",
    "Usage",
    "Violation",
    "__version__",
    "configure",
    "policy_schema",
    "probe",
    "run",
    "sandbox",
    "shutdown",
    "warm",
]

__version__ = "0.1.0"

_HOMES = {
    "agentsbx._decorator": ("sandbox",),
    "agentsbx._verbs": ("configure", "probe", "run", "shutdown", "warm"),
    "agentsbx._executor": ("SandboxExecutor",),
    "agentsbx._python_result": ("Display", "PythonResult"),
    "agentsbx._sandbox": ("Sandbox",),
    "agentsbx._sandbox_async": ("AsyncProcess", "AsyncSandbox"),
    "agentsbx._sandbox_core": ("Process",),
    "agentsbx._session_result": ("ExecResult", "FileInfo"),
    "agentsbx.errors": (
        "AgentsbxError",
        "JobDied",
        "LimitExceeded",
        "MemoryLimitExceeded",
        "PolicyError",
        "RemoteError",
        "ResultError",
        "SandboxBusy",
        "SandboxTimeout",
        "SandboxUnavailable",
        "SandboxViolation",
        "SerializationError",
    ),
    "agentsbx.policy": ("Grant", "Limits", "Policy", "policy_schema"),
    "agentsbx.result": (
        "Discarded",
        "Exit",
        "Files",
        "KeptFile",
        "LeftFile",
        "Limit",
        "Result",
        "Usage",
        "Violation",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name from its module at first use (PEP 562)."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'agentsbx' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
