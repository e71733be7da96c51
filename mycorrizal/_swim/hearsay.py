"""Who tells of somebody that nobody here knows any more may have slept.

A host that was suspended comes back with the table that it had. Whoever died or
left meanwhile, and was forgotten by those who stayed awake, is alive in it.

Differs from memberlist: there the others take such a record, tell everybody of
a member that joined, and declare it dead seconds later. Here hearsay of somebody
unknown or gone is checked first: that of a push/pull always, by a ping, then by
another one and through others; gossip by one ping, where it comes from a member
that was suspect or lost a while ago. Who speaks for itself is believed, and a newcomer
believes whom it joins. Switched off by ``check_hearsay=False``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .._wire.messages import Alive, IndirectPing, PushNodeState
from ..types import Address, NodeState, host_of
from .core import Core
from .lost import Lost
from .probe import Prober
from .transitions import Transitions

__all__ = ["Hearsay"]

_CHECKS_MAX = 256  # at a time; what is too much is told again if it is true
_AWAY = 120.0  # seconds in which the table of who comes back may be old, besides two rounds of its probes
_SEQUENCE_MAX = 0xFFFFFFFF


class Hearsay:
    """Tells hearsay from what is believed at once, and checks it."""

    def __init__(self, core: Core, transitions: Transitions, prober: Prober, lost: Lost) -> None:
        self._core = core
        self._transitions = transitions
        self._prober = prober
        self._lost = lost
        self._open: dict[str, Alive] = {}
        self._waiting: list[tuple[set[str], Callable[[float], None]]] = []

    def __len__(self) -> int:
        return len(self._open)

    def sift(
        self, nodes: Sequence[PushNodeState], teller: Address, *, dialled: bool, joining: bool, now: float
    ) -> Sequence[PushNodeState]:
        """Return those records of `teller`'s table that are believed; the others are being checked.

        Args:
            dialled: we did, so that `teller` is where it listens; else only its host is known.
            joining: this is the answer to a join of ours.
        """
        table = self._core.table
        if joining and not self._lost and all(member.gone or self._core.is_self(member) for member in table):
            return nodes  # a newcomer knows nothing better
        own = _own(nodes, teller, dialled)
        believed = []
        for node in nodes:
            if node.state != NodeState.ALIVE or not self._news(node.name) or node is own:
                believed.append(node)
            else:
                self._check(self._transitions.claim(node), now)
        return believed

    def doubts(self, claim: Alive, teller: Address, now: float) -> bool:
        """Return whether a gossiped claim is not believed at once; then it is being checked."""
        if not self._news(claim.node) or teller == _address(claim) or not self._was_away(teller, now):
            return False
        self._check(claim, now)
        return True

    def when_settled(self, done: Callable[[float], None], now: float) -> None:
        """Call ``done(then)`` when the checks that are under way have ended; two probe timeouts at most."""
        if self._open:
            self._waiting.append((set(self._open), done))
        else:
            done(now)

    def _news(self, name: str) -> bool:
        table = self._core.table
        member = table.get(name)
        if member is None:
            return len(table) < self._core.config.max_nodes  # nobody more is taken anyway
        return member.gone and not self._core.is_self(member)

    def _was_away(self, teller: Address, now: float) -> bool:
        table = self._core.table
        patience = _AWAY + 2 * len(table) * self._core.config.probe_interval
        for member in table:
            if member.address == teller:
                return member.state != NodeState.ALIVE or now - member.back < patience
        return self._lost.had(teller)

    def _check(self, claim: Alive, now: float) -> None:
        core = self._core
        pending = self._open.get(claim.node)
        if pending is not None:
            if _address(pending) == _address(claim) and pending.incarnation < claim.incarnation:
                self._open[claim.node] = claim
            return
        if not claim.addr or not claim.port or not core.address_allowed(host_of(claim.addr)):
            core.count("alive.address_refused")
            return
        allowed, allowance = core.set_aside(self._prober.message(_SEQUENCE_MAX, claim.node))
        if not allowed or len(self._open) >= _CHECKS_MAX:
            core.count("hearsay_dropped")
            return
        core.count("hearsay_checked")
        self._open[claim.node] = claim
        with core.answering(allowance):
            self._prober.check(
                claim.node, _address(claim), now + core.config.probe_timeout,
                lambda then: self._proven(claim.node, then),
                # A datagram buys few others: what it told is told by more than one.
                lambda then: self._ask_others(claim, then) if allowance is None else self._refuted(claim.node, then),
            )  # fmt: skip

    def _ask_others(self, claim: Alive, now: float) -> None:
        core = self._core
        request = IndirectPing(
            core.next_sequence(), claim.addr, claim.port, claim.node, False, core.addr, core.port, core.name
        )  # fmt: skip
        self._prober.acks.expect(
            request.seq_no, now + core.config.probe_timeout,
            lambda payload, then: self._proven(claim.node, then), lambda then: self._refuted(claim.node, then),
        )  # fmt: skip
        for peer in core.table.sample(
            core.config.indirect_checks, lambda m: m.state == NodeState.ALIVE and not core.is_self(m)
        ):
            core.send([core.codec.encode(request)], peer.address, name=peer.name)
        ping = self._prober.message(request.seq_no, claim.node)
        core.send([core.codec.encode(ping)], _address(claim), name=claim.node)

    def _proven(self, name: str, now: float) -> None:
        self._transitions.alive(self._open.pop(name), now)
        self._settled(name, now)

    def _refuted(self, name: str, now: float) -> None:
        del self._open[name]
        self._core.count("hearsay_refuted")
        self._settled(name, now)

    def _settled(self, name: str, now: float) -> None:
        for names, _ in self._waiting:
            names.discard(name)
        ended = [done for names, done in self._waiting if not names]
        self._waiting = [waiting for waiting in self._waiting if waiting[0]]
        for done in ended:
            done(now)


def _own(nodes: Sequence[PushNodeState], teller: Address, dialled: bool) -> PushNodeState | None:
    """Return the teller's record of itself, if it is plain which one that is; a table of one holds that one."""
    if len(nodes) == 1:
        return nodes[0]
    there = [n for n in nodes if host_of(n.addr or b"") == teller[0] and (not dialled or n.port == teller[1])]
    return there[0] if len(there) == 1 else None


def _address(claim: Alive) -> Address:
    return (host_of(claim.addr or b""), claim.port)
