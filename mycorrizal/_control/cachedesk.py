"""Carries out the ``cache.*`` commands: on a cache that the agent has open, or opens as others in sight have it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol

from ..exceptions import ControlError

__all__ = ["CacheDesk", "Opener"]


class Opener(Protocol):
    """What is needed of an agent."""

    def open_cache(self, name: str, timeout: float | None = 10.0) -> Any:
        """Return the open cache of that name."""


class CacheDesk:
    """Answers for `agent`. Waits; any thread that may."""

    def __init__(self, agent: Opener) -> None:
        self._agent = agent

    def answers(self) -> dict[str, Callable[..., Any]]:
        """Return what carries out each command."""
        return {
            "cache.get": self._get,
            "cache.set": self._set,
            "cache.delete": self._delete,
            "cache.keys": self._keys,
            "cache.stats": self._stats,
        }

    def _get(self, cache: str, key: str, timeout: float) -> Any:
        missing = object()
        value = self._agent.open_cache(cache, timeout).get(key, missing, timeout=timeout)
        if value is missing:
            raise _no_key(cache, key)
        return value

    def _set(self, cache: str, key: str, value: Any, ttl: float | None, timeout: float) -> None:
        more: dict[str, Any] = {} if ttl is None else {"ttl": ttl or None}
        self._agent.open_cache(cache, timeout).set(key, value, timeout=timeout, **more)

    def _delete(self, cache: str, key: str, timeout: float) -> None:
        if not self._agent.open_cache(cache, timeout).delete(key, timeout=timeout):
            raise _no_key(cache, key)

    def _keys(self, cache: str, limit: int, timeout: float) -> dict[str, Any]:
        found = list(itertools.islice(self._agent.open_cache(cache, timeout).keys(timeout=timeout), limit + 1))
        return {"keys": sorted(found[:limit]), "more": len(found) > limit}

    def _stats(self, cache: str, timeout: float) -> Any:
        return self._agent.open_cache(cache, timeout).stats(timeout=timeout)


def _no_key(cache: str, key: str) -> ControlError:
    return ControlError("not_found", f"the cache {cache!r} has no key {key[:64]!r}")
