"""The pages of docs do what they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .agents import runtime_dir  # noqa: F401 - a fixture

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("page", "least"), [("guide.md", 7), ("data-plane.md", 10), ("agent.md", 9), ("cache.md", 9)])
@pytest.mark.usefixtures("runtime_dir")
def test_the_guide_runs(page: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= least
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    try:
        for number, (language, block) in enumerate(blocks):
            if language == "python":
                exec(compile(block, f"{page}, block {number}", "exec"), names)
            else:
                subprocess.run(["bash", "-e", "-u", "-c", block], check=True, capture_output=True, timeout=120)
    finally:
        for value in names.values():
            end = getattr(value, "shutdown", None) or getattr(value, "close", None)
            if type(value).__module__.startswith("mycorrizal.") and end is not None:
                end()
