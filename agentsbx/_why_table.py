"""`agentsbx policy test`: a table of operations and verdicts, run in one real sandbox.

Each row is asked of the model (`_why`) too: where the two do not agree, one of them is wrong, and
the row fails whatever it expects.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

import msgspec

from agentsbx import _filter, _policy_probe, _tables
from agentsbx._decorator import sandbox
from agentsbx._policy_load import load_file
from agentsbx._policy_toml import find_line
from agentsbx._why import Verdict, judge, parse
from agentsbx.errors import PolicyError
from agentsbx.policy import Policy

__all__ = ["Checked", "Row", "Table", "read_table", "run_table"]

_PATHS = ("read", "write", "exec")
# These do not come back when they are allowed, or have an effect with whatever arguments.
_UNTRIED = frozenset(
    {"exit", "exit_group", "pause", "rt_sigreturn", "restart_syscall", "fork", "vfork", "clone",
     "clone3", "execve", "execveat", "alarm", "sync", "vhangup", "setsid", "umask", "munlockall",
     "sched_yield", "rt_sigsuspend", "brk"}
)  # fmt: skip
_IN_CHILD = ("execve", "write", "exit_group", "exit", "brk", "mmap", "munmap", "futex")


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a table: what is tried, and what shall come of it."""

    op: str
    verdict: str
    target: str = ""
    why: str = ""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table; `policy` names the preset or file (from the table's folder) that it is about."""

    row: tuple[Row, ...]
    policy: str = ""


class Checked(msgspec.Struct, frozen=True):
    """One row and its three answers; `problem` says what is wrong, "" if nothing is."""

    op: str
    target: str
    expected: str
    model: str
    sandbox: str
    errno: str
    rule: str
    problem: str

    @property
    def is_disagreement(self) -> bool:
        """Whether model and sandbox differ."""
        return self.model != "depends" and self.sandbox not in ("", self.model)


def read_table(path: str) -> Table:
    """Read a table; raises `PolicyError` with file and line."""
    path = os.path.abspath(path)
    text, data = load_file(path)
    try:
        table = msgspec.convert(data, Table)
        folder = os.path.dirname(path)
        rows = tuple(_checked_row(at, row, folder) for at, row in enumerate(table.row, 1))
    except msgspec.ValidationError as error:
        hint = 'write [[row]], op = "read", target = "/etc/passwd", verdict = "allow"'
        raise PolicyError(f"no table of verdicts: {error}", file=path, hint=hint) from None
    except PolicyError as error:
        line = find_line(text, error.path or "")
        raise PolicyError(str(error), file=path, line=line, hint=error.hint) from None
    if not rows:
        raise PolicyError("the table has no row", file=path, hint="write [[row]]")
    return msgspec.structs.replace(table, row=rows)


def _checked_row(number: int, row: Row, folder: str) -> Row:
    op, target = parse(f"{row.op} {row.target}")
    if row.verdict not in ("allow", "deny"):
        raise PolicyError(
            f"row {number}: verdict {row.verdict!r} is neither 'allow' nor 'deny'", hint=None
        )
    if op == "syscall" and (target in _UNTRIED or target in _tables.load().args):
        raise PolicyError(
            f"row {number}: the system call {target} cannot be tried by itself",
            hint="it has an effect, or its arguments decide; op = 'exec', 'fork' and 'connect' try "
            "what it is for",
        )
    if op in _PATHS and (op != "exec" or "/" in target):
        target = os.path.normpath(os.path.join(folder, os.path.expanduser(target)))
    return msgspec.structs.replace(row, op=op, target=target)


def run_table(policy: Policy, rows: Sequence[Row]) -> list[Checked]:
    """Run the rows in one sandbox of this policy and compare.

    Raises what a call raises before user code, and the error of the probing job if it dies.
    """
    model = [judge(policy, row.op, row.target) for row in rows]
    numbers = _tables.load().numbers[_filter.native_arch()]
    asked = [
        (row.op, _tried(row, said), numbers.get(row.target, 0))
        for row, said in zip(rows, model, strict=True)
    ]
    harmless = (numbers["seccomp"], *(numbers[name] for name in _IN_CHILD if name in numbers))
    # How denials are reported is no part of the wall; the probe swallows each of them.
    quiet = msgspec.structs.replace(policy, on_violation="record", strict_violations=False)
    result: Any = sandbox(quiet)(_policy_probe.probe).run(asked, harmless)
    answers = _answers(result.unwrap(), len(rows))
    return [_compare(*three) for three in zip(rows, model, answers, strict=True)]


def _tried(row: Row, said: Verdict) -> str:
    """A program without a path is looked up by the model, in the PATH of the sandbox."""
    return said.target if row.op == "exec" else row.target


def _answers(value: object, n_rows: int) -> list[tuple[str, int]]:
    """Check what the job sent: one pair for each row."""
    try:
        answers = msgspec.convert(value, list[tuple[str, int]])
    except msgspec.ValidationError as error:
        raise PolicyError(f"the probing job sent no list of verdicts: {error}") from None
    if len(answers) != n_rows or any(v not in ("allow", "deny") for v, _ in answers):
        raise PolicyError("the probing job sent another number of verdicts")
    return answers


def _compare(row: Row, said: Verdict, answer: tuple[str, int]) -> Checked:
    got, code = answer
    name = errno.errorcode.get(code, str(code)) if code else ""
    problem = ""
    if code == _policy_probe.NOT_TRIED:
        got, name, problem = "", "", "it could not be tried in this sandbox"
    elif _is_absent(row, said):
        got, name = "", ""
        problem = "it is not there on this machine, so a denial would prove nothing"
    elif said.verdict not in ("depends", got):
        problem = (
            f"model and sandbox disagree: {said.verdict} ({said.rule}), but {got}"
            + (f" with {name}" if name else "")
            + (f"; {said.note}" if said.note else "")
        )
    elif got != row.verdict:
        problem = f"{got}, not {row.verdict}: {said.layer}: {said.rule}"
        if said.change:
            problem += f"; smallest change: {said.change}"
    return Checked(
        row.op, row.target, row.verdict, said.verdict, got, name, said.rule, problem
    )  # fmt: skip


def _is_absent(row: Row, said: Verdict) -> bool:
    """Whether the host itself lacks what is named: then any sandbox denies it."""
    if said.is_private:
        return False
    if row.op == "env":
        return row.target not in os.environ
    if row.op in ("read", "exec"):
        return not os.path.lexists(said.target)
    if row.op == "write":
        return not os.path.isdir(os.path.dirname(row.target)) or (
            said.layer == "protected name" and not os.path.lexists(row.target)
        )
    return False
