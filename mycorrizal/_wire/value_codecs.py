"""The registry of types that an application teaches the data plane to carry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from ..exceptions import ConfigError
from .value_guard import NAME_MAX

__all__ = ["Codec", "Codecs"]

T = TypeVar("T")

ALWAYS = frozenset(
    {type(None), bool, int, float, str, bytes, bytearray, memoryview, list, tuple, dict, set, frozenset}
    | {date, datetime, Decimal, UUID}
)
"""Types that travel without a codec."""

ENTRY_POINTS = "mycorrizal.codecs"
"""Group of entry points; each names a function that takes a ``Codecs`` and registers types in it."""


class Codec(NamedTuple):
    """How one type travels."""

    name: str
    encode: Callable[[Any], object]
    decode: Callable[[Any], object]


class Codecs:
    """Types beyond those that always travel, by name; both sides must have registered them.

    ``encode`` turns an object into a value that travels (other registered
    types in it are fine), ``decode`` turns that value back. ``decode`` meets
    what any member can send: check it, and never unpickle it. An error in it
    refuses the whole value. Subclasses of a registered type are not meant.

    May be filled from any thread while others encode and decode.
    """

    __slots__ = ("by_name", "by_type")

    def __init__(self) -> None:
        self.by_type: dict[type[Any], Codec] = {}
        self.by_name: dict[str, Codec] = {}

    def register(self, kind: type[T], name: str, encode: Callable[[T], object], decode: Callable[[Any], T]) -> None:
        """Let objects of exactly the type `kind` travel, as `name` and what `encode` returns.

        Raises:
            ConfigError: the type or the name is registered already, or is none, or the type travels by itself.
        """
        if not isinstance(kind, type):
            raise ConfigError("kind", f"{kind!r} is not a type")
        if not isinstance(name, str) or not name.isascii() or not 0 < len(name) <= NAME_MAX:
            raise ConfigError("name", f"{name!r} is not a short ASCII text", hint="such as 'geometry.Point'")
        if kind in ALWAYS:
            text = f"{kind.__qualname__} travels as it is, and no codec would be called"
            raise ConfigError("kind", text, hint="register a class of your own, such as a dataclass around it")
        if name in self.by_name or kind in self.by_type:
            raise ConfigError("name", f"{name} or {kind.__qualname__} is registered already")
        codec = Codec(name, encode, decode)
        self.by_name[name] = codec
        self.by_type[kind] = codec

    @classmethod
    def from_entry_points(cls) -> Codecs:
        """Return a registry with what the installed packages offer under ``mycorrizal.codecs``.

        Imports them, so it is done only where somebody asks. Any thread.
        """
        from importlib.metadata import entry_points

        codecs = cls()
        for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
            entry.load()(codecs)
        return codecs
