"""What arrives as something else than what was sent: the whole list, as docs/data-plane.md shows it.

And ``same``, which is the rule for all else: equal by value and type.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import numpy as np

__all__ = ["EXCEPTIONS", "arriving", "same", "table"]


class Exceptional(NamedTuple):
    """One row: what is sent, as what it arrives, which values are meant, what each becomes, and an example."""

    sent: str
    arrives: str
    applies: Callable[[Any], bool]
    becomes: Callable[[Any], Any]
    example: Any


class Unit(np.ndarray):
    """An array that means more than its numbers."""


class Word(str):
    """A text that is equal to itself only."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class Number(int):
    pass


class Real(float):
    pass


class Raw(bytes):
    pass


class Sequence(list):  # type: ignore[type-arg]
    pass


Pair = namedtuple("Pair", "x y")


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


_BUILTINS = (str, int, float, bytes, list, dict, set)


def _subclass(value: Any) -> bool:
    return isinstance(value, _BUILTINS) and type(value) not in (*_BUILTINS, bool) and not isinstance(value, np.generic)


def _plain(value: Any) -> Any:
    base = next(base for base in _BUILTINS if isinstance(value, base))
    if base is str:
        return str.__str__(value)
    return base.__int__(value) if base is int else base(value)


def _fixed(value: datetime) -> datetime:
    offset = value.utcoffset()
    zone = None if offset is None else UTC if not offset else timezone(offset)
    return value.replace(tzinfo=zone, fold=0)


def _zoned(value: Any) -> bool:
    return isinstance(value, datetime) and (value.fold == 1 or value.tzinfo not in (None, UTC))


def _strided(value: Any) -> bool:
    return isinstance(value, np.ndarray) and not (value.flags.c_contiguous or value.flags.f_contiguous)


def _any_bool(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == bool and value.size > 0 and value.view("u1").max() > 1


def _keyed(value: Any) -> bool:
    return isinstance(value, dict | set) and any(isinstance(key, np.generic) or _subclass(key) for key in value)


def _key(key: Any) -> Any:
    if isinstance(key, np.str_ | np.bytes_):
        return str(key) if isinstance(key, str) else bytes(key)
    return key.item() if isinstance(key, np.generic) else _plain(key) if _subclass(key) else key


def _unkeyed(value: Any) -> Any:
    return {_key(key): item for key, item in value.items()} if isinstance(value, dict) else set(map(_key, value))


def _memmap() -> Any:
    return np.ones(3).view(np.memmap)


EXCEPTIONS = (
    Exceptional("tuple, named tuple", "list", lambda v: isinstance(v, tuple), lambda v: list(v), (1, (2,))),
    Exceptional("frozenset", "set", lambda v: isinstance(v, frozenset), set, frozenset({1})),
    Exceptional(
        "bytearray, memoryview", "bytes", lambda v: isinstance(v, bytearray | memoryview),
        lambda v: memoryview(v).tobytes(), memoryview(array("d", range(6)))[::2],
    ),
    Exceptional(
        "instance of another subclass of str, int, float, bytes, list, dict or set, such as `StrEnum`, `OrderedDict`",
        "the plain type", _subclass, _plain, [Colour.RED, Level.LOW],
    ),
    Exceptional(
        "NumPy scalar, or one of those, as a key of a dict or in a set", "the plain text or number",
        _keyed, _unkeyed, [{np.int64(1): np.int64(1)}, {np.str_("a"), np.float64(0.5)}],
    ),
    Exceptional(
        "time zone of a datetime, `fold`", "its offset at that time (`datetime.timezone`), 0",
        _zoned, _fixed, datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    ),
    Exceptional(
        "NaN as a float, with its sign and payload", "`math.nan`",
        lambda v: type(v) is float and math.isnan(v), lambda v: math.nan, -math.nan,
    ),
    Exceptional(
        "UUID that says it is safe", "one that does not",
        lambda v: type(v) is UUID and v.is_safe is not SafeUUID.unknown, lambda v: UUID(int=v.int),
        UUID(int=5, is_safe=SafeUUID.safe),
    ),
    Exceptional(
        "array in neither C nor Fortran order", "the same in C order",
        _strided, np.ascontiguousarray, np.arange(12).reshape(3, 4)[::2, ::2],
    ),
    Exceptional(
        "array of bool over bytes other than 0 and 1", "True where the byte is not 0",
        _any_bool, lambda v: np.asarray(v.view("u1") != 0), np.array([0, 2, 255], "u1").view(bool),
    ),
    Exceptional(
        "`numpy.memmap`, a read-only array", "`numpy.ndarray`, which can be written to",
        lambda v: type(v) is np.memmap, np.asarray, _memmap(),
    ),
    Exceptional(
        "`numpy.longlong` and other second names", "the type of this dtype, such as `numpy.int64`",
        lambda v: isinstance(v, np.generic) and np.dtype(v.dtype.str).type is not type(v),
        lambda v: np.array(v).astype(v.dtype.str)[()], np.longlong(1),
    ),
)  # fmt: skip


def arriving(sent: Any) -> Any:
    """Return what `sent` is to arrive as; only the outermost value is looked at."""
    for row in EXCEPTIONS:
        if row.applies(sent):
            sent = row.becomes(sent)
    return sent


def table() -> str:
    """Return the table as the page has it."""
    rows = [f"| {row.sent} | {row.arrives} |" for row in EXCEPTIONS]
    return "\n".join(["| sent | arrives as |", "|---|---|", *rows])


# -- the rule -----------------------------------------------------------------------------------------------------


def same(sent: Any, got: Any) -> bool:
    """Return whether `got` is what `sent` arrives as: equal by value and type, but for the exceptions of the docs."""
    sent = arriving(sent)
    if type(got) is not type(sent):
        return False
    if isinstance(sent, np.ndarray | np.generic):
        return bool(
            got.dtype == sent.dtype
            and got.shape == sent.shape
            and got.tobytes() == sent.tobytes()
            and (isinstance(sent, np.generic) or _order(got) == _order(sent))
        )
    if isinstance(sent, list):
        return len(got) == len(sent) and all(map(same, sent, got))
    if isinstance(sent, dict):
        return all(map(same, sent, got)) and len(got) == len(sent) and all(map(same, sent.values(), got.values()))
    if isinstance(sent, set):
        return Counter((type(item), repr(item)) for item in sent) == Counter((type(item), repr(item)) for item in got)
    if isinstance(sent, float):
        return repr(got) == repr(sent)
    if isinstance(sent, Decimal):
        return bool(got.as_tuple() == sent.as_tuple())
    if isinstance(sent, datetime):
        return repr(got) == repr(sent)
    assert isinstance(sent, bool | int | str | bytes | date | UUID | Fraction | None)
    return bool(got == sent)


def _order(array: Any) -> tuple[bool, bool]:
    return array.flags.c_contiguous, array.flags.f_contiguous
