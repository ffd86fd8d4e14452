"""Answers a job that imports project modules (rule 1.3).

The job is hostile: names are checked, all is bounded and recorded, and no project code runs on the
host for its sake.
"""

from __future__ import annotations

import pickle
import sys
import types
from typing import TYPE_CHECKING, Any

from agentsbx import _ship_check as check
from agentsbx._ship_modules import find_module, is_library_module, is_module_name, stand_in_meta
from agentsbx._ship_pickle import CannotShip, Context
from agentsbx._ship_reduce import is_data

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Server"]

_MAX_REQUESTS = 10_000
_MAX_BYTES = 64_000_000
_MAX_SOURCE = 8_000_000
_NONE: tuple[bytes, list[Any]] = (b"N", [])


class Server:
    """Serves one job: `fork` pickles in continuation of its call."""

    def __init__(
        self,
        context: Context,
        served: list[str],
        fork: Callable[[Any], tuple[bytes, list[Any], Callable[[], None]]],
    ) -> None:
        self._context = context
        self._served = served
        self._fork = fork
        self.files: set[str] = set()  # whose source was served
        self._requests = 0
        self._bytes = 0

    def reply(self, name: str) -> tuple[bytes, list[Any]]:
        """Return the reply: N not found, V by value, S source, A attribute, E refused."""
        module, colon, attribute = name.partition(":")
        if not is_module_name(module) or (colon and not attribute.isidentifier()):
            return _NONE
        self._requests += 1
        if self._requests > _MAX_REQUESTS or self._bytes > _MAX_BYTES:
            return _refusal("this call has asked the host for too many or too big modules")
        try:
            answer = self._attribute(module, attribute) if colon else self._module(module)
        except Exception as error:
            answer = _refusal(f"the host failed to look up {name}: {type(error).__name__}")
        head, buffers = answer
        self._bytes += len(head) + sum(memoryview(b).nbytes for b in buffers)
        if head[:1] != b"N":
            self._served.append(name)
        return answer

    def _module(self, name: str) -> tuple[bytes, list[Any]]:
        loaded = sys.modules.get(name)
        if isinstance(loaded, types.ModuleType):
            if is_library_module(loaded):
                return _NONE
            meta = (*stand_in_meta(loaded), [n for n in vars(loaded) if isinstance(n, str)])
            return b"V" + pickle.dumps(meta, 5), []
        found = find_module(name, max_bytes=_MAX_SOURCE)
        if found.kind in ("", "library"):
            return _NONE
        if found.kind in ("source", "package"):
            if found.file is not None:
                self.files.add(found.file)
            meta = (found.file, None, None, found.path, found.source)
            return b"S" + pickle.dumps(meta, 5), []
        if found.kind == "large":
            return _refusal(f"the project module {name} has more than {_MAX_SOURCE} bytes")
        if found.kind == "link":
            return _refusal(
                f"the project module {name} ({found.file}) is reached through a symbolic link and "
                "is not served; import it at the top of your own module"
            )
        return _refusal(
            f"the project module {name} is not Python source ({found.file}) and cannot cross; "
            "install it into site-packages"
        )

    def _attribute(self, module_name: str, name: str) -> tuple[bytes, list[Any]]:
        module = sys.modules.get(module_name)
        if not isinstance(module, types.ModuleType) or is_library_module(module):
            return _NONE
        # vars(), not getattr: a module's __getattr__ is code that a job must not make us run.
        own = vars(module)
        if name == "__all__" and name not in own:
            return self._pickled([n for n in own if n[:1] != "_"], module_name, name)
        if name not in own:
            return _NONE
        value = own[name]
        if isinstance(value, str) and check.looks_secret(name):
            return _refusal(
                f"module attribute {module_name}.{name} looks like a secret and is not served; "
                "pass it as an argument if the function needs it"
            )
        allowed = self._context.allowed
        if allowed is not None and name not in allowed and is_data(value):
            return _refusal(
                f"module attribute {module_name}.{name} is not in captures=[...]; add it there"
            )
        return self._pickled(value, module_name, name)

    def _pickled(self, value: Any, module_name: str, name: str) -> tuple[bytes, list[Any]]:
        where = f"module attribute {module_name}.{name}"
        try:
            body, buffers, keep = self._fork(value)
        except Exception as error:
            reason = error.reason if isinstance(error, CannotShip) else str(error)
            return _refusal(
                f"{where} ({type(value).__qualname__}) cannot cross into the sandbox: {reason}; "
                "make it inside the function"
            )
        variable = check.find_secret(body, self._context.secrets)
        if variable is not None:
            return _refusal(f"{where} holds the value of {variable}, which the policy hides")
        # Only now: a memo entry here must be one in the job.
        keep()
        return b"A" + body, buffers


def _refusal(words: str) -> tuple[bytes, list[Any]]:
    return b"E" + words[:1000].encode("utf-8", "replace"), []
