"""Write docs/reference/messages.md from tests/golden/messages.toml.

`python docs/make_messages.py`; a test holds the two together.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# Messages

What you are told, word for word; why; and what to do. Each example was run, and with the change
that stands below it the message goes away: a test does both. `...` stands for what is measured.

<!-- written by docs/make_messages.py from tests/golden/messages.toml -->
"""
WHERE = {
    "message": "`{error}`",
    "note": "a note below the `{error}`",
    "warning": "a `{error}`",
}


def page() -> str:
    """Return the page's text."""
    messages = tomllib.loads((ROOT / "tests/golden/messages.toml").read_text())["message"]
    return HEAD + "".join(map(_section, messages))


def _section(message: dict[str, Any]) -> str:
    text = message["text"].replace("{here}", "/home/you/project").replace("{*}", "...")
    where = WHERE[message["where"]].format(**message)
    old, new = (_shown(part) for part in message["change"])
    change = f"replace {old} by {new}" if new else f"drop {old}"
    return f"""
({message["anchor"]})=
## {message["title"]}

{where}:

```text
{text}
```

```python
{message["code"].strip()}
```

**Why.** {message["why"]}

**What to do.** {message["todo"]} Here: {change}.
"""


def _shown(code: str) -> str:
    lines = code.strip().splitlines()
    return " and ".join(f"`{line.strip()}`" for line in lines)


if __name__ == "__main__":
    (ROOT / "docs/reference/messages.md").write_text(page())
