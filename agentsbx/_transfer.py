"""Bodies and big buffers in one memfd: the layout that host and job share, and its checks.

A memfd holds the body first, then each buffer at a multiple of `BUFFER_ALIGN`. What the host sends
is sealed (FUTURE_WRITE, SHRINK, GROW, SEAL) and mapped privately by the job: arrays are writable on
both sides and changes stay private (semantics 2.2). What a job sends is mapped by the host only
when it is sealed against WRITE, SHRINK and GROW: else a job could change it under the host, or
shrink it (SIGBUS).

Small enough for both ends; imports nothing of the host's machinery.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Sequence

from agentsbx._wire import BUFFER_ALIGN

MFD_NOEXEC_SEAL = 0x8
HOST_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | 0x0010  # FUTURE_WRITE
JOB_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class TooBig(ValueError):
    """More bytes than the policy allows for a result."""


def align(n: int) -> int:
    """Round up to the buffer alignment.

    >>> align(1), align(4096)
    (4096, 4096)
    """
    return (n + BUFFER_ALIGN - 1) & -BUFFER_ALIGN


def total_size(n_body: int, lengths: Sequence[int]) -> int:
    """Bytes of a memfd with that body and those buffers."""
    return align(n_body) + sum(align(n) for n in lengths)


def new_memfd(name: str) -> int:
    """A sealable memfd without exec rights (MFD_NOEXEC_SEAL where the kernel knows it, 6.3)."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | MFD_NOEXEC_SEAL)
    except OSError:
        fd = os.memfd_create(name, flags)
    if fd > 2:
        return fd
    try:  # a host without standard streams would print into it
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def write_memfd(
    name: str, body: bytes, buffers: Sequence[memoryview], seals: int
) -> tuple[int, int]:
    """A new sealed memfd; returns (fd, size). Written, not mapped: no page faults of our own."""
    fd = new_memfd(name)
    try:
        size = total_size(len(body), [b.nbytes for b in buffers])
        os.ftruncate(fd, size)
        at = 0
        for part in (memoryview(body), *buffers):
            pwrite_all(fd, part.cast("B") if part.nbytes else memoryview(b""), at)
            at += align(part.nbytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd, size


def pwrite_all(fd: int, view: memoryview, at: int) -> None:
    """Write all of it at an offset."""
    while view:
        n = os.pwrite(fd, view, at)
        view, at = view[n:], at + n


def map_private(fd: int, size: int) -> memoryview:
    """A private, writable view of a whole memfd."""
    return memoryview(mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE))


def split(
    view: memoryview, n_body: int, lengths: Sequence[int]
) -> tuple[memoryview, list[memoryview]]:
    """Body and buffers of a mapped memfd. ValueError if they do not fit it."""
    if n_body < 0 or any(n < 0 for n in lengths) or total_size(n_body, lengths) > len(view):
        raise ValueError("buffers do not fit their memfd")
    at, out = align(n_body), []
    for n in lengths:
        out.append(view[at : at + n])
        at += align(n)
    return view[:n_body], out


def map_hostile(fd: int, size: int, limit: int) -> memoryview:
    """Host: a memfd that a job made. Mapped if sealed, else ValueError.

    OSError(EMFILE, ENFILE): this process has no descriptor left, which is no fault of the job.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise ValueError("result descriptor is not a memfd") from None
    if seals & JOB_SEALS != JOB_SEALS:
        raise ValueError("result memfd is not sealed")
    st = os.fstat(fd)  # after the seals: before them a thread of the job could still shrink it
    if st.st_size != size or size > limit:
        raise TooBig(f"result memfd of {st.st_size} bytes, {size} announced, {limit} allowed")
    try:
        return map_private(fd, size)
    except (OSError, OverflowError) as e:
        if isinstance(e, OSError) and e.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise ValueError(f"result memfd cannot be mapped: {e}") from None
