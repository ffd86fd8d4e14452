"""What of the host is told to each job: seen at once when it changes, cheap while it does not."""

from __future__ import annotations

import contextlib
import logging
import logging.config
import sys
import time
import types
from collections.abc import Iterator

import pytest

from agentsbx import _mirror


@contextlib.contextmanager
def bare() -> Iterator[None]:
    """Log as a program does that has configured nothing, and measures nothing.

    Not a fixture: pytest adds its handlers when the fixtures are made.
    """
    coverage = sys.modules.pop("coverage", None)
    handlers, logging.root.handlers = logging.root.handlers, []
    loggers = [v for v in logging.root.manager.loggerDict.values() if isinstance(v, logging.Logger)]
    before = [(logger, logger.level) for logger in (logging.root, *loggers)]
    for logger, _ in before:
        logger.setLevel(logging.NOTSET)
    logging.root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logging.root.handlers = handlers
        for logger, level in before:
            logger.setLevel(level)
        if coverage is not None:
            sys.modules["coverage"] = coverage


@bare()
def test_nothing_is_told_where_nothing_was_configured() -> None:
    assert _mirror.mirrored() is None
    logging.getLogger("mirror.test.other")
    assert _mirror.mirrored() is None


@bare()
def test_levels_are_seen_at_once() -> None:
    log = logging.getLogger("mirror.test")
    log.setLevel("DEBUG")
    told = _mirror.mirrored()
    assert told == (((("mirror.test", 10),), 0, False), None)
    assert _mirror.mirrored() == told
    log.setLevel("NOTSET")
    assert _mirror.mirrored() is None
    logging.root.setLevel(1)
    assert _mirror.mirrored() == (((("", 1),), 0, False), None)
    logging.root.setLevel("WARNING")
    logging.disable(30)
    assert _mirror.mirrored() == (((), 30, False), None)
    logging.disable(0)
    assert _mirror.mirrored() is None
    logging.config.dictConfig(
        {"version": 1, "disable_existing_loggers": False, "loggers": {"mirror.test": {"level": 5}}}
    )
    assert _mirror.mirrored() == (((("mirror.test", 5),), 0, False), None)
    log.setLevel(0)
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    assert _mirror.mirrored() == (((), 0, True), None)
    logging.root.removeHandler(handler)
    assert _mirror.mirrored() is None


@bare()
def test_a_thousand_loggers_cost_nothing_while_they_stay() -> None:
    made = [logging.getLogger(f"mirror.many.{i}") for i in range(1000)]
    for logger in made:
        logger.setLevel(10)
    try:
        first = _mirror.mirrored()
        assert first is not None
        assert len(first[0][0]) == 1000
        start = time.perf_counter()
        for _ in range(1000):
            assert _mirror.mirrored()
        assert (time.perf_counter() - start) / 1000 < 20e-6
    finally:
        for logger in made:
            logger.setLevel(0)


@bare()
def test_measuring_is_told_in_lines_or_arcs(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"run:branch": False}
    running = [types.SimpleNamespace(get_option=options.get)]
    kind = types.SimpleNamespace(current=lambda: running[-1] if running else None)
    monkeypatch.setitem(sys.modules, "coverage", types.SimpleNamespace(Coverage=kind))  # type: ignore[arg-type]
    assert _mirror.mirrored() == (None, False)
    options["run:branch"] = True
    assert _mirror.mirrored() == (None, True)
    running.clear()
    assert _mirror.mirrored() is None
