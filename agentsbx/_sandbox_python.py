"""`python` and `call` of a session: arguments checked, functions found, threads for asyncio.

`Sandbox` and `AsyncSandbox` have one of these each and hand their verbs on.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentsbx._kinds import kind_of
from agentsbx._load import load
from agentsbx._signature import WrongArguments, bind_call, return_annotation
from agentsbx._units import parse_duration
from agentsbx.errors import AgentsbxError

if TYPE_CHECKING:
    from agentsbx._interpreter import Home
    from agentsbx._python_result import PythonResult
    from agentsbx._runtime import CallSite
    from agentsbx.result import Result

__all__ = ["SessionPython"]

MAX_SITES = 256


class SessionPython:
    """The Python of one session; see `Sandbox.python` and `Sandbox.call` for the words."""

    def __init__(self, home: Home, *, output: str = "forward") -> None:
        self._policy = home.policy
        self._interpreter = load("_interpreter").Interpreter(home, output=output)
        self._cancel = load("_job").Cancel
        self._sites: OrderedDict[int, tuple[Any, CallSite]] = OrderedDict()

    def close(self) -> None:
        """End the interpreter, if one runs."""
        self._interpreter.close()

    # -- cells ------------------------------------------------------------------------------------

    def python(self, code: str, timeout: float | str | None) -> PythonResult:
        """Run one cell and wait."""
        cancel = self._cancel()
        run = self._cell(code, timeout, cancel)
        try:
            return run()
        except BaseException:
            cancel.cancel()
            raise

    async def python_async(self, code: str, timeout: float | str | None) -> PythonResult:
        """Run one cell without blocking the loop; cancelling the task ends the interpreter."""
        from agentsbx._await import in_thread

        cancel = self._cancel()
        return await in_thread(self._cell(code, timeout, cancel), cancel)

    def _cell(
        self, code: str, timeout: float | str | None, cancel: Any
    ) -> Callable[[], PythonResult]:
        if not isinstance(code, str):
            raise TypeError(f"python() takes source text, not {type(code).__name__}")
        timeout_s = None if timeout is None else parse_duration("timeout", timeout)
        return lambda: self._interpreter.python(code, timeout_s=timeout_s, cancel=cancel)

    # -- calls ------------------------------------------------------------------------------------

    def call(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function in the session and return its value; raises what it raises."""
        __tracebackhide__ = True
        cancel = self._cancel()
        failure: BaseException | None
        try:
            result: Any = self._quick(fn, args, kwargs, cancel)
            if result is None:
                result = self._bound(fn, args, kwargs, cancel)()
            if type(result) is tuple:
                return result[0]
            failure = result.error
        except (AgentsbxError, WrongArguments) as error:
            failure = _bare(error)
        except BaseException:
            cancel.cancel()
            raise
        if failure is not None:
            raise failure
        return result.value

    async def call_async(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the same without blocking the loop; cancelling the task ends the interpreter."""
        __tracebackhide__ = True
        from agentsbx._await import in_thread

        cancel = self._cancel()
        failure: BaseException | None
        try:
            bound = self._bound(fn, args, kwargs, cancel)
            result: Any = await in_thread(
                lambda: self._quick(fn, args, kwargs, cancel) or bound(), cancel
            )
            if type(result) is tuple:
                return result[0]
            failure = result.error
        except (AgentsbxError, WrongArguments) as error:
            failure = _bare(error)
        if failure is not None:
            raise failure
        return result.value

    def _quick(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], cancel: Any) -> Any:
        known = self._sites.get(id(fn))
        if known is None or known[0] is not fn:
            return None
        return self._interpreter.quick(known[1], args, kwargs, cancel)

    def _bound(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], cancel: Any
    ) -> Callable[[], Result | tuple[Any]]:
        site = self._site(fn)
        bind_call(site.fn, args, kwargs)
        return lambda: self._interpreter.call(site, args, kwargs, cancel=cancel)

    def _site(self, fn: Any) -> CallSite:
        """Return the call site of a function here, made at its first call."""
        known = self._sites.get(id(fn))
        if known is not None and known[0] is fn:
            return known[1]
        site = self._make_site(fn)
        self._sites[id(fn)] = fn, site
        while len(self._sites) > MAX_SITES:
            self._sites.popitem(last=False)
        return site

    def _make_site(self, fn: Any) -> CallSite:
        if not callable(fn):
            raise TypeError(f"call() takes a function and its arguments, not {type(fn).__name__}")
        inner, options = fn, {}
        own = getattr(fn, "__dict__", {}).get("__agentsbx_site__")
        if own is not None:  # decorated: as inside any other sandbox (semantics 5.6)
            from agentsbx import _nested

            _nested.check(self._policy, own.policy, fn)
            inner, options = fn.__wrapped__, dict(own.options)
            if options.get("host"):
                raise TypeError(
                    f"{fn.__qualname__} calls functions of the host (host=), and a session offers "
                    "none: call it by itself"
                )
        kind = kind_of(inner)
        named = inner.func if isinstance(inner, functools.partial) else inner
        name = getattr(named, "__qualname__", type(named).__qualname__)
        if kind.streams:
            raise TypeError(
                f"{name} is a generator function: a session gives one value for each call. Return "
                "a list, or decorate it with @sandbox and iterate over that"
            )
        kept = {k: v for k, v in options.items() if k in ("captures", "raises", "name")}
        site: CallSite = load("_runtime").CallSite(
            inner, self._policy, annotation=return_annotation(inner), kind=kind,
            **{"name": name, **kept},
        )  # fmt: skip
        return site


def _bare(error: Exception) -> Exception:
    if isinstance(error, WrongArguments):
        return TypeError(*error.args)
    return error.with_traceback(None)
