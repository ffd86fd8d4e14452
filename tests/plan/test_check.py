"""The checker of plans reads bytes of another process: it accepts what plan.h says."""

from __future__ import annotations

import random
import struct

import plan_model as model
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentsbx._plan import JOB, TEMPLATE, Op, PlanBuilder
from agentsbx.errors import ErrRecord, Stage

_core = pytest.importorskip("agentsbx._core", reason="machine lacks: a build in place")

BPF = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)  # one instruction: allow


def accepts(plan: bytes, kind: int) -> bool:
    """Ask the C checker; what it says on refusal must itself be well-formed."""
    record = _core.check_plan(plan, kind)
    if record == b"":
        return True
    err = ErrRecord.unpack(record)
    assert err.stage == Stage.PLAN
    assert err.errno == 22
    return False


def job() -> PlanBuilder:
    """Return a builder with one operation of every kind that a job may have."""
    b = PlanBuilder(JOB)
    b.n_mounts = 2
    b.bpf = BPF
    b.add(Op.TMPFS, path="/sandbox", a=4096, b=16)
    b.add(Op.MKDIR, path="/sandbox/home", a=0o700)
    b.add(Op.MOVE, path="/sandbox/x", text="/x")
    b.add(Op.SELF, path="/tmp", text="/sandbox/tmp")
    b.add(Op.BIND, path="/data", arg=1)
    b.add(Op.PROC, path="/proc")
    b.add(Op.MASK, path="/proc/kcore")
    b.add(Op.DETACH, path="/.pools")
    b.add(Op.RDONLY, path="/")
    b.add(Op.IDS, a=1, b=1)
    b.add(Op.SYSCTL, path="/proc/sys/user/max_user_namespaces", text="0")
    b.add(Op.RLIMIT, arg=7, a=5, b=5)
    b.add(Op.CAPS)
    b.add(Op.LANDLOCK, path="/data", a=4)
    b.add(Op.SECCOMP)
    b.add(Op.CANARY, path="/.canary", arg=13)
    b.add(Op.CHDIR, path="/")
    return b


def template() -> PlanBuilder:
    """Return the same for a template."""
    b = PlanBuilder(TEMPLATE)
    b.n_mounts = 1
    b.add(Op.TMPFS, path="/", a=4096, b=16)
    b.add(Op.WRITE, path="/etc/passwd", text="root", a=0o444)
    b.add(Op.SYMLINK, path="/dev/fd", text="/proc/self/fd")
    b.add(Op.BIND, path="/usr", arg=0)
    b.add(Op.NODE, path="/dev/null")
    b.add(Op.PIVOT)
    b.add(Op.HOSTNAME, text="sandbox")
    b.add(Op.ARG, text="/bin/true")
    b.add(Op.ENV, text="A=1")
    return b


@pytest.mark.parametrize(("build", "kind"), [(job, JOB), (template, TEMPLATE)])
def test_a_plan_of_every_operation_is_accepted_as_its_own_kind_only(build, kind):
    plan = build().pack()
    assert accepts(plan, kind)
    assert model.is_well_formed(plan, kind)
    assert not accepts(plan, 3 - kind)
    assert not accepts(plan, 0)


@pytest.mark.parametrize("op", [o for o in Op if o != Op.END], ids=lambda o: o.name)
@pytest.mark.parametrize("kind", [TEMPLATE, JOB], ids=["template", "job"])
def test_an_operation_is_accepted_only_where_it_belongs(op, kind):
    b = PlanBuilder(kind)
    b.n_mounts, b.bpf = 1, BPF
    b.add(op, path="/a", text="/b")
    assert accepts(b.pack(), kind) == (op not in model.ONLY[3 - kind])


@pytest.mark.parametrize("first", range(5))
@pytest.mark.parametrize("second", range(5))
def test_groups_come_in_order(first, second):
    def member(group: int) -> Op:
        return min(op for op in model.GROUPS[group] if op not in model.ONLY[TEMPLATE])

    b = PlanBuilder(JOB)
    b.n_mounts, b.bpf = 1, BPF
    b.add(member(first), path="/a", text="/b")
    b.add(member(second), path="/a", text="/b")
    assert accepts(b.pack(), JOB) == (first <= second)


@pytest.mark.parametrize(
    "path",
    ["", "a", "a/b", "/..", "/a/..", "/a/../b", "/.", "/a/./b", "//", "//a", "/a//b", "/a/"],
)
def test_paths_that_are_not_plain_and_absolute_are_refused(path):
    b = PlanBuilder(JOB)
    b.add(Op.CHDIR, path=path)
    assert not accepts(b.pack(), JOB)


@pytest.mark.parametrize("path", ["/", "/a", "/a/b", "/...", "/..a", "/a..", "/.a/b.", "/\udcff"])
def test_odd_but_plain_paths_are_accepted(path):
    b = PlanBuilder(JOB)
    b.add(Op.CHDIR, path=path)
    assert accepts(b.pack(), JOB)


def test_a_mount_beyond_those_that_came_is_refused():
    for arg, fine in ((0, True), (1, True), (2, False), (2**32 - 1, False)):
        b = PlanBuilder(JOB)
        b.n_mounts = 2
        b.add(Op.BIND, path="/a", arg=arg)
        assert accepts(b.pack(), JOB) is fine


def test_a_filter_must_be_there_to_be_loaded():
    b = PlanBuilder(JOB)
    b.add(Op.SECCOMP)
    assert not accepts(b.pack(), JOB)


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65])
def test_short_plans_are_refused(n):
    plan = job().pack()
    assert not accepts(plan[:n], JOB)


def test_every_truncation_and_extension_is_refused():
    plan = job().pack()
    assert not any(accepts(plan[:n], JOB) for n in range(len(plan)))
    assert not accepts(plan + b"\0", JOB)


FIELDS = [
    "magic", "kind", "n_bytes", "n_ops", "bpf_off", "n_bpf", "strings_off", "n_strings",
    "n_mounts", "flags",
]  # fmt: skip
EDGES = [0, 1, 2, 7, 8, 64, 100, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("build", [job, template])
def test_each_number_of_the_head_is_bounded(field, build):
    """The checker agrees with the model on every edge, and near the right value."""
    b = build()
    plan = bytearray(b.pack())
    at = 4 * FIELDS.index(field)
    right = struct.unpack_from("=I", plan, at)[0]
    for value in {*EDGES, *range(max(0, right - 9), right + 10), len(plan), len(plan) - 1}:
        struct.pack_into("=I", plan, at, value)
        assert accepts(bytes(plan), b.kind) == model.is_well_formed(bytes(plan), b.kind), value


@pytest.mark.parametrize("build", [job, template])
def test_every_single_byte_changed_is_judged_as_the_header_says(build):
    b = build()
    plan = b.pack()
    for at in range(len(plan)):
        for value in (0, 1, 0x2E, 0x2F, 0x7F, 0xFF, plan[at] ^ 1, plan[at] ^ 0x80):
            mutant = plan[:at] + bytes([value]) + plan[at + 1 :]
            assert accepts(mutant, b.kind) == model.is_well_formed(mutant, b.kind), (at, value)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False), st.sampled_from([job, template]), st.integers(1, 12))
def test_hostile_mutations_are_judged_as_the_header_says(rng: random.Random, build, n_changes: int):
    b = build()
    plan = bytearray(b.pack())
    for _ in range(n_changes):
        choice = rng.randrange(4)
        if choice == 0:
            plan[rng.randrange(len(plan))] = rng.randrange(256)
        elif choice == 1:
            at = 4 * rng.randrange(len(plan) // 4)
            struct.pack_into("=I", plan, at, rng.choice([*EDGES, len(plan), rng.randrange(2**32)]))
        elif choice == 2:
            at, n = rng.randrange(len(plan)), rng.randrange(64)
            del plan[at : at + n]
            if len(plan) < 16:
                plan += bytes(16)
        else:
            at = rng.randrange(len(plan))
            plan[at:at] = rng.randbytes(rng.randrange(64))
    if rng.random() < 0.7:  # else nearly all fall to the length alone
        struct.pack_into("=III", plan, 0, 0x31504253, b.kind, len(plan))
    assert accepts(bytes(plan), b.kind) == model.is_well_formed(bytes(plan), b.kind)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 2**32 - 1))
def test_any_bytes_are_refused_without_harm(plan: bytes, kind: int):
    assert not accepts(plan, kind)


def test_more_operations_than_allowed_are_refused():
    for n, fine in ((1024, True), (1025, False)):
        b = PlanBuilder(JOB)
        for _ in range(n):
            b.add(Op.CHDIR, path="/")
        assert accepts(b.pack(), JOB) is fine


def test_a_longer_filter_than_the_kernel_takes_is_refused():
    for n, fine in ((4096, True), (4097, False)):
        b = PlanBuilder(JOB)
        b.bpf = BPF * n
        b.add(Op.SECCOMP)
        assert accepts(b.pack(), JOB) is fine


def test_a_nul_in_a_string_is_refused_by_the_builder():
    with pytest.raises(ValueError, match="NUL"):
        PlanBuilder(JOB).add(Op.CHDIR, path="/a\0b")
