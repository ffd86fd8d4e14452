"""Replace what the host will run next: the interpreter, a library, a .pth file, cached byte
code.

Source: CVE-2019-5736 (runc and /proc/self/exe); security.md section 4 row "writable
/proc/self/exe ...".
"""

from __future__ import annotations

ROUTES = (
    "/proc/self/exe",
    "interpreter",
    "standard library",
    "new .pth",
    "__pycache__",
    "exe by O_PATH",
    "libc",
    "ld.so.preload",
)
NEEDS = "a user that owns the interpreter"


def attempt(canary: dict[str, str]) -> str | None:
    import errno
    import os
    import sys

    route = canary["route"]
    library = os.path.dirname(os.__file__)
    places = {
        "/proc/self/exe": "/proc/self/exe",
        "interpreter": os.path.realpath(sys.executable),
        "standard library": os.__file__,
        "new .pth": os.path.join(library, "site-packages", "agentsbx-attack.pth"),
        "__pycache__": os.path.join(library, "__pycache__", "agentsbx-attack.pyc"),
        "libc": "/lib/x86_64-linux-gnu/libc.so.6",
        "ld.so.preload": "/etc/ld.so.preload",
    }
    if route == "exe by O_PATH":
        places[route] = f"/proc/self/fd/{os.open('/proc/self/exe', os.O_PATH)}"
    try:
        if route == "exe by O_PATH":
            os.open(places[route], os.O_WRONLY)
        elif not os.path.lexists(places[route]):
            os.close(os.open(places[route], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            os.unlink(places[route])
            return f"made {places[route]}"
        else:
            os.close(os.open(places[route], os.O_WRONLY))
    except OSError as error:
        if error.errno == errno.ETXTBSY and os.access(places[route], os.W_OK):
            return f"{route} is writable once it is not running"
        raise
    return f"opened {route} for writing"
