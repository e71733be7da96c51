"""One partition of one cache on one node: whose it is, and what this node does about it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .messages import Record
from .operations import Op, Result, maker
from .placement import Owner

if TYPE_CHECKING:
    from .handover import Claim

__all__ = ["Flight", "Outcome", "Pending", "Shard", "make_outcome"]

Answered = Callable[[Result, float], None]


class Pending(NamedTuple):
    """An operation at its primary: for whom, and whom to answer until when."""

    op: Op
    who: Owner
    done: Answered
    until: float


class Outcome(NamedTuple):
    """What a write came to, remembered for retries."""

    status: int
    number: int
    version: int
    at: float


make_outcome = maker(Outcome)


class Flight:
    """A write that its backups do not all have yet, and what waits behind it for the same key."""

    __slots__ = ("done", "queue", "record", "result", "waiting")

    def __init__(self, done: Answered, record: Record, result: Result) -> None:
        self.done = done
        self.record = record
        self.result = result
        self.waiting: dict[Owner, None] = {}
        self.queue: deque[Pending] = deque()


class Shard:
    """State of one partition.

    Attributes:
        owners: primary first, by our view; empty: nobody announces the cache.
        epoch: how often they changed, and we began to serve.
        serving: we are primary and have what there is.
        claim: what we still have to hear from others before, or (after the patience) while, we serve.
        flights: writes under way, by key.
        behind: what waits for a clear that is under way; or for the writes under way, and then the clear is the first.
        outcomes: of the last writes, by the id of the operation.
        reported: the primary has asked us what we hold, since it became primary by our view.
        repaired: when a reader last knew of a newer version than we did.
        fills: backups that are not known to hold a whole copy.
        complete_since: outcomes of operations that began later are all remembered.
        seq: number of the last invalidation sent.
        wrote: we have done writes since we began to serve.
        heard: when a member last agreed that we are primary, and did no more writes itself.
    """

    __slots__ = (
        "behind", "claim", "complete_since", "epoch", "fills", "flights", "heard", "outcomes", "owners", "partition",
        "repaired", "reported", "seq", "serving", "wrote",
    )  # fmt: skip

    def __init__(self, partition: int, now: float) -> None:
        self.partition = partition
        self.epoch = 0
        self.owners: tuple[Owner, ...] = ()
        self.serving = False
        self.claim: Claim | None = None
        self.flights: dict[bytes, Flight] = {}
        self.behind: deque[Pending] | None = None
        self.outcomes: dict[int, Outcome] = {}
        self.reported = True
        self.repaired = now
        self.fills: dict[Owner, None] = {}
        self.complete_since = now
        self.seq = 0
        self.wrote = False
        self.heard: dict[Owner, float] = {}

    @property
    def primary(self) -> Owner | None:
        """Who is primary, by our view."""
        return self.owners[0] if self.owners else None

    def remember(self, op: int, outcome: Outcome, most: int, age: float) -> None:
        """Keep an outcome, and let go of old ones."""
        self.outcomes[op] = outcome
        self.trim(outcome.at, most, age)

    def trim(self, now: float, most: int, age: float) -> None:
        """Let go of outcomes that are too old, or too many."""
        outcomes = self.outcomes
        while outcomes:
            first = next(iter(outcomes))
            oldest = outcomes[first]
            if len(outcomes) > most:
                self.complete_since = max(self.complete_since, oldest.at)
            elif oldest.at > now - age:
                break
            del outcomes[first]

    def forget(self, now: float, age: float) -> float | None:
        """If all outcomes have their age, let go of them; return when they will, None if there are none now.

        All at once, and so at the same moment on every copy: their digests stay equal.
        """
        if self.outcomes:
            due = self.outcomes[next(reversed(self.outcomes))].at + age
            if due > now:
                return due
            self.outcomes = {}
        return None

    def outcomes_digest(self) -> int:
        """Return a sum over the operations remembered."""
        digest = 0
        for op in self.outcomes:
            digest ^= op
        return digest
