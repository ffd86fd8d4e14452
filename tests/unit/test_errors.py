"""The exception tree: message bound, notes, pickling, and the words of set-up failures."""

from __future__ import annotations

import errno
import pickle

import pytest

from agentsbx import _remedies, errors
from agentsbx.errors import ErrRecord, PolicyError, Stage, unavailable
from agentsbx.result import Violation

VIOLATION = Violation(operation="read", target="/x", denied_by="mount", message="no /x")
ONE_OF_EACH = [
    errors.AgentsbxError("x", stage="userns", errno=1, hint="do y"),
    errors.PolicyError("x", file="p.toml", line=3, column=4, path="limits.memory", hint="y"),
    errors.SandboxUnavailable("x", missing=["a", "b"], stage="proc", errno=1),
    errors.SandboxBusy("x", missing=["a place"]),
    errors.SerializationError("x", where="global 'client'.pool._lock"),
    errors.SandboxViolation(violation=VIOLATION, errno=13),
    errors.SandboxTimeout("x", hint='timeout="60s"'),
    errors.MemoryLimitExceeded("x"),
    errors.LimitExceeded("x", limit="output"),
    errors.RemoteError(type_name="mod.Err", args_repr="('a',)"),
    errors.JobDied("x", signal=11, exit_code=None),
    errors.ResultError("x"),
]


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_errors_survive_pickling_with_attributes_and_notes(
    error: errors.AgentsbxError, protocol: int
) -> None:
    error.add_note("a note")
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (errors.PolicyError, ValueError),
        (errors.SandboxUnavailable, RuntimeError),
        (errors.SerializationError, TypeError),
        (errors.SandboxViolation, PermissionError),
        (errors.SandboxTimeout, TimeoutError),
        (errors.MemoryLimitExceeded, MemoryError),
        (errors.LimitExceeded, RuntimeError),
    ],
)
def test_frameworks_can_map_the_builtin_base(kind: type, base: type) -> None:
    with pytest.raises(base, match=r"^words$"):
        raise kind("words")


def test_every_public_error_is_tried_here() -> None:
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.AgentsbxError)
    }
    assert {type(e) for e in ONE_OF_EACH} == kinds
    doc = errors.__doc__ or ""
    assert all(kind.__name__ in doc for kind in kinds)


def test_long_message_is_cut_at_300_and_whole_in_the_notes() -> None:
    text = "word " * 200
    error = errors.JobDied(text, hint="do this")
    assert len(str(error)) <= 300
    assert str(error).endswith(" ...")
    assert error.__notes__ == [text, "do this"]


def test_hint_is_appended_once_where_it_fits() -> None:
    assert str(errors.ResultError("It broke.", hint="mend it")) == "It broke; mend it"
    assert str(errors.ResultError("broke; mend it", hint="mend it")) == "broke; mend it"
    assert str(errors.ResultError("Broken?", hint="mend it")) == "Broken? mend it"


def test_oserror_bases_do_not_reshape_message_or_errno() -> None:
    error = errors.SandboxViolation("no", errno=errno.EACCES)
    assert (str(error), error.errno, error.args) == ("no", errno.EACCES, ("no",))
    assert errors.SandboxTimeout("late").errno is None


def test_record_is_twelve_bytes_and_refuses_others() -> None:
    record = ErrRecord(Stage.LANDLOCK, 7, errno.ENOSYS, 9)
    assert len(record.pack()) == 12
    assert ErrRecord.unpack(memoryview(record.pack())) == record
    assert record.failed
    assert not ErrRecord(0, 0, 0, 0).failed
    assert ErrRecord(999, 0, 1, 0).where == "stage 999"
    with pytest.raises(ValueError, match="12 bytes"):
        ErrRecord.unpack(b"short")


@pytest.mark.parametrize(
    ("stage", "number", "thing", "words"),
    [
        (Stage.USERNS, errno.EPERM, None, "kernel.apparmor_restrict_unprivileged_userns"),
        (Stage.USERNS, errno.EPERM, None, "kernel.unprivileged_userns_clone"),
        (Stage.USERNS, errno.ENOSPC, None, "user.max_user_namespaces"),
        (Stage.PROC, errno.EPERM, None, "unmasked /proc"),
        (Stage.GRANT, errno.ENOENT, "/srv/data", "/srv/data"),
        (Stage.GRANT_IDMAP, errno.EINVAL, "/srv/data", "overlayfs"),
        (Stage.CGROUP, errno.EACCES, None, "Delegate=yes"),
        (Stage.LANDLOCK, errno.ENOSYS, None, "CONFIG_SECURITY_LANDLOCK"),
        (Stage.LANDLOCK, errno.EOPNOTSUPP, None, "lsm=landlock"),
        (Stage.SECCOMP, errno.EINVAL, None, "CONFIG_SECCOMP_FILTER"),
        (Stage.RLIMIT, errno.EPERM, None, "hard limit"),
        (Stage.EXEC, errno.ENOENT, "/opt/py/bin/python", "/opt/py/bin/python"),
    ],
)
def test_unavailable_says_what_why_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, number: int, thing: str | None, words: str
) -> None:
    monkeypatch.setattr(_remedies, "is_filtered", lambda: False)
    error = unavailable(ErrRecord(stage, 3, number, 0), object=thing)
    assert words in str(error)
    assert stage.text in str(error)
    assert len(str(error)) <= 300
    assert error.hint
    assert (error.stage, error.errno) == (stage.label, number)
    assert error.missing
    assert f"stage {stage.label}, op 3" in "\n".join(error.__notes__)


@pytest.mark.parametrize("filtered", [False, True])
def test_every_remedy_fits_its_message(monkeypatch: pytest.MonkeyPatch, filtered: bool) -> None:
    monkeypatch.setattr(_remedies, "is_filtered", lambda: filtered)
    for stage, number in _remedies.REMEDIES:
        error = unavailable(ErrRecord(stage, 0, number, 0), object="/a/path/of/usual/length")
        assert error.hint, (stage, number)
        assert error.hint in str(error), (stage, number)


def test_unavailable_knows_numbers_that_nobody_listed() -> None:
    error = unavailable(ErrRecord(77, 0, 999, 0))
    assert "stage 77" in str(error)
    assert "ENOENT" not in str(error)


def test_policy_error_names_its_place() -> None:
    error = PolicyError("bad", file="p.toml", line=7, path="read")
    assert str(error) == "p.toml:7: bad"
    assert (error.file, error.line, error.column, error.path) == ("p.toml", 7, None, "read")
