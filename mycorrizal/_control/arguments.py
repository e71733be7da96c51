"""What may stand in an argument of a command: kinds, each with its check, as annotations of a function's parameters."""

from __future__ import annotations

import base64
import binascii
import inspect
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

__all__ = ["KINDS", "TIMEOUT_MAX", "Kind", "Parameter", "parameters_of"]

TIMEOUT_MAX = 3600.0
"""Seconds that a command may ask for."""

TTL_MAX = 1e9
"""Seconds that an entry of a cache may be told to live."""

TEXT_MAX = 255
"""Bytes of a name, as elsewhere in the library."""

CACHE_KEY_MAX = 1024
"""Bytes of a key in a cache."""

LIST_MAX = 1024
"""Entries of a list of addresses or a map of tags."""


def _text(value: Any) -> Any:
    if isinstance(value, str) and 0 < len(value.encode("utf-8", "replace")) <= TEXT_MAX:
        return value
    raise ValueError(f"a text of 1 to {TEXT_MAX} bytes")


def _cache_key(value: Any) -> Any:
    if isinstance(value, str) and 0 < len(value.encode("utf-8", "replace")) <= CACHE_KEY_MAX:
        return value
    raise ValueError(f"a text of 1 to {CACHE_KEY_MAX} bytes")


def _texts(value: Any) -> Any:
    if isinstance(value, list) and 0 < len(value) <= LIST_MAX and all(isinstance(item, str) and item for item in value):
        return value
    raise ValueError("a list of texts")


def _tags(value: Any) -> Any:
    if isinstance(value, dict) and len(value) <= LIST_MAX and {*map(type, value), *map(type, value.values())} <= {str}:
        return value
    raise ValueError("a map from text to text")


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def _count(value: Any) -> Any:
    if type(value) is int and 1 <= value <= 1_000_000:
        return value
    raise ValueError("a whole number from 1 to 1,000,000")


def _size(value: Any) -> Any:
    if type(value) is int and 1 <= value <= 2**53:
        return value
    raise ValueError("a whole number above 0")


def _port(value: Any) -> Any:
    if type(value) is int and 1 <= value <= 65535:
        return value
    raise ValueError("a whole number from 1 to 65535")


def _ttl(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= TTL_MAX:
        return float(value)
    raise ValueError("a number of seconds, or 0 for ever")


def _seconds(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= TIMEOUT_MAX:
        return float(value)
    raise ValueError(f"a number of seconds from 0 to {TIMEOUT_MAX:.0f}")


def _key(value: Any) -> Any:
    raw: Any = value
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value.strip(), validate=True)
        except (ValueError, binascii.Error):
            raw = b""
    if isinstance(raw, bytes) and len(raw) in (16, 24, 32):
        return raw
    raise ValueError("a key: 16, 24 or 32 bytes, or their base64 text")


class Kind(NamedTuple):
    """What an argument may be: its name on the wire, and a check, which returns the value or says what it must be."""

    name: str
    check: Callable[[Any], Any]


Text = Annotated[str, Kind("text", _text)]
CacheKey = Annotated[str, Kind("cache_key", _cache_key)]
Texts = Annotated[list[str], Kind("texts", _texts)]
Tags = Annotated[dict[str, str], Kind("tags", _tags)]
Boolean = Annotated[bool, Kind("boolean", _boolean)]
Count = Annotated[int, Kind("count", _count)]
Size = Annotated[int, Kind("size", _size)]
Port = Annotated[int, Kind("port", _port)]
Ttl = Annotated[float, Kind("ttl", _ttl)]
Seconds = Annotated[float, Kind("seconds", _seconds)]
Key = Annotated[bytes, Kind("key", _key)]
Value = Annotated[Any, Kind("value", lambda value: value)]

_ALL = (Text, CacheKey, Texts, Tags, Boolean, Count, Size, Port, Ttl, Seconds, Key, Value)
KINDS = {kind.name: kind for kind in (get_args(one)[1] for one in _ALL)}
"""Every kind by its name."""

_REQUIRED: Any = inspect.Parameter.empty


class Parameter(NamedTuple):
    """One argument of a command; without a `default` it has to be there."""

    name: str
    kind: str
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        """Whether a request must have it."""
        return self.default is _REQUIRED


def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Return the arguments that `function` takes after its first."""
    hints = get_type_hints(function, include_extras=True)
    taken = list(inspect.signature(function).parameters.values())[1:]
    return tuple(Parameter(one.name, _kind_of(hints[one.name]), one.default) for one in taken)


def _kind_of(hint: Any) -> str:
    """Return the kind in ``Text`` or ``Text | None``."""
    (found,) = (kind for one in (hint, *get_args(hint)) for kind in getattr(one, "__metadata__", ()))
    return str(found.name)
