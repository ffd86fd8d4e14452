"""`python -m foreign.vendored PACKAGE FOLDER`: its rows, with its code copied into the project.

Copied to FOLDER/vendor, which stands first on the path and is no place of libraries: so that all of
it travels by value (semantics 1.2). Exits with 1 and the list of what came out otherwise.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import warnings
from pathlib import Path

from agentsbx import sandbox
from foreign.outcomes import lay_out, outcome, prepare, rules_of, same
from foreign.tool_rows import ENVIRONMENT, ROWS

__all__: list[str] = []


def copy(module: str, vendor: Path) -> None:
    """Copy the top-level package of a module out of site-packages."""
    top = module.partition(".")[0]
    if (vendor / top).exists():
        return
    spec = importlib.util.find_spec(top)
    assert spec is not None
    assert spec.submodule_search_locations
    shutil.copytree(spec.submodule_search_locations[0], vendor / top)
    importlib.invalidate_caches()


def main(package: str, folder: Path) -> int:
    """Run the rows of a package; return the number of those that differ."""
    warnings.simplefilter("ignore")
    os.environ.update(ENVIRONMENT)
    vendor, here = folder / "vendor", folder / "here"
    vendor.mkdir()
    here.mkdir()
    here.chmod(0o755)
    os.chdir(here)
    wrong = 0
    for row in ROWS:
        if row.package != package or row.differs:
            continue
        copy(row.module, vendor)
        lay_out(here)
        plain = outcome(*prepare(row, here), here)
        assert str(sys.modules[row.module].__file__).startswith(str(vendor))
        lay_out(here)
        tool, args, kwargs = prepare(row, here)
        boxed = outcome(sandbox(**rules_of(row, here))(tool), args, kwargs, here)
        if row.by_value:
            right = boxed.said.startswith(row.by_value)
        else:
            right = type(boxed.error) is type(plain.error)
            right = right and same(plain.seen_by(row), boxed.seen_by(row))
        if not right:
            wrong += 1
            print(f"{row.name}\n  plain: {plain.said}\n  sandboxed: {boxed.said}")
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1], Path(sys.argv[2])), 1))
