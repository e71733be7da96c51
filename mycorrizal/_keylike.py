"""What is written like a key, so that no error shows one that was put where something else belongs.

A guess, and a generous one: a value that is hidden without need costs a look at
the place that the error names, a key that is shown costs a new key on every node.
"""

from __future__ import annotations

import re

__all__ = ["HIDDEN", "MISPLACED", "file_name", "masked", "may_be_key"]

HIDDEN = "(not shown: it may be a key)"
MISPLACED = "a key may have been put where the name of a file belongs"

_LONG = 16
"""Characters of the shortest key, which may be any text."""

_ENDING = re.compile(r"\.(?:b64|conf|crt|db|key|pem|secret|sqlite3?|toml|txt)$", re.IGNORECASE)
_UNPADDED = (43, 32, 22)  # characters of base64 of 32, 24 and 16 bytes
_RUN = "[A-Za-z0-9+/_-]"  # of base64, either alphabet
_WHOLE = "|".join(f"{_RUN}{{{size}}}" for size in _UNPADDED)
_CASES = rf"(?={_RUN}*[a-z])(?={_RUN}*[A-Z])"
_ALONE = re.compile(rf"{_CASES}(?:{_WHOLE})")
_MIXED = rf"{_CASES}(?:(?={_RUN}*[0-9+])|(?!{_RUN}*/))"  # a path seldom has all of these
_KEYS = re.compile(
    rf"(?<!{_RUN}){_RUN}{{22,}}={{1,2}}(?![A-Za-z0-9])"  # base64 with its padding, and what it is glued to
    rf"|(?<!{_RUN})[/-]{{0,2}}{_MIXED}(?:{_WHOLE})(?!{_RUN}|=)"
    r"|(?<![A-Za-z0-9])(?:[0-9A-Fa-f]{64}|[0-9A-Fa-f]{48}|(?P<short>[0-9A-Fa-f]{32}))(?![A-Za-z0-9])"
    r"|-----BEGIN(?s:.*)"
    r"|(?<![^\s(\[{,=:])b(?P<quote>['\"])(?:\\.|(?!(?P=quote))[^\\]){12,}(?:(?P=quote)|$)"  # bytes in Python
)


def masked(text: str, *, names: bool = False) -> str:
    """Return `text` with whatever is written like a key left out: base64 or hex of 16, 24 or 32 bytes, or the bytes.

    Args:
        names: the text has names of nodes in it. Many of them are UUIDs, so 32 hex digits stay.
    """
    return _KEYS.sub(lambda found: found[0] if names and found["short"] else HIDDEN, text)


def may_be_key(name: str) -> bool:
    """Return whether what was given for the name of a file may be a key: written like one, or a long word."""
    text = name.strip().strip("'\"")
    words = [text, *text.split("/")]
    for whole in (text, text.removesuffix("/")):  # base64 has "/" too, also as its last character
        words += [whole[-size:] for size in _UNPADDED if whole[-size - 1 : -size] in ("", "/")]
    if "\n" in text or any(masked(word) != word or _ALONE.fullmatch(word) for word in words):
        return True
    return "/" not in text and "\\" not in text and len(text) >= _LONG and not _ENDING.search(text)


def file_name(path: str, given: str | None = None) -> str:
    """Return `path` as an error may show it.

    Args:
        given: what it was made of, if a directory was put before it.
    """
    hidden = may_be_key(path if given is None else given) or masked(path) != path
    return f"a file whose name is not shown, since {MISPLACED}" if hidden else path
