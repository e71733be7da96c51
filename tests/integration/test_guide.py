"""docs/guide.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"


def test_the_guide_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    names: dict[str, Any] = {}
    try:
        for number, block in enumerate(blocks):
            exec(compile(block, f"guide.md, block {number}", "exec"), names)
    finally:
        for name in ("alice", "bob", "carol", "dave"):
            if name in names:
                names[name].shutdown()
