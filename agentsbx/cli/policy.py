"""`agentsbx policy check|explain|schema`: policy files, without running anything."""

from __future__ import annotations

import argparse
import json
import sys

from agentsbx.cli import complain
from agentsbx.errors import PolicyError

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Check, explain or describe policies."""
    parser = argparse.ArgumentParser(
        prog="agentsbx policy", description="Check, explain or describe policy files."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="say whether policy files are right")
    check.add_argument("policy", nargs="+", help="policy file (with / or .toml) or preset")
    explain = commands.add_parser("explain", help="say in words what a policy allows")
    explain.add_argument("policy", nargs="?", default="default")
    explain.add_argument("--toml", action="store_true", help="the whole policy, as a file")
    commands.add_parser("schema", help="print the JSON Schema of policy files, for editors")
    options = parser.parse_args(argv)
    if options.command == "check":
        return _check(options.policy)
    if options.command == "explain":
        return _explain(options.policy, as_toml=options.toml)
    from agentsbx.policy import policy_schema

    json.dump(policy_schema(), sys.stdout, indent=2)
    print()
    return 0


def _check(names: list[str]) -> int:
    from agentsbx.cli._flags import policy_of

    code = 0
    for name in names:
        try:
            policy_of({"policy": _as_file(name)})
        except (PolicyError, OSError) as error:
            complain(str(error), *getattr(error, "__notes__", ()))
            code = 1
        else:
            print(f"{name}: ok")
    return code


def _explain(name: str, *, as_toml: bool) -> int:
    from agentsbx._explain_policy import explain_policy
    from agentsbx.cli._flags import policy_of

    policy = policy_of({"policy": _as_file(name)})
    print(policy.to_toml() if as_toml else explain_policy(policy))
    return 0


def _as_file(name: str) -> str:
    """Take a name that exists as a file for one, as a shell user means it."""
    import os

    return os.path.join(".", name) if "/" not in name and os.path.isfile(name) else name
