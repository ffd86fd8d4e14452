"""CPython's own tests of executors and futures, run against `SandboxExecutor`.

Of the running Python's `test` package, by subclassing its mixins: nothing is copied. What cannot
apply is listed with its reason.
"""

from __future__ import annotations

import importlib
import logging
import unittest
from typing import Any

import pytest

from agentsbx import SandboxExecutor
from agentsbx._futures import CallFuture

PACKAGE = "test.test_concurrent_futures"

# Test -> why it cannot apply. All others must pass.
NOT_APPLICABLE = {
    "test_free_reference": "the result's class is the test module's own, and nothing names it: "
    "objects come back only as classes that the call knows (semantics 3.1)",
    "test_interpreter_shutdown": "hard-codes the names of CPython's executors in a script",
    "test_submit_after_interpreter_shutdown": "hard-codes CPython's executors in a script",
    "test_hang_gh83386": "hard-codes CPython's process pool in a script",
    "test_hang_gh94440": "about the feeder pipes of CPython's process pool",
}


def upstream(module: str, name: str) -> Any:
    """A class of the `test` package; None where this Python was installed without it."""
    for path in (f"{PACKAGE}.{module}", PACKAGE):  # a package since 3.12, one file before
        try:
            found = getattr(importlib.import_module(path), name, None)
        except (ImportError, unittest.SkipTest):
            continue
        if found is not None:
            return found
    return None


class Mixin:
    """What CPython's `ExecutorMixin` is to its own executors."""

    executor_type = SandboxExecutor
    executor_kwargs: dict[str, Any] = {}  # noqa: RUF012 - as upstream has it
    worker_count = 5

    def setUp(self) -> None:
        self.executor = self.executor_type(max_workers=self.worker_count, **self.executor_kwargs)

    def tearDown(self) -> None:
        self.executor.shutdown(wait=True)
        del self.executor


def adapted(name: str, *bases: Any) -> Any:
    """Make a test class of upstream's mixins; those that cannot apply are left out."""
    if None in bases:

        class Missing(unittest.TestCase):
            def test_upstream(self) -> None:
                self.skipTest(f"machine lacks: {PACKAGE} of this Python")

        Missing.__name__ = Missing.__qualname__ = name
        return Missing
    members = dict.fromkeys(
        test for test in NOT_APPLICABLE if any(hasattr(base, test) for base in bases)
    )
    return type(name, (*bases, unittest.TestCase), members)


ExecutorTests = adapted("ExecutorTests", Mixin, upstream("executor", "ExecutorTest"))
WaitTests = adapted("WaitTests", Mixin, upstream("test_wait", "WaitTests"))
AsCompletedTests = adapted(
    "AsCompletedTests", Mixin, upstream("test_as_completed", "AsCompletedTests")
)
ShutdownTests = adapted("ShutdownTests", Mixin, upstream("test_shutdown", "ExecutorShutdownTest"))


def _future_tests() -> Any:
    """`FutureTests` makes its futures by a helper of its module: here of our class."""
    base = upstream("test_future", "FutureTests")
    if base is None:
        return adapted("FutureTests", None)

    class FutureTests(base):  # type: ignore[misc]
        def setUp(self) -> None:
            module = importlib.import_module(base.__module__)
            patch = pytest.MonkeyPatch()
            self.addCleanup(patch.undo)
            patch.setattr(module, "Future", CallFuture)
            # Upstream reads what the handler of last resort prints; pytest's own come first.
            patch.setattr(logging.getLogger("concurrent.futures"), "propagate", False)

        def tearDown(self) -> None:
            pass

    return FutureTests


FutureTests = _future_tests()
