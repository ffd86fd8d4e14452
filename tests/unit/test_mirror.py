"""What of the host is told to each job: seen at once when it changes, cheap while it does not."""

from __future__ import annotations

import contextlib
import logging
import logging.config
import sys
import time
import types
import warnings
from collections.abc import Iterator

import pytest

from agentsbx import _mirror

# Of a release build of CPython.
DEFAULT = [
    ("default", None, DeprecationWarning, "__main__", 0),
    ("ignore", None, DeprecationWarning, None, 0),
    ("ignore", None, PendingDeprecationWarning, None, 0),
    ("ignore", None, ImportWarning, None, 0),
    ("ignore", None, ResourceWarning, None, 0),
]


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
    _mirror._shows_all = False
    try:
        with warnings.catch_warnings():
            warnings.filters[:] = DEFAULT  # type: ignore[index]
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
    assert told == (((("mirror.test", 10),), 0, False), None, False)
    assert _mirror.mirrored() == told
    log.setLevel("NOTSET")
    assert _mirror.mirrored() is None
    logging.root.setLevel(1)
    assert _mirror.mirrored() == (((("", 1),), 0, False), None, False)
    logging.root.setLevel("WARNING")
    logging.disable(30)
    assert _mirror.mirrored() == (((), 30, False), None, False)
    logging.disable(0)
    assert _mirror.mirrored() is None
    logging.config.dictConfig(
        {"version": 1, "disable_existing_loggers": False, "loggers": {"mirror.test": {"level": 5}}}
    )
    assert _mirror.mirrored() == (((("mirror.test", 5),), 0, False), None, False)
    log.setLevel(0)
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    assert _mirror.mirrored() == (((), 0, True), None, False)
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
    assert _mirror.mirrored() == (None, False, False)
    options["run:branch"] = True
    assert _mirror.mirrored() == (None, True, False)
    running.clear()
    assert _mirror.mirrored() is None


class Old(DeprecationWarning):
    """A category of a user."""


FILTERS = {
    "ignore": (False, {"action": "ignore"}),
    "ignore one message": (False, {"action": "ignore", "message": "x"}),
    "always of another": (False, {"action": "always", "category": UserWarning}),
    "error of another": (False, {"action": "error", "category": RuntimeWarning}),
    "always": (True, {"action": "always"}),
    "error of one": (True, {"action": "error", "category": ResourceWarning}),
    "error of a message": (True, {"action": "error", "message": "x"}),
    "once of a subclass": (True, {"action": "once", "category": Old}),
    "default of a module": (True, {"action": "default", "module": "x"}),
}


@pytest.mark.parametrize("how", FILTERS)
@bare()
def test_what_is_ignored_by_default_is_told_when_it_matters(how: str) -> None:
    matters, keywords = FILTERS[how]
    assert _mirror.mirrored() is None
    warnings.filterwarnings(**keywords)  # type: ignore[arg-type]
    assert _mirror.mirrored() == ((None, None, True) if matters else None)


@bare()
def test_it_is_not_taken_back() -> None:
    """Each change would make a new snapshot."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert _mirror.mirrored() == (None, None, True)
    assert _mirror.mirrored() == (None, None, True)


@bare()
def test_an_ignored_category_before_another_filter_stays_ignored() -> None:
    warnings.simplefilter("always")
    warnings.simplefilter("ignore")
    assert _mirror.mirrored() is None
    warnings.filters[:] = DEFAULT[:-1]  # type: ignore[index]
    assert _mirror.mirrored() == (None, None, True)
