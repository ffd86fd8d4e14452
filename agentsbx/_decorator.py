"""The decorator: `sandbox`, and the function that it makes.

The wrapper is a plain function over `*args, **kwargs` with the user's signature. All that a call
needs hangs on the function object itself (`__wrapped__`, `__agentsbx_site__`), not in a closure:
`%autoreload` and `importlib.reload` exchange the code and `__dict__` of a function in place, and
monkeypatches set `__wrapped__`; the next call must see that (rule 1.1).
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Unpack, overload

from agentsbx import _calls, _traps
from agentsbx._kinds import Kind, kind_of
from agentsbx._load import load
from agentsbx._signature import bind_verb, evaluated_signature, return_annotation
from agentsbx._wrappers import WRAPPERS, is_wrapper

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Coroutine,
        Generator,
        Iterator,
    )

    from agentsbx._policy_found import Applied
    from agentsbx._runtime import CallSite
    from agentsbx._types import (
        AsyncSandboxed,
        AsyncStreamSandboxed,
        Decorator,
        Keywords,
        P,
        R_co,
        Sandboxed,
        StreamSandboxed,
        Y_co,
        Z,
    )
    from agentsbx.policy import Policy
    from agentsbx.result import Result

__all__ = ["is_wrapper", "resolve", "sandbox"]


# -- the decorator ------------------------------------------------------------------------------


@overload
def sandbox(  # type: ignore[overload-overlap]  # the narrower ones are first on purpose
    fn: Callable[P, Coroutine[Any, Any, R_co]], /
) -> AsyncSandboxed[P, R_co]: ...
@overload
def sandbox(  # type: ignore[overload-overlap]
    fn: Callable[P, AsyncGenerator[Y_co, Z]], /
) -> AsyncStreamSandboxed[P, AsyncGenerator[Y_co, Z], Y_co]: ...
@overload
def sandbox(  # type: ignore[overload-overlap]
    fn: Callable[P, AsyncIterator[Y_co]], /
) -> AsyncStreamSandboxed[P, AsyncIterator[Y_co], Y_co]: ...
@overload
def sandbox(  # type: ignore[overload-overlap]
    fn: Callable[P, Generator[Y_co, Z, R_co]], /
) -> StreamSandboxed[P, Generator[Y_co, Z, R_co], Y_co]: ...
@overload
def sandbox(  # type: ignore[overload-overlap]
    fn: Callable[P, Iterator[Y_co]], /
) -> StreamSandboxed[P, Iterator[Y_co], Y_co]: ...
@overload
def sandbox(fn: Callable[P, R_co], /) -> Sandboxed[P, R_co]: ...
@overload
def sandbox(
    policy: Policy | str | os.PathLike[str] | None = None, /, **keywords: Unpack[Keywords]
) -> Decorator: ...
def sandbox(target: Any = None, /, **keywords: Any) -> Any:
    """Run every call of a function in a fresh, single-use sandbox.

    `@sandbox` alone gives the strict default: no network, stdlib and site-packages read-only, a
    private `$HOME` and `$TMPDIR`, a few safe environment variables, 30 s, 512 MB. `target` may be
    a `Policy`, the path of a policy file (with `/` or ending in `.toml`) or the name of a preset;
    `keywords` are policy keywords (`read=`, `write=`, `env=`, `memory=`, `timeout=` ...), besides
    `captures=` (the exact list of captured names), `raises=` (exception classes to rebuild),
    `keep=` (files that come back) and `output=`.

    Returns the decorated function, or a decorator. Raises `PolicyError` for a wrong policy and
    `TypeError` for what is not a function. Nothing starts before the first call.

    Enforced by: namespaces, Landlock, seccomp, cgroups and rlimits (see `fn.explain()`).

    >>> @sandbox(memory="256MB", timeout="5s")
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double.policy.limits.memory, double.__name__
    (256000000, 'double')
    """
    from agentsbx.policy import Policy

    if isinstance(target, (Policy, str, os.PathLike)) or target is None:
        return _Decorator(*resolve(target, keywords))
    if not keywords and (callable(target) or isinstance(target, _DESCRIPTORS)):
        return _decorate(target, *resolve(None, keywords))
    if callable(target) or isinstance(target, _DESCRIPTORS):
        raise TypeError(
            f"sandbox() takes a function or keywords, not both: "
            f"write @sandbox({_shown(keywords)}) above the function"
        )
    raise TypeError(
        f"sandbox() takes a function, a Policy, a policy file or a preset, "
        f"not {type(target).__name__}"
    )


class _Decorator:
    """What `sandbox(policy)` returns: waits for the function."""

    __slots__ = ("_options", "_policy")

    def __init__(self, policy: Policy, options: dict[str, Any]) -> None:
        self._policy = policy
        self._options = options

    def __call__(self, fn: Any, /) -> Any:
        return _decorate(fn, self._policy, self._options)

    def __enter__(self) -> NoReturn:
        raise TypeError(
            "sandbox(...) decorates a function: code in a with block would run in this process. "
            "Did you mean `Sandbox(...)` (a session), or `@sandbox(...)` above a function?"
        )

    def __exit__(self, *_: object) -> None:
        """Never reached; here so that `with` asks `__enter__` first."""

    def __repr__(self) -> str:
        return f"<sandbox decorator {self._policy!r}>"


_DESCRIPTORS = (staticmethod, classmethod, property, functools.partialmethod)


def resolve(target: Any, keywords: dict[str, Any]) -> tuple[Policy, dict[str, Any]]:
    """Return the policy and the options of the call that target and keywords name together."""
    from agentsbx.policy import Policy, split_keywords

    if target is None and not keywords:
        return _default(), {}
    rules, options = split_keywords(keywords)
    if target is None:
        return Policy.from_keywords(**rules), options
    if isinstance(target, Policy):
        policy = target
    else:
        name = os.fspath(target)
        if isinstance(target, str) and "/" not in name and not name.endswith(".toml"):
            from agentsbx.presets import preset

            policy = preset(name)
        else:
            policy = Policy.from_file(name)
    return (policy.extend(**rules) if rules else policy), options


@functools.cache
def _default() -> Policy:
    from agentsbx.policy import Policy

    return Policy.from_keywords()


def _decorate(fn: Any, policy: Policy, options: dict[str, Any]) -> Any:
    if isinstance(fn, (staticmethod, classmethod)):
        return type(fn)(_decorate(fn.__func__, policy, options))
    _refuse(fn)
    _traps.warn(fn)
    if policy.functions:
        policy = policy.for_function(_function_name(fn))
    return _make(fn, policy, options)


def _function_name(fn: Any) -> str:
    """Return "module:qualname", as a policy file names a function in a section.

    A program that was started by its file is called after the file, as others import it.
    """
    named = fn.func if isinstance(fn, functools.partial) else fn
    module = getattr(named, "__module__", None) or ""
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name if spec is not None else os.path.basename(file or "")
        module = module.removesuffix(".py").removesuffix(".__main__")
    return f"{module}:{getattr(named, '__qualname__', type(named).__qualname__)}"


def _refuse(fn: Any) -> None:
    """Raise TypeError for what cannot be sandboxed, saying what was probably meant."""
    if isinstance(fn, type):
        raise TypeError(
            f"sandbox() decorates functions, not classes: did you mean `Sandbox(...)` (a session), "
            f"or @sandbox above a method of {fn.__name__}?"
        )
    if isinstance(fn, (property, functools.partialmethod)):
        raise TypeError(
            f"sandbox() cannot decorate a {type(fn).__name__}: put @sandbox directly above the "
            f"function, below @{type(fn).__name__}"
        )
    if not callable(fn):
        raise TypeError(f"sandbox() decorates functions, not {type(fn).__name__}")


# -- the wrapper --------------------------------------------------------------------------------


def _make(fn: Any, policy: Policy, options: dict[str, Any]) -> Any:
    kind = kind_of(fn)
    wrapper: Any = WRAPPERS[kind]()
    _dress(wrapper, fn)
    signature, annotations = evaluated_signature(fn)
    wrapper.__annotations__ = annotations
    if signature is not None:
        wrapper.__signature__ = signature
    if "host_args" in options:
        _check_host_args(wrapper, options)
    _equip(wrapper, fn, _Site(policy, options, kind))
    _describe_verbs(wrapper, signature)
    return wrapper


_VERBS = {
    "run": "Call as `{name}`, in a fresh sandbox; returns a `Result`, never raises for the body.",
    "run.aio": "Call as `{name}`, without blocking the event loop; returns a `Result`.",
    "aio": "Call as `{name}`, without blocking the event loop.",
    "submit": "Call as `{name}` in the background; returns a `concurrent.futures.Future`.",
}


_RETURNED = {"run": "Result", "run.aio": "Result", "submit": "Future"}


def _describe_verbs(wrapper: Any, signature: inspect.Signature | None) -> None:
    """Give the verbs the function's signature, for those who look at it while they type."""
    for name, words in _VERBS.items():
        verb = wrapper
        for part in name.split("."):
            verb = getattr(verb, part)
        verb.__doc__ = words.format(name=wrapper.__qualname__)
        if signature is not None:
            returned = _RETURNED.get(name, signature.return_annotation)
            verb.__signature__ = signature.replace(return_annotation=returned)


def _dress(wrapper: Any, fn: Any) -> None:
    """Give the wrapper the names of the function (of the one inside, for partial objects)."""
    functools.update_wrapper(wrapper, fn, assigned=("__module__", "__doc__", "__type_params__"))
    named = fn.func if isinstance(fn, functools.partial) else fn
    name = getattr(named, "__name__", type(named).__name__)
    wrapper.__name__ = name
    wrapper.__qualname__ = getattr(named, "__qualname__", name)


def _offers(fn: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with what the site offers its jobs made of `host=` and its like."""
    rest = {name: value for name, value in options.items() if not name.startswith("host")}
    if "host" in options or "host_args" in options:
        from agentsbx._bridge_offers import offers_of

        rest["offers"] = offers_of(fn, options, evaluated_signature)
    return rest


def _check_host_args(wrapper: Any, options: dict[str, Any]) -> None:
    """Raise `PolicyError` for a name that is no parameter."""
    signature = getattr(wrapper, "__signature__", None)
    if signature is None:
        return
    for name in options["host_args"]:
        if name not in signature.parameters:
            from agentsbx.errors import PolicyError

            raise PolicyError(
                f"host_args names {name!r}, which is no parameter of {wrapper.__qualname__}()",
                path="host_args",
                hint=f"its parameters are {', '.join(signature.parameters) or 'none'}",
            )


class _Site:
    """What a wrapper knows besides its function; the runtime's `CallSite` is made at first use."""

    __slots__ = ("_effective", "_first", "_made", "kind", "options", "policy")

    def __init__(self, policy: Policy, options: dict[str, Any], kind: Kind) -> None:
        self.policy = policy
        self.options = options
        self.kind = kind
        self._made: tuple[Any, CallSite] | None = None
        self._effective: Policy | None = None
        self._first: dict[int, tuple[Any, CallSite]] = {}

    def effective(self, fn: Any) -> Policy:
        """Return the policy as a found file lets it be; looked for at the first use."""
        if self._effective is None:
            self._effective = _applied(fn, self.policy).policy
        return self._effective

    def call_site(self, fn: Any) -> CallSite:
        """Return the runtime's call site, holding the present function."""
        made = self._made
        if made is not None and made[0] is fn:
            return made[1]
        named = fn.func if isinstance(fn, functools.partial) else fn
        options = {"name": getattr(named, "__qualname__", type(named).__qualname__), **self.options}
        options = _offers(fn, options)
        policy = self.effective(fn)
        load("_engine").prestart(fn, policy)  # imports its modules while we import ours
        site: CallSite = load("_runtime").CallSite(
            fn, policy, annotation=return_annotation(fn), kind=self.kind, **options
        )
        # Threads that come first at once each made one: all use the one that was first.
        winner = self._first.setdefault(id(fn), (fn, site))
        if winner[0] is not fn:  # of a function that is gone
            winner = self._first[id(fn)] = fn, site
        if len(self._first) > 1:  # `__wrapped__` was replaced: nothing keeps the old one
            self._first = {id(fn): winner}
        self._made = winner
        return winner[1]


def _applied(fn: Any, policy: Policy) -> Applied:
    """Look for a policy file above the working directory; once for a function, at its first use."""
    from agentsbx._policy_found import apply

    return apply(policy, _function_name(fn))


def _equip(wrapper: Any, fn: Any, site: _Site) -> None:
    """Hang the verbs on the wrapper. They look things up on it at each use, as it does itself."""
    wrapper.__wrapped__ = fn
    wrapper.__agentsbx_site__ = site
    wrapper.local = fn
    wrapper.policy = site.policy

    def run(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        bind_verb(wrapper, "run", args, kwargs)
        return _calls.run(wrapper, args, kwargs)

    async def run_aio(*args: Any, **kwargs: Any) -> Result:
        __tracebackhide__ = True
        bind_verb(wrapper, "run.aio", args, kwargs)
        return await _calls.run_async(wrapper, args, kwargs)

    async def aio(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        bind_verb(wrapper, "aio", args, kwargs)
        return (await _calls.run_async(wrapper, args, kwargs)).unwrap()

    def items_aio(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        bind_verb(wrapper, "aio", args, kwargs)
        return _aiter(wrapper, args, kwargs)

    public_aio: Any = items_aio if site.kind.streams else aio

    def submit(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        from agentsbx._futures import submit

        bind_verb(wrapper, "submit", args, kwargs)
        return submit(wrapper, args, kwargs)

    def map_(*iterables: Any, timeout: float | None = None, progress: bool | str = False) -> Any:
        from agentsbx._futures import amap, map_calls

        each = amap if site.kind.is_async else map_calls
        return each(wrapper, iterables, timeout, progress)

    def options(**keywords: Any) -> Any:
        """Return the same function under another policy; `keywords` are those of `sandbox`."""
        return _options(wrapper, keywords)

    def explain() -> str:
        """Say in words what a call may do and what crosses into it."""
        return _explain(wrapper)

    verb: Any
    for verb, name in (
        (run_aio, "run.aio"), (public_aio, "aio"), (options, "options"), (explain, "explain"),
        (submit, "submit"), (map_, "map"),
    ):  # fmt: skip
        verb.__name__ = name.rpartition(".")[2]
        verb.__qualname__ = f"{wrapper.__qualname__}.{name}"
    public_run: Any = run_aio if site.kind.is_async else run
    if site.kind.is_async:
        # One object cannot be its own attribute without a cycle that tools walk for ever.
        async def public_run(*args: Any, **kwargs: Any) -> Result:
            __tracebackhide__ = True
            bind_verb(wrapper, "run", args, kwargs)
            return await _calls.run_async(wrapper, args, kwargs)

    public_run.__name__ = "run"
    public_run.__qualname__ = f"{wrapper.__qualname__}.run"
    public_run.aio = run_aio
    wrapper.run = public_run
    wrapper.aio = public_aio
    wrapper.options = options
    wrapper.submit = submit
    wrapper.map = map_
    wrapper.explain = explain


def _aiter(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`fn.aio(...)` of a generator function: an async generator."""
    job = _calls.inside(wrapper)
    if job is None:
        return _calls.astream(wrapper, args, kwargs)
    from agentsbx._await import each

    is_async = wrapper.__agentsbx_site__.kind.is_async
    items = job(*args, **kwargs)
    return items if is_async else each(items)


def _options(wrapper: Any, keywords: dict[str, Any]) -> Any:
    """Make the wrapper of `fn.options(...)`: the present function, the policy as the words say."""
    from agentsbx.policy import split_keywords

    site: _Site = wrapper.__agentsbx_site__
    rules, options = split_keywords(keywords)
    policy = site.policy.extend(**rules) if rules else site.policy
    return _make(wrapper.__wrapped__, policy, {**site.options, **options})


def _explain(wrapper: Any) -> str:
    from agentsbx._describe import describe_function

    site: _Site = wrapper.__agentsbx_site__
    applied = _applied(wrapper.__wrapped__, site.policy)
    return describe_function(wrapper.__wrapped__, applied.policy, site.options, str(applied))


def _shown(keywords: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in keywords.items())
