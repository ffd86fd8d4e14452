"""Look-ups on the host: the interpreter's layout, and names of grants."""

from __future__ import annotations

import errno
import os
import sys
import sysconfig

import pytest

from agentsbx import _host
from agentsbx.errors import SandboxUnavailable


def test_the_layout_holds_what_an_interpreter_needs():
    layout = _host.python_layout()
    assert layout.executable == sys.executable
    assert sysconfig.get_paths()["stdlib"] in layout.sys_path
    assert os.path.dirname(layout.package) in layout.sys_path
    for path in layout.sys_path:
        real = os.path.realpath(path)
        held = [*map(os.path.realpath, layout.mounts), *_host._covered_roots()]
        if os.path.exists(path) and path != os.path.dirname(layout.package):
            assert any(real == h or real.startswith(h + "/") for h in held), path


def test_project_folders_on_the_path_do_not_travel(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path), "", *sys.path])
    layout = _host.python_layout()
    assert str(tmp_path) not in layout.sys_path
    assert "" not in layout.sys_path
    assert str(tmp_path) not in layout.mounts


def test_mounts_do_not_lie_in_each_other():
    mounts = _host.python_layout().mounts
    assert not [(a, b) for a in mounts for b in mounts if a != b and b.startswith(a + "/")]


@pytest.mark.parametrize(
    ("paths", "left"),
    [
        (["/a", "/a/b", "/a/b/c", "/ab"], ("/a", "/ab")),
        (["/b", "/a"], ("/a", "/b")),
        (["/a/", "/a"], ("/a",)),
        (["/a-b", "/a", "/a/c"], ("/a", "/a-b")),
        ([], ()),
    ],
)
def test_only_the_topmost_paths_are_kept(paths, left):
    assert _host.minimal(paths) == left


@pytest.mark.parametrize("executable", ["", "python3", "/no/such/python", "/bin/sh"])
def test_a_host_without_an_interpreter_of_its_own_is_told_so(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(SandboxUnavailable, match="not a Python interpreter"):
        _host.python_layout()


def test_an_interpreter_is_named_without_the_folders_that_a_job_does_not_have(
    monkeypatch, tmp_path
):
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/python3").symlink_to(os.path.realpath(sys.executable))
    (tmp_path / "work").mkdir()
    (tmp_path / "far/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/deep")
    (tmp_path / "far/env").symlink_to("../env")
    whole = f"{tmp_path}/env/bin/python3"
    monkeypatch.chdir(tmp_path / "work")
    for name in (
        f"{tmp_path}/work/../env/bin/python3", "../env/bin/python3", whole,
        f"{tmp_path}/link/../env/bin/python3",
    ):  # fmt: skip
        monkeypatch.setattr(sys, "executable", name)
        assert _host.python_layout().executable == whole
    assert _host.without_dots("../no/such/python3") == "../no/such/python3"


def test_library_roots_are_real_paths():
    roots = _host.library_roots()
    assert all(r == os.path.realpath(r) for r in roots)
    assert os.path.realpath(sysconfig.get_paths()["stdlib"]) in roots


def test_a_look_up_tells_which_object_a_name_is(tmp_path):
    file = tmp_path / "f"
    file.write_text("x")
    found = _host.look_up(str(file))
    st = file.stat()
    assert (found.dev, found.ino, found.uid) == (st.st_dev, st.st_ino, st.st_uid)
    assert found.is_file
    assert not _host.look_up(str(tmp_path)).is_file


def test_links_on_the_way_are_resolved(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/f").write_text("x")
    (tmp_path / "link").symlink_to("real")
    found = _host.look_up(str(tmp_path / "link/f"), follow=False)
    assert found.path == str(tmp_path / "link/f")
    assert found.real == os.path.realpath(tmp_path / "real/f")


def test_a_final_link_is_refused_unless_asked_for(tmp_path):
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="symbolic link") as raised:
        _host.look_up(str(tmp_path / "link"), follow=False)
    assert raised.value.errno == errno.ELOOP
    assert _host.look_up(str(tmp_path / "link")).real == os.path.realpath(tmp_path / "real")


def test_names_that_are_not_there_are_said_to_be(tmp_path):
    for name in ("missing", "missing/deeper"):
        with pytest.raises(FileNotFoundError):
            _host.look_up(str(tmp_path / name))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        _host.look_up(str(tmp_path / "loop"))
