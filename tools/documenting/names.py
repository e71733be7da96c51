"""The public names of the package, and which of them a built site does not explain."""

from __future__ import annotations

import importlib
import pkgutil
import re
import types
import zlib
from collections.abc import Iterable
from pathlib import Path

import mycorrizal

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHELLS = ("mycorrizal.cli", "mycorrizal.__main__")
"""Public modules whose names are no API: docs/command-line.md is what they offer."""


def public_modules() -> list[str]:
    """Return the names of the modules that a program may import from."""
    names = [module.name for module in pkgutil.walk_packages(mycorrizal.__path__, "mycorrizal.")]
    return [name for name in names if not any(part.startswith("_") for part in name.split(".")) and not _shell(name)]


def public_names() -> set[str]:
    """Return each public name with its module; once, by the shortest, where several modules offer the same."""
    found = {f"mycorrizal.{name}" for name in mycorrizal.__all__}
    seen = {(name, id(getattr(mycorrizal, name))) for name in mycorrizal.__all__}
    for module in sorted(public_modules(), key=lambda name: name.count(".")):
        for name in getattr(importlib.import_module(module), "__all__", ()):
            one = name, id(getattr(importlib.import_module(module), name))
            if one not in seen:
                seen.add(one)
                found.add(f"{module}.{name}")
    return found


def listed() -> set[str]:
    """Return the names that the pages of the reference explain by hand."""
    sources = [path.read_text("utf-8") for path in DOCS.glob("api*.md")]
    return {name for text in sources for name in re.findall(r"^\.\. (?:auto\w+|py:data):: (\S+)$", text, re.MULTILINE)}


def directives(names: Iterable[str]) -> str:
    """Return what has Sphinx explain `names` from their docstrings."""
    return "\n".join(f".. {_directive(name)}:: {name}\n" for name in sorted(names))


def missing(inventory: Path, names: set[str]) -> list[str]:
    """Return those of `names` that a site's inventory (``objects.inv``) does not list."""
    head, _, packed = inventory.read_bytes().partition(b"zlib.\n")
    if not head.startswith(b"# Sphinx inventory version 2"):
        raise ValueError(f"{inventory} is no inventory of version 2")
    listed = {line.split(" ", 1)[0] for line in zlib.decompress(packed).decode().splitlines()}
    return sorted(names - listed)


def _shell(name: str) -> bool:
    return name.startswith(SHELLS)


def _directive(name: str) -> str:
    module, _, attribute = name.rpartition(".")
    thing = getattr(importlib.import_module(module), attribute)
    if isinstance(thing, type):
        return "autoexception" if issubclass(thing, BaseException) else "autoclass"
    return "autofunction" if isinstance(thing, types.FunctionType) else "py:data"
