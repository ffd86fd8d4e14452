"""Human units, and what is said about wrong ones."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsbx import _units
from agentsbx.errors import PolicyError


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("512MB", 512 * 10**6),
        ("512 mb", 512 * 10**6),
        ("1GiB", 2**30),
        ("1.5GB", 1_500_000_000),
        (".5kB", 500),
        ("64k", 64_000),
        ("1_000B", 1000),
        ("4096", 4096),
        (4096, 4096),
        (1e6, 1_000_000),
        ("unlimited", -1),
        (" Unlimited ", -1),
    ],
)
def test_sizes(written: object, amount: int) -> None:
    assert _units.parse_bytes("memory", written) == amount


@pytest.mark.parametrize(
    "written",
    ["", "MB", "12 parsecs", "-1MB", "1e3MB", "0", 0, -5, True, 1.5, None, [], "inf", "9" * 30],
)
def test_wrong_sizes_name_keyword_value_and_examples(written: object) -> None:
    with pytest.raises(PolicyError) as caught:
        _units.parse_bytes("memory", written)
    assert str(caught.value).startswith("memory=")
    assert '"512MB"' in str(caught.value)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("written", [512, "512"])
def test_a_bare_small_number_asks_for_its_unit(written: object) -> None:
    with pytest.raises(PolicyError, match='did you mean "512MB"'):
        _units.parse_bytes("memory", written, minimum=2**20)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30s", 30.0),
        ("1.5m", 90.0),
        ("2min", 120.0),
        ("500ms", 0.5),
        ("1h", 3600.0),
        ("30", 30.0),
        (30, 30.0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120.0),
        ("unlimited", -1.0),
    ],
)
def test_times(written: object, seconds: float) -> None:
    assert _units.parse_duration("timeout", written) == seconds


@pytest.mark.parametrize(
    "written", ["soon", "0s", 0, -1, float("nan"), float("inf"), True, None, "9" * 30, timedelta(0)]
)
def test_wrong_times(written: object) -> None:
    with pytest.raises(PolicyError, match=r"^timeout="):
        _units.parse_duration("timeout", written)


@pytest.mark.parametrize("written", [0, -1, 1.5, "1.5", "many", True, None, 2**40, "²"])
def test_wrong_counts(written: object) -> None:
    with pytest.raises(PolicyError, match=r"^processes="):
        _units.parse_count("processes", written)


@pytest.mark.parametrize("written", [0, -1, "fast", True, None, float("nan"), 1e9])
def test_wrong_shares(written: object) -> None:
    with pytest.raises(PolicyError, match=r"^cpus="):
        _units.parse_share("cpus", written)


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("api.example.com:443", "api.example.com:443"),
        ("API.Example.com.:443", "api.example.com:443"),
        ("*.example.com:443", "*.example.com:443"),
        ("bücher.example:80", "xn--bcher-kva.example:80"),
        ("localhost:8000-8010", "localhost:8000-8010"),
        ("10.0.0.1:5432", "10.0.0.1:5432"),
        ("10.0.0.0/8:5432", "10.0.0.0/8:5432"),
        ("[2001:DB8::1]:443", "[2001:db8::1]:443"),
        ("[2001:db8::]/32:443", "[2001:db8::]/32:443"),
    ],
)
def test_network_rules(written: str, normal: str) -> None:
    assert _units.parse_endpoint("net", written) == normal
    assert _units.parse_endpoint("net", normal) == normal


@pytest.mark.parametrize(
    "written",
    [
        True,
        443,
        "",
        "example.com",
        ":443",
        "example.com:0",
        "example.com:70000",
        "example.com:9-3",
        "https://example.com:443",
        "2001:db8::1:443",
        "[::1:443",
        "*.com:443",
        "a..b:1",
        "-a.example:1",
        "10.0.0.1/8:53",
        "300.1.1.1:53",
        "*:443",
        "ex ample.com:1",
    ],
)
def test_wrong_network_rules_show_how_to_write_one(written: object) -> None:
    with pytest.raises(PolicyError, match=r"api\.example\.com:443"):
        _units.parse_endpoint("net", written)


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("*.example.com:443", "a.example.com:443", True),
        ("*.example.com:443", "*.a.example.com:443", True),
        ("*.example.com:443", "example.com:443", False),
        ("*.example.com:443", "badexample.com:443", False),
        ("a.example.com:1-10", "a.example.com:3-4", True),
        ("a.example.com:1-10", "a.example.com:3-40", False),
        ("10.0.0.0/8:1", "10.2.0.0/16:1", True),
        ("10.2.0.0/16:1", "10.0.0.0/8:1", False),
        ("[2001:db8::]/32:1", "[2001:db8::1]:1", True),
        ("0.0.0.0/0:1", "[::1]:1", False),
        ("0.0.0.0/0:1", "example.com:1", False),
    ],
)
def test_network_rule_covers(wide: str, narrow: str, covers: bool) -> None:
    assert _units.endpoint_covers(wide, narrow) is covers


@given(st.integers(min_value=1, max_value=2**50))
def test_exact_bytes_reads_back(amount: int) -> None:
    assert _units.parse_bytes("x", _units.exact_bytes(amount)) == amount


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.binary()))
def test_parsers_answer_or_raise_policy_error(value: Any) -> None:
    said: list[str] = []
    for parse in (
        _units.parse_bytes,
        _units.parse_duration,
        _units.parse_count,
        _units.parse_share,
        _units.parse_endpoint,
    ):
        try:
            parse("key", value)
        except PolicyError as error:
            said.append(str(error))
    assert all(len(text) <= 300 for text in said)
