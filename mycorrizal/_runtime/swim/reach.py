"""Members that answer datagrams and cannot be dialled: what a firewall for TCP alone looks like.

A push/pull that failed says little: its member may have died, or stood still.
One that is still a member a good while later has answered probes meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ...exceptions import OperationTimeout, PeerRefused, PeerUnreachable
from ...types import Address

__all__ = ["Reach"]

PATIENCE = 15.0
"""Seconds after which a member that does not answer datagrams is suspected at the latest."""
KEPT_SECONDS = 600.0
"""How long a failure counts that nothing has contradicted."""
KEPT_MAX = 256
"""Addresses; the one that failed longest ago goes first."""


class Reach:
    """Remembers which push/pulls failed. Written on one thread, ``failing`` on any."""

    def __init__(self) -> None:
        self._failed: OrderedDict[Address, tuple[float, float, int]] = OrderedDict()  # first, last, how often
        self._told: dict[Address, None] = {}  # of those

    def dialled(self, address: Address, error: Exception | None, now: float) -> None:
        """Note how a push/pull with `address` ended. An answer that is refused is one: TCP works."""
        first, _, count = self._failed.pop(address, (now, now, 0))
        if isinstance(error, (PeerUnreachable, OperationTimeout)) and not isinstance(error, PeerRefused):
            self._failed[address] = first, now, count + 1
            if len(self._failed) > KEPT_MAX:
                self._told.pop(self._failed.popitem(last=False)[0], None)
        else:
            self._told.pop(address, None)

    def news(self, address: Address, now: float) -> bool:
        """Return whether somebody should be told, once, that `address`, which is alive now, cannot be dialled."""
        first, _, count = self._failed.get(address, (now, now, 0))
        if count < 2 or now < first + PATIENCE or address in self._told:
            return False
        self._told[address] = None
        return True

    def failing(self, alive: Iterable[Address], now: float) -> int:
        """Return how many push/pulls failed with members that are `alive` now; 0 for one alone, which may be chance."""
        failed = self._failed.copy()
        found = [failed[address] for address in alive if address in failed]
        total = sum(count for first, last, count in found if first + PATIENCE <= now < last + KEPT_SECONDS)
        return total if total > 1 else 0
