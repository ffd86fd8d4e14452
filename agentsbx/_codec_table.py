"""Which classes a result may be made of: the table of one call, and the exceptions always known.

A class is never looked up by import: only what `ClassTable` found in the return annotation, in this
call's arguments or among the known exceptions is ever an answer to a name that a job sent.
"""

from __future__ import annotations

import builtins
import sys
import types
from typing import TYPE_CHECKING, Any

from agentsbx._codec_annotation import Annotated, find_annotated, loaded_class, walk_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SAFE", "SAFE_STDLIB", "ClassTable"]

SAFE: dict[tuple[str, str], type] = {
    ("builtins", kind.__qualname__): kind
    for kind in vars(builtins).values()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, (StopIteration, StopAsyncIteration))
}
# Exceptions of the standard library that are nothing but an exception with attributes.
SAFE_STDLIB = frozenset(
    {
        ("_csv", "Error"),
        ("binascii", "Error"),
        ("configparser", "Error"),
        ("configparser", "NoOptionError"),
        ("configparser", "NoSectionError"),
        ("decimal", "DivisionByZero"),
        ("decimal", "InvalidOperation"),
        ("graphlib", "CycleError"),
        ("ipaddress", "AddressValueError"),
        ("ipaddress", "NetmaskValueError"),
        ("json.decoder", "JSONDecodeError"),
        ("queue", "Empty"),
        ("queue", "Full"),
        ("shutil", "Error"),
        ("socket", "gaierror"),
        ("sqlite3", "DatabaseError"),
        ("sqlite3", "IntegrityError"),
        ("sqlite3", "OperationalError"),
        ("sqlite3", "ProgrammingError"),
        ("statistics", "StatisticsError"),
        ("struct", "error"),
        ("subprocess", "CalledProcessError"),
        ("subprocess", "TimeoutExpired"),
        ("tarfile", "ReadError"),
        ("tomllib", "TOMLDecodeError"),
        ("xml.etree.ElementTree", "ParseError"),
        ("zipfile", "BadZipFile"),
        ("zlib", "error"),
        ("zoneinfo._common", "ZoneInfoNotFoundError"),
    }
)


class ClassTable:
    """The classes that one call's result may be made of.

    >>> from fractions import Fraction
    >>> ClassTable.build(annotation=list[Fraction] | None).lookup("fractions", "Fraction")
    <class 'fractions.Fraction'>
    """

    __slots__ = ("_annotated", "_arguments", "_found", "_library", "exceptions")

    def __init__(
        self,
        annotated: Annotated,
        arguments: tuple[Any, ...],
        exceptions: tuple[type, ...],
        library: str | None = None,
    ) -> None:
        self._annotated = annotated
        self._arguments = arguments
        self._library = library
        self._found: dict[tuple[str, str], type] | None = None
        self.exceptions = {(kind.__module__, kind.__qualname__): kind for kind in exceptions}

    @classmethod
    def build(
        cls,
        *,
        annotation: Any = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        exceptions: Iterable[type] = (),
        globals_exceptions: Iterable[type] = (),
        library: str | None = None,
    ) -> ClassTable:
        """Return the table of one call; cheap: arguments are only walked when a class is missing.

        `annotation` is the evaluated return annotation (not a string). `exceptions` are those of
        `raises=`, `globals_exceptions` those that the function's globals name. `library` is the
        module of a function that is itself a library's: it raises exceptions of its package.
        """
        arguments = (tuple(args), dict(kwargs) if kwargs else {})
        exceptions = (*globals_exceptions, *exceptions)
        return cls(find_annotated(annotation), arguments, exceptions, library)

    def lookup(self, module: str, qualname: str) -> type | None:
        """Return the class of that name, or None where the call knows none."""
        key = (module, qualname)
        found = self._annotated.classes.get(key) or self.exceptions.get(key)
        if found is None:
            if self._found is None:
                self._found = walk_values(self._arguments)
            found = self._found.get(key)
        if found is None and self._library is not None:
            found = _library_exception(self._library, module, qualname)
        return found

    def extend(self, kind: type) -> None:
        """Add the classes of the annotated fields of an exception class that is being rebuilt."""
        if self._found is None:
            self._found = walk_values(self._arguments)
        for key, found in find_annotated(kind).classes.items():
            self._found.setdefault(key, found)

    def how_to_name(self, qualname: str) -> str:
        """Return what to do so that a result may be made of a class."""
        if self._library is not None:  # nobody annotates a function of somebody else's
            return f"call it in a function of your own that says `-> {qualname}`"
        return f"annotate the function with it (`-> {qualname}`), or return plain data"

    def is_annotated(self, kind: type) -> bool:
        """Whether instances of `kind` are validated, because the return annotation names it."""
        return self._annotated.classes.get((kind.__module__, kind.__qualname__)) is kind


def _package(module: str) -> str:
    return module.partition(".")[0]


def _library_exception(library: str, module: str, qualname: str) -> type | None:
    """Return an exception class of a library function's package, or one that its module names.

    Nothing is imported and no code of a module runs: the class is there, or it is not.
    """
    if _package(module) == _package(library):
        return _exception(loaded_class(module, qualname), module, qualname)
    home = sys.modules.get(library)
    for value in list(vars(home).values()) if isinstance(home, types.ModuleType) else ():
        if isinstance(value, types.ModuleType):
            value = vars(value).get(qualname)
        if found := _exception(value, module, qualname):
            return found
    return None


def _exception(value: object, module: str, qualname: str) -> type | None:
    if not isinstance(value, type) or not issubclass(value, BaseException):
        return None
    return value if (value.__module__, value.__qualname__) == (module, qualname) else None
