"""Where each value of a policy comes from: `agentsbx policy show`, read anew from its files."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from agentsbx import _policy_read
from agentsbx._policy_keys import LIMITS
from agentsbx._policy_load import Reading
from agentsbx._policy_toml import item_names
from agentsbx.policy import Policy

__all__ = ["is_same", "origins_of"]


def origins_of(policy: Policy) -> Callable[[str, str, str], str]:
    """Return a function (section, key, item) -> file and line, preset, "code" or "default".

    `key` is `read`, `limits.memory` ...; `item` is the path, word or name in a list. The section of
    the policy itself, if it is that of one function, is meant by "".
    """
    reading = Reading(traces=True)
    if policy.origin:
        written = _policy_read.read_over(Policy(widen=()), policy.origin, reading)
    elif policy.extends:
        names = [policy.extends] if isinstance(policy.extends, str) else policy.extends
        written = _policy_read.read_mapping({"extends": list(names)}, reading=reading)
    else:
        written = Policy()

    def origin(section: str, key: str, item: str) -> str:
        name = section or policy.section
        said = _section(written, name)
        mine = _section(policy, section)
        now, then = _value(mine, key), _value(said, key)
        is_same = item in item_names(key, then) if isinstance(now, tuple) else now == then
        if not is_same:
            return "code"
        for asked in (name, ""):
            found = reading.origins.get((asked, key, item))
            if found is not None:
                return _shown(found)
        return "default"

    return origin


def is_same(old: Policy, new: Policy, key: str, item: str) -> bool:
    """Whether a value, or an item of a list, is in both."""
    before, now = _value(old, key), _value(new, key)
    if isinstance(before, tuple):
        return item in item_names(key, before)
    return before == now


def _section(policy: Policy, name: str) -> Policy:
    for section in policy.functions:
        if section.name == name:
            return section.policy
    return msgspec.structs.replace(policy, functions=())


def _value(policy: Policy, key: str) -> object:
    table, _, limit = key.partition(".")
    if table == "limits" and limit in LIMITS:
        return getattr(policy.limits, limit)
    return getattr(policy, "strict_limits" if key == "strict" else key)


def _shown(place: str) -> str:
    """Write a path below the working directory without it."""
    try:
        here = os.getcwd() + "/"
    except OSError:
        return place
    return place.removeprefix(here)
