"""Judging policies: what contradicts itself, what allows more.

Pure functions over `Policy`; nothing here looks at the file system.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agentsbx._units import endpoint_covers
from agentsbx.errors import PolicyError
from agentsbx.result import format_limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentsbx.policy import Policy

__all__ = ["allows", "check", "differences", "interpreter_words", "is_below", "refuse_wider"]

_PROFILES = {"strict": 0, "python": 1, "build": 2}
_LEVELS = ("nothing", "read", "write")


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies below it, by name alone.

    >>> is_below("/a/b", "/a"), is_below("/ab", "/a"), is_below("/x", "/")
    (True, False, True)
    """
    return path == folder or path.startswith(folder if folder.endswith("/") else folder + "/")


def allows(policy: Policy, path: str) -> str:
    """Return what the policy's own grants allow on `path`: "nothing", "read" or "write".

    The deepest grant above the path decides: a read grant inside a write grant takes the right to
    write away again.
    """
    return _LEVELS[_level(policy, path)]


def _level(policy: Policy, path: str) -> int:
    best, level = -1, 0
    for rank, grants in ((1, policy.read), (2, policy.write)):
        for grant in grants:
            if len(grant.path) > best and is_below(path, grant.path):
                best, level = len(grant.path), rank
    return level


def check(policy: Policy) -> None:
    """Raise `PolicyError` for a policy that contradicts itself."""
    both = {g.path for g in policy.read} & {g.path for g in policy.write}
    if both:
        path = min(both)
        raise PolicyError(
            f"{path!r} stands in read= and in write=: which is meant?",
            path="write",
            hint="write= includes reading; name it once",
        )
    if policy.strict_limits and policy.on_missing == "weaken":
        raise PolicyError(
            'strict=True contradicts on_missing="weaken": one demands every control, the other '
            "gives them up",
            path="strict",
            hint="drop one of the two",
        )
    if policy.strict_violations and policy.on_violation == "record":
        raise PolicyError(
            'strict_violations=True contradicts on_violation="record": one raises every denial, '
            "the other none",
            path="strict_violations",
            hint="drop one of the two",
        )
    if policy.profile == "strict" and policy.syscalls:
        exec_like = sorted({"execve", "execveat", "fork", "vfork"} & set(policy.syscalls))
        if exec_like:
            raise PolicyError(
                f"syscalls={exec_like} contradicts profile='strict', which starts no program",
                path="syscalls",
                hint="write profile='python'",
            )


def differences(policy: Policy, other: Policy) -> list[tuple[str, str]]:
    """List what `policy` allows that `other` denies, as (keyword, words)."""
    found: list[tuple[str, str]] = []
    found += _path_differences(policy, other)
    theirs = set(other.env)
    found += [
        ("env", f"env {entry.partition('=')[0]}") for entry in policy.env if entry not in theirs
    ]
    for rule in policy.net:
        if not any(endpoint_covers(wide, rule) for wide in other.net):
            found.append(("net", f"net {rule}"))
    for name in policy.limits.__struct_fields__:
        mine, limit = getattr(policy.limits, name), getattr(other.limits, name)
        if limit >= 0 and (mine < 0 or mine > limit):
            words = f"{name} {format_limit(name, mine)}, not {format_limit(name, limit)}"
            found.append((name, words))
    if _PROFILES[policy.profile] > _PROFILES[other.profile]:
        found.append(("profile", f"profile {policy.profile}, not {other.profile}"))
    extra = sorted(set(policy.syscalls) - set(other.syscalls))
    if extra:
        found.append(("syscalls", f"syscalls {', '.join(extra)}"))
    more_cpus = other.cpu_set and set(policy.cpu_set) - set(other.cpu_set)
    if other.cpu_set and (more_cpus or not policy.cpu_set):
        shown = ",".join(map(str, policy.cpu_set)) or "all"
        found.append(("cpu_set", f"CPUs {shown}, not {','.join(map(str, other.cpu_set))}"))
    if policy.python != other.python:
        found.append(("python", f"{interpreter_words(policy)}, not {interpreter_words(other)}"))
    more = [path for path in policy.packages if path not in other.packages]
    if more:
        found.append(("packages", f"packages {', '.join(more)}"))
    for key, mine, needed, weaker in (
        ("strict", policy.strict_limits, other.strict_limits, "limits without a cgroup"),
        ("on_missing", policy.on_missing == "error", other.on_missing == "error", "weakening"),
        (
            "strict_violations",
            policy.strict_violations,
            other.strict_violations,
            "swallowing denials",
        ),
        ("reveal", not policy.reveal, not other.reveal, "telling that hidden paths exist"),
        ("fresh", policy.fresh, other.fresh, "a shared template (fresh=False)"),
    ):
        if needed and not mine:
            found.append((key, weaker))
    return found


def interpreter_words(policy: Policy) -> str:
    """Say which interpreter runs a tool."""
    return f"the interpreter {policy.python}" if policy.python else "this program's interpreter"


def _path_differences(policy: Policy, other: Policy) -> Iterable[tuple[str, str]]:
    # What is allowed on a path changes only at granted paths, so these are all there is to compare.
    paths = {g.path for p in (policy, other) for g in (*p.read, *p.write)}
    for path in sorted(paths):
        mine, limit = _level(policy, path), _level(other, path)
        if mine > limit:
            yield _LEVELS[mine], f"{_LEVELS[mine]} {path}"
    for key, grants, theirs in (
        ("read", policy.read, (*other.read, *other.write)),
        ("write", policy.write, other.write),
    ):
        words = {grant.path: grant for grant in theirs}
        for grant in grants:
            same = words.get(grant.path)
            for word in ("follow", "code"):
                if getattr(grant, word) and not (same is not None and getattr(same, word)):
                    yield key, f"{key} {grant.path} with {word}"
                    break


def refuse_wider(new: Policy, old: Policy, *, allowed: Sequence[str]) -> None:
    """Raise `PolicyError` where `new` allows more than `old` in a keyword not in `allowed`."""
    wider = [(key, text) for key, text in differences(new, old) if key not in allowed]
    if not wider:
        return
    keys = sorted({key for key, _ in wider})
    name = os.path.basename(old.origin) or "the policy"
    listed = ", ".join(f'"{key}"' for key in keys)
    hint = "ask for no more than it allows"
    if old.origin:
        hint += f", or let the file say widen = [{listed}]"
    raise PolicyError(
        f"this allows more than {name}: {'; '.join(text for _, text in wider)}",
        path=keys[0],
        hint=hint,
    )
