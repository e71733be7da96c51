"""Values inside what a codec sends that must arrive as what they are, not as the plain type next to it.

A value of its own may say that its tuple arrives as a list; the label of a
column, or a field of a frozen dataclass, may not. So tuples and frozensets
travel under codecs of their own, and what would lose its type is refused.
"""

from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal
from operator import attrgetter
from typing import Any
from uuid import UUID

from .._wire.arrays import Unfit, is_numpy
from .._wire.value_codecs import Codecs
from .._wire.value_guard import DEPTH_MAX
from .._wire.value_walk import unknown

__all__ = ["exact", "ready"]

_AS_IT_IS = frozenset({type(None), bool, int, float, str, bytes, Decimal, date, UUID})
_ELEMENTS = frozenset({type(None), bool, int, float, str, bytes})
_KEYS = frozenset({str, int, bytes})
_LOSSY = (str, int, float, bytes, bytearray, memoryview, list, tuple, dict, set, frozenset, Decimal, date, UUID)


class _Tuple:
    """A tuple that stays one."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items = items


class _Frozen:
    """A frozenset that stays one."""

    __slots__ = ("items",)

    def __init__(self, items: frozenset[Any]) -> None:
        self.items = items  # which travels as a set


def ready(codecs: Codecs) -> None:
    """Register what ``exact`` makes of values, unless that was done."""
    if _Tuple not in codecs.by_type:
        codecs.register(_Tuple, "tuple", attrgetter("items"), _tuple)  # type: ignore[arg-type]
        codecs.register(_Frozen, "frozenset", attrgetter("items"), _frozen)  # type: ignore[arg-type]


def _tuple(sent: Any) -> tuple[Any, ...]:
    if type(sent) is not list:
        raise TypeError("a tuple that is none")
    return tuple(sent)


def _frozen(sent: Any) -> frozenset[Any]:
    if type(sent) is not set:
        raise TypeError("a frozenset that is none")
    return frozenset(sent)


def exact(value: Any, codecs: Codecs, depth: int = 0) -> Any:
    """Return what arrives as exactly `value`. Any thread.

    Raises:
        Unfit: it, or something in it, would arrive as another type, or not at all.
    """
    kind = type(value)
    if kind in _AS_IT_IS or kind in codecs.by_type:
        return value
    if depth > DEPTH_MAX:
        raise Unfit("nested too deep, or holds itself", f"{DEPTH_MAX} levels are the most")
    if kind is list or kind is tuple:
        items = [exact(item, codecs, depth + 1) for item in value]
        return items if kind is list else _Tuple(items)
    if kind is dict and all(type(key) in _KEYS for key in value):
        return {key: exact(item, codecs, depth + 1) for key, item in value.items()}
    if kind in (set, frozenset) and all(type(item) in _ELEMENTS for item in value):
        return value if kind is set else _Frozen(value)
    if kind is datetime:
        if value.tzinfo is None or (type(value.tzinfo) is timezone and not value.fold):
            return value
        raise Unfit("a datetime with a named time zone would arrive with its offset", "make it a pandas.Timestamp")
    if isinstance(value, _LOSSY):
        hint = "make it one of plain values, keys of str, int or bytes, or register a codec for its class"
        raise Unfit(f"{kind.__qualname__} would arrive as another type", hint)
    if is_numpy(value):
        return value
    raise unknown(kind)
