"""Our own modules as child processes, whether ``tools/...`` or a test starts them."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["OUT", "ROOT", "as_child"]

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "out" / "bench"


def as_child(module: str, *arguments: str) -> list[str]:
    """Return how to start `module` (``campaigns.cache_node``) under this interpreter."""
    return [sys.executable, str(ROOT / "tools" / "_run.py"), module, *arguments]
