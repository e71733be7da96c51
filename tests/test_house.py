"""The size of things: a file is one subject, and says so where it is long; a function fits on a screen."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 470
"""Of code: who explains much is not punished for it. Longer is for one subject that no cut makes clearer."""
LONGER: dict[str, str] = {
    "mycorrizal/_cache/handover.py": "both ends of one take-over: what one sends the other reads",
    "tests/_replica/test_events.py": "one rule, each event once and in order, against all that can go wrong",
    "tests/_replica/test_machine.py": "the door of the replica, as the module itself",
}
"""Files that are longer, and why."""
MOST_LINES_OF_FUNCTION = 60
TOP_LEVEL = {
    *(".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "README.md"),
    *("SECURITY.md", "docs", "findings", "mycorrizal"),
    *("setup.cfg", "setup.py", "tests", "tools"),
}

SOURCES = sorted(
    path
    for folder in ("mycorrizal", "tests", "tools")
    for path in (ROOT / folder).rglob("*")
    if path.is_file()
    and "__pycache__" not in path.parts
    and (path.suffix == ".py" or (not path.suffix and path.read_bytes().startswith(b"#!/usr/bin/env python3")))
)


def too_long(tree: ast.Module) -> list[str]:
    """Return the functions of `tree` that have more lines than one may have; docstrings do not count."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            lines = (node.end_lineno or 0) - first.lineno + 1
            if lines > MOST_LINES_OF_FUNCTION:
                found.append(f"{node.name}: {lines} lines")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_says_what_it_is_and_is_short(path: Path) -> None:
    source = path.read_text("utf-8")
    if lines_of_code(source) > MOST_LINES:
        reason = LONGER.get(str(path.relative_to(ROOT)))
        assert reason, f"over {MOST_LINES} lines: divide it by subject, or say in LONGER why not"
    tree = ast.parse(source)
    assert too_long(tree) == []
    assert not source.strip() or ast.get_docstring(tree), "no docstring"


def lines_of_code(source: str) -> int:
    """Return how many lines hold more than blanks, a comment or a docstring."""
    tree, said = ast.parse(source), set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            said.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(map(str.strip, source.splitlines()), 1)
    return sum(1 for number, line in lines if line and not line.startswith("#") and number not in said)


def test_lines_of_code_are_not_its_words() -> None:
    source = '"""A.\n\nB.\n"""\n\n# why\nx = 1  # here\n\n\ndef f():\n    """Doc."""\n    return x\n'
    assert lines_of_code(source) == 3


def test_reasons_for_length_are_for_files_that_are_long() -> None:
    short = [name for name in LONGER if lines_of_code((ROOT / name).read_text("utf-8")) <= MOST_LINES]
    assert short == []


def test_long_function_is_caught() -> None:
    body = "    x = 1\n"
    assert too_long(ast.parse("def f():\n    '''Doc.'''\n" + body * 61)) == ["f: 61 lines"]
    assert too_long(ast.parse("def f():\n    '''Doc.'''\n" + body * 60)) == []


def test_no_sleep_outside_integration() -> None:
    """Time in tests is virtual; what needs real processes and real time lives in two folders."""
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if {"integration", "interop"} & set(path.relative_to(ROOT / "tests").parts) or path == Path(__file__):
            continue
        if re.search(r"\b(time\.sleep|asyncio\.sleep)\(", path.read_text("utf-8")):
            found.append(str(path.relative_to(ROOT)))
    assert found == []


def test_top_level_holds_what_it_should() -> None:
    ignored = {line.strip().rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    present = {path.name for path in ROOT.iterdir()} - {".git", "PKG-INFO"}  # the latter of an sdist
    present = {name for name in present if not any(fnmatch(name, pattern) for pattern in ignored)}
    present = {name for name in present if not name.endswith(".egg-info") and not name.startswith(".coverage")}
    assert present == TOP_LEVEL


def test_differences_from_memberlist_are_listed() -> None:
    """Each ``Differs from memberlist:`` in the code has its place in docs/wire.md."""
    listed = (ROOT / "docs" / "wire.md").read_text("utf-8")
    missing = []
    for path in sorted((ROOT / "mycorrizal").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if "Differs from memberlist:" in path.read_text("utf-8") and f"`{name}`" not in listed:
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/design.md", "docs/wire.md", "CHANGELOG.md"])
def test_links_and_names_of_files_in_documents_exist(name: str) -> None:
    document = ROOT / name
    text = document.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    missing = [link for link in links if not (document.parent / link).exists()]
    named = re.findall(r"`((?:mycorrizal|tests|tools|docs)/[\w./]+)`", text)
    missing += [path for path in named if not (ROOT / path).exists()]
    assert missing == []
