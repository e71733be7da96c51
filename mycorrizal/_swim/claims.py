"""A name that turns up at another address: who answers to it?

Differs from memberlist: there the record in the table wins until it is dead
*and* ``dead_node_reclaim_time`` is over (by default never), so a node that
crashed and came back elsewhere is locked out for minutes or for good. Here the
old address is asked first. If it answers, the conflict is real and is
reported, of an older record only if somebody answers there too; if it stays
silent, the claimant is taken. One whose host has another address now (same
process, greater incarnation) has moved, any other one is a new life. Switched
off by ``name_takeover=False``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from .._wire.messages import Alive, Dead, Message
from .._wire.meta import read_meta
from .._wire.text import logger
from ..types import Address, NodeState, host_of
from .allowance import Allowance
from .core import Core
from .members import Member
from .probe import Prober
from .transitions import Transitions

__all__ = ["Claims"]

log = logger("mycorrizal.swim")

Then = Callable[[float], None]

_SEQUENCE_MAX = 0xFFFFFFFF
_PINGS = 2  # one probe timeout each
_CLAIMS_MAX = 256  # a flood of made-up claims must not become a flood of pings
_OUTBIDS_MAX = 8  # of one address: old records of ours come in few versions, a live namesake raises for ever


@dataclass(slots=True)
class _Open:
    """A conflict that is being looked into."""

    claim: Alive
    anew: bool  # it was heard with a number as a new process has, not as one that goes on counting
    leave: Dead | None = None  # of whoever had the name, heard meanwhile


class Claims:
    """Conflicts that are being looked into, by name."""

    def __init__(self, core: Core, transitions: Transitions, prober: Prober) -> None:
        self._core = core
        self._transitions = transitions
        self._prober = prober
        self._open: dict[str, _Open] = {}
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
        boot = read_meta(member.meta or b"").boot
        if boot is not None and claim.incarnation < member.incarnation and boot == read_meta(claim.meta or b"").boot:
            self._core.count("claims_outdated")  # of this very process, from before it moved
            return
        pending = self._open.get(claim.node)
        if pending is not None:
            if _address(pending.claim) == _address(claim):
                pending.anew = pending.anew or claim.incarnation <= member.incarnation
                if pending.claim.incarnation < claim.incarnation:
                    pending.claim = claim
            return
        if len(self._open) >= _CLAIMS_MAX:
            self._transitions.report_conflict(member, claim, now)
            return
        allowed, allowance = self._core.set_aside(self._prober.message(_SEQUENCE_MAX, member.name), _PINGS)
        if not allowed:
            return  # whoever is not asked is not silent
        self._open[claim.node] = _Open(claim, claim.incarnation <= member.incarnation)
        if claim.incarnation > member.incarnation and member.suspicion is not None:
            self._transitions.put_off(member, member.suspicion, now)  # it may be suspect because it has moved
        # Of our own name it is the other address that is in doubt.
        asked = _address(claim) if self._core.is_self(member) else member.address
        answered = partial(self._answered, member, allowance)
        self._ask(member.name, asked, _PINGS, allowance, answered, partial(self._silent, member.name, asked), now)

    def sort(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return the messages of a packet, a leave behind the claim that takes it back (module ``moving``)."""
        lives = {m.node: m.incarnation for m in messages if isinstance(m, Alive)}
        return sorted(messages, key=lambda m: isinstance(m, Dead) and _is_leave(m, lives.get(m.node, 0)))

    def hold(self, leave: Dead) -> bool:
        """Return whether a leave waits, for a later claim of the name is being looked into: it may have moved."""
        pending = self._open.get(leave.node)
        if pending is None or not _is_leave(leave, pending.claim.incarnation):
            return False
        pending.leave = leave
        return True

    def _ask(
        self, name: str, address: Address, pings: int, allowance: Allowance | None, answered: Then, silent: Then,
        now: float,
    ) -> None:  # fmt: skip
        def on_expiry(then: float) -> None:
            if pings > 1:
                self._ask(name, address, pings - 1, allowance, answered, silent, then)
            else:
                silent(then)

        with self._core.answering(allowance):
            self._prober.check(name, address, now + self._core.config.probe_timeout, answered, on_expiry)

    def _answered(self, member: Member, allowance: Allowance | None, now: float) -> None:
        """Somebody has the name where it was; who claims it less loudly may be nobody, but an old record."""
        name = member.name
        claim = self._open[name].claim
        current = self._core.table.get(name)
        if current is member and claim.incarnation < member.incarnation and not self._core.is_self(member):
            # On account of a datagram there is one ping left for that, if the first answered.
            pings = _PINGS if allowance is None else 1
            both, one = partial(self._conflict, member), lambda then: self._drop(name)
            self._ask(name, _address(claim), pings, allowance, both, one, now)
        else:
            self._conflict(member, now)

    def _conflict(self, member: Member, now: float) -> None:
        pending = self._open.pop(member.name)
        claim = pending.claim
        if pending.leave is not None:
            self._transitions.dead(pending.leave, now)
            self._transitions.alive(claim, now)
        elif self._core.table.get(member.name) is member and _address(claim) != member.address:
            self._transitions.report_conflict(member, claim, now)

    def _drop(self, name: str) -> None:
        del self._open[name]
        self._core.count("claims_outdated")

    def _silent(self, name: str, asked: Address, now: float) -> None:
        core = self._core
        pending = self._open.pop(name)
        claim = pending.claim
        current = core.table.get(name)
        if current is None:
            self._transitions.alive(claim, now)
        elif core.is_self(current):
            self._outbid(current, claim, now)  # an old record of ours, from before a restart
        elif current.address == asked:
            log.warning("%s: %s moved from %s:%d to %s:%d", core.name, current.name, *asked, *_address(claim))
            if not current.gone and _same_life(current.meta, pending):
                core.count("moves")
            else:
                core.count("takeovers")
                if pending.leave is not None:
                    self._transitions.dead(pending.leave, now)
                elif not current.gone:
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


def _same_life(meta: bytes | None, pending: _Open) -> bool:
    """Whether a claim is of the process whose metadata were `meta`, as far as can be told."""
    old, new = meta or b"", pending.claim.meta or b""
    boot = read_meta(old).boot
    return boot == read_meta(new).boot if boot is not None else old == new and not pending.anew


def _is_leave(claim: Dead, later: int) -> bool:
    """Whether a node itself has said `claim`, and something `later`."""
    return claim.sender == claim.node and claim.incarnation < later


def _address(claim: Alive) -> Address:
    return (host_of(claim.addr or b""), claim.port)
