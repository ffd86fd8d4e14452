"""How a wrapper calls: in a sandbox, in a thread for asyncio, or right here when inside a job.

Errors that come before user code are handed back to the wrapper, which raises them: a traceback
then shows one frame of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from agentsbx import _nested
from agentsbx._load import load
from agentsbx._signature import WrongArguments, bind_call
from agentsbx.errors import AgentsbxError

if TYPE_CHECKING:
    from agentsbx.result import Result

__all__ = ["Outcome", "inside", "invoke", "invoke_async", "run", "run_async"]


Outcome = tuple[Any, BaseException | None]  # a Result or None, and what to raise or None

# What runs calls instead of sandboxes: `_local`, put here by `testing.local()` and nothing else.
substitute: Any = None


def invoke(
    wrapper: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    detail: bool = False,
    begun: Any = None,
) -> Outcome:
    """Run one call and wait; whatever ends the wait early kills the job.

    `detail` asks for usage and limits too, which a plain call does not look at.
    """
    __tracebackhide__ = True
    cancel = None
    try:
        if substitute is not None:
            result = substitute.invoke(wrapper, args, kwargs)
            return result, result.error
        site = wrapper.__agentsbx_site__.call_site(wrapper.__wrapped__)
        bind_call(site.fn, args, kwargs)
        running = load("_runtime")
        cancel = running.Cancel()
        result = running.invoke(site, args, kwargs, cancel=cancel, detail=detail, begun=begun)
    except (AgentsbxError, WrongArguments) as error:
        return None, _bare(error)
    except BaseException:
        if cancel is not None:
            cancel.cancel()
        raise
    return result, result.error


async def invoke_async(
    wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, detail: bool = False
) -> Outcome:
    """Run one call in a thread; cancelling the task kills the job."""
    __tracebackhide__ = True
    from agentsbx._await import in_thread

    try:
        if substitute is not None:
            result = await substitute.invoke_async(wrapper, args, kwargs)
            return result, result.error
        site = wrapper.__agentsbx_site__.call_site(wrapper.__wrapped__)
        bind_call(site.fn, args, kwargs)
        running = load("_runtime")
        cancel = running.Cancel()
        result = await in_thread(
            lambda: running.invoke(site, args, kwargs, cancel=cancel, detail=detail), cancel
        )
    except (AgentsbxError, WrongArguments) as error:
        return None, _bare(error)
    return result, result.error


def _bare(error: Exception) -> Exception:
    """Return the error without our frames; wrong arguments as the plain TypeError they are."""
    if isinstance(error, WrongArguments):
        return TypeError(*error.args)
    return error.with_traceback(None)


def run(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    """`fn.run(...)`: the `Result`; raises only what comes before user code."""
    __tracebackhide__ = True
    job = inside(wrapper)
    if job is None:
        result, error = invoke(wrapper, args, kwargs, detail=True)
        if result is None and error is not None:
            raise error
        return cast("Result", result)
    from agentsbx.result import Result

    try:
        return Result(value=job(*args, **kwargs))
    except Exception as error:
        return Result(error=error)


async def run_async(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    """`fn.run.aio(...)`."""
    __tracebackhide__ = True
    job = inside(wrapper)
    if job is None:
        result, error = await invoke_async(wrapper, args, kwargs, detail=True)
        if result is None and error is not None:
            raise error
        return cast("Result", result)
    from agentsbx.result import Result

    try:
        value = job(*args, **kwargs)
        return Result(value=await value if wrapper.__agentsbx_site__.is_async else value)
    except Exception as error:
        return Result(error=error)


def inside(wrapper: Any) -> Callable[..., Any] | None:
    """Inside a job (or a call of `testing.local()`): the function to run right here, if it may.

    Raises `PolicyError` naming the difference where it is not (rule 5.6): a job cannot start
    sandboxes of its own, and rights are never gained.
    """
    injob = sys.modules.get("agentsbx._injob")
    if injob is None or not injob.is_job:
        return None if substitute is None else substitute.inside(wrapper)
    _nested.check(injob.current_policy(), wrapper.__agentsbx_site__.policy, wrapper)
    return cast("Callable[..., Any]", wrapper.__wrapped__)
