"""What a job replaces in the interpreter: nobody to ask, and a way home for logs and warnings.

Installed once, in the zygote, of which each job is a fork: a job that does none of this pays
nothing. Nothing is imported for it either: what serves `logging`, `pdb` ... is put in place when
that module is imported, and `_report` is loaded by the first thing to report.
"""

from __future__ import annotations

import builtins
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

__all__ = ["at_end", "install", "logs", "mirror", "watch"]

# What asks a person: module -> names in it that raise.
_ASKS = {
    "pdb": ("set_trace", "post_mortem", "Pdb.interaction"),
    "code": ("interact", "InteractiveConsole.interact"),
    "getpass": ("getpass",),
}
_WATCHED = {"logging", "threading", *_ASKS}
_SHOWN = 80  # characters of a function's name in a message

logs: tuple[tuple[tuple[str, int], ...], int, bool] | None = None  # `_mirror.mirrored`
_arrivals: dict[str, Callable[[Any], None]] = {}
_show: Any = None  # how `warnings` itself shows one
at_end: list[Callable[[], None]] = []  # called before the answer is sent
# A session's interpreter: what to do instead of asking; whether logs and warnings stay here.
advice = ""
stays_here = False


def install() -> None:
    """Zygote: replace, in what is loaded and in what will be."""
    builtins.input = _asking("input()")
    sys.breakpointhook = _asking("breakpoint()")
    import warnings  # the zygote has it

    global _show
    _show = warnings._showwarnmsg_impl  # type: ignore[attr-defined]
    # The host's filters decide: what Python does not ignore goes there each time.
    kept = [f if f[0] == "ignore" else ("always", *f[1:]) for f in warnings.filters]
    warnings.filters[:] = [*kept, ("always", None, Warning, None, 0)]  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]
    warnings._showwarnmsg_impl = _warned  # type: ignore[attr-defined]
    sys.meta_path.insert(0, _Watcher)
    for name in _WATCHED & sys.modules.keys():
        _arrived(sys.modules[name])


def watch(name: str, arrived: Callable[[Any], None]) -> None:
    """Session's interpreter: call `arrived` with that module once it is imported."""
    _WATCHED.add(name)
    _arrivals[name] = arrived


def mirror(told: tuple[Any, ...]) -> None:
    """Job: what of the host's process is mirrored for this call (`_mirror.mirrored`)."""
    global logs
    logs, lines, shows_all = told
    if shows_all:
        import warnings

        warnings.resetwarnings()
        warnings.simplefilter("always")
    if logs is not None and "logging" in sys.modules:
        from agentsbx import _report

        _report.set_levels()
    if lines is not None:
        from agentsbx import _lines

        _lines.start(arcs=lines)


def _warned(msg: Any) -> None:
    if msg.file is not None or stays_here:  # someone asks for the text of one; a cell
        _show(msg)
        return
    from agentsbx import _report

    _report.warning(msg)


def _asking(what: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        if advice:
            raise RuntimeError(
                f"{what} asks a person, and nobody can answer inside a sandbox: {advice}"
            )
        receive = sys.modules["agentsbx._receive"]
        fn = getattr(receive._receiver, "_fn", None)
        name = getattr(fn, "__qualname__", "fn").rpartition("<locals>.")[2][:_SHOWN]
        raise RuntimeError(
            f"{what} asks a person, and nobody can answer inside a sandbox: pass the answer as an "
            f"argument, or run the function here, unsandboxed, with {name}.local(...)"
        )

    return refuse


def _arrived(module: Any) -> None:
    """A watched module was loaded."""
    name = module.__name__
    if name == "logging":
        from agentsbx import _report

        _report.attach(module)
    elif name == "threading":
        lines = sys.modules.get("agentsbx._lines")
        if lines is not None:
            lines.follow_threads(module)
    elif name in _arrivals:
        _arrivals[name](module)
    for path in _ASKS.get(name, ()):
        home, _, last = path.rpartition(".")
        owner = getattr(module, home, None) if home else module
        if hasattr(owner, last):
            setattr(owner, last, _asking(f"{name}.{path}()"))


class _Watcher:
    """First on `sys.meta_path`: the others find a watched module, its arrival is seen."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _WATCHED:
            return None
        for finder in sys.meta_path:
            if finder is not _Watcher:
                spec: Any = finder.find_spec(name, path, target)
                if spec is not None:
                    spec.loader = _Loader(spec.loader)
                    return spec
        return None


class _Loader:
    """The loader of a watched module, until it is loaded."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def create_module(self, spec: Any) -> Any:
        return self.real.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self.real
        self.real.exec_module(module)
        _arrived(module)
