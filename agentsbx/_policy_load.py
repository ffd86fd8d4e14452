"""One policy file as text and data, and the way through files that extend each other."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import msgspec

from agentsbx._policy_toml import find_line
from agentsbx.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Reading", "has_table", "load_file", "parse_file", "table_of"]

_MAX_FILE = 2**20
_MAX_DEPTH = 8
_MAX_NUMBER = 2**63
_MAX_PARTS = 32
_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(
    rf"""(?<![A-Za-z0-9_"'-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{_MAX_PARTS}}}"""
)


class Reading:
    """One reading of a file and of those that it extends: the way to them, and what they said.

    `load` reads one file; with `traces` it is remembered in `origins` which place said what, by
    (section, key, item of a list or "").
    """

    def __init__(
        self,
        load: Callable[[str], tuple[str, dict[str, Any]]] | None = None,
        *,
        traces: bool = False,
        is_found: bool = False,
    ) -> None:
        self.load = load or load_file
        self.chain: tuple[str, ...] = ()
        self.origins: dict[tuple[str, str, str], str] = {}
        self.is_found = is_found  # nobody named it: it may lie in a write grant
        self._traces = traces
        self._place = ("", "")

    def enter(self, name: str, text: str) -> tuple[str, str]:
        """What is said from now on is said in this text; returns where we were before."""
        before, self._place = self._place, (name, text)
        return before

    def leave(self, before: tuple[str, str]) -> None:
        """Go back there."""
        self._place = before

    def said(self, section: str, key: str, items: Sequence[str]) -> None:
        """Remember the place of a key (`limits.memory`), and of each item that it adds."""
        if not self._traces:
            return
        name, text = self._place
        dotted = f"function.{section}.{key}" if section else key
        line = find_line(text, table_of(name) + dotted) if text else None
        place = f"{name}:{line}" if line else name
        for item in ("", *items):
            self.origins[section, key, item] = place


def load_file(path: str) -> tuple[str, dict[str, Any]]:
    """Return text and data of a policy file, at most 1 MiB; raises `PolicyError`."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise PolicyError(
            f"cannot read the policy file: {error.strerror}",
            file=path,
            hint="a preset has no / or .",
        ) from None
    return parse_file(path, raw)


def parse_file(path: str, raw: bytes) -> tuple[str, dict[str, Any]]:
    """Return text and data of a policy file that was read."""
    if len(raw) > _MAX_FILE:
        raise PolicyError("the policy file is larger than 1 MiB", file=path)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PolicyError("the policy file is not UTF-8", file=path, line=line) from None
    if path.endswith(".json"):
        try:
            data = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise PolicyError(f"no valid JSON: {error}", file=path) from None
        if not isinstance(data, dict):
            raise PolicyError("a policy is an object: {...}", file=path, line=1)
        _refuse_depth(data, path)
        return text, data
    import tomllib  # only policy files pay for it

    if _LONG_KEY.search(text):  # it would take the square of them in time
        raise PolicyError(f"a key of more than {_MAX_PARTS} parts", file=path)
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits
        message = str(error) or "nested too deeply"
        place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
        raise PolicyError(
            f"no valid TOML: {message[: place.start()] if place else message}",
            file=path,
            line=int(place[1]) if place else text.count("\n") + 1,
            column=int(place[2]) if place else None,
        ) from None
    own = _own_table(path, data)
    _refuse_depth(own, path)
    return text, own


def _refuse_depth(data: object, path: str) -> None:
    """No policy is deep: messages show what is wrong in it, and that would be endless."""
    level = [data]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if any(isinstance(v, int) and abs(v) > _MAX_NUMBER for v in level):
            raise PolicyError("a number out of range", file=path)
        if not level:
            return
    raise PolicyError("nested too deeply", file=path)


def table_of(path: str) -> str:
    """Return what stands before each key of a policy in this file: "" but in `pyproject.toml`."""
    return "tool.agentsbx." if os.path.basename(path) == "pyproject.toml" else ""


def has_table(text: str) -> bool:
    """Whether the text of a `pyproject.toml` has our table; `ValueError` where it is not TOML."""
    import tomllib

    if _LONG_KEY.search(text):
        raise ValueError("a key of too many parts")
    tool = tomllib.loads(text).get("tool")
    return isinstance(tool, dict) and "agentsbx" in tool


def _own_table(path: str, data: dict[str, Any]) -> dict[str, Any]:
    if not table_of(path):
        return data
    tool = data.get("tool")
    own = tool.get("agentsbx") if isinstance(tool, dict) else None
    if not isinstance(own, dict):
        raise PolicyError("there is no table [tool.agentsbx]", file=path, hint="write it")
    return own
