"""`import` of project modules inside a job (rules 1.3, 1.4), and modules as globals."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types

import pytest

from _ship_peer import Job, JobError
from agentsbx._ship import take_snapshot
from agentsbx._ship_modules import is_library_module


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own on `sys.path`; gives a function that writes files and imports a name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(files, *names):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        return [importlib.import_module(name) for name in names]

    yield write
    for name in set(sys.modules) - before:
        if not getattr(sys.modules[name], "__file__", None) or str(tmp_path) in str(
            getattr(sys.modules[name], "__file__", "")
        ):
            del sys.modules[name]


HELPERS = """
import threading
import json
RAN = []
RAN.append(1)
VALUE = 3
API_KEY = "not-an-environment-value"
lock = threading.Lock()
class Thing:
    def __init__(self, v): self.v = v
    def get(self): return self.v + VALUE
def make(v): return Thing(v)
def set_value(v):
    global VALUE
    VALUE = v
"""


def test_module_as_global_ships_what_is_used_and_serves_the_rest(project):
    (main,) = project(
        {
            "shp_helpers.py": HELPERS,
            "shp_main.py": """
import shp_helpers
def f(x):
    thing = shp_helpers.make(x)
    other = getattr(shp_helpers, "Th" + "ing")
    shp_helpers.set_value(10)
    return thing.get(), type(thing) is other, shp_helpers.VALUE, shp_helpers.json.dumps([1])
def g():
    return shp_helpers.make(1).get()
""",
        },
        "shp_main",
    )
    snapshot = take_snapshot(main.f)
    assert b"not-an-environment-value" not in snapshot.blob
    with Job(snapshot) as job:
        assert job(1) == (11, True, 10, "[1]")
        assert job.served == []  # set_value() and make() had brought all of it
    with Job(main.g) as job:
        assert job() == 4
        assert job.served == []


def test_import_inside_gives_the_shipped_classes_and_never_runs_the_body(project):
    main, helpers = project(
        {
            "shp_helpers.py": HELPERS + "with open(__file__ + '.ran', 'a') as f: f.write('x')\n",
            "shp_main.py": """
from shp_helpers import Thing
def f(thing):
    import shp_helpers
    from shp_helpers import Thing as Again, make
    assert Again is Thing and isinstance(thing, Again) and isinstance(make(1), Thing)
    assert Thing.__module__ == "shp_helpers" and sys.modules["shp_helpers"].Thing is Thing
    names = dir(shp_helpers)
    assert "lock" in names and "VALUE" in names
    assert not hasattr(shp_helpers, "absent")
    return shp_helpers.RAN, shp_helpers.make(1).get(), shp_helpers.__file__
import sys
def locked():
    from shp_helpers import lock
    return lock
def key():
    import shp_helpers
    return shp_helpers.API_KEY
""",
        },
        "shp_main",
        "shp_helpers",
    )
    with open(helpers.__file__ + ".ran") as file:
        assert file.read() == "x"
    with Job(main.f) as job:
        assert job(helpers.Thing(1)) == ([1], 4, helpers.__file__)
        assert "shp_helpers" in job.served
        assert "shp_helpers:RAN" in job.served
    with open(helpers.__file__ + ".ran") as file:
        assert file.read() == "x"
    with Job(main.locked) as job, pytest.raises(JobError) as caught:
        job()
    kind, words, _ = caught.value.args
    assert kind == "TypeError"
    assert "module attribute shp_helpers.lock" in words
    assert "lock" in words
    with Job(main.key) as job, pytest.raises(JobError, match="looks like a secret"):
        job()


def test_module_that_the_host_has_not_loaded_is_served_as_source(project):
    (main,) = project(
        {
            "shp_main.py": """
def f():
    import shp_pkg.sub.deep as deep
    from shp_pkg import sub
    import shp_pkg
    import shp_space.part
    return (deep.who(), sub.NAME, shp_pkg.__path__, shp_pkg.__file__, shp_space.part.X,
            deep.__spec__.origin, deep.__package__)
def missing():
    import shp_nothing
def broken():
    import shp_broken
""",
            "shp_pkg/__init__.py": "from . import sub\n",
            "shp_pkg/sub/__init__.py": "NAME = __name__\n",
            "shp_pkg/sub/deep.py": "from .. import sub\ndef who(): return (__name__, sub.NAME)\n",
            "shp_space/part.py": "X = 5\n",
            "shp_broken.py": "raise ValueError('body ran')\n",
        },
        "shp_main",
    )
    with Job(main.f) as job:
        who, name, path, file, x, origin, package = job()
        assert who == ("shp_pkg.sub.deep", "shp_pkg.sub")
        assert name == "shp_pkg.sub"
        assert path == []
        assert file.endswith("shp_pkg/__init__.py")
        assert x == 5
        assert origin.endswith("deep.py")
        assert package == "shp_pkg.sub"
        assert "shp_pkg.sub.deep" in job.served
        assert "shp_space" in job.served
    assert not any(name.startswith(("shp_pkg", "shp_space")) for name in sys.modules)
    with Job(main.missing) as job, pytest.raises(JobError, match="No module named 'shp_nothing'"):
        job()
    with Job(main.broken) as job, pytest.raises(JobError) as caught:
        job()
    assert caught.value.args[0] == "ValueError"
    assert "shp_broken.py" in caught.value.args[2]


def test_submodule_not_loaded_of_a_loaded_package(project):
    (main, _) = project(
        {
            "shp_main.py": """
import shp_half
def f():
    import shp_half.late
    from shp_half import later
    return shp_half.late.X, later.Y, shp_half.early()
""",
            "shp_half/__init__.py": "def early(): return 'early'\n",
            "shp_half/late.py": "from shp_half import early\nX = early() + '!'\n",
            "shp_half/later.py": "from .late import X as Y\n",
        },
        "shp_main",
        "shp_half",
    )
    with Job(main.f) as job:
        assert job() == ("early!", "early!", "early")


def test_packages_with_loaded_submodules_and_star_imports(project):
    main, _ = project(
        {
            "shp_main.py": """
import shp_full.sub
from shp_full import sub as direct
def f():
    space = {}
    exec("from shp_full.sub import *", space)
    import shp_full.sub as again
    return shp_full.sub.g(), direct is shp_full.sub is again, space["g"]() , "_private" in space
""",
            "shp_full/__init__.py": "",
            "shp_full/sub.py": "_private = 1\ndef g(): return 4\n",
        },
        "shp_main",
        "shp_full.sub",
    )
    with Job(main.f) as job:
        assert job() == (4, True, 4, False)


def test_module_getattr_hook_runs_in_the_job_not_on_the_host(project):
    (main, mod) = project(
        {
            "shp_main.py": "import shp_lazy\ndef f(): return shp_lazy.anything, shp_lazy.other\n",
            "shp_lazy.py": (
                "calls = []\ndef __getattr__(name):\n"
                "    if name[:2] == '__': raise AttributeError(name)\n"
                "    calls.append(name)\n    return name.upper()\n"
            ),
        },
        "shp_main",
        "shp_lazy",
    )
    with Job(main.f) as job:
        assert job() == ("ANYTHING", "OTHER")
    assert mod.calls == []


def test_hostile_names_and_floods_are_refused():
    stream = take_snapshot(lambda: 1).begin_call((), {})
    for name in ("../etc/passwd", "a..b", "", ".", "a" * 300, "a.b:c.d", "os:path\0", "x:", "/etc"):
        assert stream.module_reply(name) == (b"N", [])
    assert stream.module_reply("os:environ")[0] == b"N"
    assert stream.module_reply("agentsbx._ship")[0] == b"N"
    assert stream.module_reply("json.decoder")[0] == b"N"
    assert stream.served == []
    for _ in range(10_000):
        stream.module_reply("nosuch")
    assert stream.module_reply("nosuch")[0][:1] == b"E"


def test_refused_attribute_does_not_disturb_the_pickle(project, monkeypatch):
    secret = "sk-abcdef-0123456789"
    (main, _) = project(
        {
            "shp_main.py": """
def f():
    import shp_sec
    for name in ("config", "bad"):
        try:
            getattr(shp_sec, name)
        except TypeError as e:
            words = str(e)
    return shp_sec.K().v, isinstance(shp_sec.k, shp_sec.K), words
""",
            "shp_sec.py": (
                "class K: v = 5\nk = K()\nimport _thread\n"
                f"config = [k, K, {secret!r}]\nbad = [k, K, _thread.allocate_lock()]\n"
            ),
        },
        "shp_main",
        "shp_sec",
    )
    with Job(take_snapshot(main.f, hidden_env={"MY_TOKEN": secret})) as job:
        v, same, words = job()
    assert v == 5
    assert same
    assert "shp_sec.bad" in words


def test_links_in_the_project_do_not_make_the_host_read_elsewhere(project, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret.py").write_text("KEY = 'elsewhere'\n")
    (tmp_path / "shp_link.py").symlink_to(outside / "secret.py")
    (tmp_path / "shp_linkpkg").symlink_to(outside)
    (tmp_path / "shp_file.py").mkdir()
    project({})
    stream = take_snapshot(lambda: 1).begin_call((), {})
    for name in ("shp_link", "shp_linkpkg.secret"):
        reply, _ = stream.module_reply(name)
        assert reply[:1] == b"E"
        assert b"elsewhere" not in reply
    assert stream.module_reply("shp_file")[0] == b"N"


def test_editable_install_by_a_finder(tmp_path, monkeypatch):
    source = tmp_path / "src" / "shp_edit"
    source.mkdir(parents=True)
    (source / "__init__.py").write_text("from .core import run\n")
    (source / "core.py").write_text("def run():\n    from . import extra\n    return extra.X\n")
    (source / "extra.py").write_text("X = 'extra'\n")

    class Editable:
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            if name != "shp_edit":
                return None
            return importlib.util.spec_from_file_location(
                name, source / "__init__.py", submodule_search_locations=[str(source)]
            )

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module("shp_edit")
    try:
        with Job(module.run) as job:
            assert job() == "extra"
            assert job.served == ["shp_edit", "shp_edit.extra"]
    finally:
        for name in [n for n in sys.modules if n.startswith("shp_edit")]:
            del sys.modules[name]


def test_what_is_a_library():
    import json

    numpy = pytest.importorskip("numpy")
    assert is_library_module(json)
    assert is_library_module(sys)
    assert is_library_module(numpy)
    assert is_library_module(sys.modules["agentsbx"])
    assert not is_library_module(sys.modules[__name__])
    assert not is_library_module(types.ModuleType("in_memory"))


def test_project_directories_do_not_stand_in_a_job(project, tmp_path):
    (main,) = project(
        {"shp_main.py": "def f():\n    import sys\n    return sys.path\n"}, "shp_main"
    )
    with Job(main.f) as job:
        assert str(tmp_path) not in job()


def test_readable_project_directory_does_not_run_bodies_again(project, tmp_path):
    (main, _) = project(
        {
            "shp_main.py": """
def f(directory):
    import sys
    sys.path.insert(0, directory)
    import shp_once
    return shp_once.where()
""",
            "shp_once.py": "import sys\nif '-I' in sys.orig_argv: raise ValueError\n"
            "def where(): return 'host'\n",
        },
        "shp_main",
        "shp_once",
    )
    with Job(main.f) as job:
        assert job(str(tmp_path)) == "host"


def test_script_functions(tmp_path):
    import subprocess

    import _ship_peer

    tests = os.path.dirname(_ship_peer.__file__)
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path[:0] = [{_ship_peer.ROOT!r}, {tests!r}]\n"
        "from _ship_peer import call\n"
        "class A: pass\nN = 4\n"
        "def f(a):\n    import __main__\n"
        "    return isinstance(a, A), N, __main__.A is A, __name__\n"
        "if __name__ == '__main__':\n    print(call(f, A()))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd="/")
    assert done.stdout == "(True, 4, True, '__main__')\n", done.stderr
    text = script.read_text()
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd="/")
    assert done.stdout == "(True, 4, True, '__main__')\n", done.stderr
