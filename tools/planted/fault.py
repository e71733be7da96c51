"""A planted fault: where it goes, and where the tests are that ought to find it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["DoesNotApply", "Fault", "Place", "levels", "place", "sources", "symbols"]

_INTEGRATION = {
    "_agent": ("agent", "agents_sharing", "agent_processes"),
    "_cache": ("cache", "cache_misuse"),
    "_control": ("cli",),
    "_data": ("data_inbox", "data_hostile"),
    "_replica": ("agents_sharing",),
    "_runtime": ("halfway", "threads", "agent", "endings"),
    "_runtime/data": ("halfway", "data_threads", "data_hostile", "endings"),
    "_runtime/tasks": ("process_handlers", "executor"),
    "_runtime/quic": ("halfway", "data_threads", "data_hostile", "endings"),
    "cli": ("cli",),
}
_ELSEWHERE = {
    "_cache": ["simulation"],
    "_control": ["_runtime/control/test_server.py"],
    "_data": ["_runtime/data", "_runtime/quic", "test_dataplane.py"],
    "_replica": ["simulation"],
    "_runtime": ["test_memberlist.py", "test_dataplane.py"],
    "_runtime/data": ["_runtime/quic", "_data", "test_dataplane.py"],
    "_runtime/quic": ["_runtime/data", "_data", "test_dataplane.py"],
    "_runtime/serf": ["test_serf.py", "test_serf_queries.py"],
    "_runtime/swim": ["test_memberlist.py"],
    "_runtime/threads": ["_runtime/data", "_runtime/swim"],
    "_serf": ["test_serf.py", "test_serf_queries.py"],
    "_swim": ["scenarios", "simulation"],
    "_wire": ["test_vectors.py", "_swim", "_data"],
    "simulation": ["_cache", "_replica"],
}
NEIGHBOURS = {
    folder: [*_ELSEWHERE.get(folder, []), *(f"integration/test_{name}.py" for name in _INTEGRATION.get(folder, ()))]
    for folder in sorted({*_ELSEWHERE, *_INTEGRATION})
}
"""Tests of the modules of a folder, and of those in it, that stand elsewhere. They are asked last."""
ABOUT_THE_TREE = {"test_house", "test_layers", "test_mutants", "test_fuzz", "test_exports", "test_security_page"}
"""Tests of what the tree looks like, or of tools: they say nothing of a fault."""
SIMULATED = Path("tools", "simulated")
"""Campaigns and their judges: of them too it is asked whether a slip would be seen."""
FACADES = ["integration/test_agent.py", "integration/test_cache.py", "integration/test_agents_sharing.py", "_runtime"]
"""The same for the modules that stand in no folder."""


class Fault(NamedTuple):
    """One change that breaks a promise.

    Attributes:
        symbol: where it goes: ``Class.method``, ``Class``, ``function``, or the name of a module's constant. No file
            and no line, so that a fault survives moves.
        old, new: the text in it that is replaced, which must stand there once, and its replacement.
        breaks: the promise, in a few words.
    """

    symbol: str
    old: str
    new: str
    breaks: str


class Place(NamedTuple):
    """Where a fault goes in a tree.

    Attributes:
        path: the file, relative to the tree.
        source: the file's text with the fault in it.
    """

    path: Path
    source: str


class DoesNotApply(ValueError):
    """The fault's text stands nowhere in its symbol any more, or in several places."""


@lru_cache(maxsize=256)
def symbols(source: str) -> dict[str, list[tuple[int, int]]]:
    """Return the spans, as offsets in `source`, of what is defined under each qualified name."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: dict[str, list[tuple[int, int]]] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            names = []
            first = node.lineno
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names = [node.name]
                first = min([first, *(one.lineno for one in node.decorator_list)])
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign):
                names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            for name in names:
                found.setdefault(prefix + name, []).append((starts[first - 1], starts[node.end_lineno or first]))

    visit(ast.parse(source).body, "")
    return found


def sources(tree: Path) -> dict[Path, str]:
    """Return the files in `tree`, which holds ``mycorrizal``, that faults go into: their texts by their paths in it."""
    paths = sorted([*(tree / "mycorrizal").rglob("*.py"), *(tree / SIMULATED).glob("*.py")])
    return {path.relative_to(tree): path.read_text("utf-8") for path in paths}


def place(fault: Fault, files: Mapping[Path, str]) -> Place:
    """Return where `fault` goes in `files`.

    Raises:
        DoesNotApply: nowhere, or more than one place would do.
    """
    places = []
    for path, source in files.items():
        if fault.old not in source:
            continue
        for first, end in symbols(source).get(fault.symbol, ()):
            part = source[first:end]
            if part.count(fault.old) == 1:
                changed = source[:first] + part.replace(fault.old, fault.new) + source[end:]
                places.append(Place(path, changed))
            elif fault.old in part:
                raise DoesNotApply(f"{fault.symbol}: {fault.old!r} stands there {part.count(fault.old)} times")
    if len(places) != 1:
        raise DoesNotApply(f"{fault.symbol}: {fault.old!r} stands in {len(places)} such places")
    ast.parse(places[0].source)
    return places[0]


def levels(path: Path, tree: Path) -> list[list[str]]:
    """Return the tests to ask about a change of the module `path`, nearest first, as lists of paths.

    First the files named like the module, then the rest of the folder that mirrors its own, then its neighbours.
    """
    tests = tree / "tests"
    folder = Path("simulation") if path.parent == SIMULATED else path.relative_to("mycorrizal").parent
    beside = [file for file in sorted((tests / folder).glob("test_*.py")) if file.stem not in ABOUT_THE_TREE]
    own = [file for file in beside if file.stem == f"test_{path.stem}" or file.stem.startswith(f"test_{path.stem}_")]
    rest = [file for file in beside if file not in own]
    named = [str(one) for one in (folder, *folder.parents) if one != Path()]
    later = [tests / name for one in named for name in NEIGHBOURS.get(one, ())] or [
        tests / name for name in FACADES if folder == Path()
    ]
    if folder == Path():
        later = list(dict.fromkeys([*sorted((tests / "integration").glob(f"test_{path.stem}*.py")), *later]))
    asked = [own, rest, list(dict.fromkeys(later))]
    return [[str(file.relative_to(tree)) for file in files] for files in asked if files]
