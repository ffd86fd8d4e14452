"""The harness confines as Docker does, and what agentsbx says in there is true and useful.

`./dev container` runs the core part of the suite in the same containers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import _machine

HERE = Path(__file__).parent
RUNTIMES = [name for name in ("runc", "crun") if shutil.which(name)]
NAMESPACES = ("--flag=seccomp=unconfined", "--flag=systempaths=unconfined")
pytestmark = [
    pytest.mark.needs("linux", "root"),
    pytest.mark.skipif(not RUNTIMES, reason="machine lacks: runc or crun (apt install runc)"),
]


def contained(*command: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(HERE / "bundle.py"), *flags, "--", *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def python(code: str, *flags: str) -> Any:
    """Return what `code` prints as JSON in a container."""
    done = contained(sys.executable, "-c", code, flags=flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ATTEMPTS = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
def attempt(number, *args):
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, args))
    return ctypes.get_errno()
def read(path):
    try:
        return len(open(path, "rb").read(64))
    except OSError as error:
        return -error.errno
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "unshare": attempt(272, 0x10000000), "clone3": attempt(435, 0, 0), "ptrace": attempt(101, 9999),
    "mount": attempt(165, 0, 0, 0, 0, 0), "io_uring": attempt(425, 0, 0), "keyctl": attempt(250, 0),
    "caps": status["CapBnd"].strip(), "own": status["CapEff"].strip(),
    "seccomp": status["Seccomp"].strip(), "sysctl": os.access("/proc/sys/kernel/hostname", os.W_OK),
    "kcore": read("/proc/kcore"), "keys": read("/proc/keys"),
    "uid": os.getuid(), "processes": sum(name.isdigit() for name in os.listdir("/proc")),
}))
"""


@pytest.mark.needs("arch:x86_64")
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("uid", [0, 1000])
def test_the_container_has_dockers_walls(runtime: str, uid: int) -> None:
    found = python(ATTEMPTS, f"--runtime={runtime}", f"--user={uid}")
    assert found["caps"] == "00000000a80425fb"  # the 14 of Docker
    assert found["own"] == (found["caps"] if uid == 0 else "0" * 16)
    assert found["seccomp"] == "2"
    assert (found["unshare"], found["mount"], found["io_uring"], found["keyctl"]) == (1, 1, 1, 1)
    assert found["clone3"] == 38
    assert found["ptrace"] != 1  # Docker allows it: an invalid request, or no such process
    assert found["kcore"] <= 0
    assert found["keys"] <= 0
    assert not found["sysctl"]
    assert (found["uid"], found["processes"]) == (uid, 2)  # with its init


@pytest.mark.needs("arch:x86_64")
def test_the_same_attempts_work_where_no_wall_is() -> None:
    """The walls are the container's: outside, root may do what is refused in there."""
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    if found["seccomp"] != "0":
        pytest.skip("machine lacks: a place without a filter")
    assert found["unshare"] == 0
    assert found["clone3"] != 38
    assert found["io_uring"] != 1


REFUSED = """
import json, os, time
import agentsbx
@agentsbx.sandbox
def add(a, b):
    return a + b
start, found = time.monotonic(), {}
try:
    found["result"] = add(1, 2)
except agentsbx.SandboxUnavailable as error:
    found |= {"text": str(error), "hint": error.hint}
    found |= {"stage": error.stage, "missing": error.missing}
found["seconds"] = time.monotonic() - start
found["children"] = open(f"/proc/self/task/{os.getpid()}/children").read().split()
names = os.listdir("/tmp") + os.listdir("/dev/shm")
found["left"] = [name for name in names if "agentsbx" in name]
print(json.dumps(found, default=list))
"""


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_call_runs_or_is_refused_with_the_flags_that_help(uid: int) -> None:
    """Without namespaces a call runs in the second tier, or raises at once and leaves nothing."""
    found = python(REFUSED, f"--user={uid}")
    assert found["seconds"] < 10
    assert found["left"] == []
    if "result" in found:
        assert found["result"] == 3
        return
    assert found["stage"] == "userns"
    assert "seccomp=unconfined" in found["text"]
    assert "systempaths=unconfined" in found["hint"]
    assert found["missing"] == ["user namespaces"]
    assert found["children"] == []


def test_with_the_flags_that_the_message_names_a_call_runs() -> None:
    assert python(REFUSED, *NAMESPACES, "--user=1000").get("result") == 3


def test_what_nothing_holds_for_root_of_the_container_is_refused() -> None:
    """RLIMIT_NPROC does not hold the kernel's root, and there is no cgroup to write to."""
    found = python(REFUSED, *NAMESPACES)
    if "result" in found:  # a tier that gives the job another user
        return
    assert "`processes=`" in found["text"]
    assert "--user 1000" in found["hint"]


BURST = """
import json, subprocess, sys
import agentsbx
script = "n=0; for i in $(seq 40); do sleep 5 & n=$((n+1)); done; echo $n"
done = agentsbx.run(["sh", "-c", script], processes=8, on_missing="weaken")
print(json.dumps({"started": int(done.stdout or b"0"), "by": done.enforced["processes"]}))
"""


@pytest.mark.parametrize("uid", [0, 1000])
def test_what_is_said_of_the_number_of_processes_is_true(uid: int) -> None:
    """Forty at once: where `enforced` names who holds them they fail, else they start."""
    found = python(BURST, *NAMESPACES, f"--user={uid}")
    assert (found["started"] == 40) is ("not enforced" in found["by"]), found
    assert ("not enforced" in found["by"]) is (uid == 0), found


FREE = (*NAMESPACES, "--user=1000")


@pytest.mark.parametrize("flags", [(), NAMESPACES[:1], FREE])
def test_doctor_says_what_is_missing_there(flags: tuple[str, ...]) -> None:
    done = contained(sys.executable, "-m", "agentsbx", "doctor", "--json", flags=flags)
    found = json.loads(done.stdout)
    assert (done.returncode == 0) is found["works"], done.stderr
    walls = " ".join(found["machine"]["walls"])
    assert ("filter" in walls) is (not flags)
    assert ("/proc" in walls) is (flags != FREE)
    if flags == FREE:
        assert found["works"]
    elif not found["works"]:
        assert any("systempaths=unconfined" in how for how in found["how"].values()), found["how"]
        assert "AppArmor profile" not in found["how"] or flags


def test_what_cannot_start_says_so(tmp_path: Path) -> None:
    argv = [sys.executable, str(HERE / "bundle.py"), "--", "true"]
    done = subprocess.run(
        argv, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 125
    assert "needs root and crun or runc" in done.stderr
    assert _machine.lacks("root") is None
