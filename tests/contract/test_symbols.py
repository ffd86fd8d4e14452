"""Law 3: what runs between fork and user data calls nothing that could lock, allocate or print."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from contract.tree import CSRC, PACKAGE, need_checkout

# Wrappers of one system call each, and functions over memory or strings without state.
SYSCALLS = """
syscall open openat close read write pread pwrite dup3 fcntl fstat fstatat lseek ioctl
mkdirat mknodat symlinkat unlinkat readlinkat fchown fchmod fchdir chdir fchownat fchmodat
mount umount2 unshare setns sethostname sigprocmask sigaction signal sigemptyset sigfillset
sigaddset setsid getpid getppid getuid getgid kill prctl setrlimit getrlimit prlimit64 setrlimit64
getrlimit64 sendmsg recvmsg send recv poll ppoll waitpid wait4 waitid execve execveat _exit fork
pidfd_open clock_gettime nanosleep clock_nanosleep getrandom umask fork pipe2 socketpair
memfd_create ftruncate open64 openat64 fstat64 fstatat64 pread64 pwrite64 lseek64 ftruncate64
fcntl64
""".split()
MEMORY = """
memcpy memmove memset memcmp memchr strlen strnlen strchr strrchr strcmp strncmp stpcpy strcpy
strncpy strcat __memcpy_chk __memmove_chk __memset_chk __stpcpy_chk __strcpy_chk __strcat_chk
__errno_location __stack_chk_fail __libc_current_sigrtmin __libc_current_sigrtmax
__open_2 __open64_2 __openat_2 __openat64_2 __read_chk __pread_chk __poll_chk __ppoll_chk
__recv_chk __readlinkat_chk _GLOBAL_OFFSET_TABLE_ strcspn strspn __fdelt_chk
""".split()


def undefined_symbols(sources: list[Path], tmp: Path) -> dict[str, set[str]]:
    """Compile each source and map its name to the symbols that it needs from elsewhere."""
    found = {}
    for source in sources:
        obj = tmp / f"{source.parent.name}-{source.stem}.o"
        subprocess.run(
            ["cc", *"-std=gnu17 -D_GNU_SOURCE -O2 -fPIC -c".split(), str(source), "-o", str(obj)],
            check=True,
        )
        nm = subprocess.run(["nm", "-u", str(obj)], check=True, capture_output=True, text=True)
        found[source.name] = {line.split()[-1].split("@")[0] for line in nm.stdout.splitlines()}
    return found


@pytest.mark.parametrize("folder", ["child", "base"])
def test_objects_use_only_async_signal_safe_symbols(folder: str, tmp_path: Path) -> None:
    need_checkout()
    if not (shutil.which("cc") and shutil.which("nm")):
        pytest.skip("machine lacks: a C compiler")
    allowed = {*SYSCALLS, *MEMORY}
    wrong = {
        name: bad
        for name, needs in undefined_symbols(sorted((CSRC / folder).glob("*.c")), tmp_path).items()
        if (bad := {s for s in needs if s not in allowed and not s.startswith("sbx_")})
    }
    assert not wrong, wrong


def test_our_own_symbols_in_child_come_from_base_child_or_the_plan(tmp_path: Path) -> None:
    """A call out of csrc/child must not lead where malloc and locks are allowed."""
    need_checkout()
    if not (shutil.which("cc") and shutil.which("nm")):
        pytest.skip("machine lacks: a C compiler")
    sources = [*(CSRC / "child").glob("*.c"), *(CSRC / "base").glob("*.c"), CSRC / "plan/check.c"]
    needs = undefined_symbols(sources, tmp_path)
    defined: set[str] = set()
    for obj in tmp_path.glob("*.o"):
        nm = subprocess.run(
            ["nm", "--defined-only", str(obj)], check=True, capture_output=True, text=True
        )
        defined |= {line.split()[-1] for line in nm.stdout.splitlines()}
    missing = {s for names in needs.values() for s in names if s.startswith("sbx_")} - defined
    assert not missing, f"defined outside base, child and plan/check.c: {sorted(missing)}"


def test_extension_exports_only_its_init_function() -> None:
    built = sorted(PACKAGE.glob("_core*.so"))
    if not built:
        pytest.skip("machine lacks: a build in place")
    if not shutil.which("nm"):
        pytest.skip("machine lacks: nm")
    nm = subprocess.run(
        ["nm", "-D", "--defined-only", str(built[0])], check=True, capture_output=True, text=True
    )
    names = {line.split()[-1] for line in nm.stdout.splitlines()}
    assert {n for n in names if not n.startswith(("__gcov", "__asan", "__odr_asan"))} == {
        "PyInit__core"
    }


def test_stubs_have_the_functions_and_parameters_of_the_extension() -> None:
    core = pytest.importorskip("agentsbx._core", reason="machine lacks: a build in place")
    stub = ast.parse((PACKAGE / "_core.pyi").read_text())
    stubbed = {node.name: node.args for node in stub.body if isinstance(node, ast.FunctionDef)}
    classes = [node for node in stub.body if isinstance(node, ast.ClassDef)]
    assert {*stubbed, *(node.name for node in classes)} == {
        name for name in vars(core) if not name.startswith("__")
    }
    for node in classes:
        methods = {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)}
        kind = vars(getattr(core, node.name))
        assert {n for n in methods if n[:2] != "__"} == {n for n in kind if n[:2] != "__"}
    for name, args in stubbed.items():
        names = [a.arg for a in (*args.posonlyargs, *args.args)]
        names += [f"*{args.vararg.arg}"] if args.vararg is not None else []
        signature = re.match(r"\w+\((.*?)\)\s*->", getattr(core, name).__doc__, re.DOTALL)
        assert signature is not None, name
        words = re.sub(r"\[.*?\]|\(\)", "", signature[1]).split(",")
        assert [w.split(":")[0].strip() for w in words if w.strip()] == names, name
