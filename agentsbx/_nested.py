"""A sandboxed function as it stands inside a job: it runs right there, or says why not (rule 5.6).

The host ships each wrapper that a function refers to (recursion, other tools) by `reduce`. Job-side
code here imports nothing: most jobs that hold a wrapper never call it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agentsbx.result import Result

__all__ = ["complete", "empty", "reduce"]


def reducer(offers: Any) -> Any:
    """Host: `reduce` for a job that may call `offers` (`_bridge_offers.Offers`, None: nothing)."""

    def reduce_for(wrapper: Any) -> tuple[Any, ...]:
        return reduce(wrapper, offers)

    return reduce_for


def _needs(wrapper: Any, offers: Any) -> str:
    """Return why a wrapper cannot run in the caller's job: host functions that are not there."""
    host = wrapper.__agentsbx_site__.options.get("host") or {}
    lacking = [name for name, fn in host.items() if offers is None or not offers.has(fn)]
    if not lacking:
        return ""
    return (
        f"{wrapper.__qualname__} calls {', '.join(lacking)} on the host, which the sandbox that "
        f"calls it does not offer: give the caller host=[{', '.join(lacking)}] too, or "
        f"host=[{wrapper.__name__}]"
    )


def reduce(wrapper: Any, offers: Any = None) -> tuple[Any, ...]:
    """Host: how a wrapper crosses; in two steps, as its function may refer to it."""
    import msgspec

    site = wrapper.__agentsbx_site__
    state = (
        wrapper.__wrapped__,
        wrapper.__name__,
        wrapper.__qualname__,
        wrapper.__module__,
        wrapper.__doc__,
        _needs(wrapper, offers) or msgspec.msgpack.encode(site.effective(wrapper.__wrapped__)),
        int(site.kind),
    )
    return empty, (site.kind == 1,), state, None, None, complete


def empty(is_async: bool) -> Any:
    """Job: make the function that `complete` fills."""

    def nested(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return _permitted(nested)(*args, **kwargs)

    async def anested(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return await _permitted(anested)(*args, **kwargs)

    return anested if is_async else nested


def complete(nested: Any, state: tuple[Any, ...]) -> None:
    """Job: give it its function, its policy and its verbs."""
    fn, name, qualname, module, doc, policy, kind = state
    nested.__wrapped__ = nested.local = fn
    nested.__name__, nested.__qualname__ = name, qualname
    nested.__module__, nested.__doc__ = module, doc
    nested.__agentsbx_policy__ = policy
    is_async, streams = kind in (1, 3), kind in (2, 3)  # see `_kinds.Kind`

    def run(*args: Any, **kwargs: Any) -> Result:
        from agentsbx.result import Result

        job = _permitted(nested)
        try:
            value = job(*args, **kwargs)
            return Result(value=list(value) if streams else value)
        except Exception as error:
            return Result(error=error)

    async def arun(*args: Any, **kwargs: Any) -> Result:
        from agentsbx.result import Result

        job = _permitted(nested)
        try:
            value = job(*args, **kwargs)
            if streams:
                return Result(value=[v async for v in value] if is_async else list(value))
            return Result(value=await value if is_async else value)
        except Exception as error:
            return Result(error=error)

    async def aio(*args: Any, **kwargs: Any) -> Any:
        job = _permitted(nested)
        return await job(*args, **kwargs) if is_async else job(*args, **kwargs)

    async def items(*args: Any, **kwargs: Any) -> Any:
        job = _permitted(nested)
        for item in job(*args, **kwargs):
            yield item

    def submit(*args: Any, **kwargs: Any) -> Any:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:  # an async function needs a loop of its own
            return pool.submit(_wait_for, _permitted(nested), is_async, args, kwargs)

    def each(*iterables: Any, timeout: float | None = None) -> Any:
        del timeout  # of a wait; here nothing is waited for
        return map(_permitted(nested), *iterables)

    async def aeach(*iterables: Any, timeout: float | None = None) -> Any:
        del timeout
        for args in zip(*iterables, strict=False):
            yield await _permitted(nested)(*args)

    if not streams:
        nested.submit = submit
        nested.map = aeach if is_async else each
    nested.run = arun if is_async else run
    nested.aio = (nested if is_async else items) if streams else aio
    if not is_async:
        run.aio = arun  # type: ignore[attr-defined]


def _wait_for(job: Any, is_async: bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    value = job(*args, **kwargs)
    if is_async:
        import asyncio

        return asyncio.run(value)
    return value


def _permitted(nested: Any) -> Any:
    """Return the function, if this sandbox is at least as strict as its policy."""
    fn = nested.__wrapped__
    policy = nested.__agentsbx_policy__
    if policy is None:
        return fn  # compared before
    if type(policy) is str:
        from agentsbx.errors import PolicyError

        raise PolicyError(policy, path="host")
    from agentsbx import _injob

    if policy != _injob._raw_policy:
        import msgspec

        from agentsbx.policy import Policy

        check(_injob.current_policy(), msgspec.msgpack.decode(policy, type=Policy), nested)
    nested.__agentsbx_policy__ = None
    return fn


def check(current: Any, own: Any, fn: Any) -> None:
    """Raise `PolicyError` that names what `current` allows and the policy `own` of `fn` denies."""
    wider = current.differences(own)
    lacking = [path for path in own.packages if path not in current.packages]
    if lacking and not wider:
        from agentsbx.errors import PolicyError

        raise PolicyError(
            f"{fn.__qualname__} runs with packages={lacking}, and the sandbox that calls it has "
            "other libraries",
            path="packages",
            hint="give the caller the same packages=, or call both from the host",
        )
    if wider:
        from agentsbx.errors import PolicyError

        raise PolicyError(
            f"{fn.__qualname__} is sandboxed too, and the sandbox that calls it allows what its "
            f"own policy denies: {'; '.join(wider)}",
            hint="give the caller a policy no wider than that, or call both from the host",
        )
