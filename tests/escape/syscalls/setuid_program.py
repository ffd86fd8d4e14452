"""Run a set-uid root program: with it come root's rights, whatever the caller was.

Source: CVE-2022-31214 (firejail); security.md section 2 row "NO_NEW_PRIVS and set-uid files".
"""

from __future__ import annotations

LAYER = "drop"
NEEDS = "root, to make a set-uid root program"


def attempt(canary: dict[str, str]) -> str | None:
    import os

    status = os.stat(os.path.join(canary["ro"], "setuid"))
    child = os.fork()
    if child == 0:
        try:
            os.execv(os.path.join(canary["ro"], "setuid"), ["setuid"])
        except OSError as error:
            os._exit(100 + (error.errno or 0))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 43:
        return f"ran as root (file owned by {status.st_uid}, mode {status.st_mode:o})"
    raise OSError(f"exit status {code}")
