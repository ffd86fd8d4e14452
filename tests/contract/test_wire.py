"""One layout on both sides: what Python packs is what the C headers say, byte for byte."""

from __future__ import annotations

import itertools
import re
import shutil
import struct
import subprocess
from typing import Any

import pytest

from agentsbx import _filter, _header, _leftovers, _plan, _tables, _wire, errors
from contract.tree import CSRC, need_checkout

HEADERS = ("base/wire.h", "base/call.h", "base/err.h", "plan/plan.h", "plan/filter.h")

# Python's struct -> the C struct that it packs, its members in order. Arrays of structs at the end
# are left out: their element has a row of its own.
STRUCTS: dict[str, tuple[struct.Struct, str, str]] = {
    "mount": (
        _wire.MOUNT,
        "sbx_mount",
        (
            "head.type head.n_bytes dev ino attr is_recursive map_from_uid map_from_gid map_to_uid "
            "map_to_gid pad"
        ),
    ),
    "template": (
        _wire.TEMPLATE,
        "sbx_template",
        "head.type head.n_bytes template_id n_mounts is_command",
    ),
    "pool": (
        _wire.POOL,
        "sbx_pool",
        (
            "head.type head.n_bytes template_id pool_id n_mounts n_waiting uid_index poll_memory "
            "memory_bytes cpu_time_ns cpu_quota_us processes want_cgroup wants_listener"
        ),
    ),
    "snapshot": (_wire.SNAPSHOT, "sbx_snapshot", "head.type head.n_bytes pool_id version"),
    "grow": (_wire.GROW, "sbx_grow", "head.type head.n_bytes pool_id count pad"),
    "start": (_wire.START, "sbx_start", "head.type head.n_bytes job_id start_ns deadline_ns"),
    "kill": (_wire.KILL, "sbx_kill", "head.type head.n_bytes job_id cause cpu"),
    "wait": (_wire.ID, "sbx_wait", "head.type head.n_bytes job_id"),
    "drop": (_wire.ID, "sbx_drop", "head.type head.n_bytes id"),
    "pub": (_wire.PUB, "sbx_pub", "head.type head.n_bytes pool_id job_id version err pad"),
    "reply": (_wire.REPLY, "sbx_reply", "head.type head.n_bytes id err pad"),
    "hello": (
        _wire.HELLO,
        "sbx_hello",
        (
            "head.type head.n_bytes err is_root uid_base n_uids cgroup_version cgroup_have "
            "landlock_abi supervisor_pid"
        ),
    ),
    "exit": (
        _wire.EXIT,
        "sbx_exit",
        (
            "head.type head.n_bytes job_id cause wait_status is_alive n_denied utime_us stime_us "
            "peak_memory_bytes peak_processes memory_source n_pids_refused wall_ns"
        ),
    ),
    "denied": (_wire.DENIED, "sbx_denied", "nr count args[0] args[1] args[2] args[3]"),
    "exec": (_wire.EXEC, "sbx_exec", "n_argv n_env fd_mask is_traced n_keep pad keep_bytes"),
    "denial": (_wire.DENIAL, "sbx_denial", "nr err creates"),
    "spawn": (_wire.SPAWN, "sbx_spawn", "n_argv n_env n_fds flags"),
    "ask": (_wire.ASK, "sbx_ask", "op value"),
    "file": (_wire.FILE, "sbx_file", "op flags mode timeout_s max_bytes"),
    "file_reply": (
        _wire.FILE_REPLY,
        "sbx_file_reply",
        "err mode size mtime_ns n_bytes n_entries is_cut",
    ),
    "entry": (_wire.ENTRY, "sbx_entry", "size mtime_ns mode n_name"),
    "files": (_wire.FILES, "sbx_files", "n_records flags n_more more_bytes"),
    "left_file": (_wire.LEFT_FILE, "sbx_left_file", "size n_name place kind why"),
    "plan": (
        _plan._HEAD,
        "sbx_plan",
        (
            "magic kind n_bytes n_ops bpf_off n_bpf strings_off n_strings n_mounts flags "
            "landlock_fs landlock_net landlock_scope"
        ),
    ),
    "op": (_plan._OP, "sbx_op", "kind flags arg path text a b"),
    "rule": (_filter._HEAD, "sbx_rule", "nr action n_cmps pad"),
    "cmp": (_filter._CMP, "sbx_cmp", "arg op mask value"),
    "err": (errors._RECORD, "sbx_err", "stage op err detail"),
}
OPEN_ENDED = {"exit", "rule", "denial", "files", "entry"}  # an array follows

ENUMS: dict[str, tuple[Any, str]] = {
    "sbx_msg_type": (_wire.Msg, "SBX_MSG_"),
    "sbx_frame_kind": (_wire.Frame, "SBX_FRAME_"),
    "sbx_cause": (_wire.Cause, "SBX_CAUSE_"),
    "sbx_files_flags": (_leftovers.Flag, "SBX_FILES_"),
    "sbx_place": (_leftovers.Place, "SBX_PLACE_"),
    "sbx_left_kind": (_leftovers.LeftKind, "SBX_LEFT_"),
    "sbx_left_why": (_leftovers.Why, "SBX_WHY_"),
    "sbx_op_kind": (_plan.Op, "SBX_OP_"),
    "sbx_op_flags": (_plan.Flag, "SBX_F_"),
    "sbx_plan_flags": (_plan.PlanFlag, "SBX_PLAN_"),
}

NUMBERS = {
    "SBX_MAX_MOUNTS": _wire.MAX_MOUNTS,
    "SBX_MAX_DENIED": _wire.MAX_DENIED,
    "SBX_FRAME_INLINE": _wire.FRAME_INLINE,
    "SBX_FRAME_MAX_BUFFERS": _header.MAX_BUFFERS,
    "SBX_BUFFER_ALIGN": _wire.BUFFER_ALIGN,
    "SBX_MAX_KEPT": _wire.MAX_KEPT,
    "SBX_MAX_LISTED": _wire.MAX_LISTED,
    "SBX_MAX_NAME": _wire.MAX_NAME,
    "SBX_FILES_INLINE": _wire.FILES_INLINE,
    "SBX_PLAN_MAGIC": _plan.MAGIC,
    "SBX_PLAN_TEMPLATE": _plan.TEMPLATE,
    "SBX_PLAN_JOB": _plan.JOB,
    "SBX_MAX_CMPS": _tables.MAX_TESTS,
    "SBX_CMP_EQ": _filter._EQ,
    "SBX_CMP_NE": _filter._NE,
    "sizeof(struct sbx_exit)": _wire.EXIT_SIZE,
    "sizeof(struct sbx_rule)": _filter._RULE_SIZE,
    "sizeof(int32_t) + 4 + sizeof(struct sbx_usage)": _wire.EXITED.size,
}


def members(enum: str) -> list[str]:
    """Return the names of an enum's members, read off the headers."""
    text = "".join((CSRC / name).read_text() for name in HEADERS)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    body = re.search(rf"enum {enum} \{{(.*?)\}};", text, re.DOTALL)
    assert body is not None, enum
    names = [part.split("=")[0].strip() for part in body[1].split(",")]
    return [n for n in names if n and not re.match(r"SBX_N_", n)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Ask the system's compiler for every size, offset and number at once."""
    need_checkout()
    if not shutil.which("cc"):
        pytest.skip("machine lacks: a C compiler")
    words = [*NUMBERS]
    for _, name, fields in STRUCTS.values():
        words.append(f"sizeof(struct {name})")
        for field in fields.split():
            words.append(f"offsetof(struct {name}, {field})")
            words.append(f"sizeof(((struct {name} *)0)->{field})")
    words += [member for enum in ENUMS for member in members(enum)]
    folder = tmp_path_factory.mktemp("wire")
    lines = [f'    printf("%lld %s\\n", (long long)({w}), "{w}");' for w in words]
    includes = [f'#include "{CSRC / name}"' for name in HEADERS]
    source = folder / "numbers.c"
    source.write_text(
        "\n".join(
            [
                "#include <stddef.h>",
                "#include <stdio.h>",
                *includes,
                "int main(void) {",
                *lines,
                "    return 0;",
                "}",
            ]
        )
    )
    program = folder / "numbers"
    subprocess.run(
        ["cc", "-std=gnu17", "-D_GNU_SOURCE", str(source), "-o", str(program)], check=True
    )
    out = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {word: int(n) for n, word in (line.split(" ", 1) for line in out.splitlines())}


def layout(fmt: str) -> list[tuple[int, int]]:
    """Return (offset, size) of each item that a format packs."""
    order = fmt[0] if fmt[0] in "@=<>!" else ""
    items = [
        one
        for count, code in re.findall(r"(\d*)([a-zA-Z])", fmt)
        for one in ([f"{count}{code}"] if code in "sx" else [code] * int(count or 1))
    ]
    found = []
    for i, item in enumerate(items):
        if item.endswith("x"):
            continue
        end = struct.calcsize(order + "".join(items[: i + 1]))
        size = struct.calcsize(order + item)
        found.append((end - size, size))
    return found


@pytest.mark.parametrize("name", STRUCTS)
def test_members_lie_where_c_puts_them(name: str, told: dict[str, int]) -> None:
    packed, struct_name, fields = STRUCTS[name]
    expected = [
        (
            told[f"offsetof(struct {struct_name}, {field})"],
            told[f"sizeof(((struct {struct_name} *)0)->{field})"],
        )
        for field in fields.split()
    ]
    assert layout(packed.format) == expected


@pytest.mark.parametrize("name", [n for n in STRUCTS if n not in OPEN_ENDED])
def test_structs_have_the_size_that_c_gives_them(name: str, told: dict[str, int]) -> None:
    packed, struct_name, _ = STRUCTS[name]
    assert packed.size == told[f"sizeof(struct {struct_name})"]


@pytest.mark.parametrize("name", ENUMS)
def test_enums_have_the_members_and_numbers_of_c(name: str, told: dict[str, int]) -> None:
    enum, prefix = ENUMS[name]
    assert {m.name: m.value for m in enum} == {
        member.removeprefix(prefix): told[member] for member in members(name)
    }


@pytest.mark.parametrize("word", NUMBERS)
def test_numbers_are_those_of_c(word: str, told: dict[str, int]) -> None:
    assert NUMBERS[word] == told[word]


def test_pool_directory_is_that_of_c() -> None:
    need_checkout()
    text = (CSRC / "plan/plan.h").read_text()
    assert f'#define SBX_POOL_DIR "{_plan.POOL_DIR}"' in text


def test_every_struct_of_the_module_is_compared() -> None:
    """A new format in `_wire` needs a row above."""
    compared = {id(row[0]) for row in STRUCTS.values()} | {id(_wire.EXITED)}
    wanted = {n: v for n, v in vars(_wire).items() if isinstance(v, struct.Struct)}
    assert not [n for n, v in wanted.items() if id(v) not in compared]


def test_no_two_offsets_overlap() -> None:
    """The helper above reads formats right: what it finds never overlaps."""
    for packed, _, _ in STRUCTS.values():
        for (at, size), (following, _) in itertools.pairwise(layout(packed.format)):
            assert at + size <= following
