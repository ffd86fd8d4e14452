"""Golden tests: what is said about each denial. A model must be able to act on it."""

from __future__ import annotations

import errno
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsbx import _explain
from agentsbx._explain import Context
from agentsbx.errors import (
    JobDied,
    LimitExceeded,
    MemoryLimitExceeded,
    PolicyError,
    SandboxTimeout,
)
from agentsbx.policy import Policy
from agentsbx.result import Exit, Limit, Usage, Violation

POLICY = Policy.from_keywords(read="/srv/data", write="/srv/out", env={"LANG": None, "MODE": "x"})
HOST = {
    "/srv",
    "/srv/data",
    "/srv/out",
    "/home/u/key",
    "/home/u",
    "/proj",
    "/usr/lib",
    "/opt/t/tool",
}
INSIDE = Context(cwd="/proj", private=("/home/u/tmp",))


def oserror(
    number: int | None,
    name: object = None,
    name2: object = None,
    *,
    kind: str = "OSError",
    policy: Policy = POLICY,
    context: Context = INSIDE,
) -> Violation | None:
    found = _explain.explain_oserror(
        kind, number, name, name2, policy, HOST.__contains__, context=context
    )
    if found is not None:
        assert len(found.message) <= 300
        assert found.rule is None or found.rule.split("=")[0] in found.message
    return found


def said(violation: Violation | None) -> str:
    assert violation is not None
    return violation.message


# -- files --------------------------------------------------------------------------------------


def test_hidden_path() -> None:
    found = oserror(errno.ENOENT, "/home/u/key")
    assert said(found) == (
        "'/home/u/key' exists on the host, but the policy hides it; "
        "allow it with read=['/home/u/key']"
    )
    assert found is not None
    assert (found.operation, found.target) == ("read", "/home/u/key")
    assert (found.denied_by, found.rule) == ("mount", "read=['/home/u/key']")


def test_hidden_path_that_only_the_second_name_has() -> None:
    assert "'/home/u/key'" in said(oserror(errno.ENOENT, "/home/u/tmp/x", "/home/u/key"))


def test_reveal_false_says_nothing() -> None:
    assert oserror(errno.ENOENT, "/home/u/key", policy=POLICY.extend(reveal=False)) is None


def test_what_is_missing_on_the_host_too_is_not_ours() -> None:
    assert oserror(errno.ENOENT, "/nowhere/x") is None
    assert oserror(errno.ENOENT, "/srv/data/x") is None
    assert oserror(errno.ENOENT, "/home/u/tmp/key") is None


def test_file_of_the_host_behind_a_private_folder() -> None:
    context = Context(cwd="/proj", private=("/home/u", "/srv"))
    assert "read=['/home/u/key']" in said(oserror(errno.ENOENT, "/home/u/key", context=context))
    assert oserror(errno.ENOENT, "/home/u/new", context=context) is None


def test_new_file_in_a_hidden_folder() -> None:
    assert said(oserror(errno.ENOENT, "report.txt")) == (
        "the folder '/proj' exists on the host, but the policy hides it; "
        "to write there say write=['/proj'], to read read=[...]"
    )


def test_write_outside_the_grants() -> None:
    assert said(oserror(errno.EROFS, "report.txt")) == (
        "writing '/proj/report.txt' is denied: the policy does not grant it; "
        "allow it with write=['/proj'], or write below $TMPDIR"
    )


def test_rename_into_a_working_directory_below_a_private_place() -> None:
    """With nothing granted below /tmp all of it is the job's own, but for the working directory."""
    context = Context(cwd="/tmp/proj", private=("/sandbox/tmp", "/tmp"))
    found = oserror(errno.EXDEV, "/sandbox/tmp/x", "report.txt", context=context)
    assert "write=['/tmp/proj']" in said(found)
    assert oserror(errno.EXDEV, "/sandbox/tmp/x", "/tmp/y", context=context) is None


@pytest.mark.parametrize(
    ("calling", "name", "rule", "words"),
    [
        (
            "mkdir",
            "reports",
            "write=['/proj/reports']",
            "make that folder beforehand and allow that",
        ),
        ("open", "here.txt", "write=['/proj/here.txt']", "allow it with write=['/proj/here.txt']"),
        ("open", "new.txt", None, "a folder without code and allow that with write=['/proj/out']"),
    ],
)
def test_write_beside_the_code_of_the_host(
    calling: str, name: str, rule: str | None, words: str
) -> None:
    """A plain grant over that folder would be refused: so it is not proposed."""
    context = msgspec.structs.replace(
        INSIDE,
        calling=calling,
        holds_code="/proj".__eq__,
        host_exists="/proj/here.txt".__eq__,
    )
    found = oserror(errno.EROFS, name, context=context)
    assert words in said(found)
    assert found is not None
    assert found.rule == rule


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ('db = sqlite3.connect("shop.db")', "read=['/proj/shop.db']"),
        ("with connect(r'/proj/shop.db') as db:", "read=['/proj/shop.db']"),
        ("db = sqlite3.connect('absent.db')", "write=['/proj']"),
        ("db = sqlite3.connect(PATH)", "write=['/proj']"),
        (None, "write=['/proj']"),
    ],
)
def test_a_database_that_cannot_be_opened(source: str | None, rule: str) -> None:
    found = _explain.explain_database(POLICY, "/proj", source, "/proj/shop.db".__eq__)
    assert found.rule == rule
    assert len(said(found)) <= 300


def test_write_where_only_reading_is_granted() -> None:
    for number in (errno.EROFS, errno.EACCES):
        assert said(oserror(number, b"/srv/data/x.csv")) == (
            "writing '/srv/data/x.csv' is denied: the policy grants only reading there; "
            "allow it with write=['/srv/data'], or write below $TMPDIR"
        )


def test_write_into_the_system() -> None:
    found = oserror(errno.EROFS, "/usr/lib/x.so")
    assert said(found) == (
        "writing '/usr/lib/x.so' is denied: system folders are read-only in a sandbox; "
        "write below $TMPDIR or $HOME"
    )
    assert found is not None
    assert found.rule is None


def test_kernel_files() -> None:
    assert said(oserror(errno.EACCES, "/proc/sys/kernel/core_pattern")) == (
        "'/proc/sys/kernel/core_pattern' is a kernel file that a sandbox may not use this way; "
        "no rule allows it"
    )


def test_file_permission_that_is_not_ours() -> None:
    assert oserror(errno.EACCES, "/srv/out/x") is None
    unreadable = Context(host_readable=lambda path: False)
    assert oserror(errno.EACCES, "/srv/data/secret", context=unreadable) is None
    assert _explain.explain_permission("/srv/data/secret", POLICY) == (
        "the policy allows to read '/srv/data/secret'; its own owner or permission bits refuse; "
        "change them on the host (ls -l shows them)"
    )
    assert _explain.explain_permission("/etc/shadow", POLICY) is None
    assert _explain.explain_permission(3, POLICY) is None


def test_program_that_the_policy_hides() -> None:
    context = Context(calling="_execute_child", host_which={"tool": "/opt/t/tool"}.get)
    assert said(oserror(errno.ENOENT, "tool", context=context)) == (
        "the program 'tool' is '/opt/t/tool' on the host; the policy hides it; "
        "allow it with read=['/opt/t']"
    )
    assert oserror(errno.ENOENT, "other", context=context) is None


# -- network and processes ----------------------------------------------------------------------


def test_interpreter_by_its_path_needs_its_library_too() -> None:
    context = Context(calling="_execute_child")
    found = _explain.explain_oserror(
        "FileNotFoundError", errno.ENOENT, "/opt/py/bin/python3.9", None, POLICY,
        {"/opt/py/bin/python3.9"}.__contains__, context=context,
    )  # fmt: skip
    assert said(found) == (
        "the interpreter '/opt/py/bin/python3.9' exists on the host; the policy hides it and its "
        "library; allow it with read=['/opt/py']"
    )


@pytest.mark.parametrize("path", ["/", "/proc/kallsyms", "/sys/class", "/dev/sda"])
def test_no_rule_is_named_that_the_policy_refuses(path: str) -> None:
    found = _explain.explain_oserror("OSError", errno.ENOENT, path, None, POLICY, lambda p: True)
    assert found is not None
    assert found.rule is None
    with pytest.raises(PolicyError):
        Policy.from_keywords(read=[path])


def test_a_pair_of_sockets_under_the_strict_profile() -> None:
    context = Context(calling="socketpair")
    found = oserror(errno.EPERM, policy=POLICY.extend(profile="strict"), context=context)
    assert said(found) == (
        "a pair of sockets, as asyncio needs it, is denied: profile 'strict' has none; "
        "allow it with profile='python'"
    )


def test_connection_without_network() -> None:
    text = "a connection is denied: the policy gives no network; allow it with net=['host:port']"
    assert said(oserror(errno.EAFNOSUPPORT)) == text
    assert said(oserror(errno.EPERM, context=Context(calling="connect"))) == text
    assert said(oserror(-3, kind="gaierror")) == text


def test_connection_to_a_known_peer() -> None:
    context = Context(calling="connect", peer="api.example.com:443")
    found = oserror(errno.ENETUNREACH, context=context)
    assert said(found) == (
        "a connection to 'api.example.com:443' is denied: the policy gives no network; "
        "allow it with net=['api.example.com:443']"
    )
    policy = POLICY.extend(net="other.example:1")
    assert "net= does not name it" in said(
        oserror(errno.ENETUNREACH, context=context, policy=policy)
    )


def test_process_under_the_strict_profile() -> None:
    context = Context(calling="_execute_child")
    found = oserror(errno.EPERM, "/bin/sh", policy=POLICY.extend(profile="strict"), context=context)
    assert said(found) == (
        "starting the program or process '/bin/sh' is denied: profile 'strict' starts none; "
        "allow it with profile='python'"
    )


def test_eperm_of_unknown_origin_is_not_guessed() -> None:
    assert oserror(errno.EPERM) is None
    assert oserror(errno.EINTR, "/home/u/key") is None
    assert oserror(None, "/home/u/key") is None


# -- limits -------------------------------------------------------------------------------------


def test_full_private_disk() -> None:
    text = (
        "private storage is full: disk=256MB, inodes=16384; "
        'allow more with disk="512MB" (many small files: inodes=), or remove files in $TMPDIR'
    )
    assert said(oserror(errno.ENOSPC)) == text
    assert said(oserror(errno.ENOSPC, "/home/u/tmp/x")) == text
    assert oserror(errno.ENOSPC, "/srv/out/x") is None


@pytest.mark.parametrize(
    ("number", "calling", "text"),
    [
        (
            errno.EMFILE,
            None,
            "too many open files: the limit is open_files=256; allow more with open_files=512",
        ),
        (
            errno.EFBIG,
            None,
            'a file would become larger than file_size=256MB; allow more with file_size="512MB"',
        ),
        (
            errno.EAGAIN,
            "fork",
            (
                "no more processes or threads can start: the limit is processes=64; "
                "allow more with processes=128"
            ),
        ),
    ],
)
def test_limits_that_show_as_oserrors(number: int, calling: str | None, text: str) -> None:
    assert said(oserror(number, context=Context(calling=calling))) == text


def test_limit_is_named_by_the_violation() -> None:
    found = oserror(errno.ENOSPC)
    assert found is not None
    assert (found.denied_by, found.limit) == ("limit", "disk")
    hidden = oserror(errno.ENOENT, "/home/u/key")
    assert hidden is not None
    assert hidden.limit is None


def test_source_line_tells_where_the_function_does_not() -> None:
    fork = Context(calling="work", source="    pid = os.fork()")
    assert "processes=64" in said(oserror(errno.EAGAIN, context=fork))
    strict = POLICY.extend(profile="strict")
    assert "profile='python'" in said(oserror(errno.EPERM, context=fork, policy=strict))
    dial = Context(calling="work", source="s = socket.socket(socket.AF_PACKET)")
    assert "net=" in said(oserror(errno.EPERM, context=dial))


def test_eagain_of_a_pipe_is_not_ours() -> None:
    assert oserror(errno.EAGAIN, kind="BlockingIOError") is None


TABLE = _explain.limit_table(
    POLICY.limits, {"memory": "cgroup", "timeout": "supervisor"}, Usage(wall_s=1.0)
)
USED = Usage(wall_s=30.0, cpu_user_s=0.2, peak_memory_bytes=512_000_000, peak_processes=3)


def test_limit_table_holds_every_limit() -> None:
    assert set(TABLE) == set(POLICY.limits.__struct_fields__)
    assert TABLE["memory"] == Limit(name="memory", asked=512e6, enforced_by="cgroup")
    assert TABLE["timeout"].used == 1.0
    assert TABLE["cpus"].asked is None


@pytest.mark.parametrize(
    ("cause", "kind", "text"),
    [
        (
            "timeout",
            SandboxTimeout,
            (
                "the call ran past timeout=30s and was killed (200ms of it on the CPU); "
                'allow more with timeout="60s", or do less in one call'
            ),
        ),
        (
            "memory",
            MemoryLimitExceeded,
            (
                "the call needed more than memory=512MB and was stopped (used 512MB, enforced by "
                'cgroup); allow more with memory="1024MB", or do less in one call'
            ),
        ),
        (
            "output",
            LimitExceeded,
            (
                "the call wrote more than output=8MiB to stdout or stderr and was killed; "
                'allow more with output="16MiB", or do less in one call'
            ),
        ),
        (
            "result",
            LimitExceeded,
            (
                "the result is larger than result=64MiB; "
                'allow more with result="128MiB", or do less in one call'
            ),
        ),
    ],
)
def test_limit_that_ended_the_call(cause: str, kind: type, text: str) -> None:
    error, limit = _explain.explain_limit(cause, TABLE, USED)
    assert type(error) is kind
    assert str(error) == text
    assert limit.hit
    assert limit.name == cause
    assert getattr(error, "limit", cause) == cause


@pytest.mark.parametrize("cause", sorted(POLICY.limits.__struct_fields__))
def test_every_limit_has_words(cause: str) -> None:
    error, limit = _explain.explain_limit(cause, TABLE)
    assert f"{cause}=" in str(error)
    assert limit.hit


def test_killed_job() -> None:
    error = _explain.explain_exit(Exit(signal=11, cause="signaled"), TABLE, USED)
    assert isinstance(error, JobDied)
    assert (str(error), error.signal) == (
        (
            "the job crashed (invalid memory access): SIGSEGV; "
            "no rule did this, native code did; Result.stderr_text may say more"
        ),
        11,
    )


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        (Exit(signal=9, cause="timeout"), SandboxTimeout, "timeout=30s"),
        (Exit(signal=25, cause="signaled"), LimitExceeded, "file_size="),
        (Exit(signal=24, cause="signaled"), JobDied, "SIGXCPU"),  # no such limit was asked
        (Exit(signal=31, cause="signaled"), JobDied, "system call filter"),
        (Exit(signal=63, cause="signaled"), JobDied, "signal 63"),
        (Exit(cause="cancelled"), JobDied, "cancelled"),
        (Exit(cause="lost"), JobDied, "doctor"),
        (Exit(code=3), JobDied, "exit code 3"),
    ],
)
def test_every_end_has_its_error(end: Exit, kind: type, words: str) -> None:
    error = _explain.explain_exit(end, TABLE, USED)
    assert type(error) is kind
    assert words in str(error)


def test_sigxcpu_is_the_limit_where_one_was_asked() -> None:
    table = _explain.limit_table(Policy.from_keywords(cpu_time="2s").limits)
    end = Exit(signal=24, cause="signaled")
    error = _explain.explain_exit(end, table, Usage(cpu_user_s=1.9, cpu_system_s=0.1))
    assert isinstance(error, LimitExceeded)
    assert "cpu_time=" in str(error)
    # Long before the limit: the job sent it to itself.
    assert type(_explain.explain_exit(end, table, USED)) is JobDied


# -- environment, system calls ------------------------------------------------------------------


def test_hidden_variable() -> None:
    found = _explain.explain_keyerror("API_KEY", POLICY, {"API_KEY"}.__contains__)
    assert said(found) == (
        "the environment variable 'API_KEY' is set on the host, but the policy hides it; "
        "allow it with env=['API_KEY']"
    )


@pytest.mark.parametrize("name", ["LANG", "MODE", "ABSENT", "not a name", 3, None, b"\xff"])
def test_other_keys_are_not_explained(name: object) -> None:
    host = {"LANG", "MODE", "API_KEY", "not a name"}
    assert _explain.explain_keyerror(name, POLICY, host.__contains__) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Set the `API_KEY` environment variable", "env=['API_KEY']"),
        ("neither ABSENT_KEY nor API_KEY is set", "env=['API_KEY']"),
        ("API_KEYS is not API_KEYED", None),
        ("x" * 3000 + " API_KEY", None),
    ],
)
def test_a_message_that_names_a_hidden_variable(text: str, rule: str | None) -> None:
    found = _explain.explain_named_variable(text, POLICY, {"API_KEY", "OTHER"}.__contains__)
    assert (found and found.rule) == rule


def test_hidden_variable_is_not_revealed() -> None:
    quiet = POLICY.extend(reveal=False)
    assert _explain.explain_keyerror("API_KEY", quiet, lambda name: True) is None


@pytest.mark.parametrize(
    ("name", "group", "args", "text"),
    [
        (
            "socket",
            "socket",
            [2, 1, 0],
            (
                "socket(AF_INET) is denied: the policy gives no network; "
                "allow it with net=['host:port']"
            ),
        ),
        (
            "socket",
            "socket",
            [16, 3, 0],
            (
                "socket(AF_NETLINK) is denied: a sandbox reaches no local or kernel service; "
                "no rule allows it in a sandbox"
            ),
        ),
        (
            "execve",
            "process",
            [],
            (
                "the system call execve is denied by the filter (starting a program or process); "
                "allow it with profile='python'"
            ),
        ),
    ],
)
def test_denied_system_call(name: str, group: str, args: list[int], text: str) -> None:
    found = _explain.explain_denied_syscall(0, name, args, group, count=3)
    assert said(found) == text
    assert (found.syscall, found.count, found.denied_by) == (name, 3, "seccomp")


@pytest.mark.parametrize("name", ["mount", "ptrace", "bpf", "keyctl", "clone3", "io_uring_setup"])
def test_no_rule_is_named_where_none_can_help(name: str) -> None:
    from agentsbx import _tables

    group = next(g for g, row in _tables.load().group.items() if name in row.syscalls)
    found = _explain.explain_denied_syscall(0, name, [], group)
    assert found.rule is None
    assert "no rule allows it" in found.message


def test_a_new_namespace_by_clone_has_no_rule() -> None:
    assert _explain.explain_denied_syscall(56, "clone", [0x10000000], "thread").rule is None


def test_system_calls_that_a_policy_may_add() -> None:
    found = _explain.explain_denied_syscall(0, "shmget", [], "ipc")
    assert found.rule == "syscalls=['shmget']"


# -- hostile words ------------------------------------------------------------------------------


@given(
    st.sampled_from([errno.ENOENT, errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EMFILE]),
    st.one_of(st.text(), st.binary(), st.integers(), st.none()),
    st.sampled_from([None, "connect", "fork", "_execute_child"]),
)
def test_any_name_gives_a_bounded_printable_line(number: int, name: Any, calling: str) -> None:
    context = Context(cwd="/proj", calling=calling, host_which=lambda name: "/x/y")
    found = _explain.explain_oserror(
        "OSError", number, name, name, POLICY, lambda path: True, context=context
    )
    if found is not None:
        assert len(found.message) <= 300
        assert found.message.isprintable()


def test_a_long_path_keeps_the_message_bounded() -> None:
    path = "/srv/" + "x" * 4000
    found = _explain.explain_oserror("OSError", errno.ENOENT, path, None, POLICY, lambda p: True)
    assert found is not None
    assert len(found.message) <= 300
    assert found.rule == f"read=[{path!r}]"
    assert "violation.rule" in found.message


# -- policies and functions ---------------------------------------------------------------------


def test_policy_in_words() -> None:
    text = _explain.explain_policy(POLICY)
    for words in (
        "read      /srv/data and all below it",
        "write     /srv/out and all below it",
        "see       $LANG of the host's environment",
        "$MODE set to 'x'",
        "reach     no network",
        "timeout: 30s of wall-clock time",
        "cpus: unlimited",
        "raises SandboxViolation",
    ):
        assert words in text


def test_policy_file_in_words(tmp_path: Any) -> None:
    path = tmp_path / "p.toml"
    path.write_text("widen = ['timeout']\nreveal = false\n[limits]\nmemory = '100MB'\n")
    text = _explain.explain_policy(Policy.from_file(path))
    assert os.fspath(path) in text
    assert "Code may widen: timeout" in text
    assert "disk is larger than memory" in text
    assert "do not tell whether" in text
