"""Mutations of what the encoder writes: the host must decode or say ResultError, nothing else.

Run by pytest for a second; `AGENTSBX_FUZZ_SECONDS=600 pytest tests/fuzz/fuzz_codec.py` for longer,
`AGENTSBX_FUZZ_SEED` to repeat a run.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import msgspec
import pytest

from _codec_samples import (
    VALUES,
    Colour,
    Disk,
    Flaky,
    Mode,
    Packed,
    Pair,
    Point,
    Slotted,
    catch,
    make,
)
from agentsbx._codec import ClassTable, decode, decode_exception, encode, encode_exception
from agentsbx._codec_wire import Ref, Tag
from agentsbx.errors import ResultError

SECONDS = float(os.environ.get("AGENTSBX_FUZZ_SECONDS", "1"))
SEED = int(os.environ.get("AGENTSBX_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
ANNOTATION = Point | Packed | Pair | Colour | Mode | Slotted | Exception | Flaky | Disk
CLASSES = ClassTable.build(annotation=ANNOTATION)


def samples() -> list[tuple[bytes, list[memoryview]]]:
    """Return bodies of every kind that the encoder writes."""
    point = make(Point, x=1, y=2.0, more=[make(Point, x=3, y=4.0, more=None)])
    values: list[Any] = [v for v in VALUES if len(repr(v)) < 5000] if VALUES else []
    values += [
        point,
        {make(Point, x=1, y=0.0, more=None): 1},
        Pair(1, "x"),
        Colour.RED,
        Mode.A | Mode.B,
        make(Slotted, a=1),
    ]
    values += [[{"a": n, "b": [n]} for n in range(20)], [(n, "x") for n in range(20)]]
    values += [values[:60], {"x": values[:20]}, ValueError(1), [Flaky(1, retry=True)]]
    try:
        import numpy as np

        values += [np.arange(9), np.array(["a", "b"]), np.float64(1), np.array([None, 1], object)]
        import pandas as pd

        frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.Categorical(["u", "v"])})
        values += [frame, frame["b"], frame.set_index(["a", "b"]), pd.Timestamp("2020", tz="UTC")]
    except ImportError:
        pass
    bodies = [encode(value) for value in values]
    for code in ("1/0", "open('/x/y')", "b'\\xff'.decode()", "compile('a b', 'f', 'exec')"):
        bodies.append(encode_exception(catch(code)))
    bodies.append(encode_exception(ExceptionGroup("g", [Disk("x"), Flaky(1, retry=False)])))
    return bodies


def mutate_bytes(rng: random.Random, body: bytes) -> bytes:
    """Flip, cut, repeat or overwrite some bytes."""
    data = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data)) if data else 0
        how = rng.randrange(5)
        if how == 0 and data:
            data[at] = rng.randrange(256)
        elif how == 1 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            del data[at : at + rng.randrange(8)]
        elif how == 3:
            data[at:at] = data[at : at + rng.randrange(16)]
        else:
            data[at:at] = rng.choice(
                (b"\xdd\xff\xff\xff\xff", b"\x91\x00", b"\xc0", b"\x80", b"\xcb")
            )
    return bytes(data)


def mutate_rows(rng: random.Random, body: bytes) -> bytes:
    """Change cells, tags and references of a table, keeping it well-formed msgpack."""
    if body[:1] != b"\x01":
        return mutate_bytes(rng, body)
    rows, blobs = msgspec.msgpack.decode(body[1:])
    odd = [None, True, 0, -1, 1 << 63, 1.5, "", "__class__", "x" * 300, [0], [1], [-1], [1 << 40]]
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rng.choice(rows)
        how = rng.randrange(6)
        if how == 0 and row:
            row[0] = int(rng.choice(list(Tag)))
        elif how == 1 and row:
            row[rng.randrange(len(row))] = rng.choice(odd)
        elif how == 2 and row:
            del row[rng.randrange(len(row))]
        elif how == 3:
            row.insert(rng.randint(0, len(row)), [rng.randint(-len(blobs), len(rows))])
        elif how == 4:
            rows.insert(rng.randint(0, len(rows)), list(row))
        elif blobs:
            at = rng.randrange(len(blobs))
            blobs[at] = mutate_bytes(rng, blobs[at])
    return b"\x01" + msgspec.msgpack.encode([rows, blobs])


@pytest.mark.parametrize("mutate", [mutate_bytes, mutate_rows])
def test_mutated_results_decode_or_are_refused(mutate: Any) -> None:
    rng = random.Random(SEED)
    bodies = samples()
    until = time.monotonic() + SECONDS
    runs = 0
    while time.monotonic() < until:
        body, buffers = rng.choice(bodies)
        changed = mutate(rng, body)
        copies = [memoryview(bytearray(view)) for view in buffers]
        for read in (decode, decode_exception):
            started = time.monotonic()
            try:
                made = read(changed, copies, classes=CLASSES)
                repr(made)
            except ResultError:
                pass
            except RecursionError:
                pass  # from repr
            except Exception as error:
                if not _from_repr(error):
                    raise AssertionError(f"seed {SEED}: {changed[:300]!r}") from error
            assert time.monotonic() - started < 5, f"seed {SEED}: slow: {changed[:300]!r}"
        runs += 1
    assert runs


def _from_repr(error: Exception) -> bool:
    """Whether showing the value failed, not making it: an empty slot has no repr."""
    frame = error.__traceback__
    assert frame is not None
    return frame.tb_next is None or "_codec" not in frame.tb_next.tb_frame.f_code.co_filename


def test_encoded_references_survive() -> None:
    assert msgspec.msgpack.encode(Ref(3)) == b"\x91\x03"
