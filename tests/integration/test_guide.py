"""The pages of docs do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .agents import runtime_dir  # noqa: F401 - a fixture

DOCS = Path(__file__).parents[2] / "docs"


PAGES = [("guide.md", 7), ("data-plane.md", 10), ("agent.md", 9), ("cache.md", 9), ("from-redis.md", 2)]
PAGES += [("leadership.md", 6)]


@pytest.mark.parametrize(("page", "least"), PAGES)
@pytest.mark.usefixtures("runtime_dir")
def test_the_guide_runs(page: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= least
    if page == "agent.md":
        assert {language for language, _ in blocks} == {"python", "sh"}  # nothing is only to be looked at
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    try:
        for number, (language, block) in enumerate(blocks):
            if language == "python":
                exec(compile(block, f"{page}, block {number}", "exec"), names)
            elif language == "sh":
                subprocess.run(["bash", "-e", "-u", "-c", block], check=True, capture_output=True, timeout=120)
    finally:
        for value in names.values():
            end = getattr(value, "shutdown", None) or getattr(value, "close", None)
            if type(value).__module__.startswith("mycorrizal.") and end is not None:
                end()
