"""The command line. Each subcommand is a module here with `main(argv) -> exit code`.

A subcommand loads only what it needs: `agentsbx run` is started once per command of an agent.
What we have to say goes to stderr as `agentsbx: ...`, our own failures exit with 125.
"""

from __future__ import annotations

import contextlib
import sys

__all__ = ["main"]

OURS = 125

_COMMANDS = {
    "run": "run a command in a fresh sandbox",
    "call": "call a Python function in a fresh sandbox: module:function args",
    "doctor": "try what this machine can enforce and say how to get the rest",
    "policy": "check, explain or describe policy files",
    "demo": "see tools at work and attacks stopped, on this machine",
    "bench": "measure what a sandboxed call costs here",
}


def _help() -> str:
    width = max(map(len, _COMMANDS))
    lines = [f"  {name.ljust(width)}  {words}" for name, words in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: agentsbx COMMAND [options]",
            "",
            "One call, one single-use sandbox.",
            "",
            *lines,
            "",
            "agentsbx COMMAND --help tells more; agentsbx --version",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: this process's) and return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help(), file=sys.stdout if words else sys.stderr)
        return 0 if words else OURS
    if words[0] in ("-V", "--version"):
        import agentsbx

        print(f"agentsbx {agentsbx.__version__}")
        return 0
    name = words[0]
    if name not in _COMMANDS:
        import difflib

        close = difflib.get_close_matches(name, _COMMANDS, n=1)
        more = f"did you mean {close[0]!r}?" if close else "agentsbx --help lists them"
        complain(f"no command {name!r}; {more}")
        return OURS
    if name == "run" and argv is None:
        _lean()
    import importlib

    module = importlib.import_module(f"agentsbx.cli.{name}")
    try:
        code: int = module.main(words[1:])
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader went away. Python would complain once more at exit.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except Exception as error:
        from agentsbx.errors import AgentsbxError

        if not isinstance(error, (AgentsbxError, UsageError)):
            raise
        complain(str(error), *getattr(error, "__notes__", ()))
        code = OURS
    if name == "run" and argv is None:
        # Nothing to clean up here: the supervisor sees this process end and ends all that is left.
        import os

        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    return code


def _lean() -> None:
    """Start up faster: this process lives for one command."""
    import gc

    gc.disable()
    # msgspec asks for it before `typing`, which has all that we use; importing it takes 8 ms.
    sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]


class UsageError(Exception):
    """A wrong command line."""


def complain(message: str, *notes: str) -> None:
    """Write one message of ours, and its notes, to stderr."""
    lines = "\n".join(f"agentsbx: {line}" for line in (message, *notes))
    print(lines, file=sys.stderr, flush=True)
