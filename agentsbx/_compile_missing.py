"""What a policy asks for and this machine cannot enforce: an error, or by the user's word noted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentsbx.errors import SandboxUnavailable

if TYPE_CHECKING:
    from agentsbx.policy import Policy

__all__ = ["missing"]

_MISSING_HINT = (
    "run where cgroups are delegated (see `agentsbx doctor`), leave {name}= out, or say "
    'on_missing="weaken"'
)
_MISSING_HINTS = {
    "processes": "start as an ordinary user (docker: --user 1000), delegate a cgroup, or say "
    'on_missing="weaken" (RLIMIT_NPROC never holds root)'
}


def missing(policy: Policy, name: str, needs: str, enforced: dict[str, str]) -> None:
    """Raise `SandboxUnavailable`, or with `on_missing="weaken"` write it into `enforced`."""
    if policy.on_missing == "error":
        raise SandboxUnavailable(
            f"`{name}=` needs {needs}, and there is none that this process may use",
            missing=[needs],
            hint=_MISSING_HINTS.get(name, _MISSING_HINT).format(name=name),
        )
    enforced[name] = "not enforced (on_missing='weaken')"
