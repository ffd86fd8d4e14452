"""Verbs that are not a decorated function's: commands, warming, shutdown, probing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from agentsbx._host import Caps
    from agentsbx._types import Keywords
    from agentsbx.policy import Policy
    from agentsbx.result import Result

__all__ = ["configure", "probe", "run", "shutdown", "warm"]


def run(
    argv: Sequence[str | os.PathLike[str]],
    /,
    *,
    policy: Policy | str | os.PathLike[str] | None = None,
    input: bytes | str | int | None = None,  # noqa: A002 - the name that subprocess.run has
    cwd: str | os.PathLike[str] | None = None,
    extra_env: Mapping[str, str] | None = None,
    check: bool = False,
    explain: bool = False,
    **keywords: Unpack[Keywords],
) -> Result[int]:
    r"""Run a command in a fresh sandbox, wait, and return its `Result`; `value` is the exit code.

    `argv` is a list, never a shell line: `run(["sh", "-c", "sort | uniq -c"], input=text)`.
    `policy` and `keywords` are those of `sandbox`. `input` is what the command reads (bytes, text,
    or an open file descriptor; None: nothing). `cwd` is the working directory (default: this
    process's; it is empty in there unless granted). `extra_env` adds variables with their values.
    `explain=True` traces the command (ptrace(2)): slower, and `Result.violations` then lists every
    call that was denied, in order, also where the command swallowed the error. `keep=["*.png"]`
    brings files of private places (`$HOME`, `$TMPDIR`, `/tmp`) back as `Result.files`.

    The command's output is captured in `Result.stdout` and `Result.stderr`;
    `on_output=lambda stream, text: ...` is told of it as it comes. With `check=True` what
    stopped the command (timeout, memory ...) is raised, and so is an exit code other than 0, as
    `JobDied`.

    Raises `PolicyError`, `SandboxUnavailable`, and `TypeError` for keywords that only functions
    have (`host`, `seed` ...): before the command runs.

    >>> run(["echo", "hello"]).text  # doctest: +SKIP
    'hello\n'
    """
    from agentsbx._decorator import resolve
    from agentsbx._load import load
    from agentsbx._policy_found import apply

    if isinstance(argv, (str, bytes, os.PathLike)):
        raise TypeError(f'run() takes a list of words, for example ["sh", "-c", {argv!r}]')
    words = [os.fspath(word) for word in argv]
    if not words:
        raise ValueError("run() needs at least the name of a program")
    rules, options = resolve(policy, dict(keywords))
    for name in options.keys() - {"keep", "on_output"}:
        if (name, options[name]) != ("output", "capture"):
            raise TypeError(
                f"{name}={options[name]!r} is for decorated functions, not for a command"
            )
    data = input.encode() if isinstance(input, str) else input
    cancel = load("_job").Cancel()
    try:
        result: Result = load("_command").run_command(
            words,
            policy=apply(rules.for_function("")).policy,  # sections are for functions
            env=dict(extra_env) if extra_env else None,
            cwd=os.fspath(cwd) if cwd is not None else None,
            stdin=data,
            cancel=cancel,
            explain=explain,
            keep=options.get("keep", ()),
            on_output=options.get("on_output"),
        )
    except BaseException:
        cancel.cancel()
        raise
    if check:
        result.unwrap()
        if result.value != 0:
            from agentsbx.errors import JobDied

            tail = result.stderr[-200:].decode("utf-8", "backslashreplace").strip()
            raise JobDied(
                f"{words[0]} ended with exit code {result.value}" + (f": {tail}" if tail else ""),
                exit_code=result.exit.code,
                signal=result.exit.signal,
            )
    return result


def configure(
    *, max_concurrency: int | None = None, queue_timeout: float | str | None = None
) -> None:
    """Set how many sandboxes of this process may run at once, and how long a call waits for that.

    `max_concurrency`: default 16 for each CPU, one for each 128 MiB of memory at most.
    `queue_timeout`: seconds or `"5m"` (default); a call that found no place by then raises
    `SandboxBusy`. It does not count as `timeout=`. The environment variables
    `AGENTSBX_MAX_CONCURRENCY` and `AGENTSBX_QUEUE_TIMEOUT` (seconds) are read at the first call.
    What runs already goes on.

    Raises `PolicyError` for a wrong number.

    >>> configure(max_concurrency=8, queue_timeout="30s")
    """
    from agentsbx._gate import gate
    from agentsbx._units import parse_count, parse_duration

    places = None
    if max_concurrency is not None:
        places = parse_count("max_concurrency", max_concurrency, minimum=1)
    if queue_timeout is not None:
        gate().timeout_s = parse_duration("queue_timeout", queue_timeout)
    if places is not None:
        gate().resize(places)


def warm(*functions: Callable[..., Any], n: int = 1) -> None:
    """Start the processes behind sandboxed functions now and keep `n` sandboxes waiting for each.

    Without it the first call of a policy pays for that (some hundred milliseconds). Without
    `functions`: what the default policy needs.
    """
    from agentsbx import _calls
    from agentsbx._decorator import is_wrapper, sandbox
    from agentsbx._load import load

    if _calls.substitute is not None:
        return  # `testing.local()`: nothing will run in a sandbox
    for fn in functions or (sandbox(_nothing),):
        wrapper: Any = getattr(fn, "__func__", fn)
        if not is_wrapper(wrapper):
            raise TypeError(f"warm() takes sandboxed functions, not {fn!r}")
        load("_runtime").warm(wrapper.__agentsbx_site__.call_site(wrapper.__wrapped__), n)


def shutdown() -> None:
    """Kill every running and waiting sandbox of this process and end its supervisor.

    A later call starts them anew. At exit this happens by itself.
    """
    import sys

    engine = sys.modules.get("agentsbx._engine")
    if engine is not None:
        engine.shutdown()


def probe() -> Caps:
    """Try what this machine can enforce; `agentsbx doctor` shows it in words."""
    from agentsbx._load import load

    caps: Caps = load("_engine").probe()
    return caps


def _nothing() -> None:
    """Stand in for a function in `warm()`."""
