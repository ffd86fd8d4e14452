"""What travels beside the pickles: headers of calls and results, for both ends."""

from __future__ import annotations

import struct

import msgspec

_COUNT = struct.Struct("<II")
MAX_BUFFERS = 4096
MAX_LOST = 4096


class Setup(msgspec.Struct, array_like=True, frozen=True):
    """The process that the job shall look like (semantics 4.8, 4.9)."""

    env: dict[str, str]
    argv: list[str]
    main_file: str | None
    blas_threads: int
    policy: bytes  # msgpack of the Policy, for nested calls (semantics 5.6)
    body_bytes: int  # limits of the result
    buffer_bytes: int


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


class ModuleHead(msgspec.Struct, array_like=True, frozen=True):
    """Body of a MODULE frame."""

    blob: bytes
    lengths: list[int]


encode = msgspec.msgpack.Encoder().encode
decode_snapshot = msgspec.msgpack.Decoder(SnapshotHead).decode
decode_call = msgspec.msgpack.Decoder(CallHead).decode
decode_module = msgspec.msgpack.Decoder(ModuleHead).decode


def pack_result(codec_body: bytes, lengths: list[int], lost: tuple[str, ...] = ()) -> bytes:
    """Body of a RESULT or ERROR frame.

    Count and lengths of the buffers, names of what was alive at return, codec bytes.

    >>> unpack_result(memoryview(pack_result(b"x", [5], ("thread t",))))
    (b'x', [5], ('thread t',))
    """
    names = "\0".join(lost).encode("utf-8", "replace")[:MAX_LOST]
    return b"".join((
        _COUNT.pack(len(lengths), len(names)), struct.pack(f"<{len(lengths)}Q", *lengths), names,
        codec_body,
    ))  # fmt: skip


def unpack_result(body: memoryview) -> tuple[bytes, list[int], tuple[str, ...]]:
    """Host: the same from hostile bytes. ValueError if malformed."""
    if len(body) < _COUNT.size:
        raise ValueError("result frame too short")
    n, n_names = _COUNT.unpack_from(body)
    at = _COUNT.size + 8 * n
    if n > MAX_BUFFERS or n_names > MAX_LOST or len(body) < at + n_names:
        raise ValueError("result frame with a wrong number of buffers")
    lengths = list(struct.unpack_from(f"<{n}Q", body, _COUNT.size))
    names = bytes(body[at : at + n_names]).decode("utf-8", "replace")
    lost = tuple(names.split("\0")) if names else ()
    return bytes(body[at + n_names :]), lengths, lost
