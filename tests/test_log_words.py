"""Lines of the log say in words what they mean: no mark in front of them that a reader would have to know."""

from __future__ import annotations

import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "mycorrizal"


def marked(source: str) -> list[str]:
    """Return the beginnings of texts in `source` that are a mark and a blank before what they say."""
    return re.findall(r"[\"'][-=!*<>+] [%a-zA-Z{][^\"']*", source)


def test_no_message_begins_with_a_mark() -> None:
    sources = {str(path.relative_to(PACKAGE)): path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    assert {name: found for name, source in sources.items() if (found := marked(source))} == {}


def test_a_mark_is_found() -> None:
    assert marked('log.info("= %s: joined", name)') == ['"= %s: joined']
    assert marked('text = "! a key"') == ['"! a key']
    assert marked('log.debug("%s: joined", name); text.split("=") + " = x"') == []
