"""`agentsbx run [flags] -- command args`: the command as if started here, but in a sandbox.

stdin, stdout and stderr are handed through as they are. The exit code is the command's, 128 + n
if signal n ended it, 124 after a timeout, 126 or 127 if it could not be started, 125 for what is
ours. The tree dies with this process, on SIGTERM and SIGHUP, and when this process's parent dies.
"""

from __future__ import annotations

import os
import signal
import sys

from agentsbx._load import load
from agentsbx.cli import OURS, UsageError, complain
from agentsbx.cli._flags import FLAG_HELP, parse_flags, policy_of, save_kept, take_keep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

    from agentsbx.policy import Policy
    from agentsbx.result import Result

__all__ = ["main"]

USAGE = f"""usage: agentsbx run [flags] [--] command [args]

Run a command in a fresh sandbox that dies with it.

{FLAG_HELP}
  --cwd PATH             working directory inside (default: the present one)
  --explain              trace the command (slower) and say everything that was denied

Exit code: the command's; 128+n: ended by signal n; 124: timeout; 126, 127: could not be started;
125: agentsbx itself failed."""


class _Ended(BaseException):
    """A signal asked us to end: unwinds through the running call, which kills its tree."""

    def __init__(self, number: int) -> None:
        self.number = number


def main(argv: list[str]) -> int:
    """Run the command; see the module."""
    parsed = parse_flags(argv, USAGE, more=("cwd",), switches=("explain",))
    if parsed is None:
        return 0
    keywords, command = parsed
    if not command:
        raise UsageError("run needs a command: agentsbx run [flags] -- command args")
    cwd = keywords.pop("cwd", None)
    explains = keywords.pop("explain", False)
    keep, folder = take_keep(keywords)
    from agentsbx._policy_found import apply

    policy = apply(policy_of(keywords)).policy
    if sys.platform != "linux":
        load("_command")  # raises: what comes next is not there
    _die_with_parent()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _on_signal)
    try:
        result = _run(command, policy, cwd, explains, keep)
    except _Ended as ended:
        _die_of(ended.number)
    except KeyboardInterrupt:
        _die_of(signal.SIGINT)
    if folder:
        save_kept(result, folder)
    return _exit_code(result, explains)


def _run(
    command: list[str], policy: Policy, cwd: str | None, explains: bool, keep: tuple[str, ...]
) -> Result:
    run_command = load("_command").run_command
    cancel = load("_job").Cancel()
    try:
        result: Result = run_command(
            command, policy=policy, cwd=cwd, stdin=0, stdout=1, stderr=2, cancel=cancel,
            explain=explains, keep=keep,
        )  # fmt: skip
    except BaseException:
        cancel.cancel()
        load("_engine").shutdown()
        raise
    return result


def _on_signal(number: int, _frame: FrameType | None) -> NoReturn:
    raise _Ended(number)


def _die_of(number: int) -> NoReturn:
    """End as the signal would have ended us, so that the caller sees it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _die_with_parent() -> None:
    """End at once when our parent ends; the supervisor then ends the tree.

    By a pidfd, not PDEATHSIG: that one fires when the *thread* that started us ends.
    """
    import _thread

    parent = os.getppid()
    if parent <= 1:
        return
    try:
        fd = os.pidfd_open(parent)
    except OSError:
        fd = -1
    if fd < 0 or os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)

    def watch() -> None:
        import select

        select.select([fd], [], [])
        os.kill(os.getpid(), signal.SIGKILL)

    _thread.start_new_thread(watch, ())


# How shells show what we killed: 128 + SIGXCPU, 128 + SIGKILL.
_KILLED = {"timeout": 124, "cpu_time": 152, "memory": 137, "output": 137, "cancelled": 130}


def _exit_code(result: Result, explains: bool) -> int:
    exit_, error = result.exit, result.error
    if result.stderr:  # not the command's, which has our stderr: it could not be started
        os.write(2, result.stderr)
    code = _KILLED.get(exit_.cause)
    if code is None and exit_.signal is not None:
        code = 128 + exit_.signal
    if code is None:
        code = exit_.code
    if code == 0 and error is None and not explains:
        return 0  # programs probe: what was denied on the way did no harm
    messages = [violation.message for violation in result.violations]
    if error is not None:
        messages.append(str(error))
    for message in dict.fromkeys(messages):
        complain(message)
    if explains and not messages:
        complain("nothing was denied")
    if explains and result.discarded:
        complain(f"left in private places and gone: {result.discarded.summary()}")
    return OURS if code is None or (code == 0 and error is not None) else code
