# Types of the extension built from csrc/py, whose docstrings tell what each function does:
# functions over ints, bytes and tuples. Failed system calls raise OSError.

from typing import TypeAlias

# event (agentsbx._wire.Event), kind, body, memfd (-1: none), n_body, n_memfd
_Frame: TypeAlias = tuple[int, int, bytes, int, int, int]

# -- messages (csrc/base/wire.h) ---------------------------------------------------------------

def socketpair() -> tuple[int, int]: ...
def send(
    sock: int, message: bytes | memoryview, fds: tuple[int, ...] = ..., flags: int = ..., /
) -> None: ...
def recv(
    sock: int, max_bytes: int, max_fds: int = ..., timeout_ms: int = ..., /
) -> tuple[bytes, tuple[int, ...]] | None: ...
def close_all(*fds: int) -> None: ...

# -- frames (csrc/base/call.h) -----------------------------------------------------------------

def send_frame(
    channel: int,
    kind: int,
    body: bytes | memoryview,
    fds: tuple[int, ...] = ...,
    n_body: int = ...,
    n_memfd: int = ...,
    /,
) -> None: ...
def wait_frame(channel: int, out: int, err: int, timeout_ms: int, /) -> _Frame: ...
def drain(fd: int, /) -> bytes: ...
def exchange(
    channel: int,
    out: int,
    err: int,
    kind: int,
    body: bytes | memoryview,
    timeout_ms: int,
    /,
) -> tuple[int, int, bytes, int, int, int, bytes, bytes]: ...

# -- plans (csrc/plan) -------------------------------------------------------------------------

def check_plan(plan: bytes | memoryview, kind: int, /) -> bytes: ...
def compile_filter(rules: bytes | memoryview, default_action: int, /) -> bytes: ...

# -- zygote ------------------------------------------------------------------------------------

def zygote_serve(sock: int, /) -> tuple[int, int, int] | None: ...
def readable(fd: int, /) -> bool: ...
def cpu_wait_on(cpu: int, /) -> None: ...
def cpu_release() -> None: ...
def cpu_current() -> int: ...
def has_children() -> bool: ...
