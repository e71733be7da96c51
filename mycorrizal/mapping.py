"""The face of a cache that is a ``MutableMapping``, where others write meanwhile.

What ``collections.abc`` makes of single reads and writes would raise KeyError
for what went between two of them, or take what somebody else has just written.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from enum import Enum
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, overload

from ._endings import named
from ._runtime.threads.deadline import Seconds
from .exceptions import ConfigError, MycorrizalError, ValueDecodeError
from .types import as_builtin, frameless

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # nobody needs it but the type checker, which has it: for the default
else:
    from typing import TypeVar

__all__ = ["ABSENT", "Absent", "CacheMapping", "Found", "Items", "V", "Values"]

if TYPE_CHECKING:
    V = TypeVar("V", default=Any)
else:
    V = TypeVar("V")
"""Type of a cache's values; ``Cache`` alone is one of anything."""

_T = TypeVar("_T")

_SECONDS = 10.0
_KEYS_AT_ONCE = 1024
_COUNT_MAX = 1 << 16
_PAGE = 128  # values asked for at a time: of up to 64 kB each they fit into one answer


class Absent(Enum):  # as an enumeration a type checker knows that there is one, which callers compare by ``is``
    """Type of ``ABSENT``."""

    ABSENT = "ABSENT"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT
"""As the expected value of ``compare_and_set``: the key must not be there."""


class Found(dict[str, V]):
    """What ``get_many`` found: values by key, and ``errors`` by the keys of those that cannot be read here."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[str, MycorrizalError] = {}


class CacheMapping(MutableMapping[str, V]):
    """What follows from a cache's own operations. Everything here blocks, and raises as those do."""

    @abstractmethod
    def get_many(self, keys: Iterable[str]) -> Found[V]:
        """Return the values of those keys that are there, and the errors of those that cannot be read."""

    @abstractmethod
    def set_many(self, items: Mapping[str, V]) -> None:
        """Write all `items`."""

    @abstractmethod
    def add(self, key: str, value: V) -> bool:
        """Write `key` if it is not there; return whether it was written."""

    @abstractmethod
    def take(self, key: str) -> V | Absent:
        """Delete `key` and return its value, or ``ABSENT``."""

    @abstractmethod
    def incr(self, key: str, by: int = 1, *, timeout: Seconds | None = _SECONDS) -> int:
        """Add `by` to the integer under `key`; return the sum."""

    @abstractmethod
    def touch(self, key: str, ttl: Seconds | None, timeout: Seconds | None = _SECONDS) -> bool:
        """Give `key` another time to live; return whether it is there."""

    @abstractmethod
    def _found(self, key: str, timeout: Seconds | None) -> bytes | None:
        """Return the value of `key` as it is encoded, None if it is not there."""

    @abstractmethod
    def _pages(self, count: int, timeout: Seconds | None) -> Iterator[list[str]]:
        """Iterate over the keys, about `count` in each question."""

    # -- as Redis calls them --------------------------------------------------------------------

    @named("exists", "get")
    def exists(self, key: str, timeout: Seconds | None = _SECONDS) -> bool:
        """Return whether `key` is there. Blocks as ``get`` does, and raises as that; the value need not be readable."""
        return self._found(key, timeout) is not None

    @named("decr", "incr")
    def decr(self, key: str, by: int = 1, timeout: Seconds | None = _SECONDS) -> int:
        """Take `by` off the integer under `key`, 0 if it is not there; see ``incr``."""
        by = as_builtin(by)
        return self.incr(key, -by if type(by) is int else by, timeout=timeout)

    @named("expire", "touch")
    def expire(self, key: str, ttl: Seconds | None, timeout: Seconds | None = _SECONDS) -> bool:
        """Let `key` live for `ttl` from now, None for ever; return whether it is there. Blocks. Raises as ``set``."""
        return self.touch(key, ttl, timeout)

    def scan(
        self, *, prefix: str = "", count: int = _KEYS_AT_ONCE, timeout: Seconds | None = _SECONDS
    ) -> Iterator[list[str]]:
        """Iterate over the keys in lists, as they come: each is what one question brought, and may be empty.

        A key that is there all the time is seen once; a key that changes meanwhile may or may not be seen.

        Args:
            prefix: only keys that begin so; there are no patterns. The others travel all the same.
            count: about how many keys a question asks for.
            timeout: seconds for each question.

        Raises:
            CacheUnavailable, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
            ConfigError: a `prefix` that is no text, a `count` that is no number above zero.
        """
        return self._listed("scan", prefix, count, timeout)

    def _listed(self, operation: str, prefix: str, count: int, timeout: Seconds | None) -> Iterator[list[str]]:
        prefix, count = as_builtin(prefix), as_builtin(count)
        if not isinstance(prefix, str):
            raise ConfigError("prefix", f"must be text, not {type(prefix).__name__}", hint="such as 'user:'")
        if type(count) is not int or not 0 < count <= _COUNT_MAX:
            raise ConfigError("count", f"{count!r:.80} keys", hint=f"1 to {_COUNT_MAX}")
        pages = self._pages(count, timeout)
        ask = named(operation, "keys")(lambda: next(pages, None))
        return ([key for key in page if key.startswith(prefix)] for page in iter(ask, None))

    def keys(self, *, prefix: str = "", timeout: Seconds | None = _SECONDS) -> Any:
        """Iterate over the keys, asking the agents as it goes; see ``scan``. Blocks."""
        return chain.from_iterable(self._listed("keys", prefix, _KEYS_AT_ONCE, timeout))

    def __iter__(self) -> Iterator[str]:
        found: Iterator[str] = self.keys()
        return found

    # -- as a mapping does ----------------------------------------------------------------------

    def items(self) -> Items[V]:
        """Return a view of keys and values; what goes while it is iterated over is passed by.

        So is what cannot be read here: its error is in the view's ``errors``, by key, once the iteration has met it.
        """
        return Items(self)

    def values(self) -> Values[V]:
        """Return a view of the values; see ``items``."""
        return Values(self)

    def pairs(self, errors: dict[str, MycorrizalError]) -> Iterator[tuple[str, V]]:
        """Iterate over keys and values, some in each question; what cannot be read goes to `errors`."""
        keys = iter(self)
        while page := list(islice(keys, _PAGE)):
            found = self.get_many(page)
            errors.update(found.errors)
            yield from found.items()

    @overload
    def pop(self, key: str) -> V: ...

    @overload
    def pop(self, key: str, default: V | _T) -> V | _T: ...

    def pop(self, key: str, default: Any = ABSENT) -> Any:
        """Delete `key` and return its value; of several who do so at once one gets it, the others `default`.

        Raises:
            KeyError: it is not there, and no `default` is given.
            ValueDecodeError: it cannot be read here; it was not deleted.
        """
        found = self.take(key)
        if found is ABSENT:
            found = default
        if found is ABSENT:
            raise KeyError(key)
        return found

    def popitem(self) -> tuple[str, V]:
        """Delete some key whose value can be read here; return both. KeyError if there is none.

        Raises:
            ValueDecodeError: there is only what cannot be read here; nothing was deleted.
        """
        unread: ValueDecodeError | None = None
        for key in self:
            try:
                if (found := self.take(key)) is not ABSENT:
                    return key, found
            except ValueDecodeError as error:
                unread = unread or frameless(error)
        if unread is not None:
            try:
                raise unread
            finally:
                del unread  # its traceback refers to this frame
        raise KeyError("popitem: the cache is empty")

    @overload
    def setdefault(self, key: str, default: V) -> V: ...

    @overload
    def setdefault(self, key: str, default: None = None) -> V | None: ...

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


class Items(ItemsView[str, V]):
    """``Cache.items()``. ``errors``: see there."""

    _mapping: CacheMapping[V]

    def __init__(self, mapping: CacheMapping[V]) -> None:
        super().__init__(mapping)
        self.errors: dict[str, MycorrizalError] = {}

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return self._mapping.pairs(self.errors)


class Values(ValuesView[V]):
    """``Cache.values()``. ``errors``: as of ``Items``."""

    _mapping: CacheMapping[V]

    def __init__(self, mapping: CacheMapping[V]) -> None:
        super().__init__(mapping)
        self.errors: dict[str, MycorrizalError] = {}

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping.pairs(self.errors))

    def __contains__(self, value: object) -> bool:
        return any(other is value or other == value for other in self)
