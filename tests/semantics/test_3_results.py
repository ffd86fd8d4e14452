"""Semantics section 3: results and errors."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import decimal
import enum
import os
import pathlib
import traceback
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import pytest

from agentsbx import (
    AgentsbxError,
    RemoteError,
    SandboxTimeout,
    SandboxViolation,
    sandbox,
)

RAN: list[str] = []


@dataclasses.dataclass
class Point:
    x: int
    y: int

    def __post_init__(self) -> None:
        RAN.append("post_init")


class Colour(enum.Enum):
    RED = 1


class Sneaky:
    def __reduce__(self) -> Any:
        return (RAN.append, ("reduce",))

    def __setstate__(self, state: Any) -> None:
        RAN.append("setstate")


class ProjectError(Exception):
    def __init__(self, code: int, *, retry: bool) -> None:
        super().__init__(code)
        self.code = code
        self.retry = retry


class OtherError(Exception):
    pass


@sandbox
def point(x: int) -> Point:
    return Point(x, x)


def test_3_1_annotated_classes_are_rebuilt_by_validation() -> None:
    back = point(3)
    assert type(back) is Point
    assert (back.x, back.y) == (3, 3)


def test_3_1_nothing_of_the_job_runs_in_the_host() -> None:
    RAN.clear()

    @sandbox
    def f() -> Any:
        return Sneaky()

    result = f.run()
    assert type(result.value) is not Sneaky or result.error is not None
    assert RAN == []


def test_3_1_a_class_that_nothing_names_is_not_rebuilt() -> None:
    @sandbox
    def f():  # type: ignore[no-untyped-def]
        return Point(1, 2)

    with pytest.raises(AgentsbxError, match="Point") as caught:
        f()
    assert "->" in f"{caught.value} {caught.value.hint}"


def test_3_1_classes_of_the_arguments_are_rebuilt() -> None:
    @sandbox
    def f(p):  # type: ignore[no-untyped-def]
        return [type(p)(p.y, p.x)]

    assert f(Point(1, 2)) == [Point(2, 1)]


def test_3_1_pydantic_and_msgspec_models_are_validated() -> None:
    pydantic = pytest.importorskip("pydantic")
    import msgspec

    class Model(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        a: int

    class Struct(msgspec.Struct):
        b: list[int]

    @sandbox
    def model() -> Model:
        return Model(a=1)

    @sandbox
    def struct() -> Struct:
        return Struct([1, 2])

    assert model() == Model(a=1)
    assert struct() == Struct([1, 2])


def test_3_2_project_exceptions_keep_type_arguments_and_state() -> None:
    @sandbox
    def f() -> None:
        error = ProjectError(7, retry=True)
        error.when = "now"  # type: ignore[attr-defined]
        raise error

    with pytest.raises(ProjectError) as caught:
        f()
    assert (caught.value.code, caught.value.retry, caught.value.args) == (7, True, (7,))
    assert caught.value.when == "now"  # type: ignore[attr-defined]


def test_3_2_raises_names_further_exceptions() -> None:
    with pytest.raises(RemoteError, match="OtherError"):
        _by_name()
    with pytest.raises(OtherError, match="words"):
        _by_name_known()


@sandbox
def _by_name() -> None:
    made = type("OtherError", (Exception,), {})
    raise made("words")


@sandbox(raises=[OtherError])
def _by_name_known() -> None:
    raise OtherError("words")


@pytest.mark.parametrize(
    "make",
    [
        lambda: KeyboardInterrupt(),
        lambda: GeneratorExit(),
        lambda: StopIteration(1),
        lambda: StopAsyncIteration(),
        lambda: asyncio.CancelledError(),
        lambda: SandboxViolation("our words"),
        lambda: SandboxTimeout("our words"),
    ],
)
def test_3_3_a_job_cannot_forge_control_flow_or_our_words(
    make: Callable[[], BaseException],
) -> None:
    @sandbox
    def f() -> None:
        raise make()

    error = f.run().error
    assert type(error) is RemoteError


def test_3_3_sys_exit_is_no_exit_of_the_host() -> None:
    @sandbox
    def f() -> None:
        raise SystemExit(3)

    assert isinstance(f.run().error, AgentsbxError)


VALUES = [
    2**200,
    -(2**63) - 1,
    "\ud800 lone",
    bytearray(b"ab"),
    (1, (2,)),
    {1, 2},
    frozenset({"a"}),
    range(1, 9, 2),
    1 + 2j,
    datetime.datetime(2024, 1, 2, 3, 4, 5, 6),
    datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    datetime.timedelta(days=-1, microseconds=1),
    decimal.Decimal("1.10"),
    uuid.UUID(int=5),
    pathlib.PurePosixPath("/a/b"),
    pathlib.Path("/a/b"),
    Colour.RED,
    {(1, "a"): 1, None: 2, 1.5: 3, b"k": 4},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_3_4_the_codec_keeps(value: Any) -> None:
    @sandbox
    def f(x: Any) -> Any:
        return x

    back = f(value)
    assert back == value
    assert type(back) is type(value)
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        assert repr(back) == repr(value)


def test_3_5_the_remote_traceback_is_there_with_one_frame_of_ours() -> None:
    def inner() -> None:
        raise KeyError("deep")

    @sandbox
    def f() -> None:
        inner()

    with pytest.raises(KeyError) as caught:
        f()
    text = "".join(traceback.format_exception(caught.value))
    assert ", in inner" in text
    assert "test_3_results.py" in text
    ours = [
        frame
        for frame in traceback.extract_tb(caught.value.__traceback__)
        if "/agentsbx/" in frame.filename
    ]
    assert len(ours) == 1


def test_3_5_a_traceback_shows_the_lines_that_the_job_could_not_read() -> None:
    @sandbox
    def f() -> None:
        raise ValueError("here")  # this very line

    cause = f.run().error.__cause__  # type: ignore[union-attr]
    assert '    raise ValueError("here")  # this very line\n' in str(cause)


def test_3_5_a_traceback_shows_no_lines_of_other_files(tmp_path: pathlib.Path) -> None:
    """Its text is the job's: it may name any file, and the host opens none for it."""
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret\n")

    @sandbox
    def f() -> None:
        exec(compile("1 / 0", str(secret), "exec"))

    cause = str(f.run().error.__cause__)  # type: ignore[union-attr]
    assert str(secret) in cause
    assert "the secret" not in cause


@pytest.mark.parametrize("kind", ["call", "generator"])
def test_3_5_at_most_one_frame_is_ours(kind: str) -> None:
    def g() -> Any:
        yield 1
        raise ProjectError(1, retry=False)

    def f() -> Point:
        return object()  # type: ignore[return-value]

    with pytest.raises((ProjectError, AgentsbxError)) as caught:
        list(sandbox(g)()) if kind == "generator" else sandbox(f)()
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert sum(f"{os.sep}agentsbx{os.sep}" in frame.filename for frame in frames) == 1
