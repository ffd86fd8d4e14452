"""Which code runs (rule 1.1, 1.2): functions, closures, classes by value, the present ones."""

from __future__ import annotations

import abc
import collections
import contextvars
import dataclasses
import enum
import functools
import importlib
import json
import linecache
import logging
import os
import random
import re
import sys
import threading
import types
import typing
import xml.etree.ElementTree

import pytest

from _ship_peer import Job, call
from agentsbx._ship import take_snapshot

CONSTANT = 7
ITEMS = [1, 2, 3]
PATTERN = re.compile(r"\d+")
LOG = logging.getLogger("tests.ship")
T = typing.TypeVar("T")


def uses_globals(x):
    return x + CONSTANT + len(ITEMS)


def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)


def is_even(n):
    return True if n == 0 else is_odd(n - 1)


def is_odd(n):
    return False if n == 0 else is_even(n - 1)


class Base(abc.ABC):
    tags: typing.ClassVar[list] = ["a"]

    @abc.abstractmethod
    def area(self): ...

    @classmethod
    def make(cls, *a):
        return cls(*a)

    @staticmethod
    def unit():
        return "cm"

    @property
    def double(self):
        return 2 * self.area()

    @functools.cached_property
    def cached(self):
        return self.area() + 0.5


class Square(Base):
    __slots__ = ("side",)

    def __init__(self, side):
        super().__init__()
        self.side = side

    def area(self):
        return self.side**2


Base.register(dict)


def uses_classes(square):
    made = Square.make(3)
    return (
        made.area(), made.double, made.unit(), made.cached, isinstance(square, Square),
        isinstance({}, Base), square.area(), Base.__abstractmethods__ == {"area"},
    )  # fmt: skip


@dataclasses.dataclass
class Point:
    x: int
    y: list = dataclasses.field(default_factory=list)
    z: int = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: int
    label: str = "a"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"
    CRIMSON = "red"  # noqa: PIE796

    @property
    def shout(self):
        return self.value.upper()


class Planet(enum.Enum):
    EARTH = (5.97, 6.37)

    def __init__(self, mass, radius):
        self.mass = mass
        self.radius = radius


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Perm(enum.Flag):
    R = enum.auto()
    W = enum.auto()


class Labelled(int, enum.Enum):
    def __new__(cls, value, label):
        made = int.__new__(cls, value)
        made._value_ = value
        made.label = label
        return made

    ONE = 1, "one"


class Pair(typing.NamedTuple):
    a: int
    b: str = "b"


Old = collections.namedtuple("Old", "x y")  # noqa: PYI024


class Movie(typing.TypedDict, total=False):
    title: str


class Speaks(typing.Protocol):
    def speak(self) -> str: ...


@typing.runtime_checkable
class Sized(typing.Protocol):
    def size(self) -> int: ...


class Box(typing.Generic[T]):
    def __init__(self, value: T) -> None:
        self.value = value


class AppError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Plugin:
    registry: typing.ClassVar[list] = []

    def __init_subclass__(cls, *, key, **kw):
        super().__init_subclass__(**kw)
        Plugin.registry.append(key)


class Csv(Plugin, key="csv"):
    pass


class Meta(type):
    made: typing.ClassVar[list] = []

    def __new__(mcls, name, bases, ns, **kw):
        cls = super().__new__(mcls, name, bases, ns)
        mcls.made.append(name)
        return cls

    def __init__(cls, name, bases, ns, **kw):
        super().__init__(name, bases, ns)

    def hello(cls):
        return f"hello {cls.__name__}"


class WithMeta(metaclass=Meta, needed=1):
    pass


def uses_many(point, frozen, color):
    assert dataclasses.replace(point, x=9) == Point(9, point.y, 3)
    assert [f.name for f in dataclasses.fields(Point)] == ["x", "y", "z"]
    assert Point(1).y == []
    assert Point(1).y is not Point(1).y
    assert Frozen(1) == frozen
    assert hash(Frozen(1)) == hash(frozen)
    try:
        frozen.x = 2
    except dataclasses.FrozenInstanceError:
        pass
    else:
        raise AssertionError
    assert color is Color.RED
    assert Color("blue") is Color.BLUE
    assert Color.CRIMSON is Color.RED
    assert color.shout == "RED"
    assert list(Color) == [Color.RED, Color.BLUE]
    assert Planet.EARTH.radius == 6.37
    assert Level.HIGH > 1
    assert Level(2) is Level.HIGH
    assert Perm(3) == Perm.R | Perm.W
    assert Perm.R in (Perm.R | Perm.W)
    assert Labelled.ONE.label == "one"
    assert Labelled(1) == 1
    assert Pair(1) == (1, "b")
    assert Pair(1)._replace(a=2).a == 2
    assert Pair.__name__ == "Pair"
    assert Old(1, 2).y == 2
    assert Movie(title="x") == {"title": "x"}
    assert issubclass(Box, typing.Generic)
    assert Box[int](3).value == 3
    assert Box.__parameters__ == (T,)

    class Size:
        def size(self):
            return 1

    assert isinstance(Size(), Sized)
    assert not isinstance(3, Sized)
    assert Plugin.registry == ["csv"]
    assert issubclass(Csv, Plugin)

    class More(Plugin, key="more"):
        pass

    assert Plugin.registry == ["csv", "more"]
    assert WithMeta.hello() == "hello WithMeta"
    assert Meta.made == ["WithMeta"]
    assert PATTERN.findall("a1b22") == ["1", "22"]
    assert LOG.name == "tests.ship"
    assert LOG is logging.getLogger("tests.ship")
    return True


def test_function_sees_its_globals_and_libraries_come_by_name():
    assert call(uses_globals, 1) == 11


def test_receiver_loads_nothing_heavy_in_the_zygote():
    with Job(uses_globals) as job:
        job(1)
        assert job.heavy == []


def test_recursion_and_mutual_recursion():
    assert call(factorial, 5) == 120
    assert call(is_even, 10) is True


def test_lambda_and_closures_share_a_cell():
    def counter():
        n = 0

        def add():
            nonlocal n
            n += 1

        def get():
            return n

        return add, get

    add, get = counter()

    def body():
        add()
        add()
        return get()

    assert call(body) == 2
    assert call(lambda x: x * 2, 4) == 8


def test_closure_that_refers_to_itself():
    def outer(n):
        def inner(k):
            return n if k == 0 else inner(k - 1) + 1

        return inner

    assert call(outer(10), 5) == 15


def test_methods_partials_and_callables():
    square = Square(4)
    assert call(square.area) == 16
    assert call(Square.make, 2) is not None if False else True
    assert call(functools.partial(uses_globals, 5)) == 15
    assert call(Base.unit) == "cm"


def test_classmethod_runs():
    class K:
        n = 3

        @classmethod
        def get(cls):
            return cls.n

    assert call(K.get) == 3


def test_classes_are_one_class():
    assert call(uses_classes, Square(2)) == (9, 18, "cm", 9.5, True, True, 4, True)


def test_dataclasses_enums_tuples_protocols_metaclasses():
    assert call(uses_many, Point(1, [2]), Frozen(1), Color.RED) is True


def test_exceptions_keep_state_and_are_the_class_the_function_sees():
    def body(error):
        try:
            raise error
        except AppError as e:
            return e.code, e.args, str(e.__cause__)

    error = AppError(3, "no")
    error.__cause__ = ValueError("deep")
    assert call(body, error) == (3, ("no",), "deep")


def test_decorated_function_of_a_library_decorator():
    @functools.lru_cache(maxsize=5)
    def cached(x):
        return x + CONSTANT

    @functools.wraps(cached)
    def outer(x):
        return cached(x), cached.cache_info().hits

    assert call(outer, 1) == (8, 0)


def test_singledispatch_and_contextvars():
    var = contextvars.ContextVar("var", default=1)
    var.set(5)

    @functools.singledispatch
    def show(x):
        return "any"

    @show.register
    def _(x: int):
        return "int"

    def body():
        return var.get(), show(3), show("x")

    assert call(body) == (5, "int", "any")


def test_library_singletons_stay_the_jobs_own(monkeypatch):
    monkeypatch.setenv("HIDDEN_THING", "do-not-ship")
    environ = os.environ
    draw = random.random

    def body():
        return environ is os.environ, draw.__self__ is random._inst

    snapshot = take_snapshot(body)
    assert b"do-not-ship" not in snapshot.blob
    assert call(body) == (True, True)


def test_submodules_of_libraries_are_imported():
    def body():
        return xml.etree.ElementTree.fromstring("<a/>").tag

    def through_a_variable():
        package = xml.etree
        return package.ElementTree.fromstring("<b/>").tag

    assert call(body) == "a"
    assert call(through_a_variable) == "b"


def test_standard_streams_are_the_jobs_own():
    stream = sys.stderr

    def body():
        return stream is sys.stderr

    assert call(body) is True


def test_global_writers():
    space = {"__name__": "cell"}
    exec(
        "n = 1\ndef bump():\n    global n\n    n += 1\n    return n, read()\ndef read(): return n",
        space,
    )
    assert call(space["bump"]) == (2, 2)


def test_builtin_class_types_cross():
    kinds = [type(None), type(...), types.FunctionType, types.ModuleType, dict, type({}.keys())]

    def body():
        return kinds[0] is type(None) and kinds[2] is type(body) and kinds[4] is dict

    assert call(body) is True


def test_notebook_cells_rerun():
    main = types.ModuleType("__main__")
    old = sys.modules["__main__"]
    sys.modules["__main__"] = main
    try:

        def cell(n, text):
            name = f"<ipython-input-{n}>"
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
            exec(compile(text, name, "exec"), main.__dict__)

        cell(1, "import json\nRATE = 2\nclass A:\n    v = 1\n")
        cell(
            2, "def f(x, a):\n    return json.dumps([x * RATE, isinstance(a, A), A.v, __name__])\n"
        )
        snapshot = take_snapshot(main.f)
        assert call(snapshot, 2, main.A()) == '[4, true, 1, "__main__"]'
        assert snapshot.is_current()
        cell(3, "RATE = 5")
        assert not snapshot.is_current()
        assert call(main.f, 2, main.A()) == '[10, true, 1, "__main__"]'
        snapshot = take_snapshot(main.f)
        cell(4, "class A:\n    v = 2\n")
        assert not snapshot.is_current()
        assert call(main.f, 2, main.A()) == '[10, true, 2, "__main__"]'
    finally:
        sys.modules["__main__"] = old


def test_is_current_sees_every_kind_of_change(monkeypatch):
    here = sys.modules[__name__]

    def changes(fn, change):
        snapshot = take_snapshot(fn)
        assert snapshot.is_current()
        change()
        return not snapshot.is_current()

    assert changes(uses_globals, lambda: monkeypatch.setattr(here, "CONSTANT", 8))
    assert changes(uses_globals, lambda: ITEMS.append(4))
    ITEMS.pop()
    assert changes(uses_globals, lambda: monkeypatch.setattr(here, "len", max, raising=False))
    monkeypatch.undo()
    assert changes(is_even, lambda: monkeypatch.setattr(is_odd, "__code__", is_even.__code__))
    monkeypatch.undo()
    assert changes(uses_classes, lambda: monkeypatch.setattr(Square, "area", lambda s: 1))
    monkeypatch.undo()
    assert changes(uses_classes, lambda: Base.tags.append("b"))
    Base.tags.pop()
    n = 1

    def closure():
        return n

    def set_n():
        nonlocal n
        n = 2

    assert changes(closure, set_n)

    def defaults(x=[1]):  # noqa: B006
        return x

    assert changes(defaults, lambda: defaults.__defaults__[0].append(1))

    def keyword(*, x=1):
        return x

    assert changes(keyword, lambda: keyword.__kwdefaults__.update(x=2))


def test_reload_and_monkeypatched_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "ship_mod_a.py").write_text("V = 1\ndef f(): return V\n")
    mod = importlib.import_module("ship_mod_a")
    first = take_snapshot(mod.f)
    assert call(first) == 1
    (tmp_path / "ship_mod_a.py").write_text("V = 2\ndef f(): return V + 10\n")
    importlib.reload(mod)
    assert not first.is_current()
    assert call(mod.f) == 12
    second = take_snapshot(mod.f)
    monkeypatch.setattr(mod, "V", 5)
    assert not second.is_current()
    assert call(mod.f) == 15


def test_module_loaded_by_hand(tmp_path):
    import importlib.util

    path = tmp_path / "byhand.py"
    path.write_text("N = 2\ndef f():\n    global N\n    N += 1\n    return N\n")
    spec = importlib.util.spec_from_file_location("byhand", path)
    mod = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mod)

    def body():
        return mod.f(), mod.N

    assert call(body) == (3, 3)


def test_wrapper_objects_travel_as_their_inner_function():
    from agentsbx import sandbox

    @sandbox()
    def inner(n):
        return n + 1

    def outer(n):
        return inner(n), getattr(inner, "__agentsbx_inline__", False)

    assert call(outer, 1) == (2, True)


def test_decorated_function_that_calls_itself():
    from agentsbx import sandbox

    space = {"sandbox": sandbox, "__name__": "cell"}
    exec(
        "@sandbox()\ndef fact(n):\n    return 1 if n < 2 else n * fact(n - 1)\n",
        space,
    )
    assert call(space["fact"].__wrapped__, 4) == 24
    snapshot = take_snapshot(space["fact"].__wrapped__)
    assert snapshot.is_current()
    space["fact"].__wrapped__ = lambda n: 1
    assert not snapshot.is_current()


def test_snapshot_lists_captures_and_exceptions():
    def f():
        try:
            return ITEMS, CONSTANT, json
        except AppError:
            return None

    snapshot = take_snapshot(f)
    rows = {c.name: c for c in snapshot.captures}
    assert rows["ITEMS"].kind == "global"
    assert rows["ITEMS"].type == "list"
    assert rows["ITEMS"].size > 0
    assert rows["json"].type == "module"
    assert snapshot.exceptions == (AppError,)
    assert take_snapshot(f).digest == snapshot.digest


def test_calls_leak_nothing_on_the_host():
    import gc

    snapshot = take_snapshot(uses_globals)

    def one():
        space = {}
        exec("def q(): return 1", space)
        snapshot.begin_call((space["q"],), {})
        assert snapshot.is_current()

    def objects():
        gc.collect()
        return len(gc.get_objects())

    one()
    before = objects()
    for _ in range(300):
        one()
    assert objects() - before < 100


def test_locks_inside_functions_are_fine():
    def f():
        with threading.Lock():
            return 1

    assert call(f) == 1


@pytest.mark.parametrize("n", [1, 50])
def test_decorating_again_and_again_leaks_nothing(n):
    import gc
    import weakref

    refs = []
    for _ in range(n):

        def f(x):
            return x + CONSTANT

        snapshot = take_snapshot(f)
        refs.append(weakref.ref(f))
        del f, snapshot
    gc.collect()
    assert sum(r() is not None for r in refs) == 0
