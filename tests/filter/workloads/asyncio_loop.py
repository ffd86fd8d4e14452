"""asyncio: self-pipe, subprocess, thread pool; sockets are refused as a family."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys


async def main() -> None:
    assert await asyncio.to_thread(sum, [1, 2]) == 3
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print(7)", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    assert out == b"7\n"
    assert child.returncode == 0
    left, right = socket.socketpair()
    for end in (left, right):
        end.settimeout(0)
    reader, writer = await asyncio.open_connection(sock=left)
    right.send(b"x\n")
    assert await reader.readline() == b"x\n"
    writer.close()
    await writer.wait_closed()


asyncio.run(main())
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
    try:
        socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
    else:
        raise AssertionError(family)
