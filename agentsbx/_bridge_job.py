"""The job's side of the bridge: stubs of host functions, stand-ins of arguments that stayed there.

Loaded by the first job that is given one. A stub sends its arguments as codec bytes, waits, and
gives back what the host shipped. Nothing here guards anything: the host checks all of it.
"""

from __future__ import annotations

import os
import struct
from typing import Any, NoReturn

from agentsbx import _injob, _receive, _receive_make
from agentsbx._codec import encode
from agentsbx.errors import SerializationError

__all__ = ["CALL", "ERROR", "GET", "HEAD", "METHOD", "VALUE", "stand_in", "stub"]

HEAD = struct.Struct("<QII")  # number of the call, number of the offer, what to do
CALL, GET = 0, 1
VALUE, ERROR, METHOD = 0, 1, 2  # what an answer is

_last = 0
_most = 0  # `host_bytes`
_answers: dict[int, tuple[int, Any]] = {}  # read by another call that waits, nested in this one
_awaited: set[int] = set()


def _heard(answer: tuple[int, int, Any]) -> None:
    number, kind, value = answer
    if number in _awaited:
        _answers[number] = kind, value


def _ask(name: str, offer: int, what: int, args: Any, kwargs: Any) -> tuple[int, Any]:
    """Ask the host; one at a time, whatever thread asks."""
    global _last
    receiver = _receive._receiver
    if receiver is None or receiver.talk is None or os.getpid() != receiver.pid:
        raise RuntimeError(
            f"{name}() runs on the host, which listens to the process of the sandboxed function "
            "alone: call it there and pass on what it gives"
        )
    try:
        body, buffers = encode([list(args), kwargs], limits=_injob.limits(), what="arguments")
    except SerializationError as error:
        said = str(error)
        if said.startswith(("arguments[0]", "arguments[1]")):  # those by place, and those by name
            said = "arguments" + said[len("arguments[0]") :]
        raise SerializationError(
            f"{name}() runs on the host, and its arguments cannot go there: {said}"
        ) from None
    check_size(name, body, buffers, _most)
    send, read = receiver.talk
    receiver.heard = _heard
    with receiver.lock:
        _last += 1
        number = _last
        _awaited.add(number)
        try:
            send(HEAD.pack(number, offer, what) + body, buffers)
            while number not in _answers:
                _heard(read())
        finally:
            _awaited.discard(number)
        kind, value = _answers.pop(number)
    if kind != ERROR:
        return kind, value
    raised: BaseException = _receive_make.make_exception(*value)
    raise raised


def check_size(name: str, body: bytes, buffers: list[memoryview], most: int) -> None:
    """Raise ValueError for arguments beyond `host_bytes`; the host refuses them in any case."""
    size = len(body) + sum(b.nbytes for b in buffers)
    if size > most:
        raise ValueError(
            f"the arguments of {name}() have {size} bytes, more than host_bytes={most}"
        )


def stub(offer: int, name: str, is_async: bool, doc: str, most: int, ask: Any = _ask) -> Any:
    """Make what stands for a host function; `ask` brings the call there."""
    global _most
    _most = most

    def call(*args: Any, **kwargs: Any) -> Any:
        return ask(name, offer, CALL, args, kwargs)[1]

    async def acall(*args: Any, **kwargs: Any) -> Any:
        import asyncio  # it is loaded: somebody awaits

        return await asyncio.to_thread(call, *args, **kwargs)  # the loop's other tasks run on

    made: Any = acall if is_async else call
    made.__name__ = made.__qualname__ = name
    made.__doc__ = doc
    return made


class StandIn:
    """An argument that stayed on the host."""

    __slots__ = ("_ask", "_name", "_numbers")

    def __init__(self, name: str, numbers: dict[str, int], ask: Any = _ask) -> None:
        object.__setattr__(self, "_ask", ask)
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_numbers", numbers)

    def __getattr__(self, attribute: str) -> Any:
        number = self._numbers.get(attribute)
        if number is None:
            raise AttributeError(_why(self, f"its attribute {attribute!r}", attribute))
        name = f"{self._name}.{attribute}"
        kind, value = self._ask(name, number, GET, (), {})
        return stub(number, name, value, "", _most, self._ask) if kind == METHOD else value

    def __repr__(self) -> str:
        return f"<{self._name} stays on the host>"

    def __dir__(self) -> list[str]:
        return sorted(self._numbers)

    def __setattr__(self, attribute: str, value: Any) -> NoReturn:
        raise AttributeError(f"{self._name} stays on the host: a job cannot set {attribute!r}")

    def __delattr__(self, attribute: str) -> NoReturn:
        raise AttributeError(f"{self._name} stays on the host: a job cannot delete {attribute!r}")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"{self._name} stays on the host: it cannot be copied or sent")


def _why(it: StandIn, what: str, attribute: str = "") -> str:
    name = it._name
    told = f"{name} stays on the host (host_args=), and {what} is not exposed to the job"
    if attribute[:1] == "_":
        return f"{told}: names with a leading underscore never are"
    shown = [*it._numbers, attribute or "name"]
    return f'{told}: host_args={{"{name}": {shown!r}}} exposes it'


def _denied(what: str) -> Any:
    def refuse(self: StandIn, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"{self._name} stays on the host (host_args=): a job cannot {what} it")

    return refuse


for _names, _what in (
    (("__call__",), "call"),
    (("__iter__", "__next__", "__aiter__", "__anext__", "__reversed__"), "iterate over"),
    (("__getitem__", "__setitem__", "__delitem__", "__contains__"), "look into"),
    (("__len__",), "measure"),
    (("__enter__", "__exit__", "__aenter__", "__aexit__"), "enter"),
    (("__await__",), "await"),
):
    for _each in _names:
        setattr(StandIn, _each, _denied(_what))
StandIn.__bool__ = lambda self: True  # type: ignore[attr-defined]


def stand_in(name: str, numbers: dict[str, int], most: int, ask: Any = _ask) -> StandIn:
    """Make what stands for an argument that stays on the host."""
    global _most
    _most = most
    return StandIn(name, numbers, ask)
