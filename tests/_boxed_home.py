"""An interpreter as the one command of a sandbox: all walls, without the machinery of sessions."""

from __future__ import annotations

import os
from typing import Any

from agentsbx import _command, _core, _engine, _exits, _pythons
from agentsbx._interpreter_live import command
from agentsbx._preload import NOTHING
from agentsbx._sandbox_python import SessionPython
from agentsbx._wire import EXEC, EXITED, Cause, Frame
from agentsbx.policy import Policy
from agentsbx.result import Exit


class BoxedProgram:
    def __init__(self, rt: Any, box: Any) -> None:
        self.rt, self.box = rt, box

    def kill(self) -> None:
        self.rt.sup.kill(self.box.job_id, Cause.CANCELLED)

    def ended(self, timeout_s: float) -> Exit | None:
        record = self.rt.sup.wait_for(self.box.job_id, int(timeout_s * 1000))
        if record is None:
            return None
        _, kind, body, *_ = _core.wait_frame(self.box.channel, -1, -1, 0)
        if kind == Frame.EXITED and record.cause < Cause.TIMEOUT:
            return _exits.command_exit_code(EXITED.unpack_from(body)[0])[1]
        return Exit(cause=_exits._CAUSES[record.cause])

    def close(self) -> None:
        self.kill()
        self.box.close()


class BoxedHome:
    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.cwd = "/"
        self.enforced: dict[str, str] = {}

    def start_python(self, channel: int, out: int, err: int) -> BoxedProgram:
        rt = _engine.current()
        layout = _pythons.for_functions(self.policy)
        template = rt.pools.template(None, NOTHING, shown=layout)
        grants = rt.pools.find_grants(self.policy)
        pool = rt.pools.pool(None, self.policy, template, grants, self.cwd, 1)
        box = _engine.take(rt, pool)
        words = command(layout)
        null = "os.dup2(os.open('/dev/null', 0), 0); "
        words[5] = f"import os; os.dup2(0, 3); {null}\n{words[5]}"
        env = _command._words(_engine.job_env(self.policy))
        head = EXEC.pack(len(words), len(env), 7, 0, 0, 0, 0)
        body = head + b"\0".join([*map(os.fsencode, words), *env, b""])
        _command._send_exec(box, body, (channel, out, err))
        return BoxedProgram(rt, box)


def boxed_python(**keywords: Any) -> SessionPython:
    return SessionPython(BoxedHome(Policy.from_keywords(**keywords)), output="capture")
