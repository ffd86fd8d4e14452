"""Arguments (rules 2.1, 2.2): one pickle with the function, identities, writable buffers."""

from __future__ import annotations

import msgspec
import pytest

from _ship_peer import Job, call
from agentsbx._ship import take_snapshot
from agentsbx.errors import SerializationError

np = pytest.importorskip("numpy")

_MISSING = object()


class Node:
    def __init__(self, value):
        self.value = value
        self.next = None


class Sentinel:
    def __reduce__(self):
        return "SENTINEL"


SENTINEL = Sentinel()
SHARED = [1]


def identities(x, y=_MISSING, z=SENTINEL, shared=None):
    return (
        y is _MISSING,
        z is SENTINEL,
        shared is SHARED,
        type(x) is Node,
        isinstance(x, Node),
        x.next is x,
    )


def test_defaults_sentinels_shared_objects_and_cycles_keep_identity():
    node = Node(1)
    node.next = node
    assert call(identities, node) == (True, True, False, True, True, True)
    assert call(identities, node, _MISSING, SENTINEL, SHARED) == (True,) * 6


def test_shared_references_among_arguments():
    a = [1]
    assert call(lambda x, y, *, z: (x is y, z[0] is x), a, a, z=[a]) == (True, True)


def test_many_calls_from_one_snapshot():
    with Job(identities) as job:
        for _ in range(3):
            node = Node(1)
            assert job(node, _MISSING)[0] is True
            assert job(node, object())[0] is False


ARRAY = np.arange(5)
BIG = np.arange(10_000.0)


def write_all(*arrays):
    for array in arrays:
        assert array.flags.writeable, array.shape
        array[...] = 1
    ARRAY[0] = 9
    BIG[0] = 9
    return [float(a.sum()) for a in arrays]


def test_arrays_are_writable_at_every_size_and_host_is_untouched():
    frozen_small, frozen_big = np.zeros(3), np.zeros(50_000)
    frozen_small.flags.writeable = frozen_big.flags.writeable = False
    strided = np.zeros((400, 400))[::2, ::3]
    fortran = np.asfortranarray(np.zeros((200, 200)))
    arrays = [np.zeros(3), np.zeros(50_000), frozen_small, frozen_big, strided, fortran]
    expected = [float(a.size) for a in arrays]
    assert call(write_all, *arrays) == expected
    assert all(a.sum() == 0 for a in arrays)
    assert ARRAY[0] == 0
    assert BIG[0] == 0


def test_big_buffers_go_out_of_band_and_small_ones_do_not():
    snapshot = take_snapshot(lambda a: a)
    stream = snapshot.begin_call((np.zeros(100_000), np.zeros(10), np.zeros((600, 600))[::2]), {})
    assert [b.nbytes for b in stream.buffers] == [800_000, 300 * 600 * 8]
    assert len(stream.body) < 2000


def test_structured_datetime_object_and_subclass_arrays():
    def body(a, b, c, d):
        c[0] = 3
        return a["x"].tolist(), str(b[0]), c.tolist(), d.mask.tolist()

    a = np.zeros(2, dtype=[("x", "i4"), ("y", "f8")])
    b = np.array(["2020-01-01"], dtype="M8[D]")
    c = np.array([None, {}], dtype=object)
    c.flags.writeable = False
    c = c.copy()
    d = np.ma.array([1, 2], mask=[True, False])
    assert call(body, a, b, c, d) == ([0, 0], "2020-01-01", [3, {}], [True, False])


def test_memoryviews_and_bytearrays_are_writable():
    def body(small, big, view, frozen):
        small[0] = big[0] = view[0] = 1
        return len(big), bytes(view[:2]), bytes(frozen)

    assert call(body, bytearray(4), bytearray(50_000), memoryview(bytearray(60_000)),
                memoryview(b"ab")) == (50_000, b"\x01\x00", b"ab")  # fmt: skip


def test_data_frames():
    pd = pytest.importorskip("pandas")

    def body(df):
        df["c"] = df["a"] * 2
        df.loc[0, "a"] = 100
        return df["c"].tolist()[:2], df["b"].tolist()[:1], int(df["a"].iloc[0])

    df = pd.DataFrame({"a": range(10_000), "b": ["x"] * 10_000})
    assert call(body, df) == ([0, 2], ["x"], 100)


class Address(msgspec.Struct, frozen=True, tag="addr", rename="camel", kw_only=True):
    zip_code: int
    lines: list[str] = msgspec.field(default_factory=list)
    country: str = "CH"

    @property
    def label(self):
        return f"{self.country}-{self.zip_code}"


class Person(msgspec.Struct):
    name: str
    home: Address | None = None
    boss: Person | None = None


class Employee(Person, forbid_unknown_fields=True):
    wage: float = 1.0


def structs(person, raw):
    home = Address(zip_code=1)
    assert home.lines == []
    assert home.label == "CH-1"
    try:
        home.country = "X"
    except AttributeError:
        pass
    else:
        raise AssertionError
    assert isinstance(person, Person)
    assert isinstance(person, Employee)
    back = msgspec.json.decode(raw, type=Employee)
    return (
        msgspec.json.encode(home), back == person, back.home.label, person.wage,
        Employee("a").home, repr(Person("b")),
    )  # fmt: skip


def test_msgspec_structs_by_value():
    person = Employee("ann", Address(zip_code=8000), Person("bob"), 3.0)
    raw = msgspec.json.encode(person)
    encoded, same, label, wage, none, text = call(structs, person, raw)
    assert encoded == msgspec.json.encode(Address(zip_code=1))
    assert (same, label, wage, none) == (True, "CH-8000", 3.0, None)
    assert text == "Person(name='b', home=None, boss=None)"


ENCODER = msgspec.json.Encoder(order="sorted")
DECODER = msgspec.msgpack.Decoder(Address, strict=False)


def test_msgspec_encoders_and_decoders():
    raw = msgspec.msgpack.encode(Address(zip_code=4))
    assert call(lambda: (ENCODER.encode({"b": 1, "a": 2}), DECODER.decode(raw).label)) == (
        b'{"a":2,"b":1}',
        "CH-4",
    )


def test_pydantic_models_by_value():
    pydantic = pytest.importorskip("pydantic")

    class Item(pydantic.BaseModel):
        name: str
        price: float = pydantic.Field(gt=0, default=1.0)
        tags: list[str] = []  # noqa: RUF012
        _hidden: int = pydantic.PrivateAttr(default=3)

        @pydantic.field_validator("name")
        @classmethod
        def clean(cls, v):
            return v.strip()

        @pydantic.computed_field
        @property
        def double(self) -> float:
            return self.price * 2

    class Order(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        items: list[Item]

    Order.model_rebuild(_types_namespace={"Item": Item})

    def body(order):
        try:
            Item(name="x", price=-1)
        except pydantic.ValidationError as e:
            count = e.error_count()
        made = Order.model_validate({"items": [{"name": " a ", "price": 2}]})
        return (
            count, made.model_dump(), isinstance(order.items[0], Item), made == order,
            made.items[0]._hidden, Order.model_json_schema()["title"],
        )  # fmt: skip

    order = Order(items=[Item(name="a", price=2)])
    count, dumped, same, equal, hidden, title = call(body, order)
    assert dumped == {"items": [{"name": "a", "price": 2.0, "tags": [], "double": 4.0}]}
    assert (count, same, equal, hidden, title) == (1, True, True, 3, "Order")


def test_what_cannot_cross_names_the_argument():
    import threading

    snapshot = take_snapshot(lambda config, **kw: None)
    with pytest.raises(SerializationError, match=r"argument 'config'\['pool'\].value .*a lock"):
        snapshot.begin_call(({"pool": Node(threading.Lock())},), {})
    with pytest.raises(SerializationError) as caught:
        snapshot.begin_call((1,), {"cb": [lambda: 1, (x for x in [])]})
    assert caught.value.where == "argument 'cb'[1]"
    # A failed call leaves the snapshot as it was.
    with Job(snapshot) as job:
        assert job(1) is None


def test_functions_as_arguments_travel_by_value():
    assert call(lambda f, x: f(x), lambda x: x + len(SHARED), 2) == 3
