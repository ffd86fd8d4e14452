"""What a command's last words tell: programs print the path and the kernel's answer, not our rule.

Host process; reads text that the job wrote, so the most that it can do is to name a wrong path in a
hint. Only consulted when a command failed.
"""

from __future__ import annotations

import errno
import os
import re

from agentsbx import _explain, _host
from agentsbx.policy import Policy
from agentsbx.result import Violation

__all__ = ["violations"]

_TAIL = 8192
_MAX = 5
_ANSWERS = {
    os.strerror(e): e
    for e in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EAFNOSUPPORT,
              errno.ENOSPC, errno.EMFILE, errno.EAGAIN, errno.EFBIG, errno.ENETUNREACH)
}  # fmt: skip
_LINE = re.compile(
    r"(?P<before>[^\n]*?)(?P<answer>" + "|".join(map(re.escape, _ANSWERS)) + r")(?P<after>[^\n]*)"
)
# The last thing that looks like a path before the answer (cat: X: No such ...), else one behind it
# (Python: ... No such file or directory: 'X').
_PATH = re.compile(
    r"['\"\u2018`](?P<quoted>[^'\"\u2019`\n]{1,4096})['\"\u2019`]|(?P<bare>[^\s:'\"]{1,4096})(?=:|$)"
)


def violations(stderr: bytes, policy: Policy, cwd: str) -> list[Violation]:
    """Denials that the end of a command's stderr speaks of; at most five, each once.

    >>> text = b"cat: /etc/hostname-of-the-host: No such file or directory"
    >>> violations(text, Policy(), "/")
    []
    """
    text = stderr[-_TAIL:].decode("utf-8", "replace")
    found: dict[str, Violation] = {}
    for line in _LINE.finditer(text):
        number = _ANSWERS[line["answer"]]
        behind = _path(line["after"], last=False) if line["after"].startswith(": ") else None
        name = behind or _path(line["before"], last=True)
        context = _explain.Context(
            cwd=cwd, private=("/sandbox",), host_readable=lambda p: _host.is_readable(p, policy)
        )
        kind = "FileNotFoundError" if number == errno.ENOENT else "OSError"
        v = _explain.explain_oserror(
            kind, number, name, None, policy, os.path.lexists, context=context
        )
        if v is not None:
            found.setdefault(v.message, v)
    return list(found.values())[:_MAX]


def _path(text: str, *, last: bool) -> str | None:
    names = [m["quoted"] or m["bare"] for m in _PATH.finditer(text)]
    names = [n for n in names if "/" in n or "." in n or n == names[-1]]
    if not names:
        return None
    return names[-1] if last else names[0]
