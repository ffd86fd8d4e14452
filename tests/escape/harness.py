"""Runs one escape technique without a sandbox, where it must work, and in one, where it must not.

A technique is a file below this folder's sub-folders:

    attempt(canary) -> str | None   says what it got hold of; None or an OSError: it was stopped.
                                    Self-contained: shipped by value, and run as a bare program.
    check(canary) -> str | None     optional, run by the host afterwards: what it sees of a success.
    setup(canary)                   optional, run by the host before.
    ROUTES    variants of the attack; each is a test of its own and stands in canary["route"].
    LAYER     words for the throw-away layer of the unconfined run: "user" (a user namespace, only
              for an ordinary user), "mnt pid net uts ipc" (these namespaces too), "drop" (root
              becomes an unprivileged user first), "fork" (a fork of the host, not an exec).
    NEEDS     what an unconfined run may lack on some machine: text, or {route: text}. Such a
              failure is a visible skip; any other is an error, as the other half proves nothing.
    POLICY    more keywords for `sandbox(...)`.
    WALL      {route: feature}: what the wall itself needs of the machine to stop this route; where
              it is lacking, the sandboxed half is a visible skip (and the docs say so).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
UNCONFINED_S = 20.0
_CONSTANTS = {"ROUTES", "LAYER", "NEEDS", "POLICY", "WALL"}

Canary = dict[str, str]


@dataclass(frozen=True)
class Technique:
    """One file of the collection."""

    name: str
    path: Path
    attempt: Callable[[Canary], str | None]
    check: Callable[[Canary], str | None] | None
    setup: Callable[[Canary], None] | None
    routes: tuple[str, ...]
    layer: str
    needs: dict[str, str]
    policy: dict[str, Any]
    wall: dict[str, str]


@dataclass
class Outcome:
    """What one run came to."""

    success: str | None = None
    stopped_by: str | None = None
    broken: str | None = None
    elapsed_s: float = 0.0
    stdout: bytes = field(default=b"", repr=False)
    result: Any = field(default=None, repr=False)


def load(path: Path) -> Technique:
    """Import a technique's file, under a name of its own."""
    name = f"{path.parent.name}/{path.stem}"
    spec = importlib.util.spec_from_file_location(f"escape_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    unknown = {word for word in vars(module) if word.isupper() and word[0] != "_"}
    unknown -= _CONSTANTS
    assert not unknown, f"{path}: unknown constants {unknown}"
    assert "Source:" in (module.__doc__ or ""), f"{path}: name the source"
    routes = tuple(getattr(module, "ROUTES", ("",)))
    needs = getattr(module, "NEEDS", {})
    return Technique(
        name=name,
        path=path,
        attempt=module.attempt,
        check=getattr(module, "check", None),
        setup=getattr(module, "setup", None),
        routes=routes,
        layer=getattr(module, "LAYER", ""),
        needs=dict.fromkeys(routes, needs) if isinstance(needs, str) else dict(needs),
        policy=dict(getattr(module, "POLICY", {})),
        wall=dict(getattr(module, "WALL", {})),
    )


def techniques() -> list[Technique]:
    """Load the whole collection, in a fixed order."""
    return [load(path) for path in sorted(HERE.glob("*/*.py")) if not path.name.startswith("_")]


def _judge_host_side(technique: Technique, canary: Canary, outcome: Outcome) -> Outcome:
    canary["elapsed_s"] = str(outcome.elapsed_s)
    canary["stdout_bytes"] = str(len(outcome.stdout))
    if technique.check is not None:
        seen = technique.check(canary)
        if seen is not None:
            outcome.success = seen
    return outcome


def unconfined(technique: Technique, canary: Canary) -> Outcome:
    """Run the attack in a process of its own without a sandbox, in its throw-away layer."""
    if technique.setup is not None:
        technique.setup(canary)
    if "fork" in technique.layer.split():
        return _judge_host_side(technique, canary, _run_in_fork(technique, canary))
    read_fd, write_fd = os.pipe()
    os.set_inheritable(write_fd, True)  # noqa: FBT003
    argv = [
        sys.executable,
        "-I",
        str(HERE / "_unconfined.py"),
        str(technique.path),
        technique.layer,
        str(write_fd),
        json.dumps(canary),
    ]
    outcome = Outcome()
    start = time.monotonic()
    # What the host leaves open, its standard input too, is part of the attack surface.
    child = subprocess.Popen(argv, close_fds=False, stdout=subprocess.PIPE, start_new_session=True)
    os.close(write_fd)
    limit_s = float(technique.policy.get("timeout", UNCONFINED_S))
    try:
        outcome.stdout, _ = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=3)
    outcome.elapsed_s = time.monotonic() - start
    _read_answer(read_fd, outcome, child.poll())
    _judge_host_side(technique, canary, outcome)
    _end_control(canary)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()
    return outcome


def _end_control(canary: Canary) -> None:
    """Kill what an unconfined run left: daemons have sessions of their own, so look for words."""
    wanted = (str(HERE / "_unconfined.py").encode(), canary["secret"].encode())
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and all(
                word in Path(f"/proc/{entry}/cmdline").read_bytes() for word in wanted
            ):
                os.kill(int(entry), signal.SIGKILL)


def _read_answer(read_fd: int, outcome: Outcome, status: int | None) -> None:
    answer = b""
    while select.select([read_fd], [], [], 0.2)[0]:
        piece = os.read(read_fd, 65536)
        if not piece:
            break
        answer += piece
    os.close(read_fd)
    if not answer:
        outcome.stopped_by = f"died (status {status})"
        return
    told = json.loads(answer)
    outcome.success, outcome.stopped_by = told.get("success"), told.get("stopped")
    outcome.broken = told.get("broken")


def _run_in_fork(technique: Technique, canary: Canary) -> Outcome:
    read_fd, write_fd = os.pipe()
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the test's own threads
        pid = os.fork()
    if pid == 0:
        told: dict[str, str | None]
        try:
            told = {"success": technique.attempt(canary)}
        except OSError as error:
            told = {"stopped": repr(error)}
        except BaseException as error:
            told = {"broken": repr(error)}
        os.write(write_fd, json.dumps(told).encode())
        os._exit(0)
    os.close(write_fd)
    _, status = os.waitpid(pid, 0)
    outcome = Outcome(elapsed_s=time.monotonic() - start)
    _read_answer(read_fd, outcome, status)
    return outcome


def _stopping_error(error: BaseException) -> bool:
    """Return whether this is how a sandbox stops an attack, and not how a test breaks."""
    import agentsbx

    kinds = (
        OSError,
        MemoryError,
        agentsbx.JobDied,
        agentsbx.LimitExceeded,
        agentsbx.SandboxViolation,
        agentsbx.SandboxTimeout,
    )
    if isinstance(error, agentsbx.SandboxUnavailable):
        return False
    if isinstance(error, kinds):
        return True
    return isinstance(error, agentsbx.RemoteError) and error.type_name.rsplit(".", 1)[-1] in {
        "OSError",
        "PermissionError",
        "FileNotFoundError",
        "BlockingIOError",
        "ConnectionRefusedError",
        "SystemExit",
        "KeyboardInterrupt",
    }


def policy_for(technique: Technique, canary: Canary) -> dict[str, Any]:
    """Return the keywords for the sandbox: the two grants, a deadline, and the technique's own."""
    words: dict[str, Any] = {
        "read": [canary["ro"], canary["ro_tmp"]],
        "write": [canary["rw"]],
        "timeout": "20s",
    }
    own = dict(technique.policy)
    if isinstance(own.get("timeout"), (int, float)):
        own["timeout"] = f"{own['timeout']}s"
    return words | own


def _from_result(result: Any) -> Outcome:
    outcome = Outcome(stdout=result.stdout, result=result)
    error = result.error
    if error is None:
        outcome.success = result.value
        outcome.stopped_by = None if result.value else "came to nothing"
    elif _stopping_error(error):
        outcome.stopped_by = f"{type(error).__name__}: {error}"
    else:
        outcome.broken = f"{type(error).__name__}: {error}"
    return outcome


def sandboxed(technique: Technique, canary: Canary) -> Outcome:
    """Run the attack as a sandboxed function."""
    from agentsbx import sandbox

    if technique.setup is not None:
        technique.setup(canary)
    start = time.monotonic()
    result = sandbox(**policy_for(technique, canary))(technique.attempt).run(canary)
    outcome = _from_result(result)
    outcome.elapsed_s = time.monotonic() - start
    return _judge_host_side(technique, canary, outcome)


def commanded(technique: Technique, canary: Canary) -> Outcome:
    """Run the attack as a sandboxed command: the interpreter with the technique as its program."""
    import agentsbx

    if technique.setup is not None:
        technique.setup(canary)
    program = (
        f"{technique.path.read_text()}\n"
        "import json, sys\n"
        "try:\n    told = attempt(json.loads(sys.argv[1]))\n"
        "except OSError as error:\n    told = None\n"
        "print('\\nTOLD ' + json.dumps(told))\n"
    )
    start = time.monotonic()
    words = policy_for(technique, canary)
    if not sys.base_prefix.startswith("/usr"):
        words["read"] = [*words["read"], sys.base_prefix]
    python = os.path.realpath(sys.executable)
    result = agentsbx.run([python, "-I", "-c", program, json.dumps(canary)], **words)
    outcome = _from_result(result)
    outcome.elapsed_s = time.monotonic() - start
    outcome.success = None
    _, marker, told = outcome.stdout.rpartition(b"\nTOLD ")
    if marker:
        outcome.success = json.loads(told)
        outcome.stopped_by = outcome.stopped_by or "came to nothing"
    elif result.value == 128 + signal.SIGSYS:  # as a shell tells it
        outcome.stopped_by = "SIGSYS"
    elif result.exit.signal is None and result.exit.cause == "exited":
        outcome.broken = f"{result!r}: {result.stderr[-2000:]!r}"
    return _judge_host_side(technique, canary, outcome)
