"""The meet of two policies: what both allow. So a found file narrows, and never widens.

Pure functions. Grants are kept or dropped whole, or lose the right to write: a path that only the
other policy names is not made a grant of its own. It would be looked up anew at each call, and a
job that may write around it could put a link there.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from agentsbx import _policy_rules
from agentsbx._policy_keys import LIMITS
from agentsbx._units import endpoint_covers
from agentsbx.policy import Grant, Policy

__all__ = ["beyond", "narrow", "replaced"]

_PROFILES = ("strict", "python", "build")
_EXEC_LIKE = ("execve", "execveat", "fork", "vfork")


def replaced(base: Policy, said: Policy, keys: Collection[str]) -> Policy:
    """Return `base` with the values that `said` has for `keys` (`read`, `limits.memory` ...)."""
    changes = {}
    for key in keys:
        if not key.startswith("limits."):
            field = "strict_limits" if key == "strict" else key
            changes[field] = getattr(said, field)
    limits = {name: getattr(said.limits, name) for name in LIMITS if f"limits.{name}" in keys}
    new = msgspec.structs.replace(
        base, **changes, limits=msgspec.structs.replace(base.limits, **limits)
    )
    # One path in both lists: the list that was named holds.
    if "read" in keys and "write" not in keys:
        return msgspec.structs.replace(new, read=_without(new.read, base.write))
    return msgspec.structs.replace(new, read=_without(new.read, new.write))


def _without(grants: tuple[Grant, ...], others: tuple[Grant, ...]) -> tuple[Grant, ...]:
    paths = {grant.path for grant in others}
    return tuple(grant for grant in grants if grant.path not in paths)


def narrow(base: Policy, other: Policy) -> Policy:
    """Return `base` as far as `other` allows it too; `base` contains the result.

    >>> base = Policy.from_keywords(read="/srv", env=["A", "B"], timeout=10)
    >>> met = narrow(base, Policy.from_keywords(read="/srv", env="B", timeout=60))
    >>> met.env, met.limits.timeout, met.contains(base)
    (('B',), 10.0, True)
    """
    read, write = _grants(base, other)
    profile = min(base.profile, other.profile, key=_PROFILES.index)
    syscalls = tuple(name for name in base.syscalls if name in other.syscalls)
    if profile == "strict":  # it starts no program, whatever is listed besides
        syscalls = tuple(name for name in syscalls if name not in _EXEC_LIKE)
    is_error = "error" in (base.on_missing, other.on_missing)
    raises = "raise" in (base.on_violation, other.on_violation)
    return msgspec.structs.replace(
        base,
        read=read,
        write=write,
        env=tuple(entry for entry in base.env if entry in other.env),
        net=tuple(r for r in base.net if any(endpoint_covers(wide, r) for wide in other.net)),
        limits=msgspec.structs.replace(
            base.limits,
            **{k: _least(getattr(base.limits, k), getattr(other.limits, k)) for k in LIMITS},
        ),
        profile=profile,
        syscalls=syscalls,
        preload=tuple(name for name in base.preload if name in other.preload),
        packages=tuple(path for path in base.packages if path in other.packages),
        cpu_set=_cpus(base.cpu_set, other.cpu_set),
        strict_limits=base.strict_limits or other.strict_limits,
        on_missing="error" if is_error else "weaken",
        on_violation="raise" if raises else "record",
        strict_violations=base.strict_violations or other.strict_violations,
        reveal=base.reveal and other.reveal,
        fresh=base.fresh or other.fresh,
    )


def beyond(base: Policy, other: Policy) -> list[tuple[str, str]]:
    """List what `other` asks and `narrow` does not give, as (key, words)."""
    found = [
        (key if key not in LIMITS else f"limits.{key}", words)
        for key, words in _policy_rules.differences(other, base)
    ]
    more = [name for name in other.preload if name not in base.preload]
    if more:
        found.append(("preload", f"preload {', '.join(more)}"))
    if base.on_violation == "raise" and other.on_violation == "record":
        found.append(("on_violation", "recording denials instead of raising them"))
    told = {words for _, words in found}
    known = {g.path for g in (*base.read, *base.write)}
    for key in ("read", "write"):
        for grant in getattr(other, key):
            above = _policy_rules.allows(base, grant.path)
            if grant.path not in known and above != "nothing":
                words = f"{key} {grant.path} alone, which lies in a granted folder"
                if f"{key} {grant.path}" not in told:
                    found.append((key, words))
    return found


def _cpus(mine: tuple[int, ...], theirs: tuple[int, ...]) -> tuple[int, ...]:
    """CPUs in both; empty is all of them, so where none is in both, ours stay."""
    if not mine or not theirs:
        return mine or theirs
    return tuple(n for n in mine if n in theirs) or mine


def _least(mine: float, theirs: float) -> float:
    """The smaller limit; below 0 is none."""
    if mine < 0 or theirs < 0:
        return max(mine, theirs)
    return min(mine, theirs)


def _grants(base: Policy, other: Policy) -> tuple[tuple[Grant, ...], tuple[Grant, ...]]:
    read, write = [], []
    theirs = {g.path: g for g in (*other.read, *other.write)}
    for is_write, grants in ((False, base.read), (True, base.write)):
        for grant in grants:
            # What the other says of any place inside counts for the whole, but for places that
            # lie in a deeper grant of ours: that one is judged by itself.
            inside = [path for path in theirs if _deepest(base, path) == grant.path]
            levels = {_policy_rules.allows(other, path) for path in (grant.path, *inside)}
            if "nothing" in levels:
                continue
            same = theirs.get(grant.path)
            kept = Grant(
                grant.path,
                follow=grant.follow and same is not None and same.follow,
                code=grant.code and same is not None and same.code,
            )
            if is_write and levels == {"write"}:
                write.append(kept)
            else:
                read.append(msgspec.structs.replace(kept, code=False))
    return tuple(sorted(read, key=_path)), tuple(write)


def _deepest(policy: Policy, path: str) -> str:
    above = [g.path for g in (*policy.read, *policy.write) if _policy_rules.is_below(path, g.path)]
    return max(above, key=len, default="")


def _path(grant: Grant) -> str:
    return grant.path
