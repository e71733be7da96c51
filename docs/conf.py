"""How Sphinx builds the site from these pages; ``tools/docs`` runs it. Paths of pages stay as they are on GitHub."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

import mycorrizal

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tools"))

project = "mycorrizal"
project_copyright = "the authors of mycorrizal, Apache-2.0"
add_module_names = False
version = release = mycorrizal.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["notebooks/*"]
language = "en"

html_theme = "furo"
html_title = f"mycorrizal {release}"
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# Docstrings are plain text with names in backquotes: `value` as much as ``value``.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = True
autodoc_default_options = {
    "members": True,
    # What a class has from the language is no reader's business, and what it has from a hidden base of ours is.
    "inherited-members": "dict, list, tuple, str, int, object, Enum, BaseException, ClassVar, Protocol",
    "exclude-members": "__new__, __init__",
}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

linkcheck_anchors = False

OUTSIDE = {
    "../README.md": "index.md",
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../SECURITY.md": "reporting.md",
}
"""Pages of the tree's top level, and which page of the site includes them."""


def _link(source: str) -> str:
    """Return `source`, in which links to the top level lead to pages of the site."""
    return re.sub(r"\]\((\.\./[A-Z]+\.md)", lambda found: f"]({OUTSIDE.get(found[1], found[1])}", source)


def _room(source: str) -> str:
    """Return `source` without the entries of its navigation for pages that nobody has written yet."""
    entry = re.compile(r"^[\w/-]+\*\n", re.MULTILINE)
    return entry.sub(lambda found: found[0] if any(HERE.glob(found[0].strip())) else "", source)


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    content[0] = _room(_link(content[0]))
    if docname == "command-line":
        from documenting.commands import sections

        content[0] += "\n".join(sections())


def _included(app: Sphinx, path: Path, docname: str, content: list[str]) -> None:
    """Move the links of a page of the top level, which is included one level further down."""
    here = re.sub(r"\]\(docs/", "](", content[0])
    content[0] = _link(re.sub(r"\]\(([A-Z]+\.md)", r"](../\1", here))


def _one_each(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Give each name of an item like ``host, port: where it listens`` the text; before napoleon reads it as a type."""
    told: list[str] = []
    names, indent, item = [], 0, []
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
    lines[:] = told


def setup(app: Sphinx) -> None:
    app.connect("source-read", _read)
    app.connect("include-read", _included)
    app.connect("autodoc-process-docstring", _one_each, priority=400)
