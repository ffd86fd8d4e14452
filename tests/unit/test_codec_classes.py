"""Which of the user's classes come back, and that none of their code runs for it."""

from __future__ import annotations

import collections
import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from _codec_samples import (
    CALLED,
    Box,
    Closing,
    Colour,
    Evil,
    Level,
    Mode,
    Names,
    Packed,
    Pair,
    Point,
    Row,
    Slotted,
    Table,
    UserId,
    make,
    round_trip,
)
from agentsbx._codec import ClassTable, decode, encode
from agentsbx.errors import ResultError, SerializationError


@pytest.fixture(autouse=True)
def _nothing_called() -> Any:
    CALLED.clear()
    yield
    assert CALLED == []


@pytest.mark.parametrize(
    "annotation",
    [
        Point, Point | None, list[Point], dict[str, tuple[Point, ...]], Annotated[Point, "x"],
        Row, UserId, Box[Point], Literal["x"] | Point, collections.OrderedDict[str, Point],
    ],
)  # fmt: skip
def test_class_in_the_annotation_is_rebuilt(annotation: Any) -> None:
    point = make(Point, x=1, y=2, more=[make(Point, x=3, y=4.0, more=None)])
    made = round_trip(point, ClassTable.build(annotation=annotation))
    assert type(made) is Point
    assert made == point
    assert type(made.more[0]) is Point


def test_class_of_an_argument_is_rebuilt() -> None:
    point = make(Point, x=1, y=2.0, more=None)
    for table in (
        ClassTable.build(args=(point,)),
        ClassTable.build(kwargs={"k": {"deep": [Box(point)]}}),
        ClassTable.build(args=(Point,)),
    ):
        assert round_trip([point], table) == [point]


def test_unknown_class_is_refused_and_names_the_remedy() -> None:
    with pytest.raises(ResultError, match="annotat"):
        round_trip(make(Point, x=1, y=2, more=None))


def test_no_code_of_the_class_runs() -> None:
    evil = make(Evil)
    vars(evil).update(x=[1], prop=3)
    made = round_trip(evil, ClassTable.build(annotation=Evil))
    assert type(made) is Evil
    assert vars(made) == {"x": [1], "prop": 3}


def test_slots_enums_and_tuples() -> None:
    slotted = make(Slotted, a=[1])
    table = ClassTable.build(args=(slotted, Colour, Mode, Level, Pair))
    made = round_trip(slotted, table)
    assert made.a == [1]
    assert not hasattr(made, "b")
    for value in (Colour.RED, Mode.A, Mode.A | Mode.B, Mode(0), Level.LOW, Pair(1, "b")):
        made = round_trip(value, table)
        assert type(made) is type(value)
        assert made == value
    assert round_trip(Colour.RED, table) is Colour.RED
    assert round_trip({Colour.RED: 1, Pair(1, "x"): 2}, table) == {Colour.RED: 1, (1, "x"): 2}


def test_subclasses_of_builtins_keep_items_and_state() -> None:
    names, table = Names([1, 2]), Table({"a": 1})
    names.owner = names  # type: ignore[attr-defined]
    classes = ClassTable.build(annotation=Names | Table)
    made = round_trip(names, classes)
    assert type(made) is Names
    assert list(made) == [1, 2]
    assert made.owner is made
    made = round_trip(table, classes)
    assert type(made) is Table
    assert dict(made) == {"a": 1}


def test_struct_is_made_without_post_init() -> None:
    source = msgspec.defstruct("Packed", [("a", int), ("b", int)], module="_codec_samples")
    source.__qualname__ = "Packed"
    made = round_trip(source(1, 2), ClassTable.build(annotation=Packed))
    assert type(made) is Packed
    assert (made.a, made.b) == (1, 2)
    for bad in (source("x", 2), source(1, -2)):
        with pytest.raises(ResultError, match="annotation"):
            round_trip(bad, ClassTable.build(annotation=Packed))


def test_annotated_dataclass_is_checked_field_by_field() -> None:
    table = ClassTable.build(annotation=Point)
    for bad in (
        make(Point, x="evil", y=0.0, more=None),
        make(Point, x=1, y=0.0, more=[make(Point, x=1, y=1.0, more=None), "evil"]),
        make(Point, y=0.0, more=None),
    ):
        with pytest.raises(ResultError, match="field"):
            round_trip(bad, table)


def test_check_waits_for_the_end_of_a_cycle() -> None:
    many: list[Any] = []
    many += [make(Point, x=1, y=0.0, more=many), "evil"]
    with pytest.raises(ResultError, match="field"):
        round_trip(many, ClassTable.build(annotation=list[Point]))


def test_class_with_del_neither_leaves_nor_arrives() -> None:
    with pytest.raises(SerializationError, match="__del__"):
        encode(object.__new__(type("X", (Closing,), {"__del__": lambda self: None})))
    twin = type("Closing", (), {"__module__": "_codec_samples", "__qualname__": "Closing"})
    body, buffers = encode([twin()])
    with pytest.raises(ResultError, match="__del__"):
        decode(body, buffers, classes=ClassTable.build(annotation=Closing))


@pytest.mark.parametrize(
    ("name", "state"),
    [("Level", {}), ("Colour", {"_value_": 1}), ("Pair", {}), ("Point", {"__class__": 1}),
     ("Point", {"x": 1, "y": 1.0, "more": None, "evil": 1}), ("Packed", {"a": 1, "evil": 1})],
)  # fmt: skip
def test_object_row_cannot_fake_other_kinds(name: str, state: dict[str, Any]) -> None:
    twin = type(name, (), {"__module__": "_codec_samples", "__qualname__": name})
    value = object.__new__(twin)
    value.__dict__.update({k: v for k, v in state.items() if k != "__class__"})
    if "__class__" in state:
        value.__dict__["__evil__"] = 1
    body, buffers = encode([value])
    table = ClassTable.build(annotation=Level | Colour | Pair | Point | Packed)
    with pytest.raises(ResultError):
        decode(body, buffers, classes=table)


def test_int_subclass_row_cannot_fake_an_enum_member() -> None:
    twin = type("Level", (int,), {"__module__": "_codec_samples", "__qualname__": "Level"})
    with pytest.raises(ResultError, match="by name"):
        round_trip([twin(7)], ClassTable.build(annotation=Level))


def test_unknown_enum_member_and_flags_are_refused() -> None:
    twin = enum.Enum("Colour", {"BLUE": 1}, module="_codec_samples", qualname="Colour")  # type: ignore[misc]
    with pytest.raises(ResultError, match="no member"):
        round_trip([twin.BLUE], ClassTable.build(annotation=Colour))  # type: ignore[attr-defined]


def test_pydantic_is_validated_where_annotated_and_filled_otherwise() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Inner(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        n: int

    class Model(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        a: int = pydantic.Field(alias="A", ge=0)
        parts: list[Inner] = pydantic.Field(default_factory=list)
        _note: str = ""

    Model.model_rebuild(_types_namespace={"Inner": Inner})
    model = Model(A=1, parts=[Inner(n=2)])
    model._note = "kept"
    for table in (ClassTable.build(annotation=Model), ClassTable.build(args=(model,))):
        made = round_trip(model, table)
        assert type(made) is Model
        assert made == model
        assert made._note == "kept"
    bad = model.model_copy(update={"a": -1})
    with pytest.raises(ResultError, match="not a valid"):
        round_trip(bad, ClassTable.build(annotation=Model))
    assert round_trip(bad, ClassTable.build(args=(model,))).a == -1


def test_shared_parts_do_not_multiply_in_validation() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        a: list[list[list[int]]]

    inner = list(range(200))
    model = Model.model_construct(a=[[inner] * 200] * 200)
    with pytest.raises(ResultError, match="expands"):
        round_trip(model, ClassTable.build(annotation=Model))
