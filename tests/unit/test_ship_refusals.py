"""What must not cross (rules 1.6, 1.7): named, with what to do."""

from __future__ import annotations

import random
import socket
import sqlite3
import threading
import warnings

import pytest

from _ship_peer import call
from agentsbx._ship import CaptureWarning, take_snapshot
from agentsbx.errors import SerializationError


class Pool:
    def __init__(self):
        self.size = 3
        self._lock = threading.Lock()


class Client:
    def __init__(self):
        self.pool = Pool()
        self.name = "client"


client = Client()
LIMIT = 5
OTHER = [1]


def where(fn, **options):
    with pytest.raises(SerializationError) as caught:
        take_snapshot(fn, **options)
    assert len(str(caught.value)) <= 300
    assert isinstance(caught.value, TypeError)
    return caught.value


def test_global_attribute_path():
    error = where(lambda: client.name)
    assert error.where == "global 'client'.pool._lock"
    assert "make it inside the function" in str(error)


def test_closure_default_and_nested_function():
    lock = threading.Lock()

    def inner():
        return lock

    assert where(inner).where == "closure variable 'lock'"

    def outer():
        return inner()

    assert where(outer).where == "closure variable 'inner' > closure variable 'lock'"

    def with_default(x=[lock]):  # noqa: B006
        return x

    assert where(with_default).where == "default of 'x'[0]"

    def with_keyword(*, y={"a": lock}):  # noqa: B006
        return y

    assert where(with_keyword).where == "default of 'y'['a']"


def test_files_sockets_connections(tmp_path):
    with open(tmp_path / "log.txt", "w") as file:
        error = where(lambda: file)
        assert error.where == "closure variable 'file'"
        assert "read=[" in str(error)
    sock = socket.socket()
    assert "a socket" in str(where(lambda: sock))
    sock.close()
    db = sqlite3.connect(":memory:")
    assert where(lambda: db).where == "closure variable 'db'"
    db.close()


def test_secret_of_a_hidden_variable_is_refused_by_name():
    key = "sk-very-secret-0123456789"
    holder = {"headers": [key]}
    env = {"OPENAI_API_KEY": key, "PATH": "/usr/bin:/bin", "LONG_TOKEN": "x" * 300}
    error = where(lambda: holder, hidden_env=env)
    assert "OPENAI_API_KEY" in str(error)
    assert key not in str(error)
    assert error.where == "closure variable 'holder'['headers'][0]"
    long = "x" * 300
    assert "LONG_TOKEN" in str(where(lambda: long, hidden_env=env))
    raw = key.encode()
    assert "OPENAI_API_KEY" in str(where(lambda: raw, hidden_env=env))
    error = where(lambda: "sk-very-secret-0123456789", hidden_env=env)
    assert "OPENAI_API_KEY" in str(error)
    assert key not in str(error)
    path = "/usr/bin:/bin"
    assert call(take_snapshot(lambda: path, hidden_env=env)) == path
    assert call(take_snapshot(lambda: holder, hidden_env={})) == holder


def test_captures_makes_the_list_exact():
    def f():
        return LIMIT + len(OTHER)

    error = where(f, captures=["LIMIT"])
    assert "'OTHER'" in str(error)
    assert "captures=" in str(error)
    assert call(take_snapshot(f, captures=["LIMIT", "OTHER"])) == 6
    assert "nonsense" in str(where(f, captures=["LIMIT", "OTHER", "nonsense"]))

    def dynamic():
        return eval("LIMIT")

    assert call(take_snapshot(dynamic, captures=["LIMIT"])) == 5


def test_big_captures_warn_once_and_then_fail():
    big = b"x" * 2_000_000

    def f():
        return len(big)

    with pytest.warns(CaptureWarning, match=r"'big' \(bytes, 2.0 MB\)"):
        take_snapshot(f)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take_snapshot(f)
    error = where(f, max_bytes=1_000_000)
    assert "pass it as an argument" in str(error)


def test_random_generators_warn():
    rng = random.Random(3)
    with pytest.warns(CaptureWarning, match="rng"):
        take_snapshot(lambda: rng.random())
    np = pytest.importorskip("numpy")
    gen = np.random.default_rng(1)
    with pytest.warns(CaptureWarning, match="gen"):
        take_snapshot(lambda: gen.random())


def test_too_deep_is_an_error_of_ours():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    error = where(lambda: deep)
    assert "nested too deeply" in str(error)
    while deep:
        deep = deep[0]
