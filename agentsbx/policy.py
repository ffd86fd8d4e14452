"""What a call may do: `Policy`, a tree of frozen structs.

A policy is pure data in one normal form: paths absolute, units resolved to bytes and seconds, lists
sorted. The default denies; a policy names what is allowed. It comes from keywords
(`Policy.from_keywords`, the keywords of `@sandbox`), from a TOML or JSON file (`Policy.from_file`)
or from a preset (`agentsbx.presets`). Everything wrong is a `PolicyError` with place and hint.

>>> policy = Policy.from_keywords(read=["/srv/data"], memory="1GB", timeout="2m")
>>> policy.read[0].path, policy.limits.memory, policy.limits.timeout
('/srv/data', 1000000000, 120.0)
>>> policy.contains(policy.extend(timeout="5m")), policy.narrow(timeout=5).contains(policy)
(True, True)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agentsbx.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "UNLIMITED",
    "FunctionSection",
    "Grant",
    "Limits",
    "Policy",
    "policy_schema",
    "split_keywords",
]

UNLIMITED = -1
"""How "unlimited" stands in `Limits` once a policy is resolved."""

Profile = Literal["python", "strict", "build"]


def _human(description: str, *examples: object, word: bool = True) -> Meta:
    """Describe a number that people write with a unit, for the JSON Schema."""
    text = description + (' "unlimited" for none.' if word else "")
    return Meta(description=text, examples=list(examples))


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One granted path, absolute; a folder is granted with all below it.

    `follow=True` lets the path's last component be a symbolic link; without it a link is refused.
    `code=True` is the explicit word for `write=` where this program imports code from (a `sys.path`
    entry, a loaded module, the virtual environment) or where a policy file lies that it has read.
    """

    path: Annotated[str, Meta(description="File or folder; relative to the policy's folder.")]
    follow: Annotated[bool, Meta(description="Accept a symbolic link and grant its target.")] = (
        False
    )
    code: Annotated[
        bool, Meta(description="Allow writing where the host imports its own code from.")
    ] = False


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a call may use: bytes, seconds, counts; -1 is "unlimited".

    Enforced by cgroups where there are any, else by rlimits and polling; `Result.limits` says so.
    """

    memory: Annotated[int, _human("Memory of the whole process tree.", "512MB", "1GiB")] = (
        512 * 10**6
    )
    cpu_time: Annotated[float, _human("CPU time of the whole process tree.", "10s")] = -1.0
    cpus: Annotated[float, _human("CPUs at once; 0.5 is half of one.", 1.0, 0.5)] = -1.0
    timeout: Annotated[float, _human("Wall-clock time from the job's start.", "30s", "1.5m")] = 30.0
    processes: Annotated[int, _human("Processes and threads together.", 64)] = 64
    open_files: Annotated[int, _human("Open files per process.", 256)] = 256
    file_size: Annotated[int, _human("Largest file that can be written.", "256MB")] = 256 * 10**6
    disk: Annotated[int, _human("Private home and temporary folder.", "256MB", word=False)] = (
        256 * 10**6
    )
    inodes: Annotated[int, _human("Files in private storage.", 16384, word=False)] = 16384
    output: Annotated[int, _human("stdout and stderr, each.", "8MiB", word=False)] = 8 * 2**20
    result: Annotated[int, _human("Structure of the result.", "64MiB", word=False)] = 64 * 2**20
    buffers: Annotated[int, _human("Large buffers of the result.", "1GiB", word=False)] = 2**30

    def __post_init__(self) -> None:
        """Refuse what was not resolved: texts with units go through `Policy.from_keywords`."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise PolicyError(
                    f"Limits({name}={value!r}): a number is needed here",
                    path=f"limits.{name}",
                    hint=f"Policy.from_keywords({name}={value!r}) reads units",
                )


class FunctionSection(msgspec.Struct, frozen=True):
    """The whole policy of one function, from `[function."module:qualname"]` of a policy file."""

    name: str
    policy: Policy


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one call may read, write, reach and use.

    Make it with `from_keywords`, `from_file` or a preset; these resolve units and paths. `env`
    holds names of host variables that are granted (`"LANG"`) and variables that are set
    (`"MODE=x"`). `extends` names the presets or files it started from, `origin` its file, `widen`
    the keywords that code may widen (`"*"`: all, for policies made in code), `functions` the
    sections for single functions, `section` the one that this policy is.
    """

    extends: Annotated[
        str | tuple[str, ...] | None,
        Meta(description="Presets and policy files (with / or .toml) to start from, in order."),
    ] = None
    read: Annotated[tuple[Grant, ...], Meta(description="Files and folders that can be read.")] = ()
    write: Annotated[
        tuple[Grant, ...], Meta(description="Files and folders that can be changed.")
    ] = ()
    env: Annotated[
        tuple[str, ...],
        Meta(description="Host variables granted by name; NAME=value (or a table) sets one."),
    ] = ()
    net: Annotated[
        tuple[str, ...],
        Meta(
            description="Peers that can be reached: host:port, *.domain:port, range:port.",
            examples=[["api.example.com:443"]],
        ),
    ] = ()
    limits: Limits = Limits()
    profile: Annotated[Profile, Meta(description="Set of system calls.")] = "python"
    syscalls: Annotated[
        tuple[str, ...], Meta(description="System calls allowed besides the profile's.")
    ] = ()
    preload: Annotated[
        tuple[str, ...], Meta(description="Installed modules imported before the call.")
    ] = ()
    strict_limits: Annotated[
        bool, Meta(description="Demand a cgroup: rlimits and polling do not satisfy a limit.")
    ] = msgspec.field(default=False, name="strict")
    on_missing: Annotated[
        Literal["error", "weaken"],
        Meta(description="What to do where this machine cannot enforce something."),
    ] = "error"
    on_violation: Annotated[
        Literal["raise", "record"], Meta(description="Raise a denial, or record it only.")
    ] = "raise"
    strict_violations: Annotated[
        bool, Meta(description="Raise a denial also where the code swallowed it.")
    ] = False
    reveal: Annotated[
        bool, Meta(description="Whether messages may say that a hidden path exists.")
    ] = True
    fresh: Annotated[bool, Meta(description="Execute a new interpreter for every call.")] = False
    python: Annotated[
        str,
        Meta(description="Interpreter, or virtual environment, that runs it; read-only."),
    ] = ""
    packages: Annotated[
        tuple[str, ...],
        Meta(description="Folders like site-packages, searched before the interpreter's own."),
    ] = ()
    cpu_set: Annotated[
        tuple[int, ...], Meta(description="Numbers of the CPUs that it runs on; empty: any.")
    ] = ()
    widen: Annotated[
        tuple[str, ...], Meta(description="Keywords that code may widen beyond this file.")
    ] = ("*",)
    origin: str = ""
    section: str = ""
    functions: tuple[FunctionSection, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what was not resolved: relative paths and lists go through `from_keywords`."""
        for key, path in (("python", self.python), *(("packages", p) for p in self.packages)):
            if path and not os.path.isabs(path):
                raise PolicyError(
                    f"Policy({key}=...): {path!r} is not an absolute path",
                    path=key,
                    hint=f"Policy.from_keywords({key}=...) resolves paths",
                )
        for key in ("read", "write"):
            for grant in getattr(self, key):
                if not isinstance(grant, Grant) or not os.path.isabs(grant.path):
                    raise PolicyError(
                        f"Policy({key}=...): {grant!r} is not a Grant with an absolute path",
                        path=key,
                        hint=f"Policy.from_keywords({key}=[...]) resolves paths",
                    )

    @classmethod
    def from_keywords(
        cls, start: Policy | None = None, /, *, folder: str | None = None, **keywords: Any
    ) -> Policy:
        """Make a policy from the keywords of `@sandbox`, on top of `start` (default: the default).

        Relative paths resolve against `folder` (default: the working directory now). A keyword that
        is None keeps what `start` has; a list replaces the list of `start`. Raises `PolicyError`.

        >>> Policy.from_keywords(memroy="1GB")
        Traceback (most recent call last):
        ...
        agentsbx.errors.PolicyError: unknown keyword memroy=; did you mean memory=?
        """
        if start is None:
            start = cls()
        return start.extend(folder=folder, **keywords)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], base: str | None = None) -> Policy:
        """Read a `.toml` or `.json` policy file.

        Relative paths resolve against `base` (default: the file's folder). `extends` starts from a
        preset or another file: lists add to that policy's, single values replace. Code may widen
        only what the file's `widen` names. Raises `PolicyError` with file, line and hint.
        """
        from agentsbx._policy_read import read_file

        return read_file(os.fspath(path), base)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], base: str | None = None) -> Policy:
        """Make a policy from data in the shape of a policy file (`{"limits": {...}, ...}`).

        Relative paths resolve against `base` (default: the working directory now).
        """
        from agentsbx._policy_read import read_mapping

        return read_mapping(data, base)

    def extend(self, *, folder: str | None = None, **keywords: Any) -> Policy:
        """Return this policy with `keywords` changed; `fn.options(...)`.

        A policy made of keywords may widen freely, one from a file only in what its `widen` names.
        Raises `PolicyError` that names the difference.
        """
        from agentsbx import _policy_read, _policy_rules

        new = _policy_read.apply_keywords(self, keywords, folder)
        if "*" not in self.widen:
            _policy_rules.refuse_wider(new, self, allowed=self.widen)
        return new._each_function(lambda policy: policy.extend(folder=folder, **keywords))

    def narrow(self, *, folder: str | None = None, **keywords: Any) -> Policy:
        """Return this policy with `keywords` changed; raises `PolicyError` if that allows more.

        >>> Policy().narrow(timeout="5s").limits.timeout
        5.0
        """
        from agentsbx import _policy_read, _policy_rules

        new = _policy_read.apply_keywords(self, keywords, folder)
        _policy_rules.refuse_wider(new, self, allowed=())
        return new._each_function(lambda policy: policy.narrow(folder=folder, **keywords))

    def _each_function(self, change: Callable[[Policy], Policy]) -> Policy:
        if not self.functions:
            return self
        changed = tuple(FunctionSection(s.name, change(s.policy)) for s in self.functions)
        return msgspec.structs.replace(self, functions=changed)

    def for_function(self, name: str) -> Policy:
        """Return the policy of one function: that of its section, else this one without sections.

        `name` is `"module:qualname"`. `sandbox` asks when it decorates a function.

        >>> data = {"function": {"tools:fetch": {"limits": {"timeout": "5s"}}}}
        >>> policy = Policy.from_mapping(data)
        >>> policy.for_function("tools:fetch").limits.timeout, policy.limits.timeout
        (5.0, 30.0)
        """
        if not self.functions:
            return self
        for section in self.functions:
            if section.name == name:
                return msgspec.structs.replace(section.policy, origin=self.origin, section=name)
        return msgspec.structs.replace(self, functions=())

    def contains(self, other: Policy) -> bool:
        """Whether this policy enforces at least `other`: allows nothing that `other` denies."""
        return not self.differences(other)

    def differences(self, other: Policy) -> list[str]:
        """Say in words what this policy allows that `other` denies (`timeout 60s, not 30s`)."""
        from agentsbx._policy_rules import differences

        return [text for _, text in differences(self, other)]

    @property
    def env_names(self) -> tuple[str, ...]:
        """Names of the host variables that are granted."""
        return tuple(entry for entry in self.env if "=" not in entry)

    @property
    def env_values(self) -> dict[str, str]:
        """Variables that the policy sets itself."""
        return dict(entry.split("=", 1) for entry in self.env if "=" in entry)

    def to_toml(self) -> str:
        """Return a policy file that reads back as this policy (but for `widen` and `origin`)."""
        from agentsbx._policy_toml import write_toml

        return write_toml(self)


def split_keywords(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the keywords of `@sandbox` into those of the policy and those of the call site.

    Call-site keywords are `captures`, `raises`, `keep`, `seed`, `name` and `output` with a word
    (`"capture"`, `"forward"`, `"stderr"`, `"discard"`; with a size it is the limit). An unknown
    keyword raises `PolicyError` with a suggestion; None values are dropped.

    >>> split_keywords({"memory": "1GB", "raises": [KeyError], "output": "capture"})
    ({'memory': '1GB'}, {'raises': [<class 'KeyError'>], 'output': 'capture'})
    """
    from agentsbx._policy_keys import check_keyword
    from agentsbx._site_keys import OUTPUT_WORDS, SITE_KEYWORDS

    policy: dict[str, Any] = {}
    site: dict[str, Any] = {}
    for key, value in keywords.items():
        if key in SITE_KEYWORDS:
            if value is not None:
                site[key] = SITE_KEYWORDS[key](key, value)
            continue
        check_keyword(key)
        is_word = isinstance(value, str) and value in OUTPUT_WORDS
        target = site if key == "output" and is_word else policy
        if value is not None:
            target[key] = value
    return policy, site


def policy_schema() -> dict[str, Any]:
    """Return the JSON Schema of policy files, for editors (`agentsbx policy schema`)."""
    from agentsbx._policy_schema import schema

    return schema()
