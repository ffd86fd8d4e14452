"""Types of the standard library that a result keeps: one encoder and one decoder each.

The encoders are found by name and import nothing; the decoders import the module that they build
from, each a fixed one, and check every argument before the constructor sees it.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from agentsbx._codec_wire import Bad, Ref, Refused, Tag, clean_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsbx._codec_decode import Builder
    from agentsbx._codec_encode import Encoder

__all__ = ["DECODERS", "encoder_for"]

_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,64}(/[A-Za-z0-9_+-]{1,64}){0,4}")
_NUMBER = re.compile(
    r"-?(\d{1,100000}(\.\d{0,100000})?([eE][+-]?\d{1,19})?|s?NaN\d{0,100}|Infinity)", re.A
)
_TYPECODES = {"b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "l": 8, "L": 8, "q": 8, "Q": 8,
              "f": 4, "d": 8}  # fmt: skip
_FACTORIES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (list, dict, set, tuple, int, float, str, bytes, bool, frozenset, bytearray)
}
_PATHS = ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")
_IPS = (
    "IPv4Address",
    "IPv6Address",
    "IPv4Network",
    "IPv6Network",
    "IPv4Interface",
    "IPv6Interface",
)
_MAX_FRACTION_BYTES = 4096  # the gcd in Fraction takes quadratic time


# ---- encoders


def _zone(encoder: Encoder, zone: Any) -> Any:
    """Return the cell for the tzinfo of a datetime or time."""
    if zone is None:
        return None
    kind = type(zone)
    known = encoder.memo.get(id(zone))
    if known is not None:
        return known
    if _is(kind, "datetime", "timezone"):
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        plain = type(zone)(offset).tzname(None) == name
        row = [Tag.TIMEZONE, offset.days, offset.seconds, offset.microseconds]
        return encoder.row(row if plain else [*row, name])
    if _is(kind, "zoneinfo", "ZoneInfo"):
        if zone.key is None:
            raise Refused("a ZoneInfo without a key cannot leave the sandbox")
        return encoder.row([Tag.ZONEINFO, zone.key])
    raise Refused(
        f"a time zone of type {kind.__module__}.{kind.__qualname__} cannot leave the sandbox",
        "use zoneinfo.ZoneInfo or datetime.timezone",
    )


def _datetime(encoder: Encoder, v: Any) -> Ref:
    row = [Tag.DATETIME, v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.fold]
    ref = encoder.row(row)
    row.append(_zone(encoder, v.tzinfo))
    return ref


def _date(encoder: Encoder, v: Any) -> Ref:
    return encoder.row([Tag.DATE, v.year, v.month, v.day])


def _time(encoder: Encoder, v: Any) -> Ref:
    row = [Tag.TIME, v.hour, v.minute, v.second, v.microsecond, v.fold]
    ref = encoder.row(row)
    row.append(_zone(encoder, v.tzinfo))
    return ref


def _timedelta(encoder: Encoder, v: Any) -> Ref:
    return encoder.row([Tag.TIMEDELTA, v.days, v.seconds, v.microseconds])


def _text_row(tag: Tag) -> Callable[[Encoder, Any], Ref]:
    def encode(encoder: Encoder, v: Any) -> Ref:
        row: list[Any] = [tag, type(v).__name__]
        ref = encoder.row(row)
        row.append(encoder.cell(str(v)))
        return ref

    return encode


def _fraction(encoder: Encoder, v: Any) -> Ref:
    if max(v.numerator.bit_length(), v.denominator.bit_length()) > 8 * _MAX_FRACTION_BYTES:
        raise Refused("a Fraction of this size cannot leave the sandbox", "return its two ints")
    row: list[Any] = [Tag.FRACTION]
    ref = encoder.row(row)
    encoder.fill(row, (v.numerator, v.denominator))
    return ref


def _uuid(encoder: Encoder, v: Any) -> Ref:
    return encoder.row([Tag.UUID, encoder.blob(v.bytes)])


def _ordereddict(encoder: Encoder, v: Any) -> Ref:
    row: list[Any] = [Tag.ORDEREDDICT]
    ref = encoder.open(v, row)
    encoder.pairs(row, v)
    return ref


def _counter(encoder: Encoder, v: Any) -> Ref:
    row: list[Any] = [Tag.COUNTER]
    ref = encoder.open(v, row)
    encoder.pairs(row, v)
    return ref


def _defaultdict(encoder: Encoder, v: Any) -> Ref:
    factory = v.default_factory
    name = getattr(factory, "__name__", None) if isinstance(factory, type) else None
    if factory is not None and _FACTORIES.get(name or "") is not factory:
        raise Refused(
            "a defaultdict whose factory is not a builtin type cannot leave the sandbox",
            "return dict(value)",
        )
    row: list[Any] = [Tag.DEFAULTDICT, name]
    ref = encoder.open(v, row)
    encoder.pairs(row, v)
    return ref


def _deque(encoder: Encoder, v: Any) -> Ref:
    row: list[Any] = [Tag.DEQUE, v.maxlen]
    ref = encoder.open(v, row)
    encoder.fill(row, v)
    return ref


def _array(encoder: Encoder, v: Any) -> Ref:
    if v.typecode == "u":
        raise Refused("an array of type 'u' cannot leave the sandbox", "return v.tounicode()")
    return encoder.open(v, [Tag.ARRAY, v.typecode, encoder.blob(memoryview(v))])


def _namespace(encoder: Encoder, v: Any) -> Ref:
    row: list[Any] = [Tag.NAMESPACE, *v.__dict__]
    if not all(type(name) is str for name in v.__dict__):
        raise Refused("a SimpleNamespace with a name that is not a str cannot leave the sandbox")
    row.insert(1, len(v.__dict__))
    ref = encoder.open(v, row)
    encoder.named(row, v.__dict__, v.__dict__.values())
    return ref


_PATH_ROW = _text_row(Tag.PATH)
_IP_ROW = _text_row(Tag.IP)
_ENCODERS: dict[tuple[str, str], Callable[[Encoder, Any], Ref]] = {
    ("datetime", "datetime"): _datetime,
    ("datetime", "date"): _date,
    ("datetime", "time"): _time,
    ("datetime", "timedelta"): _timedelta,
    ("datetime", "timezone"): _zone,
    ("zoneinfo", "ZoneInfo"): _zone,
    ("decimal", "Decimal"): _text_row(Tag.DECIMAL),
    ("fractions", "Fraction"): _fraction,
    ("uuid", "UUID"): _uuid,
    ("collections", "OrderedDict"): _ordereddict,
    ("collections", "Counter"): _counter,
    ("collections", "defaultdict"): _defaultdict,
    ("collections", "deque"): _deque,
    ("array", "array"): _array,
    ("types", "SimpleNamespace"): _namespace,
    **{("pathlib", name): _PATH_ROW for name in _PATHS},
    **{("ipaddress", name): _IP_ROW for name in _IPS},
}


def _is(kind: type, module: str, name: str) -> bool:
    """Whether `kind` is that very class, without importing its module."""
    return kind.__name__ == name and getattr(sys.modules.get(module), name, None) is kind


def encoder_for(kind: type) -> Callable[[Encoder, Any], Ref] | None:
    """Return the encoder of exactly `kind`, a class of the standard library."""
    module = kind.__module__
    if module.startswith("pathlib."):  # 3.13 and later
        module = "pathlib"
    found = _ENCODERS.get((module, kind.__name__))
    if found is not None and _is(kind, module, kind.__name__):
        return found
    return None


# ---- decoders


def _ints(row: list[Any], start: int, stop: int) -> list[int]:
    part = row[start:stop]
    if len(part) != stop - start or set(map(type, part)) != {int}:
        raise Bad("a row of numbers is malformed")
    return part


def _end(row: list[Any], length: int) -> None:
    if len(row) != length:
        raise Bad("a row has the wrong length")


def _tzinfo(builder: Builder, cell: Any) -> Any:
    import datetime

    zone = builder.cell(cell)
    if zone is not None and not isinstance(zone, datetime.tzinfo):
        raise Bad("a time zone is not one")
    return zone


def _build_datetime(builder: Builder, i: int, row: list[Any]) -> Any:
    import datetime

    _end(row, 10)
    *parts, fold = _ints(row, 1, 9)
    return datetime.datetime(*parts, tzinfo=_tzinfo(builder, row[9]), fold=fold)  # type: ignore[misc,arg-type]


def _build_date(builder: Builder, i: int, row: list[Any]) -> Any:
    import datetime

    _end(row, 4)
    return datetime.date(*_ints(row, 1, 4))


def _build_time(builder: Builder, i: int, row: list[Any]) -> Any:
    import datetime

    _end(row, 7)
    *parts, fold = _ints(row, 1, 6)
    return datetime.time(*parts, tzinfo=_tzinfo(builder, row[6]), fold=fold)  # type: ignore[misc,arg-type]


def _build_timedelta(builder: Builder, i: int, row: list[Any]) -> Any:
    import datetime

    _end(row, 4)
    return datetime.timedelta(*_ints(row, 1, 4))


def _build_timezone(builder: Builder, i: int, row: list[Any]) -> Any:
    import datetime

    offset = datetime.timedelta(*_ints(row, 1, 4))
    if len(row) == 4:
        return datetime.timezone(offset)
    _end(row, 5)
    return datetime.timezone(offset, builder.text(row[4], 256))


def _build_zoneinfo(builder: Builder, i: int, row: list[Any]) -> Any:
    import zoneinfo

    _end(row, 2)
    key = builder.text(row[1], 256)
    if not _ZONE.fullmatch(key):
        raise Bad("a time zone has a malformed name")
    try:
        return zoneinfo.ZoneInfo(key)
    except zoneinfo.ZoneInfoNotFoundError:
        raise Bad(f"the time zone {key!r} is not known here") from None


def _build_decimal(builder: Builder, i: int, row: list[Any]) -> Any:
    import decimal

    _end(row, 3)
    text = builder.text(row[2], 250_000)
    if not _NUMBER.fullmatch(text):
        raise Bad("a Decimal is malformed")
    return decimal.Decimal(text)


def _build_fraction(builder: Builder, i: int, row: list[Any]) -> Any:
    import fractions

    _end(row, 3)
    numbers = [builder.cell(cell) for cell in row[1:]]
    for number in numbers:
        if type(number) is not int or number.bit_length() > 8 * _MAX_FRACTION_BYTES:
            raise Bad("a Fraction is malformed")
        builder.charge(number.bit_length() // 16)
    return fractions.Fraction(*numbers)


def _build_uuid(builder: Builder, i: int, row: list[Any]) -> Any:
    import uuid

    _end(row, 2)
    return uuid.UUID(bytes=bytes(builder.take(row[1])))


def _build_path(builder: Builder, i: int, row: list[Any]) -> Any:
    import os
    import pathlib

    _end(row, 3)
    name = row[1]
    if name not in _PATHS:
        raise Bad("a path is of an unknown kind")
    if (name == "WindowsPath") != (os.name == "nt") and not name.startswith("Pure"):
        name = "Pure" + name  # the other system's paths cannot touch this one's files
    return getattr(pathlib, name)(builder.text(row[2], 1 << 20))


def _build_ip(builder: Builder, i: int, row: list[Any]) -> Any:
    import ipaddress

    _end(row, 3)
    if row[1] not in _IPS:
        raise Bad("an address is of an unknown kind")
    return getattr(ipaddress, row[1])(builder.text(row[2], 256))


def _build_ordereddict(builder: Builder, i: int, row: list[Any]) -> Any:
    import collections

    made: Any = builder.put(i, collections.OrderedDict())
    for key, value in builder.fill_dict({}, row, 1).items():
        made[key] = value  # dict.update would pass by its own list of keys
    return made


def _build_counter(builder: Builder, i: int, row: list[Any]) -> Any:
    import collections

    return builder.fill_dict(builder.put(i, collections.Counter()), row, 1)


def _build_defaultdict(builder: Builder, i: int, row: list[Any]) -> Any:
    import collections

    if len(row) < 2 or (row[1] is not None and row[1] not in _FACTORIES):
        raise Bad("a defaultdict has an unknown factory")
    factory = None if row[1] is None else _FACTORIES[row[1]]
    return builder.fill_dict(builder.put(i, collections.defaultdict(factory)), row, 2)


def _build_deque(builder: Builder, i: int, row: list[Any]) -> Any:
    import collections

    if len(row) < 2 or not (row[1] is None or type(row[1]) is int):
        raise Bad("a deque is malformed")
    items: Any = builder.put(i, collections.deque(maxlen=row[1]))
    items.extend(builder.cells(row, 2))
    return items


def _build_array(builder: Builder, i: int, row: list[Any]) -> Any:
    import array

    _end(row, 3)
    if row[1] not in _TYPECODES:
        raise Bad("an array is of an unknown type")
    made = array.array(row[1])
    if made.itemsize != _TYPECODES[row[1]]:
        raise Bad("an array's item size differs between job and host")
    made.frombytes(builder.take(row[2]))
    return made


def _build_namespace(builder: Builder, i: int, row: list[Any]) -> Any:
    import types

    (count,) = _ints(row, 1, 2)
    if count < 0:
        raise Bad("a namespace is malformed")
    _end(row, 2 + 2 * count)
    space = builder.put(i, types.SimpleNamespace())
    for name, cell in zip(row[2 : 2 + count], row[2 + count :], strict=True):
        space.__dict__[clean_name(name)] = builder.cell(cell)
    return space


DECODERS: dict[int, Callable[[Builder, int, list[Any]], Any]] = {
    Tag.DATETIME: _build_datetime,
    Tag.DATE: _build_date,
    Tag.TIME: _build_time,
    Tag.TIMEDELTA: _build_timedelta,
    Tag.TIMEZONE: _build_timezone,
    Tag.ZONEINFO: _build_zoneinfo,
    Tag.DECIMAL: _build_decimal,
    Tag.FRACTION: _build_fraction,
    Tag.UUID: _build_uuid,
    Tag.PATH: _build_path,
    Tag.IP: _build_ip,
    Tag.ORDEREDDICT: _build_ordereddict,
    Tag.COUNTER: _build_counter,
    Tag.DEFAULTDICT: _build_defaultdict,
    Tag.DEQUE: _build_deque,
    Tag.ARRAY: _build_array,
    Tag.NAMESPACE: _build_namespace,
}
