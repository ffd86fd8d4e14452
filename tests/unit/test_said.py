"""What the end of a command's stderr tells about denials."""

from __future__ import annotations

import pytest

from agentsbx._said import violations
from agentsbx.policy import Policy


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (b"cat: /etc/passwd: No such file or directory\n", "/etc/passwd"),
        (b"cp: cannot stat '/etc/passwd': No such file or directory\n", "/etc/passwd"),
        (b"FileNotFoundError: [Errno 2] No such file or directory: '/etc/passwd'\n", "/etc/passwd"),
        (b"sh: 1: cannot create /srv/out.txt: Read-only file system\n", "/srv/out.txt"),
        (b"sh: 1: cannot create out.txt: Read-only file system\n", "/srv/out.txt"),
    ],
)
def test_the_path_is_found_where_programs_print_it(text: bytes, target: str) -> None:
    found = violations(text, Policy(), "/srv")
    assert [v.target for v in found] == [target]
    assert found[0].rule


def test_what_is_no_denial_of_ours_is_left_alone() -> None:
    assert violations(b"ls: /no/such/thing: No such file or directory\n", Policy(), "/") == []
    assert violations(b"all is well\n", Policy(), "/") == []


def test_hostile_text_is_bounded() -> None:
    text = b"".join(b"x: /etc/passwd%d: Read-only file system\n" % n for n in range(10_000))
    assert len(violations(text, Policy(), "/")) == 5
    assert len(violations(b"\xff:" * 100_000 + b"Permission denied", Policy(), "/")) <= 1
