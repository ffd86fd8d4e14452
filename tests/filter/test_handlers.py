"""The supervisor answers a notified call with the errno that the tables name."""

from __future__ import annotations

import re
from pathlib import Path

from filter_bpf import Meaning

HANDLERS = Path(__file__).parents[2] / "csrc" / "supervisor" / "handlers.def"


def test_supervisor_and_tables_name_the_same_errno() -> None:
    answers = dict(re.findall(r"^SBX_HANDLER\((\w+), (E\w+),", HANDLERS.read_text(), re.MULTILINE))
    meaning = Meaning("x86_64")
    for group in meaning.groups.values():
        for name in group["syscalls"] if group.get("notify") else ():
            assert answers.get(name, "EPERM") == group["errno"], name
    for name, rule in meaning.args.items():
        for case in rule["case"]:
            if case.get("notify"):
                assert answers.get(name, "EPERM") == case["then"], name
