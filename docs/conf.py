"""How Sphinx builds the site from these pages; ``tools/docs`` runs it. Paths of pages stay as they are on GitHub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mycorrizal

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
from documenting import reading

if TYPE_CHECKING:
    from sphinx.application import Sphinx

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
autodoc_preserve_defaults = True
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


def _page(app: Sphinx, docname: str, content: list[str]) -> None:
    content[0] = reading.page(docname, content[0])


def _included(app: Sphinx, path: Path, docname: str, content: list[str]) -> None:
    content[0] = reading.included(content[0])


def _docstring(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    lines[:] = reading.docstring(lines)


def setup(app: Sphinx) -> None:
    app.connect("source-read", _page)
    app.connect("include-read", _included)
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon
