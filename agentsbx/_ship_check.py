"""What must not cross, found and named: the path to it, secrets, big or random captures.

All of this runs only where something is wrong or once per snapshot; nothing here is on the path of
an ordinary call.
"""

from __future__ import annotations

import _socket
import functools
import inspect
import io
import re
import sys
import threading
import time
import types
import warnings
from typing import TYPE_CHECKING, Any

from agentsbx._ship_modules import (
    Chain,
    closure_references,
    is_by_reference,
    is_library_module,
    module_of_globals,
    references,
)
from agentsbx._ship_pickle import CannotShip, Context, ShipPickler, dispatch_table
from agentsbx._ship_reduce import is_wrapper
from agentsbx.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "CaptureWarning",
    "explain_failure",
    "find_secret",
    "is_random",
    "locate",
    "looks_secret",
    "secrets_of",
    "warn_capture",
]

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:api_?key|key|token|secret|password|passwd|passphrase|pwd|pass|credentials?|auth"
    r"|cookie|private|signature|bearer|pat|salt)s?(?:$|_|\d)|apikey|accesskey|secretkey",
    re.IGNORECASE,
)
# Addresses are secrets where they carry a password.
_ADDRESS_NAME = re.compile(r"(?:^|_)(?:url|uri|dsn|connection_string|conn_str)$", re.IGNORECASE)
_MIN_SECRET = 6
_BUDGET = 20_000
_MAX_SECONDS = 3.0  # for the search of what cannot cross: each question is a pickle
_MAX_PATH = 120
_INSIDE = "make it inside the function, or pass what it needs as arguments"


class CaptureWarning(UserWarning):
    """A function captures something big, or a random generator that every call would repeat."""


def looks_secret(name: str) -> bool:
    """Whether an environment variable's or attribute's name says that its value is a secret.

    >>> [looks_secret(n) for n in ("OPENAI_API_KEY", "PATH", "DB_PASSWORD", "KEYBOARD", "GH_TOKEN")]
    [True, False, True, False, True]
    """
    return _SECRET_NAME.search(name) is not None


def secrets_of(hidden: Mapping[str, str]) -> dict[str, str]:
    """Return the hidden variables whose values must not be captured.

    Values shorter than six characters ("true", "1") are too common to tell anything.
    """
    return {
        name: value
        for name, value in hidden.items()
        if len(value) >= _MIN_SECRET
        and (looks_secret(name) or ("@" in value and _ADDRESS_NAME.search(name) is not None))
    }


def find_secret(blob: bytes, secrets: Mapping[str, str]) -> str | None:
    """Return the name of the variable whose value stands in a pickle as a whole string.

    `secrets` maps values to names.
    """
    for value, name in secrets.items():
        raw = value.encode("utf-8", "surrogatepass")
        size = len(raw)
        if size < 256:
            heads = [b"\x8c" + bytes([size]), b"C" + bytes([size])]
        else:
            length = size.to_bytes(4, "little")
            heads = [b"X" + length, b"B" + length]
        heads.append(b"\x96" + size.to_bytes(8, "little"))
        if any(head + raw in blob for head in heads):
            return name
    return None


def is_random(value: Any) -> bool:
    """Whether a captured object is a generator of random numbers."""
    import random

    if isinstance(value, random.Random):
        # SystemRandom has no state to repeat.
        return not isinstance(value, random.SystemRandom) and value is not getattr(
            random, "_inst", None
        )
    kinds = getattr(sys.modules.get("numpy.random"), "__dict__", {})
    return any(
        isinstance(value, kind)
        for name in ("Generator", "RandomState", "BitGenerator")
        if isinstance(kind := kinds.get(name), type)
    )


_warned: set[tuple[str, ...]] = set()


def warn_capture(fn: Any, name: str, message: str) -> None:
    """Warn once per function and capture, at the function."""
    code = getattr(fn, "__code__", None)
    place = (getattr(code, "co_filename", ""), str(getattr(code, "co_firstlineno", "")))
    key = (getattr(fn, "__module__", "") or "", getattr(fn, "__qualname__", ""), *place, name)
    if key in _warned:
        return
    if len(_warned) > 10_000:
        _warned.clear()
    _warned.add(key)
    where = getattr(code, "co_filename", "agentsbx"), getattr(code, "co_firstlineno", 1)
    warnings.warn_explicit(message, CaptureWarning, *where)


# -- paths ----------------------------------------------------------------------------------------


def _children(obj: Any) -> Iterator[tuple[str, Any]]:
    """Yield what pickling `obj` would pickle next, each with its step of the path."""
    if isinstance(obj, types.FunctionType):
        if "__agentsbx_site__" in obj.__dict__ and is_wrapper(obj):
            yield "", obj.__dict__.get("__wrapped__")
        elif not is_by_reference(obj):
            yield from _function_children(obj)
    elif isinstance(obj, type):
        if not is_by_reference(obj):
            yield from (
                (f".{name}", value)
                for name, value in list(vars(obj).items())
                if not isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType))
            )
            yield from ((f" > base {base.__name__}", base) for base in obj.__bases__)
    elif isinstance(obj, dict):
        for key, value in list(obj.items()):
            yield f"[{key!r:.60}]", value
            yield f" > key {key!r:.60}", key
    elif isinstance(obj, (list, tuple)):
        yield from ((f"[{at}]", value) for at, value in enumerate(obj))
    elif isinstance(obj, (set, frozenset)):
        yield from ((f" > element {value!r:.40}", value) for value in obj)
    elif not isinstance(obj, (str, bytes, int, float, types.ModuleType, types.CodeType)):
        yield from _instance_children(obj)


def _function_children(fn: types.FunctionType) -> Iterator[tuple[str, Any]]:
    owner = module_of_globals(fn.__globals__)
    if owner is None or not is_library_module(owner):
        for name, chain in references(fn.__code__).items():
            if name not in fn.__globals__:
                continue
            value = fn.__globals__[name]
            if isinstance(value, types.ModuleType):
                yield from _module_children(f" > global {name!r}", value, chain)
            else:
                yield f" > global {name!r}", value
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        if isinstance(value, types.ModuleType):
            chain = closure_references(fn.__code__).get(name, {})
            yield from _module_children(f" > closure variable {name!r}", value, chain)
        else:
            yield f" > closure variable {name!r}", value
    names = fn.__code__.co_varnames[: fn.__code__.co_argcount]
    defaults = fn.__defaults__ or ()
    for name, value in zip(names[len(names) - len(defaults) :], defaults, strict=True):
        yield f" > default of {name!r}", value
    for name, value in (fn.__kwdefaults__ or {}).items():
        yield f" > default of {name!r}", value
    for name, value in fn.__dict__.items():
        if name != "__agentsbx_site__":
            yield f".{name}", value
    yield " > annotations", getattr(fn, "__annotations__", None)


def _module_children(path: str, module: Any, chain: Chain) -> Iterator[tuple[str, Any]]:
    if is_library_module(module):
        return
    for name, inner in chain.items():
        value = vars(module).get(name)
        if isinstance(value, types.ModuleType):
            yield from _module_children(f"{path}.{name}", value, inner)
        elif name in vars(module):
            yield f"{path}.{name}", value


def _instance_children(obj: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(obj, (io.IOBase, _socket.socket, threading.Thread)):
        return
    if isinstance(obj, types.MethodType):
        yield ".__self__", obj.__self__
        yield ".__func__", obj.__func__
    elif isinstance(obj, functools.partial):
        yield from ((f".{name}", getattr(obj, name)) for name in ("func", "args", "keywords"))
    elif isinstance(obj, (staticmethod, classmethod)):
        yield "", obj.__func__
    elif isinstance(obj, property):
        yield from ((f".{name}", getattr(obj, name)) for name in ("fget", "fset", "fdel"))
    yield " > class", type(obj)
    own = getattr(obj, "__dict__", None)
    if isinstance(own, dict):
        yield from ((f".{name}", value) for name, value in list(own.items()))
    for kind in type(obj).__mro__:
        for name, member in list(vars(kind).items()):
            if isinstance(member, types.MemberDescriptorType):
                try:
                    yield f".{name}", member.__get__(obj)
                except AttributeError:
                    continue
    if isinstance(own, dict) or not hasattr(obj, "__reduce_ex__"):
        return
    try:
        reduced = obj.__reduce_ex__(4)
    except Exception:
        return
    if isinstance(reduced, tuple):
        yield from (("", part) for part in reduced[1:3] if part is not None)


def locate(
    root: Any, wrong: Callable[[Any], bool], *, start: str, budget: int = _BUDGET
) -> tuple[str, Any]:
    """Return path and object of the deepest object under `root` for which `wrong` holds.

    `wrong` must hold for everything on the way to it (as "cannot be pickled" does), and so for all
    of a cycle that leads to it: a way that only comes back is left again. Ends after `budget`
    questions or `_MAX_SECONDS` with the deepest place so far.
    """
    until = time.monotonic() + _MAX_SECONDS
    verdicts: dict[int, bool] = {id(root): True}
    kept: list[Any] = [root]  # an id is one object's as long as it lives
    entered = {id(root)}
    way = [(start, root, _children(root))]
    blamed: set[int] = set()  # objects of which a part is wrong
    depth, deepest = 1, (start, root)
    while way:
        path, obj, children = way[-1]
        for step, child in children:
            kept.append(child)
            known = verdicts.get(id(child))
            if known is None:
                budget -= 1
                if budget < 0 or time.monotonic() > until:
                    return _tidy(deepest[0]), deepest[1]
                known = verdicts[id(child)] = wrong(child)
            if known:
                blamed.add(id(obj))
                if id(child) not in entered:
                    entered.add(id(child))
                    way.append((path + step, child, _children(child)))
                    if len(way) > depth:
                        depth, deepest = len(way), (path + step, child)
                    break
        else:
            if id(obj) not in blamed:
                return _tidy(path), obj
            way.pop()
    return _tidy(deepest[0]), deepest[1]


def search(root: Any, match: Callable[[Any], bool], *, start: str) -> str | None:
    """Return the path to the first object under `root` that matches, breadth first."""
    seen = {id(root)}
    queue: list[tuple[str, Any]] = [(start, root)]
    kept: list[Any] = []
    for path, obj in queue:
        if match(obj):
            return _tidy(path)
        if len(queue) > _BUDGET:
            return None
        for step, child in _children(obj):
            if id(child) not in seen:
                seen.add(id(child))
                kept.append(child)
                queue.append((path + step, child))
    return None


def _tidy(path: str) -> str:
    """Return a path in words: `self.conn` for what hangs on the object of a bound method."""
    path = path.removeprefix(" > ").replace(" > class.", ".")
    if path.startswith(".__self__"):
        path = "self" + path.removeprefix(".__self__")
    return "the object" + path if path.startswith((".", "[")) else path


# -- errors ---------------------------------------------------------------------------------------


def _fails(context: Context) -> Callable[[Any], bool]:
    def fails(obj: Any) -> bool:
        pickler = ShipPickler(io.BytesIO(), 5, buffer_callback=lambda _: False)
        pickler.context = context
        pickler.dispatch_table = dispatch_table()
        try:
            pickler.dump(obj)
        except Exception:
            return True
        return False

    return fails


def explain_failure(
    roots: Sequence[tuple[str, Any]], context: Context, error: BaseException
) -> SerializationError:
    """Return the error that names what cannot cross, and where it hangs (rule 1.7).

    `roots` are what was being pickled, each with the start of its path.
    """
    fails = _fails(context)
    for start, root in roots:
        if fails(root):
            where, obj = locate(root, fails, start=start)
            break
    else:
        where, obj = _tidy(roots[0][0]) or "the function", None
    where = where or "the function"
    if len(where) > _MAX_PATH:
        where = f"{where[: _MAX_PATH - 40]}...{where[-37:]}"
    pickler = ShipPickler(io.BytesIO(), 5, buffer_callback=lambda _: False)
    pickler.context = context
    pickler.dispatch_table = dispatch_table()
    if obj is not None:
        try:
            pickler.dump(obj)
        except Exception as deepest:
            error = deepest
    if isinstance(error, CannotShip):
        reason, hint = error.reason, error.hint or _INSIDE
    elif isinstance(error, RecursionError):
        reason, hint = "it is nested too deeply", "pass it as flat data"
    else:
        reason, hint = f"{error}" or type(error).__name__, _INSIDE
    kind = f" ({type(obj).__module__}.{type(obj).__qualname__})" if obj is not None else ""
    made = SerializationError(
        f"{where}{kind} cannot cross into the sandbox: {reason}", where=where, hint=hint
    )
    made.__cause__ = None if isinstance(error, CannotShip) else error
    return made


def argument_names(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """Return how to name each positional argument of a call."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [
        f"argument {named[at]!r}" if at < len(named) else f"argument {at + 1}"
        for at in range(len(args))
    ]
