"""What a job is made to look like: this process's environment, argv and main file (rule 4.8, 4.9).

Read anew for each call, cheaply: a change makes a new set-up, and with it a new snapshot version.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from agentsbx import _engine, _mirror
from agentsbx._host import hidden_env

if TYPE_CHECKING:
    from agentsbx._runtime import CallSite

__all__ = ["Setup", "hidden_env", "process", "seen", "setup"]


class Setup(NamedTuple):
    """What a job applies before its call (`_worker._apply`)."""

    env: dict[str, str] | None  # None: what its zygote was given
    argv: list[str]
    main_file: str | None
    blas_threads: int
    policy: bytes  # msgpack of the Policy, for nested calls (semantics 5.6)
    body_bytes: int  # limits of the result
    buffer_bytes: int
    mirrored: tuple[Any, ...] | None  # `_mirror.mirrored`
    watches: bool  # note exceptions that the body swallows (`_watch`)


def seen(site: CallSite) -> tuple[Any, ...]:
    """What `_setup` reads: a change of any of it makes a new set-up."""
    return [os.environ.get(k) for k in site.env_keys], *process()


def process() -> tuple[Any, ...]:
    """Return argv, main file, interpreter with its prefix, search path, mirrored as they stand."""
    main_file = getattr(sys.modules.get("__main__"), "__file__", None)
    return [*sys.argv], main_file, sys.executable, sys.prefix, [*sys.path], _mirror.mirrored()


def setup(site: CallSite) -> Setup:
    """Make the set-up that a job of the site applies."""
    argv, main_file, *_, mirrored = process()
    return Setup(
        _engine.job_env(site.policy), argv, main_file,
        os.cpu_count() or 1, site.raw_policy,
        site.codec_limits.body_bytes, site.codec_limits.buffer_bytes, mirrored,
        site.policy.strict_violations,
    )  # fmt: skip
