"""Plan tests share `plan_model`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # plan_model, whatever the import mode is
