"""`cpu_set=`: a job runs on the CPUs that it was given, and cannot choose others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import agentsbx
from agentsbx import PolicyError, SandboxUnavailable, sandbox
from agentsbx.policy import Policy

CPUS = sorted(os.sched_getaffinity(0))
WIDEN = "import os; os.sched_setaffinity(0, range(64)); print(sorted(os.sched_getaffinity(0)))"


@sandbox(cpu_set=CPUS[:1])
def widened() -> tuple[list[int], str]:
    try:
        os.sched_setaffinity(0, range(64))
    except OSError as e:
        return sorted(os.sched_getaffinity(0)), type(e).__name__
    return sorted(os.sched_getaffinity(0)), ""


@pytest.mark.skipif(len(CPUS) < 2, reason="machine lacks: a second CPU")
def test_a_job_is_pinned_and_cannot_widen_it() -> None:
    for _ in range(3):
        assert widened() == (CPUS[:1], "PermissionError")
    assert widened.run().enforced["cpu_set"].startswith("sched_setaffinity")
    # Without the sandbox a pinned process gets all CPUs back, and so does an unpinned job.
    pinned = ["taskset", "-c", str(CPUS[0]), sys.executable, "-c", WIDEN]
    assert subprocess.check_output(pinned, text=True).strip() == str(CPUS)
    assert widened.options(cpu_set=[])() == (CPUS, "")


@pytest.mark.skipif(len(CPUS) < 2, reason="machine lacks: a second CPU")
def test_a_command_is_pinned_with_its_children() -> None:
    words = ["sh", "-c", "sh -c 'grep Cpus_allowed_list /proc/self/status'; taskset -p ffff $$"]
    result = agentsbx.run(words, cpu_set=str(CPUS[-1]), syscalls=["sched_setaffinity"])
    assert result.stdout.decode().split()[1] == str(CPUS[-1])
    assert result.value != 0


def test_a_cpu_that_is_not_here_is_named() -> None:
    with pytest.raises(SandboxUnavailable, match="CPU 1000") as e:
        agentsbx.run(["true"], cpu_set="1000")
    assert ",".join(map(str, CPUS)) in str(e.value.hint)


@pytest.mark.parametrize("wrong", ["1-0", "x", -1, True, "1024", [1.5], "", "0-"])
def test_what_names_no_cpus_is_refused(wrong: object) -> None:
    with pytest.raises(PolicyError, match="cpu_set"):
        Policy.from_keywords(cpu_set=wrong)


def test_more_cpus_are_wider() -> None:
    two = Policy.from_keywords(cpu_set="0-1")
    assert Policy.from_keywords(cpu_set=0).contains(two)
    assert [Policy().contains(two), Policy.from_keywords(cpu_set="1-2").contains(two)] == [
        False
    ] * 2
    assert two.contains(Policy())


def test_it_is_written_to_a_file_and_read_again(tmp_path: Path) -> None:
    policy = Policy.from_keywords(cpu_set="0-1")
    file = tmp_path / "p.toml"
    file.write_text(policy.to_toml())
    assert "cpu_set = [0, 1]" in file.read_text()
    assert Policy.from_file(file).cpu_set == (0, 1)
    file.write_text('cpu_set = "0,2"\n')
    assert Policy.from_file(file).cpu_set == (0, 2)
