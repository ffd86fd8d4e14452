"""What travels beside the pickles: headers of calls and results, for both ends.

Headers of the host are pickled tuples of builtin values, since the unpickler is what each job needs
in any case: a page that a job touches is a page copied. Those of a job are bytes with counts.
"""

from __future__ import annotations

import _pickle
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_COUNT = struct.Struct("<II")
_NOTHING_ELSE = _COUNT.pack(0, 0)
MAX_BUFFERS = 4096
MAX_LOST = 4096


def pack_snapshot(setup: tuple[Any, ...], blob: bytes, lengths: list[int]) -> bytes:
    """Body of a snapshot: set-up (`_setup.Setup`), pickled function, lengths of its buffers."""
    return _pickle.dumps((tuple(setup), blob, lengths), 5)


def pack_call(
    snapshot: bytes | None, blob: bytes, lengths: list[int], kind: int, seed: int | None,
    keep: bytes | None = None,
) -> bytes:  # fmt: skip
    """Body of a CALL frame; `kind` is a `_kinds.Kind`.

    `snapshot`: its body, where the sandbox has not loaded it. `lengths`: of the snapshot's buffers
    (if any), then of the call's. `keep`: patterns of the files in private places that are sent
    back, each with its NUL; b"": those files are listed; None: they are not looked at.
    """
    return _pickle.dumps((snapshot, blob, lengths, int(kind), seed, keep), 5)


def pack_patterns(patterns: Sequence[str]) -> bytes:
    """Patterns of files, each with its NUL: `keep` of a CALL and of an EXEC frame."""
    return b"".join(os.fsencode(pattern) + b"\0" for pattern in patterns)


def pack_module(blob: bytes, lengths: list[int]) -> bytes:
    """Body of a MODULE frame."""
    return _pickle.dumps((blob, lengths), 5)


def pack_cell(number: int, setup: tuple[Any, ...] | None, code: str, name: str) -> bytes:
    """Body of a CELL frame: source text and the name that tracebacks show.

    `number`: of the request, which the answer repeats. `setup`: a `_setup.Setup`, where the
    interpreter does not have it.
    """
    return _pickle.dumps((number, setup, code, name), 5)


def pack_kept_call(
    number: int, setup: tuple[Any, ...] | None, slot: int,
    function: tuple[bytes, int, bool] | None, blob: bytes, lengths: list[int], kind: int,
) -> bytes:  # fmt: skip
    """Body of a CALL frame for a session's interpreter; `number`, `setup`: see `pack_cell`.

    `slot`: which of the functions that it was given. `function`, where it is given now: its pickle,
    how many of the buffers are its own, and whether all that was given before is given anew.
    """
    return _pickle.dumps((number, setup, slot, function, blob, lengths, int(kind)), 5)


def pack_resume(word: int, blob: bytes, lengths: list[int]) -> bytes:
    """Body of a RESUME frame: what a generator shall do, and the pickled value or exception."""
    return _pickle.dumps((word, blob, lengths), 5)


def pack_answer(blob: bytes, lengths: list[int], plain: Any) -> bytes:
    """Body of a HOST_ANSWER frame: an answer of plain data, or its pickle (`_bridge_job.HEAD`)."""
    return _pickle.dumps((blob, lengths, plain), 5)


def unpack(body: bytes | memoryview) -> Any:
    """Job: the tuple of any of these. The host never calls it (law 6)."""
    return _pickle.loads(body)


def pack_result(codec_body: bytes, lengths: list[int], lost: tuple[str, ...] = ()) -> bytes:
    """Body of a RESULT or ERROR frame.

    Count and lengths of the buffers, names of what was alive at return, codec bytes.

    >>> unpack_result(memoryview(pack_result(b"x", [5], ("thread t",))))
    (b'x', [5], ('thread t',))
    """
    if not lengths and not lost:
        return _NOTHING_ELSE + codec_body
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
