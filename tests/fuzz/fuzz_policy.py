"""Policy files as a job could have planted them: a policy or `PolicyError`, soon, and nothing else.

The corpus is `corpus/policy`; `AGENTSBX_FUZZ_SECONDS`, `AGENTSBX_FUZZ_SEED` as in fuzz_codec.py.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from pathlib import Path

import msgspec
import pytest

from agentsbx.errors import PolicyError
from agentsbx.policy import Policy

SECONDS = float(os.environ.get("AGENTSBX_FUZZ_SECONDS", "1"))
SEED = int(os.environ.get("AGENTSBX_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
CORPUS = Path(__file__).parent / "corpus" / "policy"
PIECES = (
    '"', "'", '"""', "[", "]", "[[", "=", "\n", ".", " ", "\t", "{", "}", "#", "\\", "\0", "é",
    "[limits]\n", "read = ", "write = ", '"unlimited"', "extends = ", "true", "nan", "-1", "1e999",
    "999999999999999999999", "0x_1", '"/"', '"~"', '"$HOME"', '"../.."', "1979-05-27", "\ud800",
    'memory = "1YB"\n', "x" * 30, "a.b.c", 'env = ["A=B", "C"]\n', 'net = ["*:0-99999"]\n',
)  # fmt: skip
SLOW_S = 1.0


def mutate(rng: random.Random, text: str, others: list[str]) -> str:
    """Cut, repeat, insert; now and then very often."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.randrange(12))
        how = rng.randrange(6)
        if how == 0:
            text = text[:at] + text[end:]
        elif how == 1:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif how == 2:
            times = rng.choice((2, 3, 40, 3000))
            text = text[:at] + text[at:end] * times + text[end:]
        elif how == 3:
            text = text[:at] + rng.choice(PIECES) * rng.choice((2, 50, 5000)) + text[end:]
        elif how == 4:
            text = text[:at] + "\n" + rng.choice(others)
        else:
            text = text[:at] + chr(rng.randrange(1, 300)) + text[end:]
    return text[:200_000]


def try_one(path: Path, text: str) -> None:
    """Read it; what was read is written and read again."""
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    begun = time.monotonic()
    policy = None
    with contextlib.suppress(PolicyError):
        policy = Policy.from_file(path)
    assert time.monotonic() - begun < SLOW_S, "slow"
    if policy is None:
        return
    again = path.parent / "again.toml"
    again.write_text(policy.to_toml())
    back = Policy.from_file(again)
    same = {"origin": None, "extends": None, "widen": ()}
    assert msgspec.structs.replace(back, **same) == msgspec.structs.replace(policy, **same)


def corpus() -> list[str]:
    return [path.read_text() for path in sorted(CORPUS.iterdir())]


def test_kept_policies_are_read_or_refused(tmp_path: Path) -> None:
    texts = corpus()
    assert len(texts) > 5
    for text in texts:
        try_one(tmp_path / "p.toml", text)
        try_one(tmp_path / "p.json", text)


@pytest.mark.limit(60 + SECONDS * 2)
def test_mutated_policies_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    texts = corpus()
    until = time.monotonic() + SECONDS
    runs = 0
    while time.monotonic() < until:
        text = mutate(rng, rng.choice(texts), texts)
        name = "p.json" if text.lstrip()[:1] == "{" else "p.toml"
        try:
            try_one(tmp_path / name, text)
        except Exception as error:
            kept = tmp_path / "failed.toml"
            kept.write_bytes(text.encode("utf-8", "surrogatepass"))
            raise AssertionError(
                f"AGENTSBX_FUZZ_SEED={SEED}, run {runs}: {text[:500]!r}"
            ) from error
        runs += 1
    assert runs
