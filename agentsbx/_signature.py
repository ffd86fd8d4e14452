"""Signatures: evaluated annotations for wrappers, and checks of arguments before a call."""

from __future__ import annotations

import builtins
import inspect
import sys
import types
from collections.abc import Mapping
from typing import Any

from agentsbx._kinds import unpartial

__all__ = ["WrongArguments", "bind_call", "bind_verb", "evaluated_signature", "return_annotation"]

_MAX_CACHED = 512


def evaluated_signature(fn: Any) -> tuple[inspect.Signature | None, dict[str, Any]]:
    """Return signature and annotations of `fn`, strings evaluated one by one.

    A string that cannot be evaluated now (a name under `TYPE_CHECKING`, a class still to come)
    stays a string. No signature (some builtins): None.
    """
    inner = inspect.unwrap(unpartial(fn))
    inner = getattr(inner, "__func__", inner)
    names = _namespace(inner)
    annotations = {
        name: _evaluated(value, names) for name, value in _raw_annotations(inner).items()
    }
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError, NameError):
        return None, annotations
    parameters = [
        p.replace(annotation=annotations.get(p.name, _evaluated(p.annotation, names)))
        for p in signature.parameters.values()
    ]
    returned = annotations.get("return", _evaluated(signature.return_annotation, names))
    return signature.replace(parameters=parameters, return_annotation=returned), annotations


def return_annotation(fn: Any) -> Any:
    """Return the evaluated annotation of what `fn` returns; None: none, or it cannot be evaluated.

    A name that only type checkers import (under `TYPE_CHECKING`) is looked for among the loaded
    modules of the function's own package.

    >>> return_annotation(return_annotation), return_annotation(lambda: 1)
    (typing.Any, None)
    """
    returned = evaluated_signature(fn)[1].get("return")
    if not isinstance(returned, str):
        return returned
    inner = inspect.unwrap(unpartial(fn))
    inner = getattr(inner, "__func__", inner)
    package = (getattr(inner, "__module__", None) or "").partition(".")[0]
    found = _evaluated(returned, _Loaded(_namespace(inner), package))
    return None if isinstance(found, str) else found


def _raw_annotations(fn: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        try:
            return dict(annotationlib.get_annotations(fn, format=annotationlib.Format.FORWARDREF))
        except (TypeError, ValueError):
            return {}
    annotations = getattr(fn, "__annotations__", None)
    return dict(annotations) if isinstance(annotations, dict) else {}


def _namespace(fn: Any) -> Mapping[str, Any]:
    """Return the names that an annotation of `fn` may use: globals and what its closure holds."""
    names: dict[str, Any] = {}
    code = getattr(fn, "__code__", None)
    for name, cell in zip(
        getattr(code, "co_freevars", ()), getattr(fn, "__closure__", None) or (), strict=False
    ):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            continue  # not set yet
    names.update({p.__name__: p for p in getattr(fn, "__type_params__", ())})
    return _Names(names, getattr(fn, "__globals__", {}))


class _Names(dict[str, Any]):
    """Locals first; the globals only by look-up, never copied."""

    def __init__(self, names: dict[str, Any], outer: Mapping[str, Any]) -> None:
        super().__init__(names)
        self._outer = outer

    def __missing__(self, name: str) -> Any:
        return self._outer[name]


class _Loaded(dict[str, Any]):
    """Those names, then the one class of that name in the loaded modules of a package."""

    def __init__(self, names: Mapping[str, Any], package: str) -> None:
        super().__init__()
        self._names = names
        self._package = package

    def __missing__(self, name: str) -> Any:
        try:
            return self._names[name]
        except KeyError:
            if hasattr(builtins, name):
                raise
        from agentsbx._codec_annotation import loaded_class

        classes = {
            kind
            for module in list(sys.modules)
            if module.partition(".")[0] == self._package
            and (kind := loaded_class(module, name)) is not None
        }
        if len(classes) != 1:
            raise KeyError(name)
        return classes.pop()


def _evaluated(annotation: Any, names: Mapping[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, {}, names)
    except Exception:
        return annotation


# -- checks before a sandbox is used ------------------------------------------------------------


class WrongArguments(TypeError):
    """A call whose arguments do not fit: the wrapper raises it as a plain TypeError."""


_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_signatures: dict[types.CodeType, tuple[Any, Any, inspect.Signature | None]] = {}


def _signature(fn: Any) -> inspect.Signature | None:
    """Return what the code of a function takes (cached by its code and defaults).

    Not what it says it takes: a decorator may show the signature of the function inside and take
    other arguments.
    """
    if type(fn) is types.MethodType and type(fn.__func__) is types.FunctionType:
        inner = _signature(fn.__func__)
        first = next(iter(inner.parameters.values()), None) if inner is not None else None
        if inner is None or first is None or first.kind in _VARIABLE:
            return None if first is None else inner
        return inner.replace(parameters=list(inner.parameters.values())[1:])
    if type(fn) is not types.FunctionType:  # a bound method shows its function's code
        try:
            return inspect.signature(fn, follow_wrapped=False)
        except (TypeError, ValueError, NameError):
            return None
    code = fn.__code__
    known = _signatures.get(code)
    if known is not None and known[0] is fn.__defaults__ and known[1] is fn.__kwdefaults__:
        return known[2]
    try:
        # Through a bare copy: annotations play no part here, and may not even evaluate.
        bare = types.FunctionType(code, {}, fn.__name__, fn.__defaults__, fn.__closure__)
        bare.__kwdefaults__ = fn.__kwdefaults__
        signature: inspect.Signature | None = inspect.signature(bare)
    except (TypeError, ValueError):
        signature = None
    if len(_signatures) >= _MAX_CACHED:
        _signatures.clear()
    _signatures[code] = fn.__defaults__, fn.__kwdefaults__, signature
    return signature


def bind_call(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise the TypeError of a call with wrong arguments, before a sandbox is used up."""
    __tracebackhide__ = True
    if (
        type(fn) is types.FunctionType
        and not kwargs
        and fn.__code__.co_argcount == len(args)
        and not fn.__code__.co_kwonlyargcount
    ):
        return  # the usual call, settled without building anything
    signature = _signature(fn)
    if signature is None:
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(fn, "__qualname__", repr(fn))
        raise WrongArguments(f"{name}() {error}") from None


def bind_verb(wrapper: Any, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check the arguments of `fn.run(...)` and the like.

    Attributes of a method are those of its function: `k.m.run(2)` cannot know `k`. It must raise
    and show `K.m.run(k, 2)`, never take 2 for `self` (semantics section 6).
    """
    __tracebackhide__ = True
    fn = wrapper.__wrapped__
    owner = _method_owner(fn)
    if owner is not None and not _is_receiver(owner, fn, args, kwargs):
        receiver = "k" if _first(fn) == "self" else owner
        shown = ", ".join(
            [receiver, *map(_clip, args), *(f"{k}={_clip(v)}" for k, v in kwargs.items())]
        )
        raise TypeError(
            f"{fn.__qualname__}.{verb}() needs the object as first argument: "
            f"write {owner}.{fn.__name__}.{verb}({shown})"
        )


def _first(fn: Any) -> str | None:
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return code.co_varnames[0] if code is not None and code.co_argcount else None


def _method_owner(fn: Any) -> str | None:
    """Return the class name in `fn.__qualname__` if fn is a method by its first parameter."""
    owner: str = getattr(fn, "__qualname__", "").rpartition(".")[0]
    if isinstance(fn, types.MethodType):
        return None  # it has its object
    if not owner or owner.endswith("<locals>") or _first(fn) not in ("self", "cls"):
        return None
    return owner.rpartition("<locals>.")[2]


def _is_receiver(owner: str, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    first = _first(fn)
    if not args and first not in kwargs:
        return False
    value = args[0] if args else kwargs[first or ""]
    cls = value if first == "cls" and isinstance(value, type) else type(value)
    return any(
        base.__qualname__.rpartition("<locals>.")[2] == owner or fn.__name__ in base.__dict__
        for base in cls.__mro__
    )


def _clip(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 40 else text[:37] + "..."
