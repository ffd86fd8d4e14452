"""Semantics 1.2, 3.1, 4.8 for functions of installed libraries, sandboxed as they stand there."""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
import os
import sys
import threading
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest

import agentsbx
from agentsbx import RemoteError, ResultError, SerializationError, sandbox

LOCK = threading.Lock()


class Colour(enum.Enum):
    RED = 1


BODY = """
from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from NAME import errors, shapes

if TYPE_CHECKING:
    from NAME.shapes import Square

HOME = str(Path.home())  # as many a library asks when it is imported
KEY = os.environ.get("LIBRARY_KEY")
IMPORT = os.urandom(8)  # one for each time that this is imported


def where():
    return HOME, IMPORT


def key():
    return KEY


def refuse(code):
    raise errors.Refused(code)


def shape(side) -> shapes.Shape:
    return shapes.Square(side)


def square(side) -> list[Square]:
    return [shapes.Square(side)]


def unsaid(side):
    return shapes.Square(side)


def asks():
    raise RuntimeError("set the LIBRARY_KEY environment variable")


class Tool:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, side) -> shapes.Square:
        return shapes.Square(side * self.factor)

    def refuse(self):
        raise errors.Refused(self.factor)
"""
ERRORS = """
from NAME.shapes import Square


class Refused(Exception):
    about: Square

    def __init__(self, code):
        super().__init__(f"refused: {code}")
        self.code = code
        self.about = Square(code)
"""
SHAPES = """
from dataclasses import dataclass


class Shape:
    pass


@dataclass
class Square(Shape):
    side: float
"""


@pytest.fixture
def library(
    make_scratch: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], ModuleType]]:
    """Return what imports a library of its own for each test, as if it had been installed."""
    made: list[str] = []

    def install() -> ModuleType:
        place = make_scratch("library") / "site-packages"
        name = f"sbx_library_{place.parent.name.rpartition('-')[2]}".lower()
        package = place / name
        package.mkdir(parents=True)
        for file, text in {
            "__init__": "",
            "tools": BODY,
            "errors": ERRORS,
            "shapes": SHAPES,
        }.items():
            (package / f"{file}.py").write_text(text.replace("NAME", name))
        monkeypatch.syspath_prepend(str(place))
        made.append(name)
        return importlib.import_module(f"{name}.tools")

    yield install
    for module in list(sys.modules):
        if module.partition(".")[0] in made:
            del sys.modules[module]


def test_1_2_a_library_that_asks_for_its_home_at_import_is_imported_ahead(
    library: Callable[[], ModuleType],
) -> None:
    """Once, in the zygote: an import that fails there would be paid for by every call."""
    tools = library()

    where = sandbox(tools.where)
    home, first = where()
    assert home == "/sandbox/home"
    assert {where() for _ in range(3)} == {(home, first)}


def test_3_1_a_library_function_raises_the_exceptions_of_its_package(
    library: Callable[[], ModuleType],
) -> None:
    tools = library()
    for fn, args in ((sandbox(tools.refuse), (3,)), (sandbox(tools.Tool(3).refuse), ())):
        with pytest.raises(tools.errors.Refused) as caught:
            fn(*args)
        assert (caught.value.code, caught.value.about) == (3, tools.shapes.Square(3))
        assert str(caught.value) == "refused: 3"


def test_3_1_a_function_of_ours_says_how_to_get_a_library_exception(
    library: Callable[[], ModuleType],
) -> None:
    tools = library()
    refuse = tools.refuse

    def body() -> None:
        refuse(3)

    error = sandbox(body).run().error
    assert type(error) is RemoteError
    assert error.__notes__ == ["agentsbx: to get it as a Refused, say raises=[Refused]"]
    with pytest.raises(tools.errors.Refused):
        sandbox(raises=[tools.errors.Refused])(body)()


def test_3_1_who_annotates_a_base_names_what_derives_from_it_too(
    library: Callable[[], ModuleType],
) -> None:
    """The job chooses the class: what nobody named is not among its choices."""
    tools = library()
    shape = tools.shape
    with pytest.raises(ResultError, match="says `-> Square`"):
        sandbox(shape)(2)

    def body(side: int) -> Any:
        return shape(side)

    body.__annotations__["return"] = tools.shapes.Shape | tools.shapes.Square
    assert sandbox(body)(2) == tools.shapes.Square(2)


def test_3_1_an_annotation_under_type_checking_counts(library: Callable[[], ModuleType]) -> None:
    tools = library()
    assert sandbox(tools.square)(2) == [tools.shapes.Square(2)]


def test_3_1_a_callable_object_has_the_annotation_of_its_call(
    library: Callable[[], ModuleType],
) -> None:
    tools = library()
    assert sandbox(tools.Tool(2))(3) == tools.shapes.Square(6)


def test_3_1_what_a_library_does_not_say_is_for_a_function_of_ours(
    library: Callable[[], ModuleType],
) -> None:
    with pytest.raises(ResultError, match="in a function of your own that says `-> Square`"):
        sandbox(library().unsaid)(2)


def test_4_8_a_library_imported_ahead_for_another_tool_has_not_missed_a_variable(
    library: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIBRARY_KEY", "granted")
    tools = library()
    assert sandbox(tools.key)() is None, "and now a zygote has imported it"
    assert sandbox(env=["LIBRARY_KEY"])(tools.key)() == "granted"
    assert sandbox(env={"LIBRARY_KEY": "ours"})(tools.key)() == "ours"


def test_4_8_an_error_that_names_a_hidden_variable_gets_a_note(
    library: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = library()
    monkeypatch.setenv("LIBRARY_KEY", "hidden")
    result = sandbox(tools.asks).run()
    assert type(result.error) is RuntimeError
    assert "env=['LIBRARY_KEY']" in result.error.__notes__[0]
    assert result.violations[0].rule == "env=['LIBRARY_KEY']"
    monkeypatch.delenv("LIBRARY_KEY")
    assert not sandbox(tools.asks).run().violations


def test_6_arguments_are_checked_by_the_code_and_not_by_what_it_shows() -> None:
    """A decorator may show the signature of the function inside, and take another."""

    def of_one(fn: Any) -> Any:
        @functools.wraps(fn)
        def taken(values: dict[str, Any]) -> Any:
            return fn(**values)

        return taken

    @sandbox
    @of_one
    def add(a: int, b: int) -> int:
        return a + b

    class Tool:
        @of_one
        def add(self: Any, a: int = 0) -> int:
            return a

    assert list(inspect.signature(add).parameters) == ["a", "b"]
    assert add({"a": 1, "b": 2}) == 3
    with pytest.raises(TypeError, match="too many positional"):
        add(1, 2)
    assert agentsbx.sandbox(Tool.add)({"self": None, "a": 2}) == 2


def test_3_1_exceptions_that_the_code_names_by_their_module_are_known() -> None:
    def ask(code: int) -> None:
        try:
            raise urllib.error.HTTPError("u", code, "m", None, None)  # type: ignore[arg-type]
        except urllib.error.ContentTooShortError:
            pass

    with pytest.raises(urllib.error.HTTPError) as caught:
        sandbox(ask)(404)
    assert caught.value.code == 404


def test_3_1_a_literal_of_an_enumeration_names_its_class() -> None:
    def pick() -> Literal[Colour.RED]:
        return Colour.RED

    assert sandbox(pick)() is Colour.RED


def test_1_1_a_class_may_give_its_instances_a_name() -> None:
    """`__name__` in a class body is not the name of the class."""

    class Named:
        @property
        def __name__(self) -> str:  # type: ignore[override]
            return "of the instance"

    @sandbox
    def names() -> tuple[str, str]:
        return Named().__name__, type(Named()).__name__

    assert names() == names.local() == ("of the instance", "Named")


def test_1_7_what_cannot_cross_is_found_behind_a_cycle() -> None:
    class Base:
        def first(self) -> type:
            return __class__  # type: ignore[name-defined,no-any-return]

        def later(self) -> object:
            return LOCK

    tool = Base()

    @sandbox
    def use() -> object:
        return tool.later()

    with pytest.raises(SerializationError) as caught:
        use()
    assert "global 'LOCK' (_thread.lock) cannot cross" in str(caught.value)


def test_1_7_what_a_bound_method_cannot_take_along_hangs_on_self() -> None:
    class Tool:
        def __init__(self) -> None:
            self.file = open(os.devnull)  # noqa: SIM115

        def use(self) -> None:
            pass

    tool = Tool()
    with tool.file, pytest.raises(SerializationError, match=r"^self\.file \(_io"):
        sandbox(tool.use)()
