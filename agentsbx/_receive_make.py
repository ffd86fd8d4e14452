"""What the pickles of `_ship` call in the job to rebuild functions, classes and objects.

Kept apart from `_receive`, which reads the pickles and imports modules. The zygote imports both, so
this loads nothing but built-in modules; the rest is imported when an object needs it.
"""

from __future__ import annotations

import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_HEAP_TYPE = 1 << 9
# How globals are filled with what was shipped; a session's interpreter has its own way.
place: Any = dict.update


def import_module(name: str) -> types.ModuleType:
    """Import a library."""
    __import__(name)
    return sys.modules[name]


def library_global(module: str, name: str) -> Any:
    """Return a library's own object by name."""
    return getattr(import_module(module), name)


def function_proxy(wrapped: Any, wrapper: Any) -> Any:
    """Make what `@wrapt.decorator` makes."""
    return import_module("wrapt").FunctionWrapper(wrapped, wrapper)


def make_function(
    code: bytes, home: types.ModuleType, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    """Make a function whose state follows."""
    return types.FunctionType(_loads_code(code), home.__dict__, None, None, closure)


def set_function(fn: Any, state: tuple[Any, ...]) -> None:
    """Complete a function: cells, globals, defaults, names, attributes of modules it uses."""
    (
        fn.__name__,
        fn.__qualname__,
        fn.__module__,
        fn.__doc__,
        fn.__defaults__,
        fn.__kwdefaults__,
        annotations,
        attributes,
        names,
        contents,
        modules,
        imports,
    ) = state
    if annotations:
        fn.__annotations__ = annotations
    if attributes:
        fn.__dict__.update(attributes)
    if contents:
        for cell, value in zip(fn.__closure__, contents, strict=True):
            if value:
                cell.cell_contents = value[0]
    if names:
        place(fn.__globals__, names)
    for module, attrs in modules:
        place(module.__dict__, attrs)
    for name in imports:
        __import__(name)


def _loads_code(data: bytes) -> types.CodeType:
    import marshal

    code: types.CodeType = marshal.loads(data)
    return code


def inlined(fn: Any) -> Any:
    """Mark the function of a sandboxed wrapper: called inside a job, it runs right there."""
    fn.__agentsbx_inline__ = True
    return fn


def empty_cell() -> types.CellType:
    """Make a cell that is filled later."""
    return types.CellType()


def set_cell(cell: types.CellType, value: Any) -> None:
    """Fill a cell."""
    cell.cell_contents = value


@classmethod  # type: ignore[misc]
def _silent(cls: type, /, **keywords: Any) -> None:
    """Stand for `__init_subclass__` while classes are rebuilt: project code must not run again."""


def make_class(
    maker: Any, meta: Any, name: str, bases: tuple[type, ...], ns: dict[str, Any]
) -> Any:
    """Make a class without running its metaclass's or its bases' project code; state follows."""
    muted: list[tuple[type, Any]] = []
    if maker is None:
        maker = meta = type(meta)
    try:
        for base in {b: None for a in bases for b in a.__mro__}:
            hook = base.__dict__.get("__init_subclass__")
            if hook is not None and base.__flags__ & _HEAP_TYPE:
                try:
                    type.__setattr__(base, "__init_subclass__", _silent)
                except TypeError:
                    continue
                muted.append((base, hook))
        return maker.__new__(meta, name, bases, ns)
    finally:
        for base, hook in muted:
            type.__setattr__(base, "__init_subclass__", hook)


class LateName:
    """The `__name__` that a class gives its instances (`__name__ = property(...)`).

    Such an entry must be there when the class is made: set later, it would be the class's own name.
    """

    inner: Any = None

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        get = getattr(type(self.inner), "__get__", None)
        return self.inner if get is None else get(self.inner, obj, owner)


def set_class(cls: Any, state: tuple[dict[str, Any], Sequence[type], bool]) -> None:
    """Give a class its attributes and its virtual subclasses."""
    attributes, registered, plain = state
    put: Any = type.__setattr__ if plain else setattr
    for name, value in attributes.items():
        if name == "__name__":
            vars(cls)[name].inner = value
        else:
            put(cls, name, value)
    for other in registered:
        cls.register(other)


def make_enum(
    meta: Any, name: str, bases: tuple[type, ...], ns: dict[str, Any], members: Any, boundary: Any
) -> Any:
    """Make an enumeration from the values of its members; methods and state follow."""
    body = meta.__prepare__(name, bases)
    for key, value in (*ns.items(), *members):
        body[key] = value
    return (
        meta(name, bases, body) if boundary is None else meta(name, bases, body, boundary=boundary)
    )


def set_enum(cls: Any, state: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> None:
    """Give an enumeration its methods and its members what their `__init__` had set."""
    attributes, states = state
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)
    for name, own in states.items():
        cls._member_map_[name].__dict__.update(own)


def make_struct(
    meta: Any,
    name: str,
    bases: tuple[type, ...],
    ns: dict[str, Any],
    defaults: Sequence[tuple[str, bool, Any]],
    config: dict[str, Any],
) -> Any:
    """Make a `msgspec.Struct` class from its fields; methods follow."""
    import msgspec

    for field, is_factory, value in defaults:
        ns[field] = (
            msgspec.field(default_factory=value) if is_factory else msgspec.field(default=value)
        )
    return meta(name, bases, ns, **config)


def make_exception(cls: Any, args: tuple[Any, ...]) -> Any:
    """Make an exception without `__init__`, whose parameters need not be its `args`."""
    made = cls.__new__(cls, *args)
    made.args = args
    return made


def set_exception(error: Any, state: tuple[dict[str, Any], Any, Any, bool]) -> None:
    """Give an exception its attributes and its chain."""
    attributes, cause, context, suppress = state
    error.__dict__.update(attributes)
    error.__cause__ = cause
    error.__context__ = context
    error.__suppress_context__ = suppress


def make_instance(cls: Any) -> Any:
    """Make an instance whose state follows."""
    return cls.__new__(cls)


def cached_property(function: Any, name: str | None) -> Any:
    """Make a `functools.cached_property` (it holds a lock before Python 3.12)."""
    import functools

    made: Any = functools.cached_property(function)
    made.attrname = name
    return made


def lru_cache(function: Any, maxsize: int | None, typed: bool) -> Any:
    """Make an empty `functools.lru_cache` around a function."""
    import functools

    return functools.lru_cache(maxsize, typed)(function)


def context_var(name: str, value: Sequence[Any]) -> Any:
    """Make a context variable that has the value it had at the call."""
    import contextvars

    return contextvars.ContextVar(name, default=value[0]) if value else contextvars.ContextVar(name)


def with_keywords(kind: Any, keywords: dict[str, Any]) -> Any:
    """Make an object of a library from its settings."""
    return kind(**keywords)


def type_var(kind: Any, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Make a type variable."""
    return kind(name, *args, **keywords)


def weak_map(kind: Any, items: Sequence[tuple[Any, Any]]) -> Any:
    """Make a weak dictionary of what was alive."""
    return kind(items)
