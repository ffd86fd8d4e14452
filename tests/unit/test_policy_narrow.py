"""`narrow(base, other)` allows nothing that one of the two denies."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentsbx import _policy_rules
from agentsbx._policy_narrow import beyond, narrow, replaced
from agentsbx.policy import Grant, Limits, Policy

PLACES = ["/a", "/a/b", "/a/b/c", "/a/d", "/e"]
ASKED = [*PLACES, "/a/b/c/x", "/a/x", "/e/x", "/f"]
_number = st.one_of(st.just(-1.0), st.floats(0.5, 100.0))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    write = draw(st.sets(st.sampled_from(PLACES)))
    read = draw(st.sets(st.sampled_from(PLACES))) - write
    flags = st.booleans()
    strict = draw(flags)
    watched = draw(flags)
    profile = draw(st.sampled_from(["strict", "python", "build"]))
    calls = ["mbind", "semget"] + (["execve"] if profile != "strict" else [])
    fields: dict[str, Any] = {
        "read": tuple(Grant(p, follow=draw(flags)) for p in sorted(read)),
        "write": tuple(Grant(p, follow=draw(flags), code=draw(flags)) for p in sorted(write)),
        "env": tuple(sorted(draw(st.sets(st.sampled_from(["A", "B", "M=1", "N=2"]))))),
        "net": tuple(sorted(draw(st.sets(st.sampled_from(["a.b:1", "*.b:1", "a.b:1-9"]))))),
        "profile": profile,
        "syscalls": tuple(sorted(draw(st.sets(st.sampled_from(calls))))),
        "preload": tuple(sorted(draw(st.sets(st.sampled_from(["numpy", "os"]))))),
        "packages": tuple(draw(st.lists(st.sampled_from(["/p", "/q"]), unique=True))),
        "cpu_set": tuple(sorted(draw(st.sets(st.sampled_from([0, 1, 2]))))),
        "python": draw(st.sampled_from(["", "/v1", "/v2"])),
        "strict_limits": strict,
        "on_missing": "error" if strict else draw(st.sampled_from(["error", "weaken"])),
        "strict_violations": watched,
        "on_violation": "raise" if watched else draw(st.sampled_from(["raise", "record"])),
        "reveal": draw(flags),
        "fresh": draw(flags),
        "limits": Limits(
            memory=int(draw(_number)), timeout=draw(_number), cpus=draw(_number),
            processes=int(draw(_number)),
        ),
    }  # fmt: skip
    policy = Policy(**fields)
    _policy_rules.check(policy)
    return policy


@given(policies(), policies())
def test_the_meet_allows_nothing_that_one_of_them_denies(base: Policy, other: Policy) -> None:
    met = narrow(base, other)
    assert met.differences(base) == []
    kept = ["interpreter"] + ["CPUs"] * set(base.cpu_set).isdisjoint(other.cpu_set)
    rest = [t for t in met.differences(other) if not any(word in t for word in kept)]
    assert rest == []
    for path in ASKED:
        levels = ("nothing", "read", "write")
        mine, one, two = (levels.index(_policy_rules.allows(p, path)) for p in (met, base, other))
        assert mine <= min(one, two), path
    assert met.python == base.python
    assert set(met.preload) <= set(base.preload)
    assert set(met.env) <= set(base.env) & set(other.env)
    _policy_rules.check(met)


@given(policies())
def test_the_meet_with_itself_is_itself(base: Policy) -> None:
    assert narrow(base, base) == base
    assert beyond(base, base) == []


@given(policies(), policies())
def test_what_is_not_said_to_be_beyond_is_given(base: Policy, other: Policy) -> None:
    if beyond(base, other) == [] and other.python == base.python:
        met = narrow(base, other)
        wider = [t for t in other.differences(met) if not t.startswith(("read", "write"))]
        assert wider == []


@given(policies(), policies(), st.sets(st.sampled_from(["read", "write", "env", "limits.memory"])))
def test_only_named_keys_are_replaced(base: Policy, said: Policy, keys: set[str]) -> None:
    new = replaced(base, said, keys)
    assert {g.path for g in new.read}.isdisjoint(g.path for g in new.write)
    assert new.env == (said if "env" in keys else base).env
    assert new.limits.memory == (said if "limits.memory" in keys else base).limits.memory
    assert new.limits.timeout == base.limits.timeout
    if not keys & {"read", "write"}:
        assert (new.read, new.write) == (base.read, base.write)


def test_a_grant_is_kept_or_dropped_whole() -> None:
    base = Policy.from_keywords(read="/srv/in", write="/srv/out")
    other = Policy.from_keywords(read=["/srv/in/part", "/srv/out/sub"], write="/srv/out")
    met = narrow(base, other)
    assert met.read == (Grant("/srv/out"),), "one part may not be written, so none"
    assert met.write == ()
    told = dict(beyond(base, other))
    assert "read /srv/in/part alone" in str(beyond(base, other))
    assert set(told) == {"read"}
