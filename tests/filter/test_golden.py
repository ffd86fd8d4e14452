"""Golden verdicts: a change of a table shows as a change of these files, number by number.

Write them anew with AGENTSBX_WRITE_GOLDEN=1, then read the diff.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from filter_bpf import ALLOW, ARCH, ERRNO, KILL, NOTIFY, Meaning, decode, run

from agentsbx import _filter

PROFILES = ("python", "strict", "build")
WORDS = {ALLOW: "allow", KILL: "kill", NOTIFY: "notify"}


def word(verdict: int) -> str:
    """Return the verdict as it stands in the files."""
    return WORDS.get(verdict) or errno.errorcode[verdict - ERRNO]


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_verdicts_are_the_golden_ones(arch: str) -> None:
    meaning = Meaning(arch)
    programs = [decode(_filter.build_filter(profile, arch=arch)) for profile in PROFILES]
    lines = [
        "# number name python strict build: verdicts with a listener for arguments of all zeros;",
        "# 'args' where argument rules decide. Unlisted numbers up to 600: ENOSYS in all profiles.",
    ]
    for nr in range(601):
        name = meaning.names.get(nr)
        words = [word(run(program, nr, [0] * 6, ARCH[arch])) for program in programs]
        if name is None:
            assert words == ["ENOSYS"] * 3
            continue
        for index, profile in enumerate(PROFILES):
            allowed = meaning.group_of[name] in meaning.profiles[profile]["allow"]
            if allowed and name in meaning.args:
                words[index] = "args"
        lines.append(f"{nr} {name} {' '.join(words)}")
    golden = Path(__file__).with_name(f"{arch}.verdicts")
    if os.environ.get("AGENTSBX_WRITE_GOLDEN") == "1":
        golden.write_text("\n".join(lines) + "\n")
    assert golden.read_text().splitlines() == lines


def _arguments() -> list[list[str]]:
    text = Path(__file__).with_name("arguments.verdicts").read_text()
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("fields", _arguments(), ids="-".join)
def test_argument_verdicts_are_the_golden_ones(fields: list[str]) -> None:
    profile, name, *args, expected = fields
    for arch in ("x86_64", "aarch64"):
        nr = Meaning(arch).numbers.get(name)
        if nr is not None:
            program = decode(_filter.build_filter(profile, arch=arch))
            assert word(run(program, nr, [int(a, 0) for a in args], ARCH[arch])) == expected
