"""A name that turns up at another address: who answers to it?

Differs from memberlist: there the record in the table wins until it is dead
*and* ``dead_node_reclaim_time`` is over (by default never), so a node that
crashed and came back elsewhere is locked out for minutes or for good. Here the
old address is asked first. If it answers, the conflict is real and is
reported; if it stays silent, the claimant is taken. Switched off by
``name_takeover=False``.
"""

from __future__ import annotations

from .._wire.messages import Alive
from .._wire.text import logger
from ..types import Address, NodeState, host_of
from .allowance import Allowance
from .core import Core
from .members import Member
from .probe import Prober
from .transitions import Transitions

__all__ = ["Claims"]

log = logger("mycorrizal.swim")

_SEQUENCE_MAX = 0xFFFFFFFF
_PINGS = 2  # one probe timeout each
_CLAIMS_MAX = 256  # a flood of made-up claims must not become a flood of pings
_OUTBIDS_MAX = 8  # of one address: old records of ours come in few versions, a live namesake raises for ever


class Claims:
    """Conflicts that are being looked into, by name."""

    def __init__(self, core: Core, transitions: Transitions, prober: Prober) -> None:
        self._core = core
        self._transitions = transitions
        self._prober = prober
        self._open: dict[str, Alive] = {}
        self._outbids: dict[Address, int] = {}

    def contested(self, name: str) -> bool:
        """Return whether it is being looked into who has `name`."""
        return name in self._open

    def contest(self, member: Member, claim: Alive, now: float) -> None:
        """Look into `claim`, which names `member` but another address."""
        if not claim.addr or not claim.port:
            self._core.count("alive.address_refused")
            return
        if _address(claim) == member.address:  # the same address in its other form, 4 or 16 bytes
            if self._core.is_self(member):
                self._outbid(member, claim, now)
            elif claim.incarnation > member.incarnation:
                self._transitions.alive(claim, now, takeover=True)
            return
        pending = self._open.get(claim.node)
        if pending is not None:
            if pending.addr == claim.addr and pending.port == claim.port and pending.incarnation < claim.incarnation:
                self._open[claim.node] = claim
            return
        if len(self._open) >= _CLAIMS_MAX:
            self._transitions.report_conflict(member, claim, now)
            return
        allowed, allowance = self._core.set_aside(self._prober.message(_SEQUENCE_MAX, member.name), _PINGS)
        if not allowed:
            return  # whoever is not asked is not silent
        self._open[claim.node] = claim
        # Of our own name it is the other address that is in doubt.
        ours = self._core.is_self(member)
        self._ask(member, _address(claim) if ours else member.address, _PINGS, allowance, now)

    def _ask(self, member: Member, address: Address, pings: int, allowance: Allowance | None, now: float) -> None:
        def on_expiry(then: float) -> None:
            if pings > 1:
                self._ask(member, address, pings - 1, allowance, then)
            else:
                self._silent(member, address, then)

        with self._core.answering(allowance):
            self._prober.check(
                member.name, address, now + self._core.config.probe_timeout,
                lambda then: self._answered(member, then), on_expiry,
            )  # fmt: skip

    def _answered(self, member: Member, now: float) -> None:
        claim = self._open.pop(member.name)
        if self._core.table.get(member.name) is member and _address(claim) != member.address:
            self._transitions.report_conflict(member, claim, now)

    def _silent(self, member: Member, asked: Address, now: float) -> None:
        core = self._core
        claim = self._open.pop(member.name)
        current = core.table.get(member.name)
        if current is None:
            self._transitions.alive(claim, now)
        elif core.is_self(current):
            self._outbid(current, claim, now)  # an old record of ours, from before a restart
        elif current.address == asked:
            log.warning("= %s: %s moved from %s:%d to %s:%d", core.name, current.name, *asked, *_address(claim))
            core.count("takeovers")
            if not current.gone:
                self._transitions.mark_gone(current, NodeState.DEAD, now)
            self._transitions.alive(claim, now, takeover=True)

    def _outbid(self, member: Member, claim: Alive, now: float) -> None:
        if claim.incarnation < member.incarnation or self._core.has_left:
            return
        address = _address(claim)
        bids = self._outbids.get(address, 0)
        if bids >= _OUTBIDS_MAX or len(self._outbids) > _CLAIMS_MAX:
            self._transitions.report_conflict(member, claim, now)
            return
        self._outbids[address] = bids + 1
        self._transitions.refute(member, claim.incarnation, now)


def _address(claim: Alive) -> Address:
    return (host_of(claim.addr or b""), claim.port)
