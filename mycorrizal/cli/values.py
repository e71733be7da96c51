"""Values of the command line: JSON in and JSON out, with rules for what JSON does not know.

In: what is JSON is that; anything else is text, so that ``hello`` needs no
quotes within quotes. Out: bytes become ``{"base64": ...}``, arrays nested
lists, sets lists, times ISO 8601; what is not a finite number becomes text,
and so does a whole number of more than 53 bits.
What would steer a terminal, or turn the order of what is beside it, is escaped.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["from_text", "lines", "to_json", "to_plain", "visible"]

EXACT_MAX = 2**53 - 1
"""Whole numbers up to here are the same in JavaScript, jq and others that know floats alone; others become text."""
DEPTH_MAX = 200
"""How deep JSON on the command line may nest; what is deeper is taken for text."""


def from_text(text: str) -> Any:
    """Return the JSON value in `text`, or the text itself if it is none."""
    if text.count("[") + text.count("{") > DEPTH_MAX:
        return text
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def to_json(value: Any, *, indent: int | None = 2, ascii_only: bool = False) -> str:
    """Return `value` as JSON text; of what is no printable character, ``\\uXXXX`` stands in it."""
    text = json.dumps(to_plain(value), indent=indent, ensure_ascii=ascii_only)
    return text if text.isprintable() else "".join(map(_json_character, text))


def _json_character(one: str) -> str:
    return one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1]  # those of strings are escaped already


def visible(text: str) -> str:
    """Return `text` as one line that does nothing to a terminal: ``\\x1b`` stands for an escape, and so on."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "replace").decode() for one in text)


def lines(text: str) -> str:
    """Return `text` with its lines, and whatever else is in it made visible."""
    return "\n".join(map(visible, text.split("\n")))


def to_plain(value: Any) -> Any:
    """Return what JSON can hold of `value`."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -EXACT_MAX <= value <= EXACT_MAX else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(to_plain(key)): to_plain(item) for key, item in value.items()}
    if isinstance(value, bytes | bytearray | memoryview) and getattr(value, "ndim", 1) == 1:
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((to_plain(item) for item in value), key=str)
    if hasattr(value, "tolist"):  # an array, or a scalar of NumPy
        return to_plain(value.tolist())
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)
