"""A session that is none: its interpreter is a plain process of this machine, with no wall at all.

For tests of the conversation, and to show that what a cell tries works where nothing stops it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile

from agentsbx import _engine, _host
from agentsbx._interpreter_live import command
from agentsbx._sandbox_python import SessionPython
from agentsbx.policy import Policy
from agentsbx.result import Exit

_MOVE = (
    "import os, sys; n = int(sys.argv[1]); n == 3 or os.dup2(n, 3); os.set_inheritable(3, True); "
    "os.execve(sys.argv[2], sys.argv[2:], dict(os.environ))"
)


class PlainProgram:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def ended(self, timeout_s: float) -> Exit | None:
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return Exit(signal=-code, cause="signaled") if code < 0 else Exit(code=code)

    def close(self) -> None:
        self.kill()
        self.process.wait()


class PlainHome:
    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.cwd = os.getcwd()
        self.enforced: dict[str, str] = {}
        self.n_started = 0

    def start_python(self, channel: int, out: int, err: int) -> PlainProgram:
        self.n_started += 1
        folder = tempfile.gettempdir()
        env = _engine.job_env(self.policy) | {"HOME": folder, "TMPDIR": folder}
        words = [sys.executable, "-I", "-S", "-c", _MOVE, str(channel)]
        process = subprocess.Popen(
            [*words, *command(_host.python_layout())], stdin=subprocess.DEVNULL, stdout=out,
            stderr=err, pass_fds=(channel,), start_new_session=True, env=env,
        )  # fmt: skip
        return PlainProgram(process)


def plain_python(policy: Policy | None = None) -> SessionPython:
    return SessionPython(PlainHome(policy), output="capture")
