"""A policy in plain words, for `agentsbx policy explain` and `fn.explain()` (`_describe`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentsbx._policy_rules import is_below
from agentsbx.result import format_limit

if TYPE_CHECKING:
    from agentsbx.policy import Grant, Policy

__all__ = ["explain_policy"]

_PROFILES = {
    "python": "the system calls of Python and its libraries, subprocesses too",
    "strict": "the system calls of computing alone: no program or process is started",
    "build": "the system calls of compilers, package builds, git and test runs",
}
_LIMITS = {
    "timeout": "of wall-clock time",
    "cpu_time": "of CPU time, all processes together",
    "cpus": "CPUs at once",
    "memory": "of memory, all processes together",
    "processes": "processes and threads",
    "open_files": "open files per process",
    "file_size": "for the largest file",
    "disk": "of private storage",
    "inodes": "files in private storage",
    "output": "of stdout and of stderr",
    "result": "for the structure of the result",
    "buffers": "for large buffers of the result",
}


def explain_policy(policy: Policy) -> str:
    """Say in plain words what a call under this policy may do, and what happens if it does not.

    >>> from agentsbx.policy import Policy
    >>> print(explain_policy(Policy.from_keywords(read="/srv/data")).splitlines()[1])
      read      /srv/data and all below it
    """
    lines = [f"This call may ({_name(policy)}):"]
    lines += _rows("read", [_grant(g, policy) for g in policy.read])
    lines += _rows("" if policy.read else "read", _libraries(policy))
    lines += _rows("write", [_grant(g, policy) for g in policy.write])
    private = "its private $HOME and $TMPDIR, gone after the call"
    lines += _rows("" if policy.write else "write", [private])
    lines += _rows("see", [f"${name} of the host's environment" for name in policy.env_names])
    values = [f"${name} set to {value!r}" for name, value in policy.env_values.items()]
    lines += _rows("" if policy.env_names else "see", values)
    if not policy.env:
        lines += _rows("see", ["no variable of the host's environment but a safe few"])
    lines += _rows("reach", list(policy.net) or ["no network: no host, no local service"])
    lines += _rows("call", [_PROFILES[policy.profile]])
    if policy.syscalls:
        lines += _rows("", ["and " + ", ".join(policy.syscalls)])
    uses = [_limit(policy, name) for name in _LIMITS]
    lines += _rows("use", uses)
    lines.append("")
    lines += _behaviour(policy)
    return "\n".join(lines)


def _name(policy: Policy) -> str:
    extends = policy.extends if isinstance(policy.extends, str) else ""
    name = policy.origin or extends or ", ".join(policy.extends or ()) or "default"
    return f"{name}, section {policy.section}" if policy.section else name


def _libraries(policy: Policy) -> list[str]:
    if not policy.python:
        rows = ["the interpreter, the standard library and site-packages"]
    else:
        rows = [f"the interpreter {policy.python}, its standard library and site-packages"]
    return rows + [f"{path}, searched before them for packages" for path in policy.packages]


def _rows(word: str, texts: list[str]) -> list[str]:
    return [f"  {word if i == 0 else '':<8}  {text}" for i, text in enumerate(texts)]


def _grant(grant: Grant, policy: Policy) -> str:
    text = f"{grant.path} and all below it"
    inner = [g.path for g in policy.read if g.path != grant.path and is_below(g.path, grant.path)]
    if grant in policy.write and inner:
        text += f", but only read {', '.join(inner)}"
    if grant.follow:
        text += " (a link is followed)"
    if grant.code:
        text += " (holds code of the host: said explicitly)"
    return text


def _limit(policy: Policy, name: str) -> str:
    amount = getattr(policy.limits, name)
    if amount < 0:
        return f"{name}: unlimited"
    return f"{name}: {format_limit(name, amount)} {_LIMITS[name]}"


def _behaviour(policy: Policy) -> list[str]:
    lines = []
    if policy.strict_violations:
        lines.append("A denial raises SandboxViolation, also where the function swallows it.")
    elif policy.on_violation == "raise":
        lines.append("A denial that leaves the function raises SandboxViolation.")
    else:
        lines.append("A denial is recorded in Result.violations and raises nothing of ours.")
    if policy.on_missing == "error":
        lines.append("What this machine cannot enforce raises SandboxUnavailable before any code.")
    else:
        lines.append("What this machine cannot enforce is left out and recorded (on_missing).")
    if policy.strict_limits:
        lines.append("Limits must be enforced by a cgroup (strict).")
    if not policy.reveal:
        lines.append("Messages do not tell whether a hidden path or variable exists (reveal).")
    if policy.fresh:
        lines.append("Every call executes a new interpreter (fresh).")
    if policy.preload:
        lines.append(f"Imported before the call: {', '.join(policy.preload)}.")
    limits = policy.limits
    if 0 <= limits.memory < limits.disk:
        lines.append("Note: disk is larger than memory, and private storage counts as memory.")
    if policy.origin and "*" not in policy.widen:
        what = ", ".join(policy.widen) or "nothing"
        lines.append(f"Code may widen: {what}; narrow: everything.")
    return lines
