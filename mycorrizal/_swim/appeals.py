"""A suspect is heard before it is buried.

Differs from memberlist, with messages it already has; switched off by
``verify_suspicions=False``. On a network that loses a third of its packets a
refutation misses somebody now and then, and there is nothing in memberlist to
make up for it: that node's suspicion runs out, and the whole cluster believes
its word. Here

* who hears an accusation that is older than what it knows sends the newer
  *alive* straight back to the accuser, and so does the accused itself;
* before a suspicion runs out its holder pings the suspect a few times, with
  the suspicion in the same packet (Lifeguard's buddy system); an answer puts
  the verdict off by another shortest window, and brings the refutation.

A node that does not answer is declared dead when its window ends, as in
memberlist; only where a confirmation ends the window at once, one probe timeout
later.
"""

from __future__ import annotations

from .._wire.messages import Alive, Dead, Suspect
from ..types import Address, NodeState
from .core import Core
from .members import Member
from .probe import Prober
from .suspicion import Suspicion
from .timers import Timer
from .transitions import Transitions

__all__ = ["Appeals"]

_PINGS = 6  # within one probe timeout: at 30 % loss the chance that none comes back is 2 %
_CORRECTIONS_PER_SECOND = 50.0  # a storm of old accusations must not become a storm of answers


class Appeals:
    """Corrects accusers and pings suspects."""

    def __init__(self, core: Core, transitions: Transitions, prober: Prober) -> None:
        self._core = core
        self._transitions = transitions
        self._prober = prober
        self._lead = core.config.probe_timeout
        self._next: dict[str, Timer] = {}  # by node, while it is suspect
        self._tokens = _CORRECTIONS_PER_SECOND
        self._tokens_at = float("-inf")

    # -- accusers ---------------------------------------------------------------------

    def correct(self, claim: Suspect | Dead, accuser: Address, now: float) -> None:
        """Tell `accuser` if we know better than `claim`, which has already been applied."""
        member = self._core.table.get(claim.node)
        if member is None or member.state != NodeState.ALIVE or claim.incarnation >= member.incarnation:
            return
        self._tokens = min(_CORRECTIONS_PER_SECOND, self._tokens + (now - self._tokens_at) * _CORRECTIONS_PER_SECOND)
        self._tokens_at = now
        if self._tokens < 1:
            return
        self._tokens -= 1
        core = self._core
        core.count("accusers_corrected")
        alive = Alive(member.incarnation, member.name, member.addr, member.port, member.meta, member.vsn)
        core.send([core.codec.encode(alive)], accuser, name=claim.sender)

    # -- suspects ---------------------------------------------------------------------

    def hear(self, member: Member, suspicion: Suspicion, now: float) -> None:
        """Arrange the last pings; called whenever a suspicion's deadline is set."""
        begin = suspicion.deadline - self._lead
        if begin < now:
            if suspicion.not_before <= suspicion.started:  # not being heard yet
                suspicion.not_before = now + self._lead
                self._transitions.arm(member, suspicion, now)
                return
            begin = now
        self._schedule(member, suspicion, begin)

    def _schedule(self, member: Member, suspicion: Suspicion, when: float) -> None:
        old = self._next.get(member.name)
        if old is not None:
            old.cancel()
        self._next[member.name] = self._core.timers.call_at(when, lambda now: self._ping(member, suspicion, now))

    def _ping(self, member: Member, suspicion: Suspicion, now: float) -> None:
        core = self._core
        if member.suspicion is not suspicion or member.state != NodeState.SUSPECT:
            self._next.pop(member.name, None)
            return
        self._prober.check(
            member.name, member.address, now + core.config.probe_timeout,
            lambda then: self._answered(member, suspicion, then), lambda then: None,
            Suspect(member.incarnation, member.name, core.name),
        )  # fmt: skip
        self._schedule(member, suspicion, now + self._lead / _PINGS)

    def _answered(self, member: Member, suspicion: Suspicion, now: float) -> None:
        if member.suspicion is suspicion and member.state == NodeState.SUSPECT:
            self._core.count("suspicions_put_off")
            self._transitions.answered(member, now)
            self._transitions.put_off(member, suspicion, now)
