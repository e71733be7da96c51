"""What the search of a built site finds: the same index and rules as the script in the browser, in Python."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import snowballstemmer


class Index:
    """The index of a site. A page is found if it holds every word of what is searched for."""

    def __init__(self, path: Path) -> None:
        text = path.read_text("utf-8")
        self._index: dict[str, Any] = json.loads(text[text.index("(") + 1 : text.rindex(")")])
        self._stem = snowballstemmer.stemmer("english").stemWord

    def find(self, text: str) -> list[str]:
        """Return the pages that hold all words of `text`, and those with a name of the API that is `text`."""
        words = [self._stem(word) for word in re.findall(r"\w+", text.lower())]
        pages = set.intersection(*map(self._of, words)) if words else set()
        return sorted(self._index["docnames"][page] for page in pages | self._objects(text))

    def _of(self, word: str) -> set[int]:
        found: set[int] = set()
        for table in ("terms", "titleterms"):
            pages = self._index[table].get(word, [])
            found |= set(pages if isinstance(pages, list) else [pages])
        return found

    def _objects(self, text: str) -> set[int]:
        return {
            entry[0]
            for entries in self._index["objects"].values()
            for entry in entries
            if entry[-1].rpartition(".")[2] == text
        }
