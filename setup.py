"""Build of agentsbx: the extension `agentsbx._core` and the program `_bin/agentsbx-launcher`.

Everything that is not C lies in pyproject.toml. Environment variables:

    AGENTSBX_BUILD   release (default), debug, asan, cov, or ci (release with -Werror)
    AGENTSBX_NO_EXT  1: leave the C parts out, as on macOS and Windows; a sandboxed call then raises
                     SandboxUnavailable

One set of objects serves both results, each compiled once and again only when its source or one of
the headers that it read has changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE_FOLDERS = ("base", "plan", "child", "spawn", "job", "py")
LAUNCHER_FOLDERS = ("base", "plan", "child", "spawn", "job", "reaper", "supervisor")
# The filter compiler runs in the host alone: the launcher does without it.
LAUNCHER_EXCLUDE = ("csrc/plan/filter.c",)
LAUNCHER = "agentsbx/_bin/agentsbx-launcher"
ABI = "cp311"

MODES: dict[str, list[str]] = {
    "release": ["-O2", "-g"],
    "ci": ["-O2", "-g", "-Werror"],
    "debug": ["-O0", "-g3", "-UNDEBUG"],
    "asan": [
        "-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
    ],
    "cov": ["-O0", "-g", "-UNDEBUG", "--coverage"],
}  # fmt: skip
MODE_LINK: dict[str, list[str]] = {
    "asan": ["-fsanitize=address,undefined"],
    "cov": ["--coverage"],
}
WARNINGS = [
    "-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wvla",
    "-Wwrite-strings", "-Wpointer-arith", "-Wswitch-enum", "-Wundef", "-Wformat=2",
    "-Wno-unused-parameter", "-Wno-missing-field-initializers",
]  # fmt: skip
# Each of these is tried: a compiler that does not know one builds without it.
HARDEN = [
    "-fstack-protector-strong", "-fstack-clash-protection", "-ftrivial-auto-var-init=zero",
    "-fno-delete-null-pointer-checks", "-fno-strict-aliasing", "-fcf-protection=full",
    "-mbranch-protection=standard",
]  # fmt: skip
HARDEN_LINK = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,--as-needed"]

IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
HAS_EXT = sys.platform == "linux" and os.environ.get("AGENTSBX_NO_EXT", "") in ("", "0")


def build_mode() -> str:
    """Return the build mode that the environment asks for."""
    mode = os.environ.get("AGENTSBX_BUILD") or "release"
    if mode not in MODES:
        raise SystemExit(f"AGENTSBX_BUILD={mode}: not one of {', '.join(MODES)}")
    return mode


def c_files(folders: tuple[str, ...], exclude: tuple[str, ...] = ()) -> list[str]:
    """List the C files of some folders of csrc/, as setuptools wants them: relative, sorted."""
    found = [p.as_posix() for f in folders for p in sorted(Path("csrc", f).glob("*.c"))]
    return [p for p in found if p not in exclude]


class BuildExt(build_ext):
    """Compile with dependency files and in parallel; link the launcher beside the extension."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # Objects of different modes must not meet, nor those of different interpreters.
        flavour = f"{build_mode()}-{sys.implementation.cache_tag}"
        self.build_temp = os.path.join(self.build_temp, flavour)

    def run(self) -> None:
        import fcntl  # Linux only; this file is read on other systems too

        self.force = True  # compile_changed() knows better what is fresh, the mode included
        Path(self.build_temp).mkdir(parents=True, exist_ok=True)
        with open(Path(self.build_temp, ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two builds of one tree take turns
            super().run()
            built = self.link_launcher()
            root = Path(".") if self.inplace else Path(self.build_lib)
            install_file(built, root / LAUNCHER, 0o755)

    def copy_file(self, infile: Any, outfile: Any, *args: Any, **kwargs: Any) -> Any:
        """Copy a built extension into the source tree (editable installs)."""
        install_file(Path(infile), Path(outfile), 0o755)
        return outfile, True

    def build_extensions(self) -> None:
        self.cc = list(self.compiler.linker_exe[:1]) or ["cc"]
        mode = build_mode()
        probe = Probe(self.cc)
        flags = ["-std=gnu17", "-fvisibility=hidden", "-fPIC", "-ffunction-sections"]
        flags += WARNINGS + MODES[mode]
        flags += [f for f in HARDEN if probe.compiles(f)]
        if mode in ("release", "ci"):
            flags += next(
                (d for n in (3, 2) if probe.compiles(*(d := fortify(n)), "-O2")),
                [],
            )
        self.sbx_link = [f for f in HARDEN_LINK if probe.links(f)] + MODE_LINK.get(mode, [])
        for ext in self.extensions:
            ext.extra_compile_args = flags
            ext.extra_link_args = [*self.sbx_link, *ext.extra_link_args]
        self.sbx_flags = flags
        self.sbx_probe = probe
        self.compiler.compile = self.compile_changed
        super().build_extensions()

    def compile_changed(
        self,
        sources: list[str],
        output_dir: str | None = None,
        macros: list[Any] | None = None,
        include_dirs: list[str] | None = None,
        extra_postargs: list[str] | None = None,
        **_ignored: Any,
    ) -> list[str]:
        """Stand in for the compiler's own method, which recompiles everything every time."""
        out = Path(output_dir or self.build_temp)
        defines = [f"-D{name}={value}" if value is not None else f"-D{name}"
                   for name, value in macros or []]  # fmt: skip
        # As system headers: our warnings are not about Python's.
        dirs = [*(include_dirs or []), *self.compiler.include_dirs]
        includes = [word for d in dict.fromkeys(dirs) for word in ("-isystem", d)]
        base = [*self.compiler.compiler_so, *defines, *includes]
        jobs: list[tuple[Path, list[str]]] = []
        objects: list[str] = []
        for source in sources:
            obj = out / Path(source).with_suffix(".o")
            command = [*base, "-MMD", "-c", source, "-o", str(obj), *(extra_postargs or [])]
            objects.append(str(obj))
            if not is_fresh(obj, command):
                jobs.append((obj, command))
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(lambda job: self.compile_one(*job), jobs))
        return objects

    def compile_one(self, obj: Path, command: list[str]) -> None:
        obj.parent.mkdir(parents=True, exist_ok=True)
        stamp = obj.with_suffix(".cmd")
        stamp.unlink(missing_ok=True)
        self.spawn(command)
        stamp.write_text("\0".join([*command, *inputs_of(obj)]))

    def link_launcher(self) -> Path:
        """Link the program: static-PIE where the libc has the pieces, else an ordinary PIE."""
        ext = self.extensions[0]
        sources = c_files(LAUNCHER_FOLDERS, LAUNCHER_EXCLUDE)
        # The same command line as for the extension, so that shared objects are compiled once.
        objects = self.compile_changed(
            sources,
            output_dir=self.build_temp,
            macros=ext.define_macros,
            extra_postargs=ext.extra_compile_args,
        )
        static = build_mode() not in MODE_LINK and self.sbx_probe.runs("-static-pie", "-fPIE")
        kind = "-static-pie" if static else "-pie"
        target = Path(self.build_temp, "agentsbx-launcher")
        command = [*self.cc, kind, "-o", str(target), *objects, *self.sbx_link, "-Wl,--gc-sections"]
        stamp = target.with_suffix(".cmd")
        newest = max(os.stat(o).st_mtime_ns for o in objects)
        line = "\0".join(command)
        if (
            not target.exists()
            or target.stat().st_mtime_ns < newest
            or not stamp.exists()
            or stamp.read_text() != line
        ):
            self.spawn(command)
            stamp.write_text(line)
        return target

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), os.path.join(self.build_lib, LAUNCHER)]


class Probe:
    """Asks the compiler what it knows, by trying."""

    def __init__(self, cc: list[str]) -> None:
        self.cc = cc

    def _try(self, flags: tuple[str, ...], *, link: bool, run: bool, code: str) -> bool:
        with tempfile.TemporaryDirectory() as tmp:
            source, out = Path(tmp, "probe.c"), Path(tmp, "probe")
            source.write_text(code)
            command = [*self.cc, "-Werror", *([] if link else ["-c"]), str(source)]
            command += ["-o", str(out), *flags]
            try:
                done = subprocess.run(command, capture_output=True)
                if done.returncode == 0 and run:
                    done = subprocess.run([str(out)], capture_output=True)
            except OSError:
                return False
            return done.returncode == 0

    def compiles(self, *flags: str) -> bool:
        code = "#include <string.h>\nint main(void) { return 0; }\n"
        return self._try(flags, link=False, run=False, code=code)

    def links(self, *flags: str, code: str = "int main(void) { return 0; }\n") -> bool:
        return self._try(flags, link=True, run=False, code=code)

    def runs(self, *flags: str) -> bool:
        code = "int main(void) { return 0; }\n"
        return self._try(flags, link=True, run=True, code=code)


def fortify(level: int) -> list[str]:
    """Return the flags that set _FORTIFY_SOURCE whatever the distribution set before."""
    return ["-U_FORTIFY_SOURCE", f"-D_FORTIFY_SOURCE={level}"]


def inputs_of(obj: Path) -> list[str]:
    """List what an object was made from: name, time and size of its source and headers.

    Compared as recorded, not as "older than the object": a copied tree keeps its old times.
    """
    text = obj.with_suffix(".d").read_text().replace("\\\n", " ").split(":", 1)[1]
    names = [n.replace("\\ ", " ") for n in re.split(r"(?<!\\)\s+", text) if n]
    return [f"{n}:{(s := os.stat(n)).st_mtime_ns}:{s.st_size}" for n in names]


def is_fresh(obj: Path, command: list[str]) -> bool:
    """Say whether an object is there, made by the same command from the same files."""
    try:
        made_by = obj.with_suffix(".cmd").read_text()
        return obj.exists() and made_by == "\0".join([*command, *inputs_of(obj)])
    except (OSError, IndexError):
        return False


def install_file(built: Path, target: Path, mode: int) -> None:
    """Put a built file in place by rename: a copy in use must not be written over."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.read_bytes() == built.read_bytes():
        target.chmod(mode)
        return
    new = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(built, new)
    new.chmod(mode)
    new.rename(target)


def core_extension() -> Extension:
    """Describe agentsbx._core; its flags are probed at build time."""
    sources = c_files(CORE_FOLDERS)
    if not any(s.startswith("csrc/py/") for s in sources):
        raise SystemExit("agentsbx: csrc/py is empty: this source tree is not complete")
    macros: list[tuple[str, str | None]] = [("_GNU_SOURCE", None)]
    if not IS_FREE_THREADED:
        macros.append(("Py_LIMITED_API", "0x030B0000"))
    return Extension(
        "agentsbx._core",
        sources,
        define_macros=macros,
        py_limited_api=not IS_FREE_THREADED,
        extra_link_args=["-Wl,--exclude-libs,ALL"],
        depends=[p.as_posix() for p in sorted(Path("csrc").rglob("*.[hd]*"))],
    )


if HAS_EXT:
    setup(
        ext_modules=[core_extension()],
        cmdclass={"build_ext": BuildExt},
        options={} if IS_FREE_THREADED else {"bdist_wheel": {"py_limited_api": ABI}},
    )
else:
    setup()
