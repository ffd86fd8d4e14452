"""Other interpreters and libraries for a tool: what `python=` and `packages=` mean on this host.

Read off the file system alone. The other interpreter never runs outside a sandbox: a job of an
earlier call may have been able to write where it lies. Nothing is shown but what belongs to a
Python installation, and no link at the top of it is followed, for the same reason.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from agentsbx import _host
from agentsbx._host import Layout
from agentsbx.errors import PolicyError

if TYPE_CHECKING:
    from agentsbx.policy import Policy

__all__ = ["OWN", "bin_folder", "for_command", "for_functions"]

OWN = "/.agentsbx"  # where this package and what it imports stand in such a template
_NEEDED = ("msgspec", "cloudpickle")
_MAX_CFG = 64 * 1024
_MAX_KEPT = 32
_LIBS = ("lib", "lib64")
# Debian's system Python looks in places that no rule of CPython's tells.
_DEBIAN = ("/usr/local/lib/python{}/dist-packages", "/usr/lib/python3/dist-packages")


class _Found(NamedTuple):
    """One interpreter as it lies on the disk."""

    executable: str
    version: str  # of its folders: "3.11", "3.13t"
    stdlib: str
    sites: tuple[str, ...]
    mounts: tuple[str, ...]
    read: tuple[str, ...]  # files that all this was read from


def for_functions(policy: Policy) -> Layout:
    """Return the layout that functions under this policy run in.

    The same object as before while nothing that it was read from has changed. Raises `PolicyError`
    for a path that is missing or means no interpreter, and for an interpreter of another version.
    """
    if not policy.python and not policy.packages:
        return _host.python_layout()
    return _kept(policy.python, policy.packages, of_command=False)


def for_command(policy: Policy) -> Layout | None:
    """Return the layout that commands under this policy are shown, of whatever version.

    None: that of this program, where it has one. Raises `PolicyError` as `for_functions` does, and
    for `packages=`, which no command would find.
    """
    if policy.packages:
        raise PolicyError(
            "packages= is for functions: a command would not find them",
            path="packages",
            hint='grant the folder with read=[...] and set env={"PYTHONPATH": ...}',
        )
    return _kept(policy.python, (), of_command=True) if policy.python else None


def bin_folder(python: str) -> str:
    """Return the folder of the interpreter that `python=` names."""
    return os.path.join(python, "bin") if os.path.isdir(python) else os.path.dirname(python)


_layouts: OrderedDict[tuple[object, ...], Layout] = OrderedDict()


def _kept(python: str, packages: tuple[str, ...], *, of_command: bool) -> Layout:
    base = None if python else _host.python_layout()
    key = python, packages, of_command, base
    known = _layouts.get(key)
    if known is not None and known.is_unchanged():
        return known
    for folder in packages:
        _check_folder(folder)
    if base is not None:
        made = _beside(base, packages)
    else:
        found = _find(python)
        if not of_command:
            _check_version(python, found.version)
        made = _instead(found, packages)
    _layouts[key] = made
    while len(_layouts) > _MAX_KEPT:
        _layouts.popitem(last=False)
    return made


def _beside(base: Layout, packages: tuple[str, ...]) -> Layout:
    """Return this program's own layout with folders that are searched before its packages."""
    path = [p for p in base.sys_path if p != os.path.dirname(base.package) or _host.is_site(p)]
    first = next((i for i, p in enumerate(path) if _host.is_site(p)), len(path))
    folders = (*packages, *path[first:])
    mounts = _host.minimal((*base.mounts, *packages))
    return _layout(base.executable, base.version, path[:first], folders, mounts, packages)


def _instead(found: _Found, packages: tuple[str, ...]) -> Layout:
    """Return the layout of another interpreter."""
    digits = found.version.replace(".", "").rstrip("t")
    stdlib = [os.path.join(os.path.dirname(found.stdlib), f"python{digits}.zip"), found.stdlib]
    stdlib.append(os.path.join(found.stdlib, "lib-dynload"))
    folders = (*packages, *found.sites)
    mounts = _host.minimal(
        p for p in (*found.mounts, *folders) if not _host.is_covered(os.path.realpath(p))
    )
    read = (*found.read, *folders)
    return _layout(found.executable, found.version, stdlib, folders, mounts, read)


def _layout(
    executable: str,
    version: str,
    stdlib: list[str],
    folders: tuple[str, ...],
    mounts: tuple[str, ...],
    read: tuple[str, ...],
) -> Layout:
    from importlib.util import find_spec

    package = os.path.dirname(os.path.abspath(__file__))
    own = [(f"{OWN}/agentsbx", package)]
    for name in _NEEDED:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            own.append((f"{OWN}/{name}", spec.submodule_search_locations[0]))
    marks = [mark for path in read if (mark := _host.mark(path)) is not None]
    return Layout(
        executable, version, (*stdlib, *folders, OWN), mounts, package,
        folders=folders, own=tuple(own), marks=tuple(marks),
    )  # fmt: skip


# -- reading an installation ----------------------------------------------------------------------


def _find(python: str) -> _Found:
    executable = _executable(python)
    real = os.path.realpath(executable)
    if not re.match(r"python\d?", os.path.basename(real)):
        raise _wrong(python, f"{real!r} is not a Python interpreter", "name a CPython interpreter")
    folder = os.path.dirname(os.path.dirname(executable))
    cfg = os.path.join(folder, "pyvenv.cfg")
    settings = _read_cfg(python, cfg)
    behind = os.path.dirname(real)
    homes = [os.path.dirname(p) for p in dict.fromkeys((settings.get("home", behind), behind))]
    homes = [home for home in homes if _stdlibs(home)]
    version, stdlib = _stdlib(python, real, homes)
    sites = _sites(folder, version)
    if not settings or settings.get("include-system-site-packages", "").lower() == "true":
        sites += [site for site in _sites(homes[0], version) if site not in sites]
        if homes[0] == "/usr":
            sites += [p.format(version) for p in _DEBIAN if os.path.isdir(p.format(version))]
    shown = [os.path.join(f, n) for f in (folder, *homes) for n in ("bin", *_LIBS)]
    mounts = [p for p in shown if os.path.isdir(p) and not os.path.islink(p)]
    mounts += [cfg] if settings else []
    read = executable, *((cfg,) if settings else ()), stdlib
    return _Found(executable, version, stdlib, tuple(sites), tuple(mounts), read)


def _executable(python: str) -> str:
    """Return the interpreter that `python=` names, or that the environment it names holds."""
    found = python
    if os.path.isdir(python):
        names = [os.path.join(python, "bin", name) for name in ("python", "python3")]
        found = next((name for name in names if os.path.exists(name)), names[0])
    if not os.path.exists(found):
        raise _wrong(
            python,
            f"there is no {found!r}" if found != python else "there is no such file or directory",
            "name an interpreter or the folder of a virtual environment",
        )
    if not os.path.isfile(found) or not os.access(found, os.X_OK):
        raise _wrong(python, "this is not an executable file", "name a CPython interpreter")
    return found


def _read_cfg(python: str, path: str) -> dict[str, str]:
    """Return what a virtual environment says of itself; nothing where it is none."""
    if os.path.islink(path):
        raise _wrong(python, f"{path!r} is a symbolic link", "make the environment anew")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_MAX_CFG).splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _wrong(python, f"cannot read {path!r}: {error.strerror}", "correct that") from None
    parts = (line.partition("=") for line in lines)
    return {key.strip().lower(): value.strip() for key, equals, value in parts if equals}


def _stdlibs(home: str) -> dict[str, str]:
    """Return the standard libraries of an installation, by version."""
    found: dict[str, str] = {}
    for lib in _LIBS:
        folder = os.path.join(home, lib)
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            match = re.fullmatch(r"python(\d+\.\d+t?)", name)
            if match and os.path.isfile(os.path.join(folder, name, "os.py")):
                found.setdefault(match[1], os.path.join(folder, name))
    return found


def _stdlib(python: str, real: str, homes: list[str]) -> tuple[str, str]:
    """Return version and standard library of the interpreter whose file is `real`."""
    named = re.fullmatch(r"python(\d+\.\d+t?)", os.path.basename(real))
    for home in homes:
        libraries = _stdlibs(home)
        if named is not None and named[1] in libraries:
            return named[1], libraries[named[1]]
        if named is None and len(libraries) == 1:
            return next(iter(libraries.items()))
    raise _wrong(
        python,
        f"no standard library of CPython belongs to {real!r}",
        "name the interpreter by its version: bin/python3.11",
    )


def _sites(folder: str, version: str) -> list[str]:
    """Return the folders for packages of an installation; one that is reached twice once."""
    names = [os.path.join(folder, lib, f"python{version}", "site-packages") for lib in _LIBS]
    found: dict[str, str] = {}
    for name in names:
        if os.path.isdir(name):
            found.setdefault(os.path.realpath(name), name)
    return list(found.values())


# -- refusals -------------------------------------------------------------------------------------


def own_version() -> str:
    """Return the X.Y of this program, with a t where it is free-threaded."""
    threads = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    return f"{sys.version_info[0]}.{sys.version_info[1]}{threads}"


def _check_version(python: str, version: str) -> None:
    own = own_version()
    if version != own:
        raise _wrong(
            python,
            f"it is Python {version}, this program Python {own}, and code crosses compiled",
            f"make it with python{own}, or run a command in it: agentsbx.run([...], python=...)",
        )


def _check_folder(path: str) -> None:
    try:
        found = _host.look_up(path, follow=False)
    except FileNotFoundError:
        raise PolicyError(
            f"packages={path!r}: there is no such file or directory",
            path="packages",
            hint="create it before the call, or take it out of the policy",
        ) from None
    except OSError as error:
        raise PolicyError(f"packages={path!r}: {error.strerror}", path="packages") from None
    if found.is_file:
        raise PolicyError(
            f"packages={path!r}: this is not a folder",
            path="packages",
            hint="name the folder that holds the packages, like site-packages",
        )


def _wrong(python: str, why: str, hint: str) -> PolicyError:
    return PolicyError(f"python={python!r}: {why}", path="python", hint=hint)
