"""Push a keystroke into the controlling terminal, where the user's shell reads it afterwards.

Source: CVE-2017-5226 (bubblewrap), CVE-2023-1523 (snapd), CVE-2019-7303: a comparison on 64
bits is passed by junk in the upper half; security.md section 2 rows "TIOCSTI", "argument
compared on 64 bits".
"""

from __future__ import annotations

ROUTES = ("TIOCSTI", "TIOCSTI with junk in the upper half", "TIOCLINUX")
NEEDS = {
    "TIOCLINUX": "a Linux console",
    "TIOCSTI": "dev.tty.legacy_tiocsti",
    "TIOCSTI with junk in the upper half": "dev.tty.legacy_tiocsti",
}


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import fcntl
    import os
    import pty
    import termios

    libc = ctypes.CDLL(None, use_errno=True)

    def syscall(number: int, *words: object) -> int:
        wide = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
        result = int(libc.syscall(ctypes.c_long(number), *wide))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def number(x86_64: int, aarch64: int) -> int:
        return x86_64 if os.uname().machine == "x86_64" else aarch64

    if canary["route"] == "TIOCLINUX":
        with open("/dev/console", "rb+", buffering=0) as console:
            fcntl.ioctl(console, 0x541C, b"\x06")
            return "TIOCLINUX answered"
    _, terminal = pty.openpty()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
            request = 0x5412 + (2**32 if "junk" in canary["route"] else 0)
            syscall(number(16, 29), terminal, request, ctypes.create_string_buffer(b"x"))
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, os.strerror(abs(code)))
    return "pushed a keystroke into a terminal"
