"""What a call site offers its jobs: host functions, attributes of arguments that stay on the host.

Made once for each site. `Offers` says how a listed function crosses (as a stub, wherever it is
captured) and what stands for an argument that does not; `Offer` checks the arguments of one
function against its signature and its annotations. `_bridge` runs them, `_bridge_job` asks.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from agentsbx import _bridge_job
from agentsbx._codec_annotation import Fit
from agentsbx._codec_table import ClassTable
from agentsbx.errors import PolicyError

__all__ = ["HostArg", "Offer", "Offers", "Reader", "offers_of"]

HOST_CALLS = 1000  # of one sandbox
HOST_BYTES = 1 << 20  # of the arguments of one call, and of its answer
HOST_RATE = 10_000.0  # a second

Reader = Callable[[Any], tuple[inspect.Signature | None, dict[str, Any]]]
_EMPTY = inspect.Parameter.empty


class Offer:
    """One host function: its name for the job, and what its arguments must be."""

    __slots__ = ("classes", "fn", "hint", "is_async", "name", "signature")

    def __init__(self, name: str, fn: Callable[..., Any], read: Reader) -> None:
        self.name, self.fn = name, fn
        self.is_async = is_async(fn)
        self.signature = read(fn)[0]
        hints = []
        for parameter in self.signature.parameters.values() if self.signature else ():
            if isinstance(parameter.annotation, str):
                raise PolicyError(
                    f"host function {name}: the annotation {parameter.annotation!r} of "
                    f"{parameter.name!r} cannot be evaluated, so what a job passes for it cannot "
                    "be checked",
                    path="host",
                    hint="import its class at run time (not under TYPE_CHECKING), or take Any",
                )
            if parameter.annotation is not _EMPTY:
                hints.append(parameter.annotation)
        self.hint: Any = types.GenericAlias(tuple, tuple(hints)) if hints else None
        self.classes = ClassTable.build(annotation=self.hint)

    def check(self, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Raise the TypeError of arguments that do not fit signature or annotations."""
        if self.signature is None:
            return
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None
        fit = Fit()
        for name, value in bound.arguments.items():
            parameter = self.signature.parameters[name]
            if parameter.annotation is _EMPTY:
                continue
            values: Any = (value,)
            if parameter.kind is parameter.VAR_POSITIONAL:
                values = value
            elif parameter.kind is parameter.VAR_KEYWORD:
                values = value.values()
            for each in values:
                if not fit.fits(each, parameter.annotation):
                    raise TypeError(
                        f"{self.name}() argument {name!r} must be "
                        f"{_said(parameter.annotation)}, not {type(each).__name__}"
                    )


def is_async(fn: Any) -> bool:
    """Whether a call of `fn` gives a coroutine."""
    return inspect.iscoroutinefunction(fn) or (
        not isinstance(fn, (types.FunctionType, types.MethodType, type))
        and inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
    )


def _said(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else repr(hint)
    return text if len(text) <= 80 else text[:77] + "..."


class HostArg:
    """Stands for an argument that stays on the host, on its way to the job."""

    __slots__ = ("args",)

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what makes the job's stand-in."""
        return _bridge_job.stand_in, self.args


class Exposed(NamedTuple):
    """One attribute or method of an argument that stays on the host."""

    parameter: str
    attribute: str


def offers_of(fn: Any, options: Mapping[str, Any], read: Reader) -> Offers | None:
    """Return what a site with these options offers its jobs; None: nothing."""
    if options.keys().isdisjoint(("host", "host_args")):
        return None
    return Offers(fn, options, read)


class Offers:
    """All that one call site offers, and within which bounds."""

    def __init__(self, fn: Any, options: Mapping[str, Any], read: Reader) -> None:
        host: Mapping[str, Any] = options.get("host", {})
        self.read = read
        self.functions = tuple(Offer(name, fn, read) for name, fn in host.items())
        self.injected = dict(host) if getattr(host, "is_named", False) else {}
        self.max_calls: int = options.get("host_calls", HOST_CALLS)
        self.max_bytes: int = options.get("host_bytes", HOST_BYTES)
        self.rate: float = options.get("host_rate", HOST_RATE)
        kept: Mapping[str, tuple[str, ...]] = options.get("host_args", {})
        self.exposed = tuple(Exposed(name, each) for name, some in kept.items() for each in some)
        n = len(self.functions)
        self._stand_ins: dict[str, HostArg] = {}
        for name, some in kept.items():
            numbers = {a: n + self.exposed.index(Exposed(name, a)) for a in some}
            self._stand_ins[name] = HostArg(name, numbers, self.max_bytes)
        self._signature = read(fn)[0]
        self._stubs = {_key(o.fn): self._stub(i, o) for i, o in enumerate(self.functions)}

    def local(self, fn: Any, ask: Any) -> Any:
        """Return a copy of a plain function whose globals and closure hold stubs over `ask`."""
        if isinstance(fn, types.MethodType):
            return types.MethodType(self.local(fn.__func__, ask), fn.__self__)
        if not isinstance(fn, types.FunctionType):
            return fn
        names = {name: self.stubbed(value, ask) for name, value in fn.__globals__.items()}
        for name, value in self.injected.items():
            names[name] = self.stubbed(value, ask)
        cells = tuple(self._cell(cell, ask) for cell in fn.__closure__ or ())
        made = types.FunctionType(fn.__code__, names, fn.__name__, fn.__defaults__, cells)
        made.__kwdefaults__, made.__qualname__ = fn.__kwdefaults__, fn.__qualname__
        made.__dict__.update(fn.__dict__)
        return made

    def _cell(self, cell: types.CellType, ask: Any) -> types.CellType:
        try:
            value = cell.cell_contents
        except ValueError:
            return cell
        made = self.stubbed(value, ask)
        return cell if made is value else types.CellType(made)

    def stubbed(self, value: Any, ask: Any) -> Any:
        """Return a stub over `ask` for a listed function or a stand-in; else the value itself."""
        if type(value) is _bridge_job.StandIn:
            name, numbers, most = self._stand_ins[value._name].args
            return _bridge_job.stand_in(name, numbers, most, ask)
        found = self._stubs.get(_key(value))
        return value if found is None else _bridge_job.stub(*found[1], ask)

    def _stub(self, number: int, offer: Offer) -> tuple[Any, tuple[int, str, bool, str, int]]:
        doc = inspect.getdoc(offer.fn) or ""
        return _bridge_job.stub, (number, offer.name, offer.is_async, doc[:8192], self.max_bytes)

    @property
    def name_async(self) -> str:
        """The name of one async host function; empty where there is none."""
        return next((o.name for o in self.functions if o.is_async), "")

    def has(self, fn: Any) -> bool:
        """Whether a function is offered."""
        return _key(fn) in self._stubs

    def install(self, handlers: dict[type, Any]) -> None:
        """Let a pickler's table of reducers send a stub for each listed function."""
        from agentsbx._ship_reduce import resolve

        for kind in {type(o.fn) for o in self.functions}:
            handlers[kind] = self._handler(handlers, kind, resolve(kind))

    def _handler(self, handlers: dict[type, Any], kind: type, rest: Any) -> Any:
        def reduce(pickler: Any, obj: Any) -> Any:
            stub = self._stubs.get(_key(obj))
            if stub is not None:
                return stub
            reduced = NotImplemented if rest is None else rest(pickler, obj)
            handlers[kind] = reduce  # another reducer may have put itself there
            return reduced

        return reduce

    def keep(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """Return the arguments with stand-ins, and by name what stays here."""
        if not self._stand_ins or self._signature is None:
            return args, kwargs, {}
        kept: dict[str, Any] = {}
        positional: list[Any] = []
        names = [
            p.name for p in self._signature.parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]  # fmt: skip
        for i, value in enumerate(args):
            name = names[i] if i < len(names) else ""
            if name in self._stand_ins:
                kept[name], value = value, self._stand_ins[name]
            positional.append(value)
        named = dict(kwargs)
        for name in self._stand_ins.keys() & kwargs.keys():
            kept[name], named[name] = kwargs[name], self._stand_ins[name]
        return tuple(positional), named, kept


def _key(fn: Any) -> tuple[int, int]:
    """Identity of a function; of a bound method (made anew at each look) that of its parts."""
    if type(fn) is types.MethodType:
        return id(fn.__func__), id(fn.__self__)
    return id(fn), 0
