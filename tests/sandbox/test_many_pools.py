"""Many pools and several threads: every waiting call gets a sandbox.

Beyond some unread sandboxes the supervisor hands one out only when it is asked for one; a thread
that takes what another had asked for must ask again for it.
"""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from agentsbx import _engine, sandbox


@pytest.mark.limit(60)
def test_threads_that_share_new_pools_all_get_a_sandbox() -> None:
    answers: list[Any] = []
    for n in range(30):

        @sandbox
        def double(x: int) -> int:
            return 2 * x

        def call(x: int, fn: Any = double) -> None:
            answers.append(fn.run(x).unwrap())

        threads = [threading.Thread(target=call, args=(n + i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(15)
            assert not thread.is_alive(), f"pool {n}: a call waits for ever"
    assert sorted(answers) == sorted(2 * (n + i) for n in range(30) for i in range(3))


def test_the_pools_of_functions_that_are_gone_go_too() -> None:
    """A program that decorates in a loop keeps no sandbox waiting for what nobody can call."""

    def one() -> int:
        @sandbox
        def answer() -> int:
            return 42

        return answer()

    assert one() == 42
    pools = _engine.current().pools._pools
    for _ in range(6):
        one()
        gc.collect()
    assert len([key for key in pools if key[0] is not None]) <= 2 + _before_us(pools)


def _before_us(pools: Any) -> int:
    """Pools of sites that other tests still hold."""
    from agentsbx import _runtime

    owners = {site.owner for site in _runtime._sites}
    return sum(key[0] in owners for key in pools)
