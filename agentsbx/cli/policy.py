"""`agentsbx policy`: policy files, looked at, explained and tested; only `test` runs anything."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from agentsbx.cli import UsageError, complain
from agentsbx.errors import PolicyError

if TYPE_CHECKING:
    from agentsbx._policy_found import Applied
    from agentsbx._why_table import Checked
    from agentsbx.policy import Policy

__all__ = ["main"]

_POLICY = "policy file (with / or .toml) or preset"
_FUNCTION = "module:function, whose policy is meant; with --policy only its name counts"


def main(argv: list[str]) -> int:
    """Check, explain, show, question, test or describe policies."""
    options = _parser().parse_args(argv)
    code: int = _COMMANDS[options.command](options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentsbx policy", description="Look at policies, explain and test them."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="say whether policy files are right")
    check.add_argument("policy", nargs="+", help=_POLICY)
    explain = commands.add_parser("explain", help="say in words what a policy allows")
    explain.add_argument("policy", nargs="?", default="default")
    explain.add_argument("--toml", action="store_true", help="the whole policy, as a file")
    show = commands.add_parser("show", help="print a policy as TOML, with the origin of each value")
    show.add_argument("what", nargs="?", help=f"{_POLICY}, or module:function")
    show.add_argument("--resolved", action="store_true", help="also what has its default")
    show.add_argument("--policy", help=_POLICY)
    why = commands.add_parser("why", help="say whether an operation is allowed, and by which rule")
    why.add_argument("operation", help='"open /etc/passwd", "exec git", "connect host:443" ...')
    why.add_argument("function", nargs="?", help=_FUNCTION)
    why.add_argument("--policy", help=_POLICY)
    why.add_argument("--json", action="store_true")
    test = commands.add_parser("test", help="try a table of operations in a real sandbox")
    test.add_argument("table", nargs="+", help="TOML file with [[row]] op, target, verdict")
    test.add_argument("--policy", help=_POLICY)
    test.add_argument("--json", action="store_true")
    trust = commands.add_parser("trust", help="let a found policy file widen, as it is now")
    trust.add_argument("file", nargs="*", help="agentsbx.toml or pyproject.toml")
    trust.add_argument("--list", action="store_true", help="show what is trusted")
    untrust = commands.add_parser("untrust", help="let a found policy file only narrow again")
    untrust.add_argument("file", nargs="+", help="agentsbx.toml or pyproject.toml")
    commands.add_parser("schema", help="print the JSON Schema of policy files, for editors")
    return parser


def _check(options: argparse.Namespace) -> int:
    code = 0
    for name in options.policy:
        try:
            _policy(name)
        except (PolicyError, OSError) as error:
            complain(str(error), *getattr(error, "__notes__", ()))
            code = 1
        else:
            print(f"{name}: ok")
    return code


def _explain(options: argparse.Namespace) -> int:
    from agentsbx._explain_policy import explain_policy

    policy = _policy(options.policy)
    print(policy.to_toml() if options.toml else explain_policy(policy))
    return 0


def _schema(_options: argparse.Namespace) -> int:
    from agentsbx.policy import policy_schema

    json.dump(policy_schema(), sys.stdout, indent=2)
    print()
    return 0


def _show(options: argparse.Namespace) -> int:
    from agentsbx._policy_origins import is_same, origins_of
    from agentsbx._policy_toml import show_toml

    what = options.what or "default"
    if ":" in what:
        base = _of_function(what, options.policy)
        head = f"# {what}: {base.origin or 'code'}"
        print(f"{head}, section {base.section}" if base.section else head)
    elif options.policy is not None:
        raise UsageError("show takes one policy: as the word or with --policy")
    else:
        base = _policy(what)
    is_named = options.policy is not None or (options.what is not None and ":" not in what)
    applied = _found(base, what if ":" in what else "", is_named=is_named)
    if applied.path:
        print(f"# {applied}")
    before = origins_of(base)

    def origin(section: str, key: str, item: str) -> str:
        said = before(section, key, item)
        if not applied.path or is_same(base, applied.policy, key, item):
            return said
        return f"found {applied.path}"

    print(show_toml(applied.policy, origin, everything=options.resolved), end="")
    return 0


def _found(policy: Policy, function: str, *, is_named: bool) -> Applied:
    """Apply what would be found here, unless a policy was named: then that one is shown."""
    from agentsbx._policy_found import Applied, apply

    return Applied(policy) if is_named else apply(policy, function)


def _why(options: argparse.Namespace) -> int:
    import msgspec

    from agentsbx import _why

    op, target = _why.parse(options.operation)
    if options.function is not None:
        policy = _of_function(options.function, options.policy)
    else:
        policy = _policy(options.policy or "default")
    is_named = options.policy is not None
    policy = _found(policy, options.function or "", is_named=is_named).policy
    said = _why.judge(policy, op, target)
    if options.json:
        print(json.dumps(msgspec.to_builtins(said)))
    else:
        print(f"{said.verdict}: {said.op} {said.target}".rstrip())
        rows = [("layer", said.layer), ("rule", said.rule), ("note", said.note)]
        rows.append(("smallest change", said.change))
        print("\n".join(f"  {name + ':':<16} {text}" for name, text in rows if text))
    return 0 if said.verdict != "deny" else 1


def _test(options: argparse.Namespace) -> int:
    """Exit code 0: all as expected; 1: a row differs; 2: model and sandbox disagree."""
    import msgspec

    from agentsbx._why_table import read_table, run_table

    code, shown = 0, []
    for path in options.table:
        table = read_table(path)
        name = options.policy
        if name is None and table.policy:
            name = table.policy
            if "/" in name or name.endswith(".toml"):
                name = os.path.join(os.path.dirname(os.path.abspath(path)), name)
        checked = run_table(_policy(name or "default"), table.row)
        bad = [row for row in checked if row.problem]
        worst = 2 if any(row.is_disagreement for row in bad) else bool(bad)
        code = max(code, worst)
        shown += [{"table": path, **msgspec.to_builtins(row)} for row in checked]
        if not options.json:
            print("\n".join(_row(row) for row in checked))
            print(f"{path}: {len(checked) - len(bad)} of {len(checked)} as expected")
    if options.json:
        print(json.dumps(shown, indent=2))
    return code


def _trust(options: argparse.Namespace) -> int:
    from agentsbx import _policy_trust
    from agentsbx._policy_found import NAMES, digest_of

    if bool(options.file) == options.list:
        raise UsageError("trust takes files, or --list")
    for name in options.file:
        path = _place(name)
        if os.path.basename(path) not in NAMES:
            raise UsageError(f"{name}: only {' and '.join(NAMES)} are ever found; name others")
        digest = digest_of(path)
        _policy_trust.record(path, digest)
        print(f"trusted as it is now: {path} (SHA-256 {digest[:16]}...)")
    if options.list:
        for path, digest in sorted(_policy_trust.trusted().items()):
            print(f"{_state(path, digest):<8}  {path}")
    return 0


def _state(path: str, digest: str) -> str:
    from agentsbx._policy_found import digest_of

    if not os.path.lexists(path):
        return "gone"
    try:
        return "trusted" if digest_of(path) == digest else "changed"
    except PolicyError:
        return "changed"


def _untrust(options: argparse.Namespace) -> int:
    from agentsbx import _policy_trust

    code = 0
    for name in options.file:
        path = _place(name)
        if not _policy_trust.forget(path):
            complain(f"{path} was not trusted")
            code = 1
    return code


def _place(name: str) -> str:
    """Return the path under which a file is found: folders without links."""
    folder, file = os.path.split(os.path.abspath(name))
    return os.path.join(os.path.realpath(folder), file)


def _row(row: Checked) -> str:
    head = f"{'FAILED' if row.problem else 'ok':<6}  {row.expected:<5}  {row.op} {row.target}"
    return head.rstrip() + (f"\n        {row.problem}" if row.problem else "")


def _policy(name: str) -> Policy:
    """Read a policy; a name that exists as a file is one, as a shell user means it."""
    from agentsbx.cli._flags import policy_of

    if "/" not in name and os.path.isfile(name):
        name = os.path.join(".", name)
    return policy_of({"policy": name})


def _of_function(name: str, policy: str | None) -> Policy:
    """Return the policy of a function: of its section in `policy`, else of the function itself."""
    if policy is not None:
        return _policy(policy).for_function(name)
    from agentsbx._decorator import is_wrapper
    from agentsbx.cli.call import find

    fn = find(name)
    if not is_wrapper(fn):
        raise UsageError(f"{name} is not decorated with @sandbox; --policy names a policy")
    found: Policy = fn.policy
    return found


_COMMANDS = {
    "check": _check,
    "explain": _explain,
    "schema": _schema,
    "show": _show,
    "test": _test,
    "trust": _trust,
    "untrust": _untrust,
    "why": _why,
}
