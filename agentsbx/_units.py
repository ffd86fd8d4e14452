"""Human units of policies: bytes, durations, counts, network rules.

Pure functions from what a user wrote to numbers. Each takes the keyword's name and raises
`PolicyError` naming keyword, value and examples. -1 stands for "unlimited".
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TYPE_CHECKING

from agentsbx.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Mapping

UNLIMITED = -1
_WORD = "unlimited"

_BYTE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_TIME_UNITS = {
    "": 1.0,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
# Patterns are compiled at first use (by the cache of `re`): most processes never read a unit.
_NUMBER = r"\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)\s*\Z"
_MAX_BYTES = 2**62
_MAX_SECONDS = 10 * 365 * 86400.0
_MAX_COUNT = 2**31 - 1

BYTES_EXAMPLES = '"512MB" (10^6), "1GiB" (2^30), "unlimited"'
TIME_EXAMPLES = '"30s", "500ms", "1.5m", 30 (seconds), "unlimited"'
NET_EXAMPLES = '"api.example.com:443", "*.example.com:443", "10.0.0.0/8:5432", "[2001:db8::1]:443"'


_LONGEST = 100  # characters of an amount


def _wrong(key: str, value: object, why: str, examples: str) -> PolicyError:
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    return PolicyError(f"{key}={shown}: {why}", path=key, hint=f"write {examples}")


def _parse(key: str, value: str, units: Mapping[str, float], examples: str) -> tuple[float, float]:
    match = re.match(_NUMBER, value) if len(value) <= _LONGEST else None
    if match is None:
        raise _wrong(key, value, "not a number with a unit", examples)
    unit = match[2].lower()
    if unit not in units:
        raise _wrong(key, value, f"unknown unit {match[2]!r}", examples)
    digits = match[1].replace("_", "")
    return (float(digits) if "." in digits else int(digits)), units[unit]


def parse_bytes(key: str, value: object, *, minimum: int = 1) -> int:
    """Bytes from `512`, `"512MB"`, `"1GiB"`; a bare number is bytes.

    Below `minimum` it is an error that asks for the unit, since `memory=512` is never meant.

    >>> parse_bytes("memory", "1.5MB"), parse_bytes("memory", "1GiB")
    (1500000, 1073741824)
    """
    if isinstance(value, str):
        if value.strip().lower() == _WORD:
            return UNLIMITED
        number, factor = _parse(key, value, _BYTE_UNITS, BYTES_EXAMPLES)
        amount = round(number * factor)
    elif isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 != 0:
        raise _wrong(key, value, "not a size", BYTES_EXAMPLES)
    else:
        amount = int(value)
    if amount < minimum:
        if amount > 0 and not (isinstance(value, str) and value.strip()[-1:].isalpha()):
            why = f"is {amount} bytes, the least is {format_bytes(minimum)}"
            raise PolicyError(
                f"{key}={value!r} {why}", path=key, hint=f'did you mean "{amount}MB"?'
            )
        raise _wrong(key, value, f"the least is {format_bytes(minimum)}", BYTES_EXAMPLES)
    if amount > _MAX_BYTES:
        raise _wrong(key, value, "too large", BYTES_EXAMPLES)
    return amount


def parse_duration(key: str, value: object) -> float:
    """Seconds from `30`, `0.5`, `"30s"`, `"1.5m"`, `"500ms"`, `timedelta`.

    >>> parse_duration("timeout", "1.5m"), parse_duration("timeout", "unlimited")
    (90.0, -1.0)
    """
    if isinstance(value, str):
        if value.strip().lower() == _WORD:
            return float(UNLIMITED)
        number, factor = _parse(key, value, _TIME_UNITS, TIME_EXAMPLES)
        # Milliseconds divide exactly where a product with 1e-3 would not.
        seconds = number / 1000 if factor == 1e-3 else number * factor
    elif isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise _wrong(key, value, "not a time", TIME_EXAMPLES)
    if not math.isfinite(seconds) or seconds > _MAX_SECONDS:
        raise _wrong(key, value, "not a time that ends", TIME_EXAMPLES)
    if seconds < 0.001:
        raise _wrong(key, value, "must be at least 1ms", TIME_EXAMPLES)
    return float(seconds)


def parse_count(key: str, value: object, *, minimum: int = 1) -> int:
    """A whole number of things, or "unlimited".

    >>> parse_count("processes", 64)
    64
    """
    examples = '64 or "unlimited"'
    if isinstance(value, str):
        if value.strip().lower() == _WORD:
            return UNLIMITED
        if not value.strip().isascii() or not value.strip().isdigit():
            raise _wrong(key, value, "not a whole number", examples)
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(key, value, "not a whole number", examples)
    if value < minimum:
        raise _wrong(key, value, f"the least is {minimum}", examples)
    if value > _MAX_COUNT:
        raise _wrong(key, value, "too large", examples)
    return int(value)


def parse_cpu_set(key: str, value: object) -> tuple[int, ...]:
    """CPU numbers: `"0-1,4"`, one number, or a list of numbers.

    >>> parse_cpu_set("cpu_set", "0-1,4"), parse_cpu_set("cpu_set", [3, 1]), parse_cpu_set("c", 2)
    ((0, 1, 4), (1, 3), (2,))
    """
    examples = '"0-1,4" or [0, 1, 4]'
    parts = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
    found: set[int] = set()
    for part in parts:
        for word in str(part).split(",") if isinstance(part, (str, int)) else [""]:
            first, dash, last = word.strip().partition("-")
            last = last if dash else first
            numbers = first.isascii() and first.isdigit() and last.isascii() and last.isdigit()
            if isinstance(part, bool) or not numbers or max(len(first), len(last)) > 4:
                raise _wrong(key, value, "not numbers of CPUs", examples)
            if not int(first) <= int(last) < 1024:
                raise _wrong(key, value, "not in order, or above 1023", examples)
            found.update(range(int(first), int(last) + 1))
    return tuple(sorted(found))


def parse_share(key: str, value: object) -> float:
    """A share of CPUs: `1.0` is one whole CPU.

    >>> parse_share("cpus", "0.5")
    0.5
    """
    examples = '1.0 (one CPU), 0.5 (half of one), "unlimited"'
    if isinstance(value, str):
        if value.strip().lower() == _WORD:
            return float(UNLIMITED)
        try:
            value = float(value)
        except ValueError:
            raise _wrong(key, value, "not a number of CPUs", examples) from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(key, value, "not a number of CPUs", examples)
    if not math.isfinite(value) or not 0.01 <= value <= 4096:
        raise _wrong(key, value, "must lie between 0.01 and 4096", examples)
    return float(value)


_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z"


def parse_endpoint(key: str, value: object) -> str:
    """A network rule `host:port` in its one normal form.

    Host is a name, `*.name`, an address or a range; port a number or a range `8000-8010`.

    >>> parse_endpoint("net", "API.Example.com:443"), parse_endpoint("net", "[::1]:80")
    ('api.example.com:443', '[::1]:80')
    """
    if value is True:
        raise _wrong(key, value, "the whole network is not a rule; name the peers", NET_EXAMPLES)
    if not isinstance(value, str):
        raise _wrong(key, value, "not a network rule", NET_EXAMPLES)
    text = value.strip()
    if "://" in text:
        raise _wrong(key, value, "an URL is not a network rule; name host and port", NET_EXAMPLES)
    host, colon, port = text.rpartition(":")
    if not colon or not host or not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?", port):
        raise _wrong(key, value, "the port is missing", NET_EXAMPLES)
    first, _, last = port.partition("-")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= 65535:
        raise _wrong(key, value, "no such port", NET_EXAMPLES)
    name = _parse_host(key, value, host)
    return f"{name}:{low}" if low == high else f"{name}:{low}-{high}"


def _parse_host(key: str, value: object, host: str) -> str:
    import ipaddress  # only policies with network rules pay for it

    bare, slash, prefix = host.partition("/")
    if bare.startswith("["):
        if not bare.endswith("]"):
            raise _wrong(key, value, "the bracket is not closed", NET_EXAMPLES)
        bare = bare[1:-1]
    elif ":" in bare:
        raise _wrong(key, value, "an IPv6 address stands in brackets", NET_EXAMPLES)
    if slash or host.startswith("[") or re.fullmatch(r"[0-9.]+", bare):
        try:
            network = ipaddress.ip_network(f"{bare}/{prefix}" if slash else bare)
        except ValueError as error:
            raise _wrong(key, value, f"no address or range ({error})", NET_EXAMPLES) from None
        shown = str(network.network_address)
        shown = f"[{shown}]" if network.version == 6 else shown
        return f"{shown}/{network.prefixlen}" if slash else shown
    name = bare.lower().rstrip(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            raise _wrong(key, value, "no host name", NET_EXAMPLES) from None
    labels = name.removeprefix("*.").split(".")
    if len(name) > 253 or not all(re.match(_LABEL, label) for label in labels):
        raise _wrong(key, value, "no host name", NET_EXAMPLES)
    if name.startswith("*.") and len(labels) < 2:
        raise _wrong(key, value, "a wildcard needs a domain of two parts", NET_EXAMPLES)
    return name


def endpoint_covers(wide: str, narrow: str) -> bool:
    """Whether every peer of the rule `narrow` is one of the rule `wide` (both in normal form).

    >>> endpoint_covers("*.example.com:443", "api.example.com:443")
    True
    """
    wide_host, _, wide_port = wide.rpartition(":")
    host, _, port = narrow.rpartition(":")
    wide_low, _, wide_high = wide_port.partition("-")
    low, _, high = port.partition("-")
    if not int(wide_low) <= int(low) <= int(high or low) <= int(wide_high or wide_low):
        return False
    if wide_host == host:
        return True
    if wide_host.startswith("*."):
        return host.removeprefix("*.").endswith(wide_host[1:])
    import ipaddress

    try:
        outer = ipaddress.ip_network(wide_host.replace("[", "").replace("]", ""))
        inner = ipaddress.ip_network(host.replace("[", "").replace("]", ""))
    except ValueError:
        return False
    return outer.version == inner.version and (
        int(outer.network_address) <= int(inner.network_address)
        and int(inner.broadcast_address) <= int(outer.broadcast_address)
    )


def format_bytes(amount: int) -> str:
    """Write bytes so that `parse_bytes` reads the same number where it is a round one.

    >>> format_bytes(512_000_000), format_bytes(8 * 2**20), format_bytes(1234567)
    ('512MB', '8MiB', '1.2MB')
    """
    if amount < 0:
        return _WORD
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if amount >= factor and amount % factor == 0:
            return f"{amount // factor}{unit}"
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if amount >= factor and amount % factor == 0:
            return f"{amount // factor}{unit}"
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if amount >= factor:
            return f"{amount / factor:.1f}{unit}"
    return f"{amount}B"


def exact_bytes(amount: int) -> str:
    """Write bytes so that `parse_bytes` reads exactly the same number.

    >>> exact_bytes(1234567), exact_bytes(-1)
    ('1234567B', 'unlimited')
    """
    shown = format_bytes(amount)
    return f"{amount}B" if "." in shown else shown


def format_duration(seconds: float) -> str:
    """Write seconds for people; `parse_duration` reads it back where it is round.

    >>> format_duration(30), format_duration(0.0124), format_duration(90), format_duration(600)
    ('30s', '12.4ms', '90s', '10m')
    """
    if seconds < 0:
        return _WORD
    if seconds < 1:
        return f"{seconds * 1000:.3g}ms"
    if seconds >= 3600 and seconds % 3600 == 0:
        return f"{seconds / 3600:g}h"
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:g}m"
    return f"{seconds:.4g}s" if seconds < 10_000 else f"{seconds:.0f}s"
