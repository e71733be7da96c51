"""Members that left or failed, remembered for a day: who they were, and when they went."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ...types import Node

__all__ = ["Departed"]

SECONDS = 86400.0
"""How long one is remembered, as in Serf."""
MOST = 4096
"""Members that are remembered; the longest gone is forgotten first."""


class Departed:
    """The gossip thread tells; ``view`` may be called on any. The lock is re-entrant for signal handlers."""

    def __init__(self) -> None:
        self._gone: OrderedDict[str, tuple[Node, float]] = OrderedDict()  # the longest gone first
        self._lock = threading.RLock()

    def left(self, node: Node, now: float) -> None:
        """`node` is gone; its last record says how."""
        with self._lock:
            self._gone.pop(node.name, None)
            self._gone[node.name] = (node, now)
            if len(self._gone) > MOST:
                self._gone.popitem(last=False)

    def joined(self, name: str) -> None:
        """The member of that name is here, for the first time or again."""
        with self._lock:
            self._gone.pop(name, None)

    def view(self, now: float) -> list[tuple[Node, float]]:
        """Return those that are gone at `now`, each with the time at which it went, the longest gone first."""
        with self._lock:
            while self._gone and next(iter(self._gone.values()))[1] + SECONDS <= now:
                self._gone.popitem(last=False)
            return list(self._gone.values())
