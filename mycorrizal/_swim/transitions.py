"""The rules by which a record changes: alive, suspect, dead, refute, merge.

Theory of operation. Every claim about a node carries the node's incarnation, a
number that only the node itself raises. A claim is stale unless it is newer
than the record: *alive* needs a greater incarnation, *suspect* and *dead* are
content with an equal one, so between two claims of one incarnation the worse
wins, and only the node itself can answer, with a greater one (``refute``).
A claim that is taken is queued for gossip once; what is stale is not, and so
an epidemic ends. *Left* is dead said by the node itself.

Nothing here waits: a suspicion that has run out comes back as a timer.

From SWIM §4.2 and memberlist ``state.go`` (memberlist-protocol §6.3 to §6.8).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from .._wire.messages import Alive, Dead, PushNodeState, Suspect
from .._wire.meta import read_meta
from .._wire.text import logger
from ..config import META_MAX_SIZE
from ..types import Address, Node, NodeState, Versions, host_of
from .core import Core
from .events import NodeConflict, NodeJoined, NodeLeft, NodeUpdated
from .members import NO_VERSIONS, Member, verify_protocol
from .scaling import suspicion_timeout
from .suspicion import Suspicion

__all__ = ["Transitions"]

log = logger("mycorrizal.swim")

# An incarnation this near the end of u32 leaves its node no room to refute. Differs from memberlist:
# such claims are dropped (there the counter wraps to 0 and the node can never answer again).
_INCARNATION_MAX = 0xFFFFFFFF - 0xFFFF
_ADDRESS_BYTES = (4, 16)  # Differs from memberlist: an address of another length, which nobody can dial, is refused
_JUST_STARTED = 10.0  # seconds; what is said of a node then is about the process that had its name before
_REFUTATION_ROOM = 0x7FFF  # an alive may be this much above: answers to the last accusations that are taken


class Transitions:
    """Applies claims to the table of a ``Core``."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._table = core.table
        # Set by the machine: asked when a name turns up at another address (module claims).
        self.on_conflict: Callable[[Member, Alive, float], None] = self.report_conflict
        self.on_suspicion: Callable[[Member, Suspicion, float], None] = lambda member, suspicion, now: None
        self.on_dead: Callable[[Member, float], None] = lambda member, now: None
        self.on_alive: Callable[[Member, float], None] = lambda member, now: None

    # -- claims -----------------------------------------------------------------------

    def alive(
        self,
        claim: Alive,
        now: float,
        *,
        bootstrap: bool = False,
        takeover: bool = False,
        finished: Callable[[], None] | None = None,
    ) -> None:
        """Apply an alive claim (memberlist-protocol §6.3).

        Args:
            bootstrap: the claim is our own.
            takeover: the claimant was found to be the only one that answers to the name.
            finished: called when the claim has been gossiped out.
        """
        core = self._core
        ours = claim.node == core.name
        if (core.has_left and ours) or not self._admitted(claim, ours):
            return
        member = self._table.get(claim.node)
        replacing = takeover
        if member is None:
            if not self._address_allowed(claim):
                return
            member = self._insert(claim)
            if member is None:
                return
        elif claim.addr != member.addr or claim.port != member.port:
            if not self._address_allowed(claim):
                return
            replacing = replacing or self._name_is_free(member, now)
            if not replacing:
                self.on_conflict(self._table.own(member), claim, now)
                return
        if ours and claim.incarnation < member.incarnation:
            return
        if not ours and not replacing and claim.incarnation <= member.incarnation:
            return
        member = self._table.own(member)
        self._drop_suspicion(member)
        if ours and not bootstrap:
            if claim.incarnation != member.incarnation or not self._same(claim, member):
                self.refute(member, claim.incarnation, now)
            return
        self._take(member, claim, now, finished)

    def suspect(self, claim: Suspect, now: float) -> None:
        """Apply a suspicion (memberlist-protocol §6.5)."""
        member = self._table.get(claim.node)
        if member is None or self._void(claim.incarnation, member) or not self._core.name_allowed(claim.sender):
            return
        if member.suspicion is not None:
            if member.suspicion.confirm(claim.sender):
                self.arm(member, member.suspicion, now)
                self._core.queue_broadcast(claim, member.name)
            return
        if member.state != NodeState.ALIVE:
            return
        if self._core.is_self(member):
            self._defend(member, claim, "suspected", now)
            return
        self._core.queue_broadcast(claim, member.name)
        member = self._table.own(member)
        member.incarnation = claim.incarnation
        member.state = NodeState.SUSPECT
        member.changed = now
        self._table.touch(member)
        self._start_suspicion(member, claim.sender, now)
        log.debug("%s suspects %s (from %s)", self._core.name, member.name, claim.sender)

    def dead(self, claim: Dead, now: float, *, finished: Callable[[], None] | None = None) -> None:
        """Apply a death or a leave (memberlist-protocol §6.6)."""
        core = self._core
        member = self._table.get(claim.node)
        if member is None or self._void(claim.incarnation, member) or not core.name_allowed(claim.sender):
            return
        member = self._table.own(member)
        self._drop_suspicion(member)
        if member.gone:
            return
        if core.is_self(member) and not core.has_left:
            self._defend(member, claim, "declared dead", now)
            return
        core.queue_broadcast(claim, member.name, finished)
        member.incarnation = claim.incarnation
        self.mark_gone(member, NodeState.LEFT if claim.sender == claim.node else NodeState.DEAD, now)

    def mark_gone(self, member: Member, state: NodeState, now: float) -> None:
        """Set a record dead or left and tell the owner."""
        member = self._table.own(member)
        self._drop_suspicion(member)
        member.state = state
        member.changed = now
        self._table.touch(member)
        self._core.emit(NodeLeft(member.node()))
        if not self._core.is_self(member):
            self.on_dead(member, now)

    def _defend(self, member: Member, claim: Suspect | Dead, what: str, now: float) -> None:
        """Refute, and say so as what it is: who has just come back answers for the process before it."""
        if claim.incarnation > self._core.incarnation or now - member.joined < _JUST_STARTED:
            text = "%s: others still take the process that had this name before for gone, and are told of this one"
            log.info(text, self._core.name)
        else:
            # A table that a peer told names nobody.
            who = claim.sender if claim.sender != claim.node else "somebody whose table was told"
            log.warning("%s refutes being %s by %s", self._core.name, what, who)
        self.refute(member, claim.incarnation, now)

    def refute(self, member: Member, accused: int, now: float) -> None:
        """Answer a claim about ourselves with a greater incarnation (memberlist-protocol §6.4)."""
        core = self._core
        if self._absurd(accused + 1 - _REFUTATION_ROOM):
            return
        core.incarnation = max(core.incarnation + 1, accused + 1)
        core.count("refutations")
        core.awareness.apply(1)
        self.announce(member)

    def announce(self, member: Member) -> None:
        """Queue our own record with our present incarnation."""
        core = self._core
        member.incarnation = core.incarnation
        self._table.touch(member)
        # Keyed by the address, as memberlist does: it must not replace a queued update of ours.
        core.queue_broadcast(
            Alive(core.incarnation, core.name, member.addr, member.port, member.meta, member.vsn), member.address[0]
        )

    # -- merging ----------------------------------------------------------------------

    def verify(self, remote: Sequence[PushNodeState]) -> None:
        """Check versions before a merge; raises ``MergeRefused``."""
        verify_protocol(
            ((n.name, n.state, n.vsn or b"") for n in remote),
            ((m.name, m.state, m.vsn) for m in self._table),
        )

    def merge(self, remote: Sequence[PushNodeState], now: float) -> None:
        """Apply a peer's table (memberlist-protocol §3.6): its dead are only suspects to us."""
        core, known = self._core, self._table.get
        for node in remote:
            if node.state == NodeState.ALIVE:
                member = known(node.name)
                if member is not None and core.alive_delegate is None and _repeats(node, member):
                    continue
                self.alive(self.claim(node), now)
            elif node.state == NodeState.LEFT:
                self.dead(Dead(node.incarnation, node.name, node.name), now)
            elif node.state in (NodeState.DEAD, NodeState.SUSPECT):
                self.suspect(Suspect(node.incarnation, node.name, self._core.name), now)

    def claim(self, node: PushNodeState) -> Alive:
        """Return what a living member's record in a peer's table says."""
        core = self._core
        port = node.port if node.port and core.config.protocol_version > 1 else core.port
        return Alive(node.incarnation, node.name, node.addr, port, node.meta, node.vsn)

    def report_conflict(self, member: Member, claim: Alive, now: float) -> None:
        """Tell the owner that a live node's name is claimed from elsewhere."""
        other = Node(claim.node, claim.addr or b"", claim.port, claim.meta or b"", versions=Versions())
        log.error(
            "%s: name %r is taken by %s:%d, and claimed by %s:%d",
            self._core.name, member.name, *member.address, other.host, other.port,
        )  # fmt: skip
        self._core.count("conflicts")
        self._core.emit(NodeConflict(member.node(), other))

    # -- a stall of our own ---------------------------------------------------------------

    def extend_suspicions(self, now: float) -> None:
        """Give every suspect its shortest window again, for what it said meanwhile we may not have read."""
        for member in self._table:
            if member.suspicion is not None:
                self.put_off(member, member.suspicion, now)

    def put_off(self, member: Member, suspicion: Suspicion, now: float) -> None:
        """Let a suspicion run for its shortest window from now at least."""
        missing = now + suspicion.shortest - suspicion.deadline
        if missing > 0:
            suspicion.started += missing
            suspicion.not_before = suspicion.started
            self.arm(member, suspicion, now)

    def arm(self, member: Member, suspicion: Suspicion, now: float) -> None:
        """Set the timer of a suspicion to its deadline."""
        if member.suspicion_timer is not None:
            member.suspicion_timer.cancel()
        member.suspicion_timer = self._core.timers.call_at(
            suspicion.deadline, lambda then: self._suspicion_over(member, suspicion, then)
        )
        self.on_suspicion(member, suspicion, now)

    # -- evidence -----------------------------------------------------------------------

    def refused(self, name: str, address: Address, now: float) -> None:
        """A connection to `name` at `address` was refused: its host is there, its process is not.

        Differs from memberlist, and matters to ``suspicion_min_timeout`` only: the kernel of a process that is frozen
        still takes connections, so this suspect need not be given the time to wake up. Switched off by
        ``trust_refusals=False``.
        """
        member = self._table.get(name)
        if not self._core.config.trust_refusals or member is None or member.gone or member.address != address:
            return
        self._core.count("refusals")
        self._weigh(member, True, now)

    def ended(self, name: str, boot: bytes, now: float) -> None:
        """The kernel of this host says that the process `boot` of `name` has ended: it is dead for all, and now.

        Differs from memberlist, where only silence tells, after seconds. It is this life that is dead: another one of
        the name is no matter of this, and whoever lives refutes it as any other accusation. Switched off by
        ``trust_kernel=False``.
        """
        core, member = self._core, self._table.get(name)
        if not core.config.trust_kernel or member is None or member.gone or core.is_self(member):
            return
        if read_meta(member.meta or b"").boot == boot:
            core.count("processes_ended")
            log.info("%s: the process of %s has ended", core.name, member.name)
            self.dead(Dead(member.incarnation, member.name, core.name), now)

    def answered(self, member: Member, now: float) -> None:
        """`member` has answered, so what refused was not it, or it is there again."""
        self._weigh(member, False, now)

    def _weigh(self, member: Member, refused: bool, now: float) -> None:
        if member.refused is refused:
            return
        member = self._table.own(member)
        member.refused = refused
        suspicion = member.suspicion
        if suspicion is not None:
            suspicion.floor, suspicion.certain = self._floor(member), self._certain(member)
            self.arm(member, suspicion, now)

    def _floor(self, member: Member) -> float:
        """Return how long a suspicion of `member` must last at least.

        Differs from memberlist: there the window of two or three nodes is four probe intervals, which a C call that
        holds the GIL outlasts. Switched off by ``suspicion_min_timeout=0``.
        """
        config = self._core.config
        if config.suspicion_min_timeout <= 0 or member.refused:
            return 0.0
        most = config.suspicion_min_nodes
        living = itertools.islice((m for m in self._table if not m.gone), most + 1)
        return config.suspicion_min_timeout if sum(1 for _ in living) <= most else 0.0

    def _certain(self, member: Member) -> bool:
        """Return whether a refusal stands for the confirmations that a small cluster may never have.

        Differs from memberlist, where three nodes of which one has left wait for a witness that does not exist: six
        windows. Holds where ``suspicion_min_timeout`` is set.
        """
        return member.refused and self._core.config.suspicion_min_timeout > 0

    # -- private ----------------------------------------------------------------------

    def _admitted(self, claim: Alive, ours: bool) -> bool:
        core, vsn = self._core, claim.vsn or b""
        if self._absurd(claim.incarnation - _REFUTATION_ROOM) or not core.name_allowed(claim.node):
            return False
        if len(vsn) >= 3 and (vsn[0] == 0 or vsn[1] == 0 or vsn[0] > vsn[1]):
            core.count("alive.version_refused")
            return False
        if len(claim.meta or b"") > META_MAX_SIZE:
            core.count("alive.meta_refused")
            return False
        if len(claim.addr or b"") not in _ADDRESS_BYTES:
            core.count("alive.address_refused")
            return False
        if core.alive_delegate is None:
            return True
        if len(vsn) < 6:
            core.count("alive.version_refused")
            return False
        node = Node(
            claim.node, claim.addr or b"", claim.port, claim.meta or b"", NodeState.ALIVE, claim.incarnation,
            Versions(*vsn[:6]),
        )  # fmt: skip
        try:
            core.alive_delegate.notify_alive(node)
        except Exception as exc:
            core.count("alive.delegate_refused")
            log.warning("%s: notify_alive refused %r: %s", core.name, claim.node, exc)
            return False
        return True

    def _address_allowed(self, claim: Alive) -> bool:
        host = host_of(claim.addr or b"")
        if self._core.address_allowed(host):
            return True
        self._core.count("alive.address_refused")
        log.info("%s: %s refused: %s is not in cidrs_allowed", self._core.name, claim.node, host)
        return False

    def _insert(self, claim: Alive) -> Member | None:
        if len(self._table) >= self._core.config.max_nodes:
            self._core.count("alive.table_full")
            return None
        vsn = claim.vsn or b""
        member = Member(claim.node, claim.addr, claim.port, claim.meta, vsn[:6] if len(vsn) >= 6 else NO_VERSIONS)
        self._table.add(member)
        return member

    def _name_is_free(self, member: Member, now: float) -> bool:
        reclaim = self._core.config.dead_node_reclaim_time
        return member.state == NodeState.LEFT or (
            member.state == NodeState.DEAD and reclaim > 0 and now - member.changed > reclaim
        )

    def _same(self, claim: Alive, member: Member) -> bool:
        return (claim.meta or b"") == (member.meta or b"") and (claim.vsn or b"") == self._core.vsn

    def _take(self, member: Member, claim: Alive, now: float, finished: Callable[[], None] | None) -> None:
        core = self._core
        was_gone, before = member.gone, (member.meta or b"", member.address)
        core.queue_broadcast(claim, member.name, finished)
        if claim.vsn is not None and len(claim.vsn) >= 6:
            member.vsn = claim.vsn[:6]
        member.incarnation = claim.incarnation
        member.meta = claim.meta
        member.refused = False
        member.move(claim.addr, claim.port)
        if member.state == NodeState.SUSPECT:
            member.back = now
        if member.state != NodeState.ALIVE:
            member.state = NodeState.ALIVE
            member.changed = now
        self._table.touch(member)
        if was_gone:
            member.joined = now
            core.emit(NodeJoined(member.node()))
            if not core.is_self(member):
                self.on_alive(member, now)
        elif (member.meta or b"", member.address) != before:
            core.emit(NodeUpdated(member.node()))

    def _start_suspicion(self, member: Member, sender: str, now: float) -> None:
        config, nodes = self._core.config, len(self._table)
        expected = config.suspicion_mult - 2
        if nodes - 2 < expected:
            expected = 0
        minimum = suspicion_timeout(config.suspicion_mult, nodes, config.probe_interval)
        maximum = config.suspicion_max_timeout_mult * minimum
        floor, certain = self._floor(member), self._certain(member)
        member.suspicion = Suspicion(sender, expected, minimum, maximum, now, floor=floor, certain=certain)
        self.arm(member, member.suspicion, now)

    def _suspicion_over(self, member: Member, suspicion: Suspicion, now: float) -> None:
        if member.suspicion is not suspicion or member.state != NodeState.SUSPECT:
            return
        self._core.count("suspicions_expired")
        log.info("%s declares %s dead", self._core.name, member.name)
        self.dead(Dead(member.incarnation, member.name, self._core.name), now)

    def _drop_suspicion(self, member: Member) -> None:
        if member.suspicion_timer is not None:
            member.suspicion_timer.cancel()
        member.suspicion = member.suspicion_timer = None

    def _void(self, incarnation: int, member: Member) -> bool:
        """Whether an accusation is stale, or absurd; never for what its node has really come to."""
        return incarnation < member.incarnation or (incarnation > member.incarnation and self._absurd(incarnation))

    def _absurd(self, incarnation: int) -> bool:
        if incarnation > _INCARNATION_MAX:
            self._core.count("incarnation_refused")
            return True
        return False


def _repeats(node: PushNodeState, member: Member) -> bool:
    """Whether a record that somebody holds for alive is ours to the letter, as nearly all are: it says nothing new."""
    return (
        node.incarnation == member.incarnation
        and member.state == NodeState.ALIVE
        and node.addr == member.addr
        and node.port == member.port
        and node.vsn == member.vsn
        and node.meta == member.meta
    )
