"""Which modules a zygote imports ahead."""

from __future__ import annotations

import decimal
import functools
import json
import os
import pickle

import pytest

from agentsbx import _preload


def wanted(fn, *values, explicit=(), has_env=False):
    blobs = [pickle.dumps(v, protocol=5) for v in values]
    return _preload.wanted(fn, blobs, explicit, has_env=has_env)


def uses_json(text):
    return json.loads(text)


def imports_inside():
    import statistics

    return statistics.mean([1])


def test_imports_of_a_body_are_found():
    import statistics  # noqa: F401 - only modules that the host has loaded count

    found = wanted(imports_inside)
    assert "statistics" in found.names
    assert found.packages == frozenset()


def test_names_of_inner_functions_are_found():
    def outer():
        def inner():
            import statistics

            return statistics

        return inner

    assert "statistics" in wanted(outer).names


def test_names_of_the_pickle_are_found():
    assert "decimal" in wanted(uses_json, __import__("decimal").Decimal(1)).names


@pytest.mark.parametrize("wrap", [functools.partial, lambda fn: type("T", (), {"m": fn})().m])
def test_partials_and_methods_are_looked_into(wrap):
    assert "json" in wanted(wrap(uses_json)).names


def test_stdlib_alone_does_not_decide_over_the_template():
    assert wanted(uses_json).packages == frozenset()


def test_installed_packages_do():
    pytest.importorskip("msgspec")

    def fn():
        import msgspec

        return msgspec

    found = wanted(fn)
    assert "msgspec" in found.packages
    assert "msgspec" in found.names


def test_with_granted_variables_no_package_is_imported_ahead():
    pytest.importorskip("msgspec")

    def fn():
        import msgspec

        return msgspec

    assert wanted(fn, has_env=True).packages == frozenset()
    assert wanted(fn, explicit=["msgspec"], has_env=True).packages == {"msgspec"}


def test_names_that_the_host_has_not_loaded_are_left_out():
    def fn():
        import no_such_module_anywhere

        return no_such_module_anywhere

    assert "no_such_module_anywhere" not in wanted(fn).names


@pytest.mark.parametrize("name", ["sys", "builtins", "agentsbx", "__main__"])
def test_some_are_never_imported_ahead(name):
    assert name not in wanted(uses_json, name).names


def test_long_pickles_are_not_read(monkeypatch):
    monkeypatch.setattr(_preload, "_MAX_SCAN", 10)
    assert wanted(None, "decimal and much more text").names == ()


def test_order_is_stable():
    one = wanted(uses_json, "decimal", "csv", "ast")
    other = wanted(uses_json, "ast", "decimal", "csv")
    assert one == other
    assert list(one[1]) == sorted(one[1])


def test_callables_without_code_are_fine():
    assert wanted(len).names == ()


def uses_numbers(x):
    return decimal.Decimal(x)


def test_guess_knows_the_modules_of_names():
    assert "json" in _preload.guess(uses_json).names
    assert "decimal" in _preload.guess(uses_numbers).names
    assert _preload.guess(uses_numbers).packages == frozenset()


def test_guess_finds_packages_and_where_a_name_comes_from():
    msgspec = pytest.importorskip("msgspec")
    names = {"Struct": msgspec.Struct, "decimal": decimal}

    def fn():
        return Struct, decimal  # noqa: F821

    found = _preload.guess(type(fn)(fn.__code__, names))
    assert found.packages == {"msgspec"}
    assert "decimal" in found[1]


def test_guess_leaves_project_code_and_the_unknown_out():
    names = {"uses_json": uses_json, "sys": __import__("sys")}

    def fn():
        return uses_json, sys, nothing_at_all  # noqa: F821

    assert _preload.guess(type(fn)(fn.__code__, names)).names == ()


@pytest.mark.parametrize("fn", [len, None, functools.partial(uses_json), object()])
def test_guess_of_anything(fn):
    assert _preload.guess(fn).packages == frozenset()


def test_of_libraries_that_lie_elsewhere_only_the_hosts_own_files_are_imported_ahead(tmp_path):
    import pluggy

    def tool():
        import pluggy

        return pluggy

    site = os.path.dirname(os.path.dirname(pluggy.__file__))
    other = tmp_path / "other"
    (other / "pluggy").mkdir(parents=True)
    (other / "pluggy" / "__init__.py").write_text("")

    def packages(*folders, explicit=()):
        return _preload.wanted(tool, [], explicit, has_env=False, folders=folders).packages

    assert _preload.wanted(tool, [], (), has_env=False).packages == {"pluggy"}
    assert packages(site) == {"pluggy"}
    assert packages(str(other), site) == packages(str(other)) == packages() == frozenset()
    assert packages(explicit=["pluggy"]) == {"pluggy"}
