"""What the build changes in a page or a docstring when it reads it; docs/conf.py hooks these in."""

from __future__ import annotations

import re

from documenting.commands import sections
from documenting.names import directives, listed, public_names

TOP = {"README": "index", "CHANGELOG": "changelog", "CONTRIBUTING": "contributing", "SECURITY": "reporting"}
"""Pages of the tree's top level, and the page of the site that includes each."""


def page(name: str, source: str) -> str:
    """Return the source of a page of docs/ as the site has it."""
    source = links(source)
    if name == "command-line":
        source += "\n".join(sections())
    if name == "api-inside":
        source += f"\n```{{eval-rst}}\n{directives(public_names() - listed())}\n```\n"
    return source


def links(source: str) -> str:
    """Return `source`, in which links to the top level lead to pages of the site."""
    return re.sub(r"\]\(\.\./([A-Z]+)\.md", lambda found: f"]({TOP[found[1]]}.md", source)


def included(source: str) -> str:
    """Return a page of the top level, which a page of docs/ includes, with its links moved."""
    return links(re.sub(r"\]\(([A-Z]+\.md)", r"](../\1", re.sub(r"\]\(docs/", "](", source)))


def docstring(lines: list[str]) -> list[str]:
    """Return a docstring as Sphinx should read it; the pages of docs/ that it names are links."""
    return [re.sub(r"(?<![\w/`])docs/([\w/-]+)\.md", r":doc:`/\1`", line) for line in one_each(lines)]


def one_each(lines: list[str]) -> list[str]:
    """Return a docstring in which each name of an item like ``host, port: where it listens`` has the text for itself.

    Else Sphinx would take all names but the last for a type.
    """
    told: list[str] = []
    names: list[str] = []
    item: list[str] = []
    indent = 0
    for line in [*lines, ""]:
        found = re.match(r"( +)((?:\w+, )+\w+): ", line)
        if names and (found or len(line) - len(line.lstrip()) <= indent):
            told += [" " * indent + each + part if not at else part for each in names for at, part in enumerate(item)]
            names = []
        if found:
            names, indent, item = found[2].split(", "), len(found[1]), [line[found.end(2) :]]
        elif names:
            item.append(line)
        else:
            told.append(line)
    return told
