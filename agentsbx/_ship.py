"""Shipping from the host to a job: the function with all it captures, then the arguments of a call.

A snapshot is one pickle; the arguments of each call, and the module attributes that the job asks
for, go on in that same pickle (its memo is copied), so that objects which are one on the host are
one in the job. `_receive` is the other half.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from _blake2 import blake2b  # hashlib's own, without its OpenSSL
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple

from agentsbx import _ship_check as check
from agentsbx._ship_modules import is_library_module, loaded_project_modules
from agentsbx._ship_pickle import OUT_OF_BAND, PROTOCOL, Context, ShipPickler, dispatch_table
from agentsbx._ship_record import Record, StatePickler
from agentsbx._ship_serve import Server
from agentsbx.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["CallStream", "Capture", "CaptureWarning", "Snapshot", "take_snapshot"]

CaptureWarning = check.CaptureWarning

_WARN_BYTES = 1_000_000
_MAX_BYTES = 64_000_000


class Capture(NamedTuple):
    """One thing that travels with a function: `kind` says how it is reached."""

    name: str
    kind: str
    type: str
    size: int


class _Output:
    """A file for the pickler and the list of what goes out of band."""

    __slots__ = ("buffers", "file")

    def __init__(self) -> None:
        self.file = io.BytesIO()
        self.buffers: list[memoryview] = []

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Keep a big buffer out of band (false) and let a small one go into the pickle."""
        try:
            raw = buffer.raw()
        except BufferError:
            return True
        if raw.nbytes < OUT_OF_BAND:
            return True
        self.buffers.append(raw)
        return False


def _small_only(buffer: pickle.PickleBuffer) -> bool:
    """Let small buffers go into the pickle; a big one ends it before anything is copied."""
    if memoryview(buffer).nbytes >= OUT_OF_BAND:
        raise BufferError("a big buffer goes beside the pickle")
    return True


def _pickler(
    context: Context, memo: Any, file: io.BytesIO, take: Callable[[pickle.PickleBuffer], bool]
) -> ShipPickler:
    """Return a pickler that continues from `memo`; `take` decides where each buffer goes."""
    pickler = ShipPickler(file, PROTOCOL, buffer_callback=take)
    pickler.context = context
    pickler.dispatch_table = dispatch_table()
    if memo is not None:
        pickler.memo = memo
    return pickler


class CallStream:
    """The arguments of one call, and the replies to what that job asks for."""

    __slots__ = ("_context", "_pickler", "_server", "_snapshot", "body", "buffers", "served")

    def __init__(
        self, snapshot: Snapshot, pickler: ShipPickler, body: bytes, buffers: list[Any],
        context: Context | None = None,
    ) -> None:  # fmt: skip
        self.body = body
        self.buffers = buffers
        self.served: list[str] = []
        self._snapshot, self._context = snapshot, context or snapshot._context
        self._pickler = pickler
        self._server: Server | None = None

    @property
    def snapshot(self) -> Snapshot:
        """What it continues."""
        return self._snapshot

    def pickle_more(
        self,
        value: Any,
        what: str = "what the generator is sent",
        most: int | None = None,
        part: Any = None,
    ) -> tuple[bytes, list[Any]]:
        """Pickle one more object of this call: what a generator is sent, a host function's answer.

        Raises `SerializationError` that names what in `part` of it cannot cross; ValueError for
        more than `most` bytes.
        """
        try:
            blob, buffers, keep = self._fork(value)
        except Exception as error:
            roots = [(what, value if part is None else part)]
            raise check.explain_failure(roots, self._context, error) from None
        size = len(blob) + sum(memoryview(b).nbytes for b in buffers)
        if most is not None and size > most:
            raise ValueError(f"{what} has {size} bytes, more than the {most} of host_bytes=")
        keep()
        return blob, buffers

    def pickle_error(
        self, number: int, kind: int, error: tuple[type, tuple[Any, ...]]
    ) -> tuple[bytes, list[Any]]:
        """Pickle an answer that is an exception; its words alone where its class cannot cross."""
        try:
            return self.pickle_more((number, kind, error))
        except SerializationError:
            words = ", ".join(map(str, error[1]))
            told = (RuntimeError, (f"{error[0].__name__}: {words}",))
            return self.pickle_more((number, kind, told))

    def module_reply(self, name: str) -> tuple[bytes, list[Any]]:
        """Answer a job that asks for a module (`a.b`) or an attribute of one (`a.b:name`).

        Never raises for what the job sent: a refusal is a reply too.
        """
        if self._server is None:
            self._server = Server(self._context, self.served, self._fork)
        return self._server.reply(name)

    def functions(self) -> list[types.FunctionType]:
        """Return the functions that the job was given: with the call, and by name since."""
        found = list(self._snapshot.functions)
        for name in self.served:
            module, _, attribute = name.partition(":")
            value = getattr(sys.modules.get(module), "__dict__", {}).get(attribute)
            for member in vars(value).values() if isinstance(value, type) else (value,):
                if isinstance(member, types.FunctionType):
                    found.append(member)
        return found

    def files(self) -> set[str]:
        """Return the files whose source the job was given."""
        return set() if self._server is None else self._server.files

    def _fork(self, value: Any) -> tuple[bytes, list[Any], Callable[[], None]]:
        """Pickle `value` as a continuation of this call; the third item makes it the one."""
        before = self._pickler
        out = _Output()
        pickler = _pickler(self._context, before.memo, out.file, out.take)
        pickler.own_namespaces = before.own_namespaces
        pickler.dump(value)

        def keep() -> None:
            self._pickler = pickler

        return out.file.getvalue(), list(out.buffers), keep


class Snapshot:
    """A function as it is now, with all it captures; made by `take_snapshot`."""

    def __init__(
        self,
        fn: Any,
        context: Context,
        pickler: ShipPickler,
        out: _Output,
        record: Record,
    ) -> None:
        self.fn = fn
        self.blob = out.file.getvalue()
        # Copies: what the host changes later must not change what a waiting child is given.
        self.buffers: list[Any] = [bytearray(buffer) for buffer in out.buffers]
        digest = blake2b(self.blob, digest_size=32)
        for buffer in self.buffers:
            digest.update(buffer)
        self.digest = digest.digest()
        self.classes: tuple[type, ...] = tuple(record.classes)
        self.exceptions: tuple[type[BaseException], ...] = record.exceptions()
        self.library = _library_of(fn)
        self._context = context
        self._pickler = pickler
        self._record = record
        self._captures: list[Capture] | None = None
        self._checks = record.checks()
        self._classes = record.class_checks()
        self._absent = record.absent_checks()
        self._empty = record.empty_cells()
        self._roots = record.root_values()
        self._state = record.state

    @property
    def functions(self) -> list[types.FunctionType]:
        """What travels by value; the first is the function itself, where it is a plain one."""
        return list(self._record.functions.values())

    @property
    def captures(self) -> list[Capture]:
        """What travels with the function, for `fn.explain()`."""
        if self._captures is None:
            self._captures = [Capture(*row) for row in self._record.captured()]
        return self._captures

    def is_current(self) -> bool:
        """Whether the function and all it captures are still what this snapshot holds.

        Objects that cannot change are compared by identity; the others (lists, instances, arrays)
        are pickled again and compared.
        """
        try:
            for get, target, expected in self._checks:
                if not all(map(is_, get(target), expected)):
                    return False
            for cls, expected in self._classes:
                own = vars(cls)
                if len(own) != len(expected) or not all(map(is_, own.values(), expected)):
                    return False
            for names, absent in self._absent:
                if not names.keys().isdisjoint(absent):
                    return False
        except (KeyError, ValueError, AttributeError, TypeError):
            return False
        if self._empty and any(_is_filled(cell) for cell in self._empty):
            return False
        return not self._roots or self._same_state()

    def _same_state(self) -> bool:
        try:
            return StatePickler.state_of(self._context, self._roots) == self._state
        except Exception:
            # What can no longer be pickled is certainly not what it was; a new snapshot says why.
            return False

    def quick_call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bytes, ShipPickler] | None:
        """Return the body of `begin_call` alone; None where it needs more (buffers, an error)."""
        file = io.BytesIO()
        pickler = _pickler(self._context, self._pickler.memo, file, _small_only)
        try:
            pickler.dump((args, kwargs))
        except Exception:
            return None
        return file.getvalue(), pickler

    def begun_call(self, pickler: ShipPickler) -> CallStream:
        """The `CallStream` of a quick call that turns out to need one."""
        return CallStream(self, pickler, b"", [])

    def begin_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallStream:
        """Pickle the arguments of a call; raises `SerializationError` naming the argument."""
        out = _Output()
        pickler = _pickler(self._context, self._pickler.memo, out.file, out.take)
        try:
            pickler.dump((args, kwargs))
        except Exception as error:
            raise self._explain_call(args, kwargs, error) from None
        return CallStream(self, pickler, out.file.getvalue(), out.buffers)

    def copy_call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments as a job would get them, for a call that runs in this process.

        Raises `SerializationError` as `begin_call` does.
        """
        from agentsbx._ship_copy import copy_call

        self.begin_call(args, kwargs)
        captured = [value for value, *_ in self._record.data()]
        try:
            return copy_call(self._context, captured, args, kwargs)
        except Exception as error:
            raise self._explain_call(args, kwargs, error) from None

    def first_change(self) -> str | None:
        """Return the name of one captured thing that is no longer what it was; None: all is."""
        return None if self.is_current() else self._record.first_change()

    def _explain_call(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: BaseException
    ) -> SerializationError:
        names = check.argument_names(self.fn, args, kwargs)
        roots = list(zip(names, args, strict=True))
        roots += [(f"argument {name!r}", value) for name, value in kwargs.items()]
        return check.explain_failure(roots or [("the arguments", args)], self._context, error)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def take_snapshot(
    fn: Any,
    *,
    captures: Sequence[str] | None = None,
    hidden_env: Mapping[str, str] | None = None,
    wrapper_reducer: Callable[[Any], Any] | None = None,
    offers: Any = None,
    warn_bytes: int = _WARN_BYTES,
    max_bytes: int = _MAX_BYTES,
) -> Snapshot:
    """Pickle a function with its present code, globals and closure.

    `captures` makes the list of captured data exact. `hidden_env` is the part of the host's
    environment that the policy does not grant: a captured string equal to one of its secrets is
    refused. `wrapper_reducer(wrapper)` returns the reduce tuple of a sandboxed function that the
    code refers to (default: its inner function, which then runs in the caller's sandbox). `offers`
    (`_bridge_offers.Offers`) names the functions that stay on the host.

    Raises `SerializationError` that names what cannot cross. Warns with `CaptureWarning`.
    """
    context = Context(
        wrapper_reducer=wrapper_reducer,
        allowed=None if captures is None else frozenset(captures),
        secrets=check.secrets_of(hidden_env or {}),
    )
    if offers is not None:
        offers.install(context.types)
    record = Record(fn, context)
    out = _Output()
    pickler = _pickler(context, None, out.file, out.take)
    pickler.recorder = record
    try:
        pickler.dump((fn, loaded_project_modules(), _listed(fn, captures, record, offers)))
        record.finish()
    except SerializationError:
        raise
    except Exception as error:
        raise check.explain_failure([("", fn)], context, error) from None
    pickler.recorder = None
    _refuse_secrets(fn, context, out.file.getvalue())
    _check_sizes(fn, record, out, warn_bytes, max_bytes)
    return Snapshot(fn, context, pickler, out, record)


def _plain_function(fn: Any) -> types.FunctionType | None:
    """Return the Python function under methods, partials and descriptors."""
    for _ in range(100):
        if isinstance(fn, types.FunctionType):
            return fn
        fn = getattr(fn, "__func__", None) or getattr(fn, "func", None)
        if fn is None:
            break
    return None


def _library_of(fn: Any) -> str | None:
    """Return the module of a function, method or callable object that is a library's own."""
    name = getattr(_plain_function(fn) or fn, "__module__", None)
    module = sys.modules.get(name) if isinstance(name, str) else None
    return name if module is not None and is_library_module(module) else None


def _listed(
    fn: Any, captures: Sequence[str] | None, record: Record, offers: Any
) -> tuple[Any, dict[str, Any]] | None:
    """Return the function and those captures that its code does not name itself (`eval`)."""
    inner = _plain_function(fn)
    injected = offers.injected if offers is not None else {}
    if not (captures or injected) or inner is None:
        return None
    extra: dict[str, Any] = {}
    for name in captures or ():
        if name in inner.__globals__:
            extra[name] = inner.__globals__[name]
        elif name not in inner.__code__.co_freevars:
            raise SerializationError(
                f"captures= lists {name!r}, which is neither a global nor a closure variable of "
                f"{inner.__qualname__}()",
                where=f"captures={name!r}",
                hint="correct or remove the name",
            )
    record.names(inner, extra, ())
    return inner, extra | injected


def _refuse_secrets(fn: Any, context: Context, blob: bytes) -> None:
    variable = check.find_secret(blob, context.secrets)
    if variable is None:
        return
    value = next(v for v, name in context.secrets.items() if name == variable)
    forms = (value, value.encode("utf-8", "surrogatepass"))

    def match(obj: Any) -> bool:
        return isinstance(obj, (str, bytes, bytearray)) and obj in forms

    where = check.search(fn, match, start="") or "a captured string"
    raise SerializationError(
        f"{where} is the value of the environment variable {variable}, which the policy does not "
        "grant",
        where=where,
        hint=f"grant it with env=[{variable!r}], or pass it as an argument",
    )


def _check_sizes(fn: Any, record: Record, out: _Output, warn_bytes: int, max_bytes: int) -> None:
    for value, name, kind, size in record.data():
        if size > max_bytes:
            raise SerializationError(
                f"{kind} {name!r} ({type(value).__qualname__}) has {size / 1e6:.0f} MB, and "
                f"captures end at {max_bytes / 1e6:.0f} MB",
                where=f"{kind} {name!r}",
                hint="pass it as an argument",
            )
        if size > warn_bytes:
            check.warn_capture(
                fn,
                name,
                f"{kind} {name!r} ({type(value).__qualname__}, {size / 1e6:.1f} MB) is captured "
                "and compared before each call; pass it as an argument",
            )
        if check.is_random(value):
            check.warn_capture(
                fn,
                name,
                f"{kind} {name!r} is a random generator: every call would draw the same numbers; "
                "make it inside the function",
            )
    total = out.file.tell() + sum(buffer.nbytes for buffer in out.buffers)
    if total > max_bytes:
        raise SerializationError(
            f"the function and what it captures have {total / 1e6:.0f} MB, more than "
            f"{max_bytes / 1e6:.0f} MB",
            where="captures",
            hint="pass the data as arguments",
        )
