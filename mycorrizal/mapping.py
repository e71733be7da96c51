"""The face of a cache that is a ``MutableMapping``, where others write meanwhile.

What ``collections.abc`` makes of single reads and writes would raise KeyError
for what went between two of them, or take what somebody else has just written.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from itertools import islice
from typing import Any, Final

__all__ = ["ABSENT", "CacheMapping"]

_PAGE = 128  # values asked for at a time: of up to 64 kB each they fit into one answer


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"  # there is one, which callers compare by ``is``


ABSENT: Final = _Absent()
"""As the expected value of ``compare_and_set``: the key must not be there."""


class CacheMapping(MutableMapping[str, Any]):
    """What follows from a cache's own operations. Everything here blocks, and raises as those do."""

    @abstractmethod
    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those keys that are there."""

    @abstractmethod
    def set_many(self, items: Mapping[str, Any]) -> None:
        """Write all `items`."""

    @abstractmethod
    def add(self, key: str, value: Any) -> bool:
        """Write `key` if it is not there; return whether it was written."""

    @abstractmethod
    def take(self, key: str) -> Any:
        """Delete `key` and return its value, or ``ABSENT``."""

    def items(self) -> ItemsView[str, Any]:
        """Return a view of keys and values; what goes while it is iterated over is passed by."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """Return a view of the values; see ``items``."""
        return _Values(self)

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """Iterate over keys and values, some in each question."""
        keys = iter(self)
        while page := list(islice(keys, _PAGE)):
            yield from self.get_many(page).items()

    def pop(self, key: str, default: Any = ABSENT) -> Any:
        """Delete `key` and return its value; of several who do so at once one gets it, the others `default`.

        Raises:
            KeyError: it is not there, and no `default` is given.
        """
        found = self.take(key)
        if found is ABSENT:
            found = default
        if found is ABSENT:
            raise KeyError(key)
        return found

    def popitem(self) -> tuple[str, Any]:
        """Delete some key; return it and its value. KeyError if there is none."""
        for key in self:
            if (found := self.take(key)) is not ABSENT:
                return key, found
        raise KeyError("popitem: the cache is empty")

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`; if it is not there, write `default` and return that, unless somebody is first."""
        while True:
            found = self.get(key, ABSENT)
            if found is not ABSENT:
                return found
            if self.add(key, default):
                return default

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Write everything of a mapping, or of pairs; see ``set_many``."""
        self.set_many(dict(other, **more))


class _Items(ItemsView[str, Any]):
    _mapping: CacheMapping

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._mapping.pairs()


class _Values(ValuesView[Any]):
    _mapping: CacheMapping

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping.pairs())

    def __contains__(self, value: object) -> bool:
        return any(other is value or other == value for other in self)
