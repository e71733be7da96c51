"""The table of all numbers: whatever is counted anywhere is in it, and in docs/metrics.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mycorrizal._agent.exposition import PREFIX
from mycorrizal._agent.metrictable import METRICS, metric_of

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "mycorrizal"
PREFIXES = {"_cache": "cache.", "_replica": "share."}
"""What stands before the names of a machine's own counters."""
APART = ("simulation", "_serf", "serf.py", "_runtime/serf")
"""Not in ``Agent.metrics``: the simulator, and the numbers of a ``SerfDelegate``."""
POOLS = ("handlers", "commands")
"""What pools of threads count for: their names begin with it."""
COUNTING = {"count", "_count", "note", "add"}


def counted(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module counts; ``*`` for the part of one that is made while it runs."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="add", value=ast.Attribute(attr=where)), args=[name, *_]):
                if where.endswith("counters"):
                    yield from _texts(name)
            case ast.Call(func=ast.Attribute(attr=method), args=[name, *_]) if method in COUNTING - {"add"}:
                yield from _texts(name)
            case ast.AugAssign(target=ast.Subscript(value=ast.Attribute(attr=where), slice=name)):
                if where.endswith("counters"):
                    yield from _texts(name)


def _texts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)) if re.fullmatch(r"[a-z][a-z_.]*", text):
            yield text
        case ast.JoinedStr(values=values):
            yield "".join(part.value if isinstance(part, ast.Constant) else "*" for part in values)
        case ast.IfExp(body=one, orelse=other):
            yield from _texts(one)
            yield from _texts(other)


def test_counting_is_found_as_it_is_written() -> None:
    source = """
self._counters.add("a.b", 2)
core.count(f"offences.{reason}")
self.counters["busy"] += 1
host.count("x" if y else "z")
seen.add("no")
self.note("Not one")
"""
    assert sorted(counted(ast.parse(source))) == ["a.b", "busy", "offences.*", "x", "z"]


def test_whatever_is_counted_is_described() -> None:
    missing = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if place.startswith(APART):
            continue
        for name in counted(ast.parse(path.read_text("utf-8"))):
            full = PREFIXES.get(place.partition("/")[0], "") + name
            for start in POOLS if full.startswith("*") else ("x",):
                if metric_of(full.replace("*", start))[0].kind == "untyped":
                    missing.append(f"{place}: {full}")
    assert missing == []


SUBJECTS = {metric.name.partition(".")[0] for metric in METRICS.values() if "." in metric.name}
NO_NUMBERS = {"cache", "control", "share", "agent", "health"}
"""Of these there are commands and topics of the same form."""


def test_whatever_looks_like_a_name_is_described() -> None:
    """Names that are not counted where they stand: in tables, as values of an ``Enum``."""
    missing = []
    for folder in ("_swim", "_data", "_runtime"):
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                name = node.value if isinstance(node, ast.Constant) else None
                if isinstance(name, str) and re.fullmatch(r"[a-z]+(\.[a-z_]+)+", name):
                    known = name.partition(".")[0] in SUBJECTS - NO_NUMBERS
                    if known and metric_of(name)[0].kind == "untyped" and "settings_file" not in name:
                        missing.append(f"{path.name}: {name}")
    assert missing == []


def test_names_are_of_one_kind() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*(\.\*)?", metric.name), metric
        assert metric.kind in ("counter", "gauge", "histogram") and metric.about[-1] not in ".,", metric
        assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.exported), metric
        assert not metric.exported.endswith(("_count", "_sum", "_bucket", "_info_total")), metric
        assert (metric.kind == "histogram") <= metric.exported.endswith("_seconds"), metric
    exported = [metric.exported for metric in METRICS.values()]
    assert len(exported) == len(set(exported))


def test_the_page_lists_each_with_what_it_means() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w.*]+)` \| `(\w+)` \| (\w+) \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(m.name, PREFIX + m.exported, m.kind, m.about) for m in METRICS.values()]


@pytest.mark.parametrize("name", ["offences.flood", "delegate.faults.notify_msg", "requests.too_deep", "dropped.x"])
def test_a_part_that_is_made_while_it_runs_is_a_label(name: str) -> None:
    metric, labels = metric_of(name)
    assert metric.name.endswith(".*") and labels == f'what="{name.removeprefix(metric.name[:-1])}"'
