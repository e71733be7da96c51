"""Which threads must not wait: those whose progress the wait needs.

The loop and the gossip thread write themselves down here; a blocking call
asks before it waits. The question costs one look into a dict.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ...exceptions import ReentrantCallError
from . import platform

__all__ = ["Roll", "finishers", "owner", "refuse"]


class Roll:
    """Names of the threads that are inside ``with entered(name):``. Any thread."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        # A child has none of these threads, but may give their idents to new ones.
        platform.at_fork(after_in_child=self._names.clear)

    @contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """Write the calling thread down as `name` inside ``with``."""
        ident = threading.get_ident()
        before = self._names.get(ident)
        self._names[ident] = name
        try:
            yield
        finally:
            # An ident is given to another thread as soon as this one has ended.
            if before is None:
                self._names.pop(ident, None)
            else:
                self._names[ident] = before

    def caller(self) -> str | None:
        """Return the name of the calling thread if it is written down."""
        return self._names.get(threading.get_ident())


_owners = Roll()
finishers = Roll()
"""Threads that must not wait for a future, because they finish them."""

owner = _owners.entered
"""``with owner(name):`` refuses all blocking calls of ours on the calling thread."""


def refuse(operation: str) -> None:
    """Return if the caller may wait in `operation`. Any thread.

    Raises:
        ReentrantCallError: on a thread inside ``owner``.
    """
    name = _owners.caller()
    if name is not None:
        raise ReentrantCallError(
            f"{operation} would wait on {name}, the thread it waits for",
            operation=operation,
            hint="call it from a handler or a thread of your own",
        )
