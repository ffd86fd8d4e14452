"""Functions for a session's interpreter: any number of them, called any number of times.

What the host ships goes on in one pickle, function after function, so that a class or a module that
two of them use is one here. Each call begins where the functions end and leaves nothing behind.
Globals that were filled are filled again only where the host's value is another one: what calls and
threads here have made of them stays.
"""

from __future__ import annotations

import _thread
import io
import sys
import types

from agentsbx import _receive, _receive_make
from agentsbx._receive import Receiver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from agentsbx._receive import Request

__all__ = ["KeptReceiver"]

_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_MISSING = object()


class _Reader:
    """An unpickler with its file."""

    def __init__(self, queue: Any, filled: _Reader | None = None) -> None:
        self.file = io.BytesIO()
        self.unpickler = _receive._Unpickler(self.file, buffers=iter(queue.popleft, None))
        self.filled = 0
        if filled is not None:
            # The C unpickler counts its memo by what it read: read as much, then take the other's.
            self.file.write(b"\x80\x05" + b"N\x940" * filled.filled + b"N.")
            self.file.seek(0)
            self.unpickler.load()
            self.unpickler.memo = filled.unpickler.memo

    def count(self) -> None:
        """Functions were read: as many objects can be named by what follows."""
        self.filled = len(self.unpickler.memo.copy())


class KeptReceiver(Receiver):
    """Reads functions and calls of a session's interpreter."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._host = request
        self._asking = _thread.RLock()
        self._functions: dict[int, Any] = {}
        self._names: set[str] = set()
        self._filled: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._base = _Reader(self._queue)
        self._next: _Reader | None = None
        self.main = types.ModuleType("__main__")  # of calls; cells have one of their own
        _receive_make.place = self._place_names
        self._request = self._ask_host
        sys.meta_path.insert(0, _receive._Finder(self, self._names))  # type: ignore[arg-type]
        sys.meta_path.append(_receive._Finder(self, None))

    def load_function(self, slot: int, blob: bytes, buffers: Sequence[Any], *, anew: bool) -> None:
        """Rebuild a function and all that it captured; `anew`: what was given before is void."""
        self.enter_main()
        if anew:
            self._base = _Reader(self._queue)
            self._functions.clear()
        self._use(self._base)
        fn, project, _ = self._load(blob, buffers)
        self._names.update(project)
        self._functions[slot] = fn
        self._base.count()
        self._next = None

    def begin(
        self, slot: int, body: bytes, buffers: Sequence[Any]
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Rebuild the arguments of a call; project modules are served from here to `end`."""
        self.enter_main()
        self._use(self._next or _Reader(self._queue, self._base))
        self._next = None
        self._fn = self._functions[slot]
        return self.load_call(body, buffers)

    def end(self) -> None:
        """No more is served: the answer goes out. A thread that asks gets its reply before that."""
        with self._asking:
            self._serving = False

    def make_ready(self) -> None:
        """Prepare the next call, while nobody waits."""
        for module in _receive._stand_ins.values():
            module.forget_absent()
        if self._functions and self._next is None:
            self._next = _Reader(self._queue, self._base)

    def enter_main(self) -> None:
        """`__main__` is that of the calls from now on."""
        sys.modules["__main__"] = _receive._stand_ins.get("__main__", self.main)

    def _use(self, reader: _Reader) -> None:
        self._file, self._unpickler = reader.file, reader.unpickler
        self._busy = self._broken = False
        self._queue.clear()

    def _ask_host(self, name: str) -> tuple[bytes, list[Any]]:
        with self._asking:
            return self._host(name) if self._serving else (b"N", [])

    def _place_names(self, own: dict[str, Any], names: dict[str, Any]) -> None:
        filled = self._filled.setdefault(id(own), (own, {}))[1]
        for name, value in names.items():
            before = filled.get(name, _MISSING)
            if before is value:
                continue
            if type(before) is type(value) and type(value) in _ATOMS and before == value:
                continue
            filled[name] = own[name] = value
