"""docs/guarantees.md names a test for each sentence: they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "guarantees.md").read_text("utf-8")


def test_tests_and_checks_that_the_page_names_exist() -> None:
    sources: dict[str, str] = {}  # of one name there are several
    for path in (ROOT / "tests").rglob("test_*.py"):
        sources[path.name] = sources.get(path.name, "") + path.read_text("utf-8")
    everything = "\n".join(sources.values()) + (ROOT / "tools/simulated/cache_checkers.py").read_text("utf-8")
    names = re.findall(r"`(?:(\w+\.py)(?:::)?)?((?:test|check)_\w+)?(…)?`", PAGE)
    found = 0
    for file, name, cut in names:
        if file:
            assert file in sources, file
        if name:
            found += 1
            pattern = rf"def {name}" if cut else rf"def {name}\b"
            assert re.search(pattern, sources[file] if file else everything), name
    assert found > 15


def test_campaigns_that_the_page_names_exist() -> None:
    from simulated.cache_campaign import KINDS

    named = set(re.findall(r"campaigns? `(\w+)`", PAGE))
    assert named == set(KINDS)
