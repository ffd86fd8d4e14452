"""What travels beside the pickles: headers of calls and results, for both ends."""

from __future__ import annotations

import struct

import msgspec

_COUNT = struct.Struct("<I")
MAX_BUFFERS = 4096


class Setup(msgspec.Struct, array_like=True, frozen=True):
    """The process that the job shall look like (semantics 4.8, 4.9)."""

    env: dict[str, str]
    argv: list[str]
    main_file: str | None
    hidden_env: list[str]
    blas_threads: int
    policy: bytes  # msgpack of the Policy, for nested calls (semantics 5.6)


class SnapshotHead(msgspec.Struct, array_like=True, frozen=True):
    """Body of a snapshot memfd: set-up and the pickled function."""

    setup: Setup
    blob: bytes
    lengths: list[int]


class CallHead(msgspec.Struct, array_like=True, frozen=True):
    """Body of a CALL frame. `snapshot` is None when the waiting sandbox has loaded it already."""

    snapshot: SnapshotHead | None
    blob: bytes
    lengths: list[int]  # of the snapshot's buffers (if any), then the call's
    is_async: bool
    seed: int | None
    raises: int  # reserved: number of extra exception classes in the call blob


class ModuleHead(msgspec.Struct, array_like=True, frozen=True):
    """Body of a MODULE frame."""

    blob: bytes
    lengths: list[int]


encode = msgspec.msgpack.Encoder().encode
decode_snapshot = msgspec.msgpack.Decoder(SnapshotHead).decode
decode_call = msgspec.msgpack.Decoder(CallHead).decode
decode_module = msgspec.msgpack.Decoder(ModuleHead).decode


def pack_result(codec_body: bytes, lengths: list[int]) -> bytes:
    """Body of a RESULT or ERROR frame: count and lengths of the buffers, then codec bytes.

    >>> unpack_result(memoryview(pack_result(b"x", [5])))
    (b'x', [5])
    """
    return _COUNT.pack(len(lengths)) + struct.pack(f"<{len(lengths)}Q", *lengths) + codec_body


def unpack_result(body: memoryview) -> tuple[bytes, list[int]]:
    """Host: the same from hostile bytes. ValueError if malformed."""
    if len(body) < _COUNT.size:
        raise ValueError("result frame too short")
    (n,) = _COUNT.unpack_from(body)
    if n > MAX_BUFFERS or len(body) < _COUNT.size + 8 * n:
        raise ValueError("result frame with a wrong number of buffers")
    lengths = list(struct.unpack_from(f"<{n}Q", body, _COUNT.size))
    return bytes(body[_COUNT.size + 8 * n :]), lengths
