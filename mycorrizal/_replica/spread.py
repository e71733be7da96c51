"""How a message gets to the others: small ones ride gossip, large ones are pushed, and each receiver passes news on.

Small ones for which gossip has no room go to each of a few others in batches (see ``batches``), else they are pushed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..exceptions import QueueFull
from .limits import Limits
from .outputs import Push

__all__ = ["BroadcastQueue", "Spread"]


class BroadcastQueue(Protocol):
    """What is needed of memberlist's transmit-limited queue; a message replaces a waiting one of the same name."""

    backlog: int

    def queue_broadcast(self, message: bytes, *, name: str | None = None, halved: bool = False) -> None: ...

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]: ...

    def __len__(self) -> int: ...


class Spread:
    """Owns the queue and the list of pushes.

    memberlist does not flood user messages: whoever hears news for the first
    time queues them again (``again``). A quarter of the queue is kept for our own.

    Args:
        queue: None if nothing may ride gossip; then all is pushed.
        peers: names of the members to push to.
    """

    def __init__(
        self, queue: BroadcastQueue | None, limits: Limits, peers: Callable[[], list[str]], count: Callable[[str], None]
    ) -> None:
        self._queue = queue
        self._limits = limits
        self._peers = peers
        self._count = count
        self.pushes: list[Push] = []
        self.push_bytes = 0
        self.direct: list[bytes] = []  # beside gossip, in one packet to everybody
        self.batch: list[bytes] = []  # instead of gossip
        self._batched = 0.0  # bytes of batches that receivers may not have read yet
        self._batched_at = 0.0
        self.muted = False  # while what was pushed is taken: its sender tells everybody itself

    def check(self, size: int, now: float | None = None) -> None:
        """Refuse a message of our own that finds no room. `now`: it may go in a batch.

        Raises:
            QueueFull: too many are waiting.
        """
        if not self._peers():
            return  # nobody to tell; who comes gets our state
        if self._gossiped(size) or (now is not None and self._fits_batch(size, now)):
            return
        if len(self.pushes) >= self._limits.pushes:
            self._count("spread.full")
            raise QueueFull("too many messages are waiting to be spread", hint="write more slowly, or try again")

    def out(self, raw: bytes, name: str, now: float | None = None) -> None:
        """Spread a message of our own, after ``check``. `now`: it may go in a batch."""
        peers = self._peers()
        if not peers:
            return
        if self._gossiped(len(raw)):
            self.ride(raw, name)
        elif now is not None and self._fits_batch(len(raw), now):
            self._count("spread.batched")
            self._batched += len(raw)
            self.batch.append(raw)
        else:
            self._count("spread.pushed")
            self.pushes.append(Push(tuple(peers), raw))
            self.push_bytes += len(raw)

    def ride(self, raw: bytes, name: str) -> None:
        """Have a small message of our own ride gossip, however much waits there."""
        if self._queue is not None:
            self._queue.queue_broadcast(raw, name=name)
            if self._few and len(self.direct) < self._limits.direct:
                self.direct.append(raw)

    def again(self, raw: bytes, name: str) -> None:
        """Pass on what is news to us, if it can ride gossip."""
        if self.muted or self._queue is None or len(raw) > self._limits.gossip_bytes:
            return
        if 4 * len(self._queue) >= 3 * self._limits.queue:
            self._count("spread.not_passed_on")
            return
        # In a flood most of gossip is what everybody was told directly.
        flood = 4 * len(self._queue) >= self._limits.gossip_backlog and self._few
        self._queue.queue_broadcast(raw, name=name, halved=flood)

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        """Take messages for one packet."""
        return [] if self._queue is None else self._queue.get_broadcasts(overhead, limit)

    def __len__(self) -> int:
        return 0 if self._queue is None else len(self._queue)

    @property
    def _few(self) -> bool:
        """Whether each member is told directly what is small."""
        return len(self._peers()) <= self._limits.direct_peers

    def _gossiped(self, size: int) -> bool:
        """Return whether a message of our own is for gossip: it is small, and not too many wait there."""
        queue, limits = self._queue, self._limits
        if queue is None or size > limits.gossip_bytes:
            return False
        return len(queue) < limits.gossip_backlog and queue.backlog < limits.gossip_backlog_bytes

    def _fits_batch(self, size: int, now: float) -> bool:
        """Return whether a message may go in a batch: it is small, the others are few, and can have read the rest."""
        limits = self._limits
        if self._queue is None or size > limits.gossip_bytes or not self._few:
            return False
        read = (now - self._batched_at) * limits.batch_bytes / limits.batch_seconds
        self._batched, self._batched_at = max(0.0, self._batched - read), now
        return self._batched + size <= limits.batch_bytes
