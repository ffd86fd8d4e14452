"""`_compile` is a pure function from policy and host to bytes that the C checker accepts."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import msgspec
import plan_model as model
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentsbx import _compile
from agentsbx._host import Caps, Found, Layout
from agentsbx._plan import JOB, POOL_DIR, TEMPLATE, Flag, Op
from agentsbx.errors import PolicyError, SandboxUnavailable
from agentsbx.policy import Limits, Policy

_core = pytest.importorskip("agentsbx._core", reason="machine lacks: a build in place")

FULL = Caps(is_root=True, n_uids=65536, cgroup_version=2, cgroup_have=15, landlock_abi=6)
BARE = Caps(landlock_abi=1)
BASE = ("/usr", "/lib")
IDS = (1000, 1000)


@pytest.fixture(autouse=True)
def no_own_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's own limits bound what a plan can ask for: not in these tests."""
    unbounded = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: unbounded)


def found(path: str, *, is_file: bool = False) -> Found:
    return Found(path, path, 1, 2, 1000, 1000, is_file)


def mount(path: str, *, is_write: bool = False, is_file: bool = False) -> _compile.Mount:
    return _compile.Mount(path, found(path, is_file=is_file), is_write)


def compile_job(policy: Policy, caps: Caps = FULL, grants=(), cwd: str = "/", **rest):
    return _compile.compile_job(policy, caps, BASE, tuple(grants), cwd, IDS, **rest)


def policy(**keywords) -> Policy:
    return Policy.from_keywords(folder="/", **keywords)


GRANTS = (
    mount("/srv/data"),
    mount("/srv/data/out", is_write=True),
    mount("/home/u/key.pem", is_file=True),
)
LAYOUT = Layout(
    "/usr/bin/python3", "3", ("/usr/lib/python3",), ("/opt/venv",), "/opt/venv/agentsbx"
)
TREE: dict[str, Found | str] = {
    "/bin": "usr/bin",
    "/usr": found("/usr"),
    "/etc/localtime": found("/etc/localtime", is_file=True),
    "/opt/v": found("/opt/v"),
}

GOLDEN = {
    "default": lambda: compile_job(policy(), grants=GRANTS, cwd="/srv/work", has_shadow=True).plan,
    "bare-host": lambda: (
        compile_job(
            policy(memory="256MB", cpu_time=2), BARE, (mount("/tmp/in"),), cwd="/tmp/in/here"
        ).plan
    ),
    "masks": lambda: compile_job(policy(), masks=("/proc/kcore", "/proc/keys")).plan,
    "template-python": lambda: (
        _compile.compile_template(
            LAYOUT, TREE, IDS, bootstrap=("/usr/bin/python3", "-c", "pass")
        ).plan
    ),
    "template-commands": lambda: _compile.compile_template(None, TREE, IDS).plan,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_plans_are_the_golden_ones(name):
    """Write them anew with AGENTSBX_WRITE_GOLDEN=1, then read the diff."""
    lines = model.describe(GOLDEN[name]())
    golden = Path(__file__).with_name(f"{name}.plan")
    if os.environ.get("AGENTSBX_WRITE_GOLDEN") == "1":
        golden.write_text("\n".join(lines) + "\n")
    assert golden.read_text().splitlines() == lines


paths = st.lists(
    st.text("abcXYZ .-é\udc80", min_size=1, max_size=6).filter(lambda s: s not in (".", "..")),
    min_size=1,
    max_size=4,
).map(lambda parts: "/" + "/".join(parts))
limits = st.builds(
    Limits,
    memory=st.sampled_from([-1, 2**20, 2**33]),
    cpu_time=st.sampled_from([-1.0, 0.01, 3.0, 1e6]),
    cpus=st.sampled_from([-1.0, 0.1, 4.0]),
    processes=st.sampled_from([-1, 1, 64]),
    disk=st.sampled_from([0, 2**20, 2**40]),
    inodes=st.sampled_from([0, 10**6]),
)
hosts = st.builds(
    Caps,
    is_root=st.booleans(),
    cgroup_version=st.integers(0, 2),
    cgroup_have=st.integers(0, 63),
    landlock_abi=st.integers(0, 9),
)
policies = st.builds(
    lambda lim, profile: msgspec.structs.replace(
        Policy(), limits=lim, profile=profile, on_missing="weaken"
    ),
    limits,
    st.sampled_from(["python", "strict", "build"]),
)
grants_of = st.lists(
    st.builds(mount, paths, is_write=st.booleans(), is_file=st.booleans()), max_size=8
)
jobs = st.tuples(policies, hosts, grants_of, paths | st.just("/"), st.lists(paths, max_size=3))


def build(parts):
    chosen, caps, grants, cwd, masks = parts
    return compile_job(chosen, caps, grants, cwd, masks=tuple(masks))


@settings(max_examples=150, deadline=None)
@given(jobs)
def test_any_policy_gives_a_plan_that_the_checker_accepts(parts):
    job = build(parts)
    assert _core.check_plan(job.plan, JOB) == b""
    assert model.is_well_formed(job.plan, JOB)
    assert len(job.places) == len(model.parse(job.plan).ops)


@settings(max_examples=50, deadline=None)
@given(jobs)
def test_same_input_gives_same_bytes(parts):
    assert build(parts) == build(parts)


@settings(max_examples=50, deadline=None)
@given(jobs, st.randoms(use_true_random=False))
def test_the_order_of_grants_does_not_matter(parts, rng):
    chosen, caps, grants, cwd, masks = parts
    grants = list({g.at: g for g in grants}.values())
    shuffled = list(grants)
    rng.shuffle(shuffled)
    assert build((chosen, caps, grants, cwd, masks)) == build((chosen, caps, shuffled, cwd, masks))


@settings(max_examples=100, deadline=None)
@given(jobs)
def test_every_job_puts_up_the_same_walls(parts):
    """Whatever the policy: own ids, no capabilities, the filter, the pool store out of sight."""
    plan = model.parse(build(parts).plan)
    kinds = [op.kind for op in plan.ops]
    for needed in (Op.IDS, Op.CAPS, Op.SECCOMP, Op.DETACH, Op.PROC):
        assert kinds.count(needed) == 1, needed
    detached = next(op for op in plan.ops if op.kind == Op.DETACH)
    assert detached.path == POOL_DIR.encode()
    assert (Op.RDONLY, b"/") in [(op.kind, op.path) for op in plan.ops]
    proc = next(op for op in plan.ops if op.kind == Op.PROC)
    assert proc.flags & Flag.RDONLY
    assert plan.n_bpf > 0
    assert kinds.index(Op.CAPS) < kinds.index(Op.SECCOMP)


@settings(max_examples=100, deadline=None)
@given(jobs)
def test_landlock_rules_name_only_what_the_policy_shows(parts):
    _, caps, grants, cwd, _ = parts
    plan = model.parse(build(parts).plan)
    rules = {
        op.path.decode("utf-8", "surrogateescape") for op in plan.ops if op.kind == Op.LANDLOCK
    }
    if caps.landlock_abi < 1:
        assert not rules
        return
    private = {"/tmp", "/sandbox", "/sandbox/home", "/sandbox/shm", "/sandbox/tmp", "/sandbox/.tmp"}
    shown = {*BASE, "/etc", "/proc", "/sys", "/dev", cwd, *(g.at for g in grants)}
    assert rules <= private | shown


@settings(max_examples=100, deadline=None)
@given(jobs)
def test_read_grants_are_read_only_twice(parts):
    """By their mount, and by Landlock's rights where there is Landlock."""
    _, _, grants, _, _ = parts
    job = build(parts)
    plan = model.parse(job.plan)
    binds = [op for op in plan.ops if op.kind == Op.BIND]
    assert [op.arg for op in binds] == list(range(len(grants)))
    at = {os.fsencode(g.at): g for g in grants if [o.at for o in grants].count(g.at) == 1}
    for op in binds:
        if op.path in at:
            assert job.mounts[op.arg].is_rdonly is not at[op.path].is_write
    for op in plan.ops:
        if op.kind == Op.LANDLOCK and op.path in at and not at[op.path].is_write:
            assert op.a & ~_compile.LL_READ == 0


def test_children_are_mounted_after_their_parents():
    job = compile_job(policy(), grants=[mount("/a/b/c"), mount("/a"), mount("/a/b", is_write=True)])
    binds = [op.path for op in model.parse(job.plan).ops if op.kind == Op.BIND]
    assert binds == [b"/a", b"/a/b", b"/a/b/c"]


def test_a_grant_inside_another_makes_nothing_on_the_host():
    job = compile_job(policy(), grants=[mount("/a", is_write=True), mount("/a/b")])
    flags = {op.path: op.flags for op in model.parse(job.plan).ops if op.kind == Op.BIND}
    assert not flags[b"/a"] & Flag.NOCREATE
    assert flags[b"/a/b"] & Flag.NOCREATE


@pytest.mark.parametrize(
    ("keywords", "caps", "missing"),
    [
        ({"cpus": 1}, msgspec.structs.replace(FULL, cgroup_have=1), "a cpu cgroup"),
        ({"strict": True}, msgspec.structs.replace(FULL, cgroup_have=0), "a memory cgroup"),
        (
            {},
            msgspec.structs.replace(FULL, cgroup_have=3, has_nproc=False),
            "a pids cgroup where the kernel's root starts it",
        ),
        ({}, msgspec.structs.replace(FULL, landlock_abi=0), "Landlock (Linux 5.13, lsm=landlock)"),
    ],
)
def test_what_cannot_be_enforced_is_said_before_user_code(keywords, caps, missing):
    with pytest.raises(SandboxUnavailable) as raised:
        compile_job(policy(**keywords), caps)
    assert raised.value.missing == [missing]
    if "strict" not in keywords:  # the two contradict each other
        weak = compile_job(policy(on_missing="weaken", **keywords), caps)
        assert "not enforced (on_missing='weaken')" in weak.enforced.values()


def test_memory_without_a_cgroup_is_polled_and_said_so():
    job = compile_job(policy(memory="64MB"), BARE)
    assert job.poll_memory
    assert job.enforced["memory"] == "rlimit+poll"
    limits = {op.arg: op.a for op in model.parse(job.plan).ops if op.kind == Op.RLIMIT}
    assert limits[resource.RLIMIT_DATA] > 64 * 10**6


def test_memory_by_a_cgroup_is_not_polled():
    job = compile_job(policy(memory="64MB"))
    assert not job.poll_memory
    assert job.memory == 64 * 10**6
    assert job.want_cgroup & 1


def test_own_hard_limits_bound_the_plan(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (10, 10))
    job = compile_job(policy(open_files=4096))
    limits = {op.arg: op.b for op in model.parse(job.plan).ops if op.kind == Op.RLIMIT}
    assert limits[resource.RLIMIT_NOFILE] == 10


@pytest.mark.parametrize("abi", range(10))
def test_rights_are_those_that_the_kernel_can_handle(abi):
    fs, net, scope = _compile.landlock_sets(abi)
    assert fs.bit_length() == (0, 13, 14, 15, 15, 16, 16, 16, 16, 16)[abi]
    assert net == (3 if abi >= 4 else 0)
    assert scope == (3 if abi >= 6 else 0)


@pytest.mark.parametrize("real", ["/", "/proc", "/proc/sys", "/sys/fs", "/dev", "/dev/shm"])
def test_kernel_interfaces_cannot_be_granted(real):
    with pytest.raises(PolicyError):
        _compile.refuse_control_paths((mount(real),))


@pytest.mark.parametrize("real", ["/process", "/devel", "/home/proc", "/system"])
def test_names_that_only_look_like_them_can(real):
    _compile.refuse_control_paths((mount(real),))


@pytest.mark.parametrize("make", [lambda: LAYOUT, lambda: None], ids=["python", "commands"])
def test_templates_are_accepted_and_end_with_their_program(make):
    made = _compile.compile_template(make(), TREE, IDS, bootstrap=("/usr/bin/python3",))
    assert _core.check_plan(made.plan, TEMPLATE) == b""
    plan = model.parse(made.plan)
    words = [op.text.decode() for op in plan.ops if op.kind == Op.ARG]
    assert words == (["agentsbx-launcher", "zygote"] if made.is_command else ["/usr/bin/python3"])
    assert all(spec.is_rdonly for spec in made.mounts)
    environment = [op.text.decode().partition("=")[0] for op in plan.ops if op.kind == Op.ENV]
    assert set(environment) <= {"PATH", "LC_ALL", *_compile._BLAS_THREADS}
