"""Execute a program that never had a name in the file system, so no rule about paths applies.

Source: OpenShell#740; security.md section 2 row "memfd + fexecve".
"""

from __future__ import annotations

ROUTES = ("by /proc/self/fd", "execveat with an empty path", "not close-on-exec, asked executable")


def attempt(canary: dict[str, str]) -> str | None:
    import base64
    import ctypes
    import os

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

    program = base64.b64decode(
        "f0VMRgIBAQAAAAAAAAAAAAIAPgABAAAAeABAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAEAAOAABAAAAAAAAAAEAAAAFAAAAAAAAAAAAAAAA"
        "AEAAAAAAAAAAQAAAAAAAhAAAAAAAAACEAAAAAAAAAAAQAAAAAAAAvyoAAAC4PAAAAA8F"
    )
    if os.uname().machine != "x86_64":
        with open("/bin/true", "rb") as file:
            program = file.read()
    flags = 0x10 if "asked" in canary["route"] else 0  # MFD_EXEC
    made = syscall(number(319, 279), b"tool", flags)
    os.write(made, program)
    child = os.fork()
    if child == 0:
        try:
            if "execveat" in canary["route"]:
                nothing = (ctypes.c_char_p * 1)(None)
                syscall(number(322, 281), made, b"", nothing, nothing, 0x1000)
            else:
                # The kernel wants no writer left: a descriptor opened anew, and the old one closed.
                reading = os.open(f"/proc/self/fd/{made}", os.O_RDONLY)
                os.close(made)
                os.execv(f"/proc/self/fd/{reading}", ["tool"])
        except OSError as error:
            os._exit(100 + min(error.errno or 0, 100))
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code in (0, 42):
        return "executed a program out of a memfd"
    raise OSError(code - 100, f"exit status {code}")
