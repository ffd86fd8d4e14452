"""Many pools and several threads: every waiting call gets a sandbox.

Beyond some unread sandboxes the supervisor hands one out only when it is asked for one; a thread
that takes what another had asked for must ask again for it.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from agentsbx import sandbox


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
