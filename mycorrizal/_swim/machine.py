"""``Swim``: the whole membership protocol as one machine without sockets, threads or clock.

Feed it datagrams, finished exchanges and the time; after every input pull what
it wants sent and said::

    swim.receive_datagram(data, address, now)
    for datagram, address in swim.datagrams_to_send(): ...
    for request in swim.exchanges_to_start(): ...
    while (event := swim.next_event()) is not None: ...
    wake_me_at = swim.get_timer()

The verbs are aioquic's. ``now`` is any monotonic clock in seconds. On each
wake-up the owner drains its sockets first and calls ``handle_timer`` then, so
that an answer that has arrived is never taken for one that has not.

The rules are in ``transitions`` (what a claim does to a record), ``probe``
(failure detection), ``gossip`` (dissemination), ``sync`` (push/pull),
``appeals`` (suspects are heard), ``claims`` (a name at two addresses) and ``moving`` (our own address is another one);
this module is the door. One thread owns a machine; nothing in it is thread-safe but the immutable values it hands out.

Same configuration, same ``rng`` seed, same inputs: the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from .._histogram import Histogram
from .._wire.messages import AckResp, Alive, Dead, IndirectPing, Message, NackResp, Ping, PushPull, Suspect, User
from .._wire.packet import PacketCodec
from .._wire.text import logger
from ..config import Config
from ..delegates import AliveDelegate, Delegate, MergeDelegate, PingDelegate
from ..exceptions import ConfigError, LocalProtocolError, RemoteProtocolError
from ..types import Address, Node, NodeState
from .allowance import Allowance
from .appeals import Appeals
from .claims import Claims
from .core import Core
from .events import Event, ExchangeRequested, PacketRejected, Stalled, UserMessage
from .gossip import Gossiper
from .members import Member
from .moving import Moving
from .probe import Prober
from .replays import Replays
from .sync import Sync
from .transitions import Transitions

__all__ = ["Swim"]

log = logger("mycorrizal.swim")

_WAKE_SECONDS = 5.0  # between two stalls that make us speak: it is work for everybody, and may be what makes late


class Swim:
    """One node's view of the cluster, and what it does about it.

    Args:
        config: settings.
        addr, port: what we tell others to dial.
        codec: turns messages into packets; the machine is its only user.
        rng: all randomness.
        delegate, alive, merge, ping: asked inline for what to send and whom to admit.
    """

    buddy = True
    """Whether a suspect is told with the ping (Lifeguard's buddy system); off only in experiments."""

    def __init__(
        self,
        config: Config,
        *,
        addr: bytes,
        port: int,
        codec: PacketCodec,
        rng: random.Random,
        delegate: Delegate | None = None,
        alive: AliveDelegate | None = None,
        merge: MergeDelegate | None = None,
        ping: PingDelegate | None = None,
    ) -> None:
        core = self._core = Core(
            config, addr=addr, port=port, codec=codec, rng=rng, delegate=delegate, alive=alive, merge=merge, ping=ping,
        )  # fmt: skip
        self._transitions = Transitions(core)
        self._prober = Prober(core, self._transitions, buddy=self.buddy)
        self._gossiper = Gossiper(core)
        self._sync = Sync(core, self._transitions, self._prober)
        self._appeals = Appeals(core, self._transitions, self._prober) if config.verify_suspicions else None
        if self._appeals is not None:
            self._transitions.on_suspicion = self._appeals.hear
        self._replays = Replays(config.name)
        self._claims: Claims | None = None
        if config.name_takeover:
            self._claims = Claims(core, self._transitions, self._prober)
            self._transitions.on_conflict = self._claims.contest
        self._moving = Moving(core, self._transitions, self._prober, self._sync)
        self._transitions.on_dead = self._saw_death
        self._transitions.on_alive = self._sync.saw_join
        self._untold: dict[int, None] = {}  # calls that end when their broadcast is out
        self._own: Member | None = None
        self._stalled = 0.0  # seconds we did not run; the machine's own time stands still meanwhile
        self._woke = float("-inf")  # when the others were last told of a stall
        self._started = False

    # -- inputs -------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Announce ourselves and begin the periodic work.

        Raises:
            MetaTooLarge: ``node_meta`` returned more than 512 bytes.
            ConfigError: our own address or name is refused by ``cidrs_allowed`` or ``notify_alive``.
        """
        if self._started:
            raise LocalProtocolError("start() was called before")
        core = self._core
        meta = core.node_meta()
        self._started = True
        self._transitions.alive(
            Alive(core.next_incarnation(), core.name, core.addr, core.port, meta, core.vsn), now, bootstrap=True
        )
        self._own = core.table.get(core.name)
        if self._own is None:
            raise ConfigError(
                "cidrs_allowed" if core.alive_delegate is None else "alive",
                "this node's own address or name is refused",
                hint="admit it: a node that is not its own member cannot take part",
            )
        self._prober.start(now)
        self._gossiper.start(now)
        self._sync.start(now)

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> None:
        """Take one UDP packet. Never raises for what is in it."""
        now = self._enter(now)
        try:
            opened = self._core.codec.open(data)
        except RemoteProtocolError as exc:
            self._rejected(addr, exc)
            return
        for error in opened.rejected:
            self._rejected(addr, error)
        core = self._core
        # As ``answering``, which takes a tenth of the time of a packet.
        before, core.allowance = core.allowance, Allowance(len(data)) if core.config.limit_answers else None
        try:
            messages: Sequence[Message] = opened.messages
            if len(messages) > 1 and self._claims is not None and Dead in map(type, messages):
                messages = self._claims.sort(messages)
            for message in messages:
                self._handle(message, addr, now)
        finally:
            core.allowance = before
        self._gossiper.rearm(now)

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`."""
        now = self._enter(now)
        self._core.timers.fire(now)
        self._gossiper.rearm(now)

    def broadcasts_waiting(self, now: float) -> None:
        """The delegate has something to gossip, and told us so: file the next tick."""
        self._gossiper.rearm(self._enter(now))

    def exchange_answered(self, exchange_id: int, message: Message | None, now: float) -> None:
        """A conversation we asked for is over; `message` is the answer, if one came."""
        now = self._enter(now)
        self._core.exchange_ended(exchange_id, message, None, now)
        self._gossiper.rearm(now)

    def exchange_failed(self, exchange_id: int, error: Exception, now: float) -> None:
        """A conversation we asked for could not be had."""
        now = self._enter(now)
        self._core.exchange_ended(exchange_id, None, error, now)
        self._gossiper.rearm(now)

    def answer_exchange(self, message: Message, addr: Address, now: float) -> Message | None:
        """Somebody dialled us; return what to answer, if anything. Never raises for what is in `message`."""
        now = self._enter(now)
        answer: Message | None = None
        if isinstance(message, PushPull):
            answer = self._sync.answer(message, addr, now)
        elif isinstance(message, Ping):
            answer = self._prober.handle_tcp_ping(message, now)
        elif isinstance(message, User):
            if message.data:  # an empty one is not delivered over TCP (memberlist-protocol §3.4)
                self._user(message, addr, stream=True)
        else:
            self._rejected(addr, RemoteProtocolError(f"message of type {message.TYPE.name} on a stream"))
        self._gossiper.rearm(now)
        return answer

    def write_failed(self, addr: Address, now: float) -> None:
        """The operating system refused to send a datagram to `addr`."""
        self._core.count("udp.write_errors")
        self._prober.write_failed(addr, self._enter(now))

    # -- calls --------------------------------------------------------------------------

    def join(self, address: Address, now: float, *, name: str = "") -> int:
        """Exchange tables with a seed; ends with ``OperationDone`` of the returned id."""
        return self._call(now, lambda t: self._sync.join(address, t, name=name))

    def ping(self, name: str, address: Address, now: float) -> int:
        """Ping once; ``OperationDone.result`` is the round trip in seconds."""
        return self._call(now, lambda t: self._prober.ping(name, address, t))

    def leave(self, now: float) -> int:
        """Announce that we go; done when that was gossiped out, at once if nobody is left to hear it."""
        return self._call(now, self._leave)

    def update_meta(self, now: float) -> int:
        """Ask ``node_meta`` again and announce it; done when that was gossiped out.

        Raises:
            MetaTooLarge: more than 512 bytes; the old metadata stays.
        """
        return self._call(now, self._update_meta)

    def ended(self, name: str, boot: bytes, now: float) -> None:
        """The kernel of this host says that a process has ended: see ``Transitions.ended``."""
        now = self._enter(now)
        self._transitions.ended(name, boot, now)
        self._gossiper.rearm(now)

    def moved(self, addr: bytes, now: float) -> bool:
        """Our host has the address `addr` now, and not the one that was told; return whether the new one is told."""
        now = self._enter(now)
        told = self._moving.moved(addr, now)
        self._gossiper.rearm(now)
        return told

    def send_user(self, message: bytes | User, address: Address, now: float, *, name: str = "") -> None:
        """Send a user message in one packet, best effort; bytes alone go unnumbered."""
        now = self._enter(now)
        core = self._core
        member = core.table.get(name) if name else core.table.get(address[0])
        protocol_max = member.protocol_max if member else 0
        user = message if isinstance(message, User) else User(message)
        core.send([core.codec.encode(user)], address, protocol_max=protocol_max, name=name)

    def send_users(self, messages: Sequence[bytes], names: Sequence[str], now: float) -> None:
        """Send unnumbered user messages to members directly, best effort, as many to a packet as fit.

        All get the same bytes: a packet is compressed and encrypted once.
        """
        self._enter(now)
        core = self._core
        members = [member for name in names if (member := core.table.get(name)) is not None and not member.gone]
        core.send_to_all(list(core.packets(messages)), members)

    # -- outputs ------------------------------------------------------------------------

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """Take the packets to send, in order."""
        core = self._core
        taken, core.datagrams = core.datagrams, []
        return taken

    def exchanges_to_start(self) -> list[ExchangeRequested]:
        """Take the conversations to hold; deadlines are in the owner's time."""
        core = self._core
        taken, core.exchanges = core.exchanges, []
        return [replace(request, deadline=request.deadline + self._stalled) for request in taken]

    def next_event(self) -> Event | None:
        """Take the next event, or ``None``."""
        events = self._core.events
        return events.popleft() if events else None

    def get_timer(self) -> float | None:
        """Return when ``handle_timer`` is wanted, or ``None``."""
        deadline = self._core.timers.next_deadline()
        return None if deadline is None else deadline + self._stalled

    def stood_still(self, now: float) -> float:
        """Return for how long this machine was not entered although it had something to do.

        One that is merely busy is entered all the time: it is behind, and takes that for no stall.
        """
        timers = self._core.timers
        due = timers.next_deadline()
        return 0.0 if due is None else now - (max(due, timers.now) + self._stalled)  # the very sum of get_timer()

    # -- views --------------------------------------------------------------------------

    def members(self) -> tuple[Node, ...]:
        """Return alive and suspect nodes, ourselves included, by name."""
        return self._core.table.members()

    def nodes(self) -> tuple[Node, ...]:
        """Return all records, also dead and left ones that are not yet reaped, by name."""
        return self._core.table.nodes()

    @property
    def local_node(self) -> Node:
        """Our own record; also when we left so long ago that the table has forgotten it."""
        if self._own is None:
            raise LocalProtocolError("start() was not called")
        return self._own.node()

    @property
    def node_version(self) -> int:
        """Changes whenever ``nodes()`` does."""
        return self._core.table.version

    @property
    def health_score(self) -> int:
        """0 is healthy; see ``awareness``."""
        return self._core.awareness.score

    @property
    def name_contested(self) -> bool:
        """Whether it is being looked into if somebody else has our name too (module ``claims``)."""
        return self._claims is not None and self._claims.contested(self._core.name)

    @property
    def incarnation(self) -> int:
        """Our own incarnation."""
        return self._core.incarnation

    @property
    def counters(self) -> dict[str, int]:
        """A copy of the counters."""
        return dict(self._core.counters)

    @property
    def times(self) -> dict[str, Histogram]:
        """How long things took: a ``probe`` that was answered directly, a ``push_pull`` of ours. Any thread reads."""
        return self._core.times

    @property
    def gauges(self) -> dict[str, int]:
        """Present sizes of the bounded tables."""
        core = self._core
        return {
            "queue.broadcasts": len(core.queue),
            "nodes": len(core.table),
            "nodes.lost": self._sync.lost,
            "nodes.hearsay": 0 if self._sync.hearsay is None else len(self._sync.hearsay),
            "timers": len(core.timers),
            "acks.pending": len(self._prober.acks),
            "replays.windows": len(self._replays),
        }

    # -- private ------------------------------------------------------------------------

    def _call(self, now: float, operation: Callable[[float], int]) -> int:
        now = self._enter(now)
        operation_id = operation(now)
        self._gossiper.rearm(now)
        return operation_id

    def _enter(self, now: float) -> float:
        """Return the machine's own time, which stands still while the process does.

        Differs from memberlist: a process that was frozen (SIGSTOP, a C call
        that held the GIL, a laptop asleep) finds all its deadlines passed at
        once; there it would accuse whomever it was probing and bury its suspects. Here the time
        that was lost is taken out, and before anything else the node says that
        it is alive, for others have probably begun to doubt it.
        """
        timers = self._core.timers
        own = max(now - self._stalled, timers.now)  # a clock that slips back stands still
        due = timers.next_deadline()
        if due is not None and now >= due + self._stalled:  # the very sum that get_timer() gave
            threshold = self._core.config.stall_threshold
            if (still := self.stood_still(now)) > threshold > 0:
                own = timers.now = max(due, timers.now)
                self._stalled = now - own
                self._after_stall(still, own)
            else:
                own = max(own, due)
        timers.now = own
        return own

    def _after_stall(self, seconds: float, now: float) -> None:
        core = self._core
        core.count("stalls")
        core.emit(Stalled(seconds))
        self._prober.abandon(now)
        self._transitions.extend_suspicions(now)
        woken = now + self._stalled
        if woken - self._woke < _WAKE_SECONDS:
            return
        self._woke = woken
        log.warning("%s: this process did not run for %.1f s (stall %d)", core.name, seconds, core.counters["stalls"])
        member = core.table.get(core.name)
        if member is not None and not core.has_left:
            core.next_incarnation()
            self._transitions.announce(member)
            self._gossiper.round(now)
            self._gossiper.rearm(now)
        self._sync.hasten(now)

    def _handle(self, message: Message, addr: Address, now: float) -> None:
        core = self._core
        if core.has_left and isinstance(message, (Alive, Suspect, Dead)) and message.node == core.name:
            core.incarnation = max(core.incarnation, message.incarnation)  # our word that we left must count
        match message:
            case Ping():
                self._prober.handle_ping(message, addr, now)
            case AckResp():
                self._prober.acks.ack(message.seq_no, message.payload or b"", now)
            case IndirectPing():
                self._prober.handle_indirect_ping(message, addr, now)
            case NackResp():
                self._prober.acks.nack(message.seq_no)
            case Alive():
                core.count("msg.alive")
                self._heard_of(self._with_port(message), addr, now)
            case Suspect():
                core.count("msg.suspect")
                self._transitions.suspect(message, now)
                if self._appeals is not None:
                    self._appeals.correct(message, addr, now)
            case Dead():
                core.count("msg.dead")
                if self._claims is not None and self._claims.hold(message):
                    return
                self._transitions.dead(message, now)
                if self._appeals is not None:
                    self._appeals.correct(message, addr, now)
            case User():
                self._user(message, addr, stream=False)
            case _:
                self._rejected(addr, RemoteProtocolError(f"message of type {message.TYPE.name} in a packet"))

    def _heard_of(self, claim: Alive, teller: Address, now: float) -> None:
        if not self._core.address_allowed(teller[0]):
            self._core.count("alive.address_refused")
        elif self._sync.hearsay is None or not self._sync.hearsay.doubts(claim, teller, now):
            self._transitions.alive(claim, now)

    def _with_port(self, claim: Alive) -> Alive:
        if claim.port and self._core.config.protocol_version != 1:
            return claim
        return Alive(claim.incarnation, claim.node, claim.addr, self._core.port, claim.meta, claim.vsn)

    def _user(self, message: User, addr: Address, *, stream: bool) -> None:
        self._core.count("msg.user")
        refusal = self._replays.refusal(message, stream=stream)
        if refusal is not None:
            self._core.count(refusal)
        elif self._core.delegate is not None:
            self._core.emit(UserMessage(message.data, addr))

    def _rejected(self, addr: Address, reason: Exception) -> None:
        self._core.count("packets_rejected")
        self._core.emit(PacketRejected(addr, reason))

    # -- calls that end when they were gossiped out ------------------------------------------

    def _others_alive(self) -> bool:
        return any(not m.gone and not self._core.is_self(m) for m in self._core.table)

    def _saw_death(self, member: Member, now: float) -> None:
        self._sync.saw_death(member, now)
        if self._untold and not self._others_alive():
            for operation in tuple(self._untold):
                self._told(operation)

    def _told(self, operation: int) -> None:
        if operation in self._untold:
            del self._untold[operation]
            self._core.finish(operation)

    def _leave(self, now: float) -> int:
        core = self._core
        operation = core.new_operation()
        if core.has_left:
            core.finish(operation)
            return operation
        word = core.leaving()
        core.has_left = True
        claim = Dead(core.incarnation, core.name, core.name)

        def gossiped() -> None:
            with core.answering(None):  # it may be an answer that took the broadcast along
                self._farewell(claim, word)
            self._told(operation)

        self._untold[operation] = None
        self._transitions.dead(claim, now, finished=gossiped)
        if not self._others_alive():
            self._told(operation)
        return operation

    def _farewell(self, claim: Dead, word: bytes) -> None:
        """Say a leave that was gossiped out once more, to members directly, and before it the delegate's word.

        Differs from memberlist: there it is gossiped a few times only, and each of them may have
        gone to a node that was killed a moment ago; the others then take who left for failed.
        """
        core = self._core
        parts = [core.codec.encode(message) for message in ((User(word), claim) if word else (claim,))]
        for member in core.table.sample(core.config.leave_fanout, lambda m: not m.gone and not core.is_self(m)):
            core.send(parts, member.address, protocol_max=member.protocol_max, name=member.name)

    def _update_meta(self, now: float) -> int:
        core = self._core
        operation = core.new_operation()
        member = core.table.get(core.name)
        if member is None or member.state != NodeState.ALIVE:
            raise LocalProtocolError("a node that has left cannot update its metadata")
        meta = core.node_meta(member.meta)
        claim = Alive(core.next_incarnation(), core.name, member.addr, member.port, meta, core.vsn)
        self._untold[operation] = None
        self._transitions.alive(claim, now, bootstrap=True, finished=lambda: self._told(operation))
        if member.incarnation != claim.incarnation:
            del self._untold[operation]
            raise LocalProtocolError("notify_alive refused this node's own update; the old metadata stays")
        if not self._others_alive():
            self._told(operation)
        return operation
