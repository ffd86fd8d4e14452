"""The job's side of a generator: one step for each word of the host, nothing in between.

In lockstep: what stands behind a `yield` runs when the host asks for it and not before, as it would
without a sandbox. The zygote imports this, so it loads nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Word = tuple[int, Any]

__all__ = ["CLOSE", "NEXT", "SEND", "THROW", "aserve", "serve"]

NEXT, SEND, THROW, CLOSE = range(4)  # first byte of a RESUME frame
RETURNED, RAISED, SAME = range(3)  # how it ended; SAME: it let pass what the host threw


def serve(
    generator: Any, give: Callable[[Any], None], heard: Callable[[], Word]
) -> tuple[int, Any]:
    """Run `generator` until it ends: `give` sends one item, `heard` waits for the next word.

    Returns how it ended, with the value or the exception.
    """
    word, value = NEXT, None
    while True:
        try:
            if word == NEXT:
                item = next(generator)
            elif word == SEND:
                item = generator.send(value)
            elif word == THROW:
                item = generator.throw(value)
            else:
                generator.close()
                return RETURNED, None
        except StopIteration as stop:
            return RETURNED, stop.value
        except BaseException as error:
            return (SAME if word == THROW and error is value else RAISED), error
        give(item)
        word, value = heard()


async def aserve(
    generator: Any, give: Callable[[Any], None], heard: Callable[[], Word], channel: int
) -> tuple[int, Any]:
    """The same for an async generator; its other tasks run on while the host holds an item."""
    import asyncio

    loop = asyncio.get_running_loop()
    word, value = NEXT, None
    while True:
        try:
            if word == NEXT:
                item = await anext(generator)
            elif word == SEND:
                item = await generator.asend(value)
            elif word == THROW:
                item = await generator.athrow(value)
            else:
                await generator.aclose()
                return RETURNED, None
        except StopAsyncIteration:
            return RETURNED, None
        except BaseException as error:
            return (SAME if word == THROW and error is value else RAISED), error
        give(item)
        there = loop.create_future()
        loop.add_reader(channel, there.set_result, None)
        try:
            await there
        finally:
            loop.remove_reader(channel)
        word, value = heard()
