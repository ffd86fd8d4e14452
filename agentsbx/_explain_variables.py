"""Environment variables that the host has and the policy hides, as a job's errors name them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from agentsbx._explain_words import quote, violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsbx.policy import Policy
    from agentsbx.result import Violation

__all__ = ["explain_keyerror", "explain_named_variable"]


def explain_keyerror(
    name: object, policy: Policy, host_has: Callable[[str], bool]
) -> Violation | None:
    """Explain a `KeyError` for an environment variable that the host has and the policy hides."""
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str) or not name.isidentifier():
        return None
    return _hidden_variable(name, policy, host_has)


_MAX_MESSAGE = 2000  # characters that are looked through for names
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]*\b")


def explain_named_variable(
    message: str, policy: Policy, host_has: Callable[[str], bool]
) -> Violation | None:
    """Explain an exception whose text names a variable that the host has and the policy hides.

    Libraries that miss a key say so in words of their own ("set the OPENAI_API_KEY ...").
    """
    for name in dict.fromkeys(_VARIABLE.findall(message[:_MAX_MESSAGE])):
        if found := _hidden_variable(name, policy, host_has):
            return found
    return None


def _hidden_variable(
    name: str, policy: Policy, host_has: Callable[[str], bool]
) -> Violation | None:
    if not policy.reveal:
        return None
    if name in policy.env_names or name in policy.env_values or not host_has(name):
        return None
    what = f"the environment variable {quote(name)} is set on the host, but the policy hides it"
    return violation("getenv", name, "policy", what, rule=f"env=[{name!r}]")
