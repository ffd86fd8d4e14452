"""`python -m agentsbx`: the command line."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # `-m` puts the working directory first: what lies there is the caller's data, not our code.
    if sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    from agentsbx.cli import main

    sys.exit(main())
