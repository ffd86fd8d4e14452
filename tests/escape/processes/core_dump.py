"""Crash with a core dump: a piped core_pattern runs its helper as root on the host.

Source: core(5), fs/coredump.c; security.md section 5 row "core dump to piped helper as host
root".
"""

from __future__ import annotations

NEEDS = "a core limit above 1"


def attempt(canary: dict[str, str]) -> str | None:
    import os
    import resource
    import signal
    import tempfile

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    child = os.fork()
    if child == 0:
        try:
            os.chdir(tempfile.mkdtemp())
            resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
            os.kill(os.getpid(), signal.SIGABRT)
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WCOREDUMP(status):
        return f"dumped core with a limit of {hard}"
    return f"a core limit of {hard}, which a piped core_pattern ignores" if hard != 1 else None
