"""How a wrapper calls: in a sandbox, in a thread for asyncio, or right here when inside a job.

Errors that come before user code are handed back to the wrapper, which raises them: a traceback
then shows one frame of ours.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from agentsbx import _nested
from agentsbx._load import load
from agentsbx._signature import WrongArguments, bind_call
from agentsbx.errors import AgentsbxError

if TYPE_CHECKING:
    from agentsbx.result import Result

__all__ = ["Outcome", "astream", "inside", "invoke", "invoke_async", "run", "run_async", "stream"]


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
    cancel: Any = None,
) -> Outcome:
    """Run one call and wait; whatever ends the wait early kills the job.

    `detail` asks for usage and limits too, which a plain call does not look at. `cancel`: what ends
    it from another thread.
    """
    __tracebackhide__ = True
    try:
        if substitute is not None:
            result = substitute.invoke(wrapper, args, kwargs)
            return result, result.error
        site = wrapper.__agentsbx_site__.call_site(wrapper.__wrapped__)
        bind_call(site.fn, args, kwargs)
        running = load("_runtime")
        cancel = cancel or running.Cancel()
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
    if job is not None:
        return _inline(wrapper, lambda: job(*args, **kwargs))
    if wrapper.__agentsbx_site__.kind.streams:
        try:
            if substitute is not None:
                return cast("Result", substitute.collect(wrapper, args, kwargs))
            result: Result = load("_stream").collect(_opened(wrapper, args, kwargs, detail=True))
        except (AgentsbxError, WrongArguments) as error:
            raise _bare(error) from None
        return result
    got, failure = invoke(wrapper, args, kwargs, detail=True)
    if got is None and failure is not None:
        raise failure
    return cast("Result", got)


async def run_async(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    """`fn.run.aio(...)`."""
    __tracebackhide__ = True
    job = inside(wrapper)
    kind = wrapper.__agentsbx_site__.kind
    if job is not None:
        if not kind.is_async:
            return _inline(wrapper, lambda: job(*args, **kwargs))
        from agentsbx.result import Result

        try:
            value = job(*args, **kwargs)
            return Result(value=[v async for v in value] if kind.streams else await value)
        except Exception as error:
            return Result(error=error)
    if kind.streams and substitute is not None:
        try:
            return cast("Result", await substitute.acollect(wrapper, args, kwargs))
        except (AgentsbxError, WrongArguments) as error:
            raise _bare(error) from None
    if kind.streams:
        from agentsbx._await import in_thread

        stream = _opened(wrapper, args, kwargs, detail=True)
        collect = load("_stream").collect
        collected: Result = await in_thread(lambda: collect(stream), stream.cancel)
        return collected
    result, failure = await invoke_async(wrapper, args, kwargs, detail=True)
    if result is None and failure is not None:
        raise failure
    return cast("Result", result)


def _inline(wrapper: Any, call: Callable[[], Any]) -> Result:
    """Inside a job: run it right here."""
    from agentsbx.result import Result

    try:
        value = call()
        return Result(value=list(value) if wrapper.__agentsbx_site__.kind.streams else value)
    except Exception as error:
        return Result(error=error)


# -- generators ---------------------------------------------------------------------------------


def _opened(
    wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, detail: bool = False
) -> Any:
    site = wrapper.__agentsbx_site__.call_site(wrapper.__wrapped__)
    bind_call(site.fn, args, kwargs)
    return load("_stream").Stream(site, args, kwargs, detail=detail)


def stream(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the generator of a call; its sandbox is made when its first item is asked for."""
    __tracebackhide__ = True
    return _around(wrapper, args, kwargs, "stream", _drive)


def astream(wrapper: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the async generator of a call."""
    __tracebackhide__ = True
    return _around(wrapper, args, kwargs, "astream", _adrive)


def _around(
    wrapper: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    verb: str,
    drive: Callable[[Any], Any],
) -> Any:
    __tracebackhide__ = True
    try:
        if substitute is not None:
            return getattr(substitute, verb)(wrapper, args, kwargs)
        opened = _opened(wrapper, args, kwargs)
    except (AgentsbxError, WrongArguments) as error:
        raise _bare(error) from None
    generator = drive(opened)
    generator.__name__, generator.__qualname__ = wrapper.__name__, wrapper.__qualname__
    opened.around = weakref.ref(generator)
    return generator


def _drive(opened: Any) -> Any:
    __tracebackhide__ = True
    try:
        return (yield from opened)
    except BaseException as error:
        if opened.result is None or error is not opened.result.error:
            raise
        raise error.with_traceback(None) from error.__cause__  # the job's: no frames of ours
    finally:
        opened.kill()


async def _adrive(opened: Any) -> Any:
    __tracebackhide__ = True
    from agentsbx._await import in_thread
    from agentsbx._generator import CLOSE, NEXT, SEND, THROW

    word, value = NEXT, None
    try:
        while True:
            step = functools.partial(opened.advance, word, value)
            done, item = await in_thread(step, opened.cancel)
            if done:
                return
            try:
                value = yield item
                word = NEXT if value is None else SEND
            except GeneratorExit:
                if not opened.is_abandoned():
                    done, _ = await in_thread(
                        functools.partial(opened.advance, CLOSE, None), opened.cancel
                    )
                    if not done:
                        raise RuntimeError("async generator ignored GeneratorExit") from None
                raise
            except BaseException as error:
                word, value = THROW, error
    finally:
        opened.kill()


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
