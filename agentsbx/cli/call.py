"""`agentsbx call module:function args`: a Python function in a sandbox, from a shell."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import sys
from typing import Any

from agentsbx.cli import UsageError, complain
from agentsbx.cli._flags import FLAG_HELP, parse_flags, save_kept, take_keep

__all__ = ["main"]

USAGE = f"""usage: agentsbx call [flags] module:function [args]

Call a function in a fresh sandbox and print what it returns as JSON. `module` is imported from
the present folder or from what is installed; `tools.py:function` names a file. An argument is JSON
where it reads as JSON, else a string; name=value passes a keyword argument. A function that is
decorated with @sandbox keeps its policy; flags change it.

{FLAG_HELP}

Exit code: 0; 1: the function raised (see stderr); 125: agentsbx itself failed."""


def main(argv: list[str]) -> int:
    """Call the function; see `USAGE`."""
    parsed = parse_flags(argv, USAGE)
    if parsed is None:
        return 0
    keywords, words = parsed
    if not words:
        raise UsageError("call needs a function: agentsbx call [flags] module:function args")
    keep, folder = take_keep(keywords)
    fn = _sandboxed(find(words[0]), keywords)
    if keep:
        fn = fn.options(keep=keep)
    args, kwargs = _arguments(fn, words[1:])
    try:
        result = fn.run(*args, **kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except TypeError as error:
        raise UsageError(f"{words[0]}: {error}") from error
    if folder:
        save_kept(result, folder)
    raised = result.error
    if raised is not None:
        complain(f"{type(raised).__name__}: {raised}", *getattr(raised, "__notes__", ()))
        return 1
    print(json.dumps(result.value, default=_plain, ensure_ascii=False))
    return 0


def find(name: str) -> Any:
    """Import `module:function` or `file.py:function`."""
    where, colon, what = name.partition(":")
    if not colon or not where or not what:
        raise UsageError(f"{name!r} is not module:function")
    try:
        if where.endswith(".py") or "/" in where:
            module = _load_file(where)
        else:
            sys.path.insert(0, os.getcwd())
            module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        raise UsageError(f"cannot import {where}: {error}") from error
    found: Any = module
    for part in what.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise UsageError(f"{where} has no {what!r}") from error
    return found


def _load_file(path: str) -> Any:
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not os.path.exists(path):
        raise UsageError(f"{path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _sandboxed(fn: Any, keywords: dict[str, Any]) -> Any:
    from agentsbx._decorator import is_wrapper, sandbox
    from agentsbx.cli._flags import policy_of

    if not callable(fn):
        raise UsageError(f"{fn!r} is not a function")
    if is_wrapper(fn) and "policy" not in keywords:
        return fn.options(**keywords) if keywords else fn
    return sandbox(policy_of(keywords))(fn.local if is_wrapper(fn) else fn)


def _arguments(fn: Any, words: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Read arguments: JSON or text; `name=value` where the function has a parameter `name`."""
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name.isidentifier() and (name in parameters or takes_any):
            kwargs[name] = _value(value)
        else:
            args.append(_value(word))
    return args, kwargs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _plain(value: Any) -> Any:
    """Show in JSON what JSON does not know."""
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    try:
        import msgspec

        return msgspec.to_builtins(value)
    except TypeError:
        return repr(value)
