"""What a function does to its surroundings that will not come back: warned of at its decoration.

Rule 5.3: a warning where it can be seen. Bytecode tells of stores to globals and closure cells;
only where more is likely is the source read, if there is one. Nothing is imported or run, and what
cannot be seen (in C, in functions that are called) is not guessed.
"""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import sys
import textwrap
import types
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["warn"]

_CHANGES = frozenset(
    {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove",
     "discard", "clear", "sort", "reverse", "appendleft", "extendleft", "popleft"}
)  # fmt: skip
_RECEIVER = "self"
_CONTAINERS = (list, dict, set, bytearray, deque)
_NOT_DATA = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
_STORES = frozenset(
    dis.opmap[name] for name in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF")
)
_PART_STORES = frozenset(
    dis.opmap[name] for name in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_ATTR", "DELETE_ATTR")
)


def warn(fn: Any) -> None:
    """Warn of what `fn` changes and cannot find again: one `RuntimeWarning` for each kind of thing.

    >>> with warnings.catch_warnings(record=True) as seen:
    ...     warnings.simplefilter("always")
    ...     warn(functools.lru_cache(max))
    >>> print(seen[0].message)
    max: functools.lru_cache under @sandbox is empty in every call; put it above @sandbox
    """
    injob = sys.modules.get("agentsbx._injob")
    if injob is not None and injob.is_job:
        return  # told in the host
    while isinstance(fn, functools.partial):
        fn = fn.func
    inner: Any = inspect.unwrap(fn)
    inner = getattr(inner, "__func__", inner)
    code = getattr(inner, "__code__", None)
    scope = getattr(inner, "__globals__", None)
    name = getattr(inner, "__qualname__", type(inner).__qualname__).rpartition("<locals>.")[2]
    for words in _words(fn, inner, code):
        warnings.warn_explicit(
            f"{name}: {words}", RuntimeWarning, getattr(code, "co_filename", "agentsbx"),
            getattr(code, "co_firstlineno", 1),
            # Once for each place, as `warnings.warn` has it.
            registry=scope.setdefault("__warningregistry__", {}) if scope is not None else None,
        )  # fmt: skip


def _words(fn: Any, inner: Any, code: Any) -> Iterator[str]:
    if isinstance(fn, functools._lru_cache_wrapper):
        yield "functools.lru_cache under @sandbox is empty in every call; put it above @sandbox"
    if not isinstance(code, types.CodeType):
        return
    names = _rebound(code)
    if names:
        yield f"sets {_listed(names)}, which stays inside the call; return the value"
    changed = _changed(inner, code) - names
    if changed:
        yield f"changes {_listed(changed)}, which stays inside the call; return it"


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (" ..." if len(names) > 5 else "")


# -- bytecode -----------------------------------------------------------------------------------


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code and that of all functions and classes in it."""
    todo = [code]
    while todo:
        code = todo.pop()
        yield code
        todo += [c for c in code.co_consts if isinstance(c, types.CodeType)]


def _rebound(code: types.CodeType) -> set[str]:
    """Globals, and variables of functions around it, that the function or one inside it sets."""
    found = set()
    around = {*code.co_freevars}
    for part in _codes(code):
        if _STORES.isdisjoint(part.co_code[::2]):
            continue
        for step in dis.get_instructions(part):
            if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                found.add(f"global {step.argval}")
            elif step.opcode in _STORES and step.argval in {*part.co_freevars} & around:
                found.add(f"nonlocal {step.argval}")
    return found


def _returns_nothing(code: types.CodeType) -> bool:
    if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        return False
    before = None
    for step in dis.get_instructions(code):
        if step.opname == "RETURN_VALUE" and (
            before is None or before.opname != "LOAD_CONST" or before.argval is not None
        ):
            return False
        if step.opname == "RETURN_CONST" and step.argval is not None:
            return False
        before = step
    return True


def _likely(inner: Any, code: types.CodeType) -> tuple[set[str], set[str]]:
    """Names of globals and of parameters that the function may change; mostly none."""
    parts = list(_codes(code))
    calls = any(not _CHANGES.isdisjoint(part.co_names) for part in parts)
    stores = any(not _PART_STORES.isdisjoint(part.co_code[::2]) for part in parts)
    if not calls and not stores:
        return set(), set()
    scope = getattr(inner, "__globals__", {})
    data = {n for n in code.co_names if n in scope and not isinstance(scope[n], _NOT_DATA)}
    if not stores:
        data = {n for n in data if isinstance(scope[n], _CONTAINERS)}
    n_params = code.co_argcount + code.co_kwonlyargcount
    params = set(code.co_varnames[:n_params])
    if not _returns_nothing(code):
        # It may well change its own copy on the way; but a method that changes its object means it.
        params &= {_RECEIVER}
    return data, params


# -- source -------------------------------------------------------------------------------------


def _changed(inner: Any, code: types.CodeType) -> set[str]:
    """Globals that hold data, and arguments of a function without result, that it changes."""
    data, params = _likely(inner, code)
    if not data and not params:
        return set()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inner)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return set()  # typed in, made by exec, a lambda in the middle of a line
    function = next(
        (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)), None
    )
    if function is None or function.name != code.co_name:
        return set()
    nodes = [node for statement in function.body for node in _own(statement)]
    rebound = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    found = {name for node in nodes if (name := _target(node, inner.__globals__))} - rebound
    for node in nodes:
        if isinstance(node, ast.Return):
            found -= {part.id for part in _parts(node.value) if isinstance(part, ast.Name)}
    return {f"global {n}" for n in found & data} | {f"argument {n}" for n in found & params}


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement, but not those of functions and classes in it."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        return
    for child in ast.iter_child_nodes(node):
        yield from _own(child)


def _parts(value: ast.expr | None) -> Iterator[ast.expr]:
    """What is returned: the value, or the items of a tuple, list or dictionary."""
    if isinstance(value, ast.Tuple | ast.List):
        yield from value.elts
    elif isinstance(value, ast.Dict):
        yield from value.values
    elif value is not None:
        yield value


def _target(node: ast.AST, scope: dict[str, Any]) -> str | None:
    """The variable whose inside a node changes: `x[k] = v`, `x.a = v`, `x.append(v)`."""
    if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
        return _root(node.value)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    if node.func.attr not in _CHANGES:
        return None
    if not isinstance(node.func.value, ast.Name):  # `self.items.append(v)`
        return _RECEIVER if _root(node.func.value) == _RECEIVER else None
    name = node.func.value.id
    # `update` of a hash or of a progress bar is no trap; of a dictionary it is.
    return name if name not in scope or isinstance(scope[name], _CONTAINERS) else None


def _root(node: ast.AST) -> str | None:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
