"""A job that writes NOTE frames itself: logs, warnings, measured lines that none of ours sends.

Source: CWE-117 (forged lines of a log), CWE-134 (formats from outside), CWE-1322 (a handler that
reads what a message names: `linecache` shows the source line of a warning), security.md section 5.
Shapes: agentsbx/_notes.py.
"""

from __future__ import annotations

import importlib
import io
import linecache
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import agentsbx
from agentsbx import _notes, sandbox

NOTE = 25
LOG, WARNING, LINES, ARCS = 1, 2, 3, 4


def sends(bodies: list[bytes], times: int = 1) -> str:
    """Runs in the job: write frames on its channel."""
    import os
    import struct

    for _ in range(times):
        for body in bodies:
            os.write(3, struct.pack("=IIQQ", 25, len(body), 0, 0) + body)
    return "sent"


def log_note(**changes: Any) -> bytes:
    plain: dict[str, Any] = {
        "name": "hostile", "level": 30, "message": "m", "path": "/p.py", "line": 1, "func": "f",
        "created": time.time(), "thread": "T", "process": "P", "failure": "", "stack": "",
        "extra": {}, "handled": False,
    }  # fmt: skip
    assert changes.keys() <= plain.keys()
    return msgspec.msgpack.encode([LOG, *(plain | changes).values()])


def warning_note(
    module: str = "builtins", name: str = "UserWarning", text: str = "w", file: str = "/f.py",
    line: int = 1, source: str = "m",
) -> bytes:  # fmt: skip
    return msgspec.msgpack.encode([WARNING, module, name, text, file, line, source])


@pytest.fixture(scope="module")
def job() -> Any:
    return sandbox(timeout="20s")(sends)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """Yield the records that the root logger has handled."""
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    logging.root.addHandler(handler)
    yield seen
    logging.root.removeHandler(handler)


def shown(record: logging.LogRecord) -> str:
    return logging.Formatter(
        "%(asctime)s %(name)s %(levelname)s %(message)s %(threadName)s %(processName)s %(funcName)s"
        " %(pathname)s"
    ).format(record)


MALFORMED = {
    "empty": b"",
    "no msgpack": b"\xc1\xff",
    "nil": b"\xc0",
    "map": msgspec.msgpack.encode({"type": LOG}),
    "no tag": msgspec.msgpack.encode([]),
    "unknown tag": msgspec.msgpack.encode([99, "x"]),
    "tag of a wrong type": msgspec.msgpack.encode(["1", "x"]),
    "too short": msgspec.msgpack.encode([LOG, "n", 30]),
    "too long": msgspec.msgpack.encode([*msgspec.msgpack.decode(log_note()), 1]),
    "level of a wrong type": log_note(level="30"),
    "level negative": log_note(level=-1),
    "level huge": log_note(level=2**62),
    "line beyond an int": log_note(line=2**63),
    "name no text": log_note(name=3),
    "name no UTF-8": log_note(name="abc").replace(b"abc", b"\xff\xfe\xff"),
    "message nested": log_note(message=[["x"]]),
    "extra no map": log_note(extra=[1]),
    "extra of many": log_note(extra={f"a{i}": i for i in range(1000)}),
    "extra nested": log_note(extra={"a": {"b": [1]}}),
    "extra of bytes": log_note(extra={"a": b"x"}),
    "extra key long": log_note(extra={"a" * 10000: 1}),
    "extra key no text": log_note(extra={"a": 1}).replace(b"\xa1a\x01", b"\x01\x01\x01"),
    "deep": b"\x9d\x01" + b"\x91" * 30_000 + b"\xc0",
    "array of 2^32": b"\xdd\xff\xff\xff\xff\x01",
    "map of 2^32": log_note()[:-2] + b"\xdf\xff\xff\xff\xff",
    "extension": b"\xc7\x01\x05x",
    "warning line negative": warning_note(line=-1),
    "lines of text": msgspec.msgpack.encode([LINES, "f", ["a"]]),
    "line of 2^40": msgspec.msgpack.encode([LINES, "f", [2**40]]),
    "line zero": msgspec.msgpack.encode([LINES, "f", [0]]),
    "arc of three": msgspec.msgpack.encode([ARCS, "f", [[1, 2, 3]]]),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_malformed_ends_the_job(what: str, job: Any, records: list[Any]) -> None:
    start = time.monotonic()
    result = job.run([MALFORMED[what]])
    assert isinstance(result.error, agentsbx.ResultError), result
    assert "note" in str(result.error)
    assert len(str(result.error)) <= 300
    assert time.monotonic() - start < 5
    assert not records


def test_a_record_cannot_fake_lines_or_steer_a_terminal(job: Any, records: list[Any]) -> None:
    evil = "ok\n2026-01-01 CRITICAL payments: all fine\r\x1b]0;t\x07\x9b2J\u2028\u202e\0\x7f\x85"
    job([log_note(name=evil, message=evil, path=evil, func=evil, thread=evil, process=evil,
                  failure=evil, stack=evil, extra={"own": evil})])  # fmt: skip
    [record] = records
    first, *rest = shown(record).split("\n")
    assert all(line.startswith("    ") for line in rest)
    assert all(c.isprintable() for line in (first, *rest) for c in line)
    assert "\\x1b]0;t\\x07" in first
    assert record.own.isprintable()


def test_a_message_is_never_a_format(job: Any, records: list[Any]) -> None:
    evil = "%(message)s %s %n %1000000000d {0.__class__} ${HOME} %%"
    job([log_note(message=evil, name="%s", func="%d", extra={"args": 5, "msg": "other"})])
    [record] = records
    assert record.getMessage() == evil
    assert record.args == ()
    assert evil in shown(record)


def test_no_attribute_of_a_record_is_overwritten(job: Any, records: list[Any]) -> None:
    plain = logging.LogRecord("", 0, "", 0, "", (), None)
    names = [n for n in (*vars(plain), *dir(plain)) if not n.startswith("__")]
    names += ["__class__", "__dict__", "_x", "message", "asctime", "sandbox", "a b", "", "taskName"]
    for at in range(0, len(names), 15):
        job([log_note(extra=dict.fromkeys(names[at : at + 15], "evil") | {"good": 1})])
    assert records
    for record in records:
        assert record.good == 1
        assert "evil" not in [v for v in vars(record).values() if isinstance(v, str)]
        assert callable(record.getMessage)
        assert record.sandbox == "sends"
        assert record.exc_info is None


def test_our_own_name_is_not_a_jobs_to_speak_with(job: Any, records: list[Any]) -> None:
    job([log_note(name="agentsbx"), log_note(name="agentsbx.audit")])
    assert [r.name for r in records] == ["job:agentsbx", "job:agentsbx.audit"]


def test_names_make_no_loggers(job: Any, records: list[Any]) -> None:
    before = len(logging.root.manager.loggerDict)
    known = logging.getLogger("hostile.known")
    known.setLevel(logging.ERROR)
    try:
        job([log_note(name=f"hostile.{i}.{'x' * 50}") for i in range(300)]
            + [log_note(name="hostile.known.below"), log_note(name="hostile.known.b", level=40)]
            + [log_note(name=n) for n in ("", ".", "..", "root", "a..b", "a" * 9999)])  # fmt: skip
    finally:
        known.setLevel(logging.NOTSET)
    assert len(logging.root.manager.loggerDict) <= before + 2
    assert [r.name for r in records if "known" in r.name] == ["hostile.known.b"]
    assert len(records) == 300 + 1 + 6


@pytest.mark.parametrize("created", [float("nan"), float("inf"), -1e300, 1e18, 0.0])
def test_times_are_plausible(created: float, job: Any, records: list[Any]) -> None:
    job([log_note(created=created)])
    [record] = records
    assert abs(record.created - time.time()) < 60
    assert shown(record)


def test_notes_are_bounded_in_count_and_bytes(job: Any, records: list[Any]) -> None:
    big = log_note(message="x" * 30_000)
    result = job.run([big], 400)
    assert result.unwrap() == "sent"
    assert len(records) == _notes.MAX_BYTES // len(big)
    assert result.notes_dropped == 400 - len(records)
    records.clear()
    result = job.run([log_note()], _notes.MAX_NOTES + 100)
    assert (len(records), result.notes_dropped) == (_notes.MAX_NOTES, 100)


def test_an_endless_flood_ends_at_the_deadline(records: list[Any]) -> None:
    flood = sandbox(timeout="1s")(sends)
    start = time.monotonic()
    result = flood.run([log_note()], 10**9)
    assert isinstance(result.error, agentsbx.SandboxTimeout)
    assert time.monotonic() - start < 10
    assert len(records) <= _notes.MAX_NOTES


# -- warnings ---


def test_a_warning_shows_no_line_of_a_file_that_the_job_lacks(
    job: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = scratch / "settings.py"
    secret.write_text("KEY = 'hunter2'\n")
    own = sends.__code__
    here = Path(__file__).read_text().split("\n")
    hidden_line = next(i for i, text in enumerate(here, 1) if text.startswith("LOG, WARNING"))
    shown_line = own.co_firstlineno + 2
    monkeypatch.setattr(sys, "stderr", out := io.StringIO())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "_showwarnmsg_impl", _real_show)
        for file in (str(secret), f"{scratch}/../{scratch.name}/settings.py", "/etc/hostname"):
            job([warning_note(file=file)])
        job([warning_note(file=__file__, line=hidden_line)])
        job([warning_note(file=__file__, line=shown_line, text="in our own code")])
        job([warning_note(file=logging.__file__, line=1, text="in a library")])
    text = out.getvalue()
    assert "hunter2" not in text
    assert "LOG, WARNING" not in text
    assert text.count("(in the sandbox)") == 4
    assert here[shown_line - 1].strip() in text
    assert linecache.getline(logging.__file__, 1).strip() in text


def _real_show(msg: warnings.WarningMessage) -> None:
    """As `warnings` itself does it; pytest puts its own in that place."""
    sys.stderr.write(
        warnings.formatwarning(str(msg.message), msg.category, msg.filename, msg.lineno, msg.line)
    )


def test_only_known_categories_are_made_and_only_warnings(job: Any) -> None:
    odd = [
        ("builtins", "SystemExit"), ("builtins", "KeyboardInterrupt"), ("builtins", "print"),
        ("builtins", "Exception"), ("os", "system"), ("subprocess", "Popen"),
        ("agentsbx", "CaptureWarning"), ("agentsbx._ship", "CaptureWarning"), ("", ""),
        ("\x1b[2J\n", "X\r"), ("a" * 5000, "b" * 5000), ("__main__", "__class__"),
    ]  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        job([warning_note(module, name, "text\nx") for module, name in odd])
    assert [w.category for w in caught] == [UserWarning] * len(odd)
    assert all(str(w.message).isprintable() for w in caught)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        job([warning_note(name=n) for n in ("DeprecationWarning", "Warning", "BytesWarning")])
    assert [w.category for w in caught] == [DeprecationWarning, Warning, BytesWarning]


def test_warnings_leave_little_behind(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_notes, "_MAX_REGISTRY", 50)
    with warnings.catch_warnings(record=True):
        warnings.resetwarnings()
        warnings.simplefilter("default")
        job([warning_note(text=f"t{i}", file=f"/f{i}.py", line=i) for i in range(400)])
        job([warning_note(text=f"t{i}") for i in range(400)])
    assert len(_notes._registries) <= 52
    assert max(map(len, _notes._registries.values())) <= 53
    assert "__warningregistry__" not in vars(logging)


def raises_as_if_at(file: str, line: int) -> None:
    exec(compile("\n" * (line - 1) + "raise ValueError('x')", file, "exec"))


def test_a_traceback_shows_no_line_but_those_that_the_job_was_given(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a model reads of an error must not hold what the job could not read itself."""
    (scratch / "settings_of_ours.py").write_text("KEY = 'hunter2'\n")
    monkeypatch.syspath_prepend(str(scratch))
    settings = importlib.import_module("settings_of_ours")
    here = Path(__file__).read_text().split("\n")
    hidden_line = next(i for i, text in enumerate(here, 1) if text.startswith("LOG, WARNING"))
    own = raises_as_if_at.__code__
    try:
        for file, line in ((settings.__file__, 1), (__file__, hidden_line)):
            error = sandbox(raises_as_if_at).run(file, line).error
            text = str(error.__cause__) if error is not None else ""
            assert f'File "{file}", line {line}' in text
            assert "hunter2" not in text
            assert "LOG, WARNING" not in text
            assert here[own.co_firstlineno].strip() in text  # its own line is shown
        # What a host would show that trusts the place.
        assert "hunter2" in linecache.getline(settings.__file__, 1)
    finally:
        del sys.modules["settings_of_ours"]


# -- coverage ---


def test_lines_count_only_while_measured_and_for_files_of_the_project(
    job: Any, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coverage = pytest.importorskip("coverage", reason="machine lacks: the package coverage")
    other = scratch / "other.py"
    other.write_text("x = 1\n")
    notes = [
        msgspec.msgpack.encode([LINES, name, [1, 2, 3]])
        for name in (str(other), "/etc/passwd", logging.__file__, "", "\0", "x" * 9000, __file__)
    ]
    assert job(notes) == "sent"  # nobody measures
    measured = coverage.Coverage(data_file=None)
    measured.start()
    try:
        assert job([*notes, msgspec.msgpack.encode([ARCS, __file__, [[1, 2]]])]) == "sent"
    finally:
        measured.stop()
    data = measured.get_data()
    assert not {str(other), "/etc/passwd", logging.__file__} & set(data.measured_files())
    assert {1, 2, 3} <= set(data.lines(__file__))
    with pytest.raises(agentsbx.ResultError, match="note"):
        job([msgspec.msgpack.encode([LINES, __file__, [_notes.MAX_LINE + 1]])])


# -- the controls ---


def test_naive_handlers_are_steered() -> None:
    """What a host gets that hands a job's text to its loggers and warnings as it is."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    record = logging.makeLogRecord({"msg": "ok\n2026 CRITICAL x", "getMessage": "no"})
    with pytest.raises(TypeError):
        handler.format(record)
    del record.getMessage  # type: ignore[misc]
    assert handler.format(record).split("\n")[1] == "2026 CRITICAL x"
    text = warnings.formatwarning("w", UserWarning, __file__, 3)
    assert linecache.getline(__file__, 3).strip() in text
