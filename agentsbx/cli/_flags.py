"""Policy keywords as flags (`--read PATH`, `--memory 512MB` ...).

Not argparse: importing it costs more than all the rest of `agentsbx run`, and what stands after
`--` or after the first plain word must be left alone.
"""

from __future__ import annotations

from agentsbx.cli import UsageError, complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agentsbx.policy import Policy
    from agentsbx.result import Result

__all__ = ["FLAG_HELP", "parse_flags", "policy_of", "save_kept", "take_keep"]

_LISTS = {
    "read": ("PATH", "file or folder that can be read"),
    "write": ("PATH", "file or folder that can be changed"),
    "env": ("NAME[=VALUE]", "variable that is granted, or set"),
    "net": ("HOST:PORT", "refused: there is no gateway yet"),
    "syscalls": ("NAME", "system call allowed besides the profile's"),
    "preload": ("MODULE", "installed module to import before the call"),
    "packages": ("PATH", "folder like site-packages for a function, searched first"),
    "keep": ("PATTERN", "files left in private places that are saved ('*.png', 'out/**')"),
}
_WORDS = {
    "memory": ("SIZE", "of the whole process tree (512MB)"),
    "timeout": ("TIME", "wall clock (30s)"),
    "cpu-time": ("TIME", "CPU time of the tree"),
    "cpus": ("N", "CPUs at once; 0.5 is half of one"),
    "cpu-set": ("LIST", "numbers of the CPUs that it runs on (0-1,4)"),
    "processes": ("N", "processes and threads together (64)"),
    "open-files": ("N", "open files per process (256)"),
    "file-size": ("SIZE", "largest file that can be written (256MB)"),
    "disk": ("SIZE", "private home and temporary folder (256MB)"),
    "inodes": ("N", "files in private storage (16384)"),
    "output": ("SIZE", "captured output, each stream (8MiB)"),
    "result": ("SIZE", "structure of the result (64MiB)"),
    "buffers": ("SIZE", "large buffers of the result (1GiB)"),
    "python": ("PATH", "interpreter or virtual environment that runs it"),
    "keep-to": ("DIR", "the folder that --keep saves in"),
    "profile": ("NAME", "python, strict or build"),
    "on-missing": ("WORD", "error, or weaken where this machine cannot enforce something"),
}
_FLAGS = {
    "strict": "demand a cgroup for memory: rlimits and polling are not enough",
    "fresh": "a new interpreter for every call",
    "strict-violations": "trace the command (slower): a denial that it swallowed is an error",
}
FLAG_HELP = "\n".join(
    [
        "  --policy P             policy file (with / or .toml) or preset",
        *(f"  {f'--{n} {m}':<22} {h}; repeatable" for n, (m, h) in _LISTS.items()),
        *(f"  {f'--{n} {m}':<22} {h}" for n, (m, h) in _WORDS.items()),
        *(f"  {f'--{n}':<22} {h}" for n, h in _FLAGS.items()),
    ]
)


def parse_flags(
    argv: list[str], usage: str, more: tuple[str, ...] = (), switches: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[str]] | None:
    """Split `argv` into keywords and the words after them; None after `--help`.

    `more` names further flags with a value, `switches` some without. Flags end at `--` or at the
    first plain word.
    """
    found: dict[str, Any] = {}
    i = 0
    while i < len(argv):
        word = argv[i]
        i += 1
        if word == "--":
            return found, argv[i:]
        if word in ("-h", "--help"):
            print(usage)
            return None
        if not word.startswith("--"):
            if word.startswith("-") and len(word) > 1:
                raise UsageError(f"unknown option {word}; flags of a command stand after --")
            return found, argv[i - 1 :]
        name, equals, value = word[2:].partition("=")
        if name in _FLAGS or name in switches:
            if equals:
                raise UsageError(f"--{name} takes no value")
            found[name.replace("-", "_")] = True
            continue
        if name not in _LISTS and name not in _WORDS and name not in ("policy", *more):
            raise UsageError(f"unknown option --{name}{_close(name, (*more, *switches))}")
        if not equals:
            if i == len(argv):
                raise UsageError(f"--{name} needs a value")
            value = argv[i]
            i += 1
        key = name.replace("-", "_")
        if name in _LISTS:
            found.setdefault(key, []).append(value)
        elif key in found:
            raise UsageError(f"--{name} is given twice")
        else:
            found[key] = value
    return found, []


def policy_of(keywords: dict[str, Any]) -> Policy:
    """Return the policy that `--policy` and the other flags name together."""
    from agentsbx.policy import Policy

    target = keywords.pop("policy", None)
    for key in ("cpus", "processes", "open_files", "inodes"):
        if key in keywords:
            keywords[key] = _number(keywords[key])
    if target is None:
        return Policy.from_keywords(**keywords)
    if "/" in target or target.endswith(".toml"):
        policy = Policy.from_file(target)
    else:
        from agentsbx.presets import preset

        policy = preset(target)
    return policy.extend(**keywords) if keywords else policy


def take_keep(keywords: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """Take `--keep` and `--keep-to` out of the flags: patterns, and the folder, made by now."""
    import os

    from agentsbx._site_keys import SITE_KEYWORDS

    patterns, folder = keywords.pop("keep", ()), keywords.pop("keep_to", "")
    if not patterns and not folder:
        return (), ""
    if not patterns or not folder:
        raise UsageError("--keep PATTERN and --keep-to DIR go together")
    checked: tuple[str, ...] = SITE_KEYWORDS["keep"]("keep", patterns)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--keep-to {folder}: {error.strerror}") from error
    return checked, folder


def save_kept(result: Result, folder: str) -> None:
    """Save what was kept; say what was not."""
    try:
        result.files.save(folder)
    except OSError as error:
        raise UsageError(f"--keep-to {folder}: {error}") from error
    for file in result.discarded or ():
        if file.why:
            complain(f"not kept: {file.shown}: {file.why}")
    if result.discarded is None:
        complain("nothing could be kept: the sandbox was killed, and its files with it")
    elif result.discarded.n_more or not result.discarded.is_complete:
        complain("not kept: more files than are looked at")


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _close(name: str, more: tuple[str, ...]) -> str:
    import difflib

    known = [*_LISTS, *_WORDS, *_FLAGS, "policy", *more]
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean --{close[0]}?" if close else ""
