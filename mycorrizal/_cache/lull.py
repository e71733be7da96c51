"""Caches that were opened and not used yet: their claims wait for a lull, and then go out together.

Where many open many caches at once, each announcement is another view of one of
them. Placing its partitions for each view, and claiming them from members that
have not heard of it yet, is work that makes everybody later, and so views
differ for longer. Nothing of it is needed while nobody uses the cache. So that
waits until there were no news of any such cache for a while, after `most`
seconds until there were none of this one, at most for that long again; or until
the cache is used: what a caller waits for is never put off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .timers import Timers

if TYPE_CHECKING:
    from .space import Space

__all__ = ["Lull"]


class _Unused:
    """When a cache was opened, when its last news came, and when the others have heard of it."""

    __slots__ = ("news", "opened", "told")

    def __init__(self, now: float, told: float) -> None:
        self.opened = now
        self.news = now
        self.told = told


class Lull:
    """The unused caches of one node.

    Args:
        calm: seconds without news that are a lull.
        most: seconds after which it is not waited for any longer.
    """

    def __init__(self, timers: Timers, calm: float, most: float) -> None:
        self._timers = timers
        self._calm = calm
        self._most = most
        self._unused: dict[Space, _Unused] = {}
        self._pause = calm
        self._looking = False
        self._due = 0.0
        self._latest = 0.0

    def __contains__(self, space: Space) -> bool:
        return space in self._unused

    def add(self, space: Space, now: float, told: float) -> None:
        """`space` was opened, and the others have heard of it at `told`, unless ``told`` says so earlier."""
        if not self._unused:
            self._latest = now + self._most
        space.used = False
        self._unused[space] = _Unused(now, told)
        self._due = min(now + self._pause, self._latest)
        if not self._looking:
            self._looking = True
            self._timers.call_at(self._due, self._look)

    def news(self, space: Space, now: float) -> None:
        """Others open `space` too, or leave it."""
        unused = self._unused.get(space)
        if unused is not None:
            unused.news = now
            self._due = min(now + self._pause, self._latest)

    def told(self, space: Space, now: float) -> None:
        """The others have heard of `space`. How long that took is how late they are, and their news on the way."""
        unused = self._unused.get(space)
        if unused is not None:
            unused.told = now
            self._pause = max(self._calm, now - unused.opened)
            self.news(space, now)

    def use(self, space: Space, now: float) -> None:
        """Somebody uses `space`; that it was unused is over."""
        space.used = True
        self._end(space, now)

    def drop(self, space: Space) -> None:
        """`space` is not waited for any more."""
        space.used = True
        self._unused.pop(space, None)

    def _end(self, space: Space, now: float) -> None:
        if self._unused.pop(space, None) is not None:
            space.handover.proceed(now)

    def _look(self, now: float) -> None:
        if now >= self._due:
            for space, it in list(self._unused.items()):
                if max(it.told, it.news + self._pause) <= now or it.opened + self._most <= now:
                    self._end(space, now)
            self._latest = now + self._most
            self._due = now + self._pause
        self._looking = bool(self._unused)
        if self._looking:
            self._timers.call_at(self._due, self._look)
