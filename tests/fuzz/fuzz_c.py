"""The C that reads what others wrote, under ASan and UBSan: one `target_*.c` for each reader.

With libFuzzer where clang has it, else with `driver.c`, which mutates the same corpus. The corpora
are kept in `corpus/TARGET`; `AGENTSBX_FUZZ_SECONDS`, `AGENTSBX_FUZZ_SEED` as in fuzz_codec.py.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
SECONDS = max(1, round(float(os.environ.get("AGENTSBX_FUZZ_SECONDS", "1"))))
SEED = int(os.environ.get("AGENTSBX_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
BASE = ["base/io.c", "base/glob.c"]
SUPERVISOR = [
    f"supervisor/{name}.c"
    for name in (
        "loop", "host", "template", "pool", "job", "poll", "cgroup", "cgroup_v1", "cgroup_v2",
        "cgroup_parent", "notify", "proc",
    )
]  # fmt: skip
CHILD = [f"child/{path.name}" for path in sorted((CSRC / "child").glob("*.c"))]
# What a target is linked with; it may include others itself.
TARGETS = {
    "plan": [*BASE, "plan/check.c"],
    "glob": BASE,
    "notify": BASE,
    "zygote": [*BASE, *SUPERVISOR, "plan/check.c", *CHILD],
}
FLAGS = ["-std=gnu17", "-D_GNU_SOURCE", "-g", "-O1", "-fno-omit-frame-pointer",
         "-fno-sanitize-recover=undefined"]  # fmt: skip
pytestmark = pytest.mark.skipif(
    not CSRC.is_dir(), reason="could not import csrc: only a checkout has the C sources"
)


@functools.cache
def compiler() -> list[str]:
    """Words that compile a target: with libFuzzer, or with our own driver."""
    for words in (
        ["clang", "-fsanitize=fuzzer,address,undefined"],
        ["gcc", "-fsanitize=address,undefined", str(HERE / "driver.c")],
        [os.environ.get("CC", "cc"), str(HERE / "driver.c")],  # without sanitizers, then
    ):
        if shutil.which(words[0]) and not _fails(words):
            return words
    raise AssertionError("no C compiler")


def _fails(words: list[str]) -> int:
    source = "int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return 0; }"
    return subprocess.run(
        [*words, "-x", "c", "-", "-o", "/dev/null"], input=source.encode(), capture_output=True,
        check=False,
    ).returncode  # fmt: skip


@pytest.mark.limit(180 + SECONDS * 2)
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_target_finds_nothing(target: str, tmp_path: Path) -> None:
    cc = compiler()
    program = tmp_path / target
    sources = [str(HERE / f"target_{target}.c"), *(str(CSRC / name) for name in TARGETS[target])]
    subprocess.run([*cc, *FLAGS, *sources, "-o", str(program)], check=True)
    corpus = HERE / "corpus" / target
    assert any(corpus.iterdir())
    if "clang" in cc[0]:
        new = tmp_path / "new"
        new.mkdir()
        words = [f"-max_total_time={SECONDS}", f"-seed={SEED}", "-max_len=2048", "-timeout=10",
                 str(new), str(corpus)]  # fmt: skip
    else:
        words = [str(SECONDS), str(SEED), str(corpus)]
    # Descriptors are counted by the target; LeakSanitizer needs ptrace, which may be forbidden.
    env = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [str(program), *words], cwd=tmp_path, env=env, capture_output=True, check=False
    )
    crashes = [p for p in tmp_path.iterdir() if p.name.startswith(("crash", "timeout", "oom"))]
    told = done.stderr[-4000:].decode("utf-8", "replace")
    inputs = [p.read_bytes()[:2100].hex() for p in crashes]
    assert done.returncode == 0, f"AGENTSBX_FUZZ_SEED={SEED}\n{told}\ninput: {inputs}"
