"""The network between members: when a datagram arrives, how a conversation fares.

All dice come from one seeded generator, and every datagram throws the same
number of them *before* any odds are looked at: switching one fault off does
not move the others, so a failing schedule can be narrowed down.

Conversations (push/pull, TCP ping, reliable user messages) are not simulated
packet by packet. One is whole, slow, or cut in the middle of its request or
of its answer; the bytes are the real ones, so the real reader meets the cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ..types import Address
from .faults import Faults, Links

__all__ = ["Conversation", "Fate", "Network", "NetworkCounters"]


@dataclass(slots=True)
class NetworkCounters:
    """What the network did; a campaign that injected nothing proves nothing."""

    datagrams: int = 0
    bytes: int = 0
    delivered: int = 0
    lost: int = 0
    blocked: int = 0
    duplicated: int = 0
    reordered: int = 0
    refused_sends: int = 0
    overflowed: int = 0
    unbound: int = 0
    exchanges: int = 0
    exchange_bytes: int = 0
    exchanges_slow: int = 0
    exchanges_cut: int = 0
    exchanges_failed: int = 0


@dataclass(frozen=True, slots=True)
class Fate:
    """What the dice hold for one conversation.

    Attributes:
        there: seconds until the request has arrived, dialling included.
        back: seconds from the answer's sending to its arrival.
        cut_request, cut_answer: share of the bytes that get through; 1.0 is all.
    """

    there: float
    back: float
    cut_request: float = 1.0
    cut_answer: float = 1.0


class Conversation:
    """One exchange under way, shared by the events that carry it."""

    __slots__ = ("address", "done", "exchange_id", "expects_reply", "fate", "initiator", "request", "target")

    def __init__(
        self, exchange_id: int, initiator: int, address: Address, request: bytes, fate: Fate, expects_reply: bool
    ) -> None:
        self.exchange_id = exchange_id
        self.initiator = initiator
        self.address = address
        self.target = -1
        self.request = request
        self.fate = fate
        self.expects_reply = expects_reply
        self.done = False


class Network:
    """Throws the dice. Owned by one ``Cluster``; ``faults`` may be replaced at any time."""

    def __init__(self, faults: Faults, rng: Random) -> None:
        self.faults = faults
        self.links = Links()
        self.counters = NetworkCounters()
        self._random = rng.random

    def route(self, source: int, target: int) -> tuple[float, ...] | None:
        """Return the delay of each copy of one datagram that arrives: none, one or two.

        ``None`` means that the sender's own kernel refused it.
        """
        random = self._random
        refused, loss, copy, late = random(), random(), random(), random()
        jitter, copy_jitter, lateness = random(), random(), random()
        faults = self.faults
        if refused < faults.send_error:
            self.counters.refused_sends += 1
            return None
        if self.links.closed and not self.links.carries_datagram(source, target):
            self.counters.blocked += 1
            return ()
        if loss < faults.loss:
            self.counters.lost += 1
            return ()
        delay = faults.delay + jitter * faults.jitter
        if late < faults.reorder:
            self.counters.reordered += 1
            delay += lateness * faults.reorder_delay
        if copy < faults.duplicate:
            self.counters.duplicated += 1
            return (delay, faults.delay + copy_jitter * (faults.jitter + faults.reorder_delay))
        return (delay,)

    def converse(self) -> Fate:
        """Return the fate of one conversation."""
        random = self._random
        slow, cut, where, share, jitter, back_jitter = random(), random(), random(), random(), random(), random()
        faults = self.faults
        counters = self.counters
        counters.exchanges += 1
        there = 3 * (faults.delay + jitter * faults.jitter)  # a handshake, then the request
        back = faults.delay + back_jitter * faults.jitter
        if slow < faults.exchange_slow:
            counters.exchanges_slow += 1
            there += faults.exchange_slow_by * where
            back += faults.exchange_slow_by * (1.0 - where)
        if cut < faults.exchange_cut:
            counters.exchanges_cut += 1
            if where < 0.5:
                return Fate(there, back, cut_request=share)
            return Fate(there, back, cut_answer=share)
        return Fate(there, back)

    def connects(self, source: int, target: int) -> bool:
        """Return whether a connection between the two slots carries anything now."""
        return not self.links.closed or self.links.carries_stream(source, target)
