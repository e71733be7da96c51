"""Members that were declared dead and may be across a partition: whom to try next?

Nothing tells a host that is gone from one that cannot be reached, and a
partition must be found among thousands of dead with a few pings. Among some
hundreds anybody's turn comes soon. Of more, every other ping is dealt to one
of several arms, each with an opinion of its own on who is most likely there:
who was lost last, who first, who before or after a quiet time, who had been a
member longest. An arm draws so that the first ten names have as good a chance
as the next ninety; as long as those who live were lost together, one arm has
some of them near its top, whatever the order in which the others died.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

from ..types import Address
from .members import Member

__all__ = ["Lost", "LostMember"]

_SELDOM = 8  # of so many choices one also looks at those who are hardly there any more
_ARMS_SHARE = 0.5  # of the choices, at most
_ARMS_FULLY = 750  # from so many lost members on


class LostMember(NamedTuple):
    """Somebody as last known."""

    name: str
    address: Address
    incarnation: int
    since: float  # when it was declared dead
    lived: float  # seconds that it had been a member by then
    refused: bool  # its host refused connections: that is there, and its process is not


class Lost:
    """The lost by name, in the order in which they were lost; bounded."""

    def __init__(self, rng: random.Random, limit: int) -> None:
        self._rng = rng
        self._limit = limit
        self._members: OrderedDict[str, LostMember] = OrderedDict()

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def add(self, member: Member, now: float) -> int:
        """Remember `member`; return how many were forgotten for it."""
        self._members[member.name] = LostMember(
            member.name, member.address, member.incarnation, now, now - member.joined, member.refused
        )
        return self._drop(len(self._members) - self._limit)

    def had(self, address: Address) -> bool:
        """Return whether somebody who is lost was last at `address`."""
        return any(lost.address == address for lost in self._members.values())

    def forget(self, name: str) -> bool:
        """Look for `name` no more; return whether it was lost."""
        return self._members.pop(name, None) is not None

    def expire(self, before: float) -> int:
        """Forget who was lost before `before`; return how many."""
        return self._drop(sum(1 for lost in self._members.values() if lost.since < before))

    def choose(self, used: Container[Address]) -> LostMember:
        """Return whom to try next.

        Args:
            used: addresses at which others live, so that whoever had one before is hardly there.
        """
        everybody = list(self._members.values())
        rng = self._rng
        likely = [lost for lost in everybody if not lost.refused and lost.address not in used]
        lost = likely if likely and rng.randrange(_SELDOM) else everybody
        guess = rng.random() < _ARMS_SHARE * min(1.0, len(lost) / _ARMS_FULLY)
        return rng.choice(_ARMS)(lost, rng) if guess else rng.choice(lost)

    def _drop(self, count: int) -> int:
        for _ in range(count):
            self._members.popitem(last=False)
        return max(count, 0)


# -- arms: each picks one of those who were lost, given in the order of loss ---------------------------


def _rank(count: int, rng: random.Random) -> int:
    """Return a rank from 0, every order of magnitude as likely as another."""
    return min(int((count + 1) ** rng.random()), count) - 1


def _latest(lost: Sequence[LostMember], rng: random.Random) -> LostMember:
    return lost[-1 - _rank(len(lost), rng)]


def _earliest(lost: Sequence[LostMember], rng: random.Random) -> LostMember:
    return lost[_rank(len(lost), rng)]


def _edge(lost: Sequence[LostMember], rng: random.Random) -> LostMember:
    """Pick one from before or after a time in which nobody was lost; the longer it was, the likelier."""
    gaps = sorted(range(1, len(lost)), key=lambda n: lost[n - 1].since - lost[n].since)
    return lost[gaps[_rank(len(gaps), rng)] - rng.randrange(2)] if gaps else lost[0]


def _faithful(lost: Sequence[LostMember], rng: random.Random) -> LostMember:
    return sorted(lost, key=lambda one: -one.lived)[_rank(len(lost), rng)]


_ARMS = (_latest, _earliest, _edge, _faithful)
