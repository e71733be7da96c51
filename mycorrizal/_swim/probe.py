"""Failure detection: one probe at a time, first direct, then through others and over TCP.

A probe lasts one probe interval, stretched by the health score (Lifeguard
LHA-Probe); its outcome moves the score. From SWIM §3.1, Lifeguard §IV and
memberlist ``state.go`` (memberlist-protocol §7.1 to §7.4, §7.7).
"""

from __future__ import annotations

from collections.abc import Callable

from .._wire.messages import AckResp, Dead, IndirectPing, Message, NackResp, Ping, Suspect
from .._wire.text import logger
from ..exceptions import NoPingResponse, PeerUnreachable, RemoteProtocolError
from ..types import Address, Node, NodeState, host_of
from .acks import Acks
from .core import Core
from .events import Direction, PingComplete, UdpBlocked
from .members import Member
from .timers import Timer
from .transitions import Transitions

__all__ = ["Prober"]

log = logger("mycorrizal.swim")

_PROTOCOL_MAX_TCP_PING = 3
_PROTOCOL_MAX_NACK = 4
_BLOCKED_PROBES = 4  # probes in a row that only TCP answers: fewer can be plain loss
_BLOCKED_REPORT_INTERVAL = 30.0  # seconds between two reports about one node
_FALLBACKS_LATE = 3  # probe intervals after a stall in which pings over TCP say nothing about UDP
_HEARD_PERIODS = 30  # a UDP ping of this many probe intervals ago still shows that a direction is open


class _Probe:
    """The probe under way. Works on a copy of the record, as of its start."""

    __slots__ = (
        "address", "answered_tcp", "asked_nacks", "deadline", "delta", "incarnation", "indirect", "nacks",
        "node", "protocol_max", "sent", "sequence", "tcp_pending", "timer",
    )  # fmt: skip

    def __init__(self, member: Member, sequence: int, now: float, deadline: float) -> None:
        self.node: Node = member.node()
        self.address = member.address
        self.incarnation = member.incarnation
        self.protocol_max = member.protocol_max
        self.sequence = sequence
        self.sent = now
        self.deadline = deadline
        self.delta = -1
        self.indirect = False
        self.asked_nacks = 0
        self.nacks = 0
        self.tcp_pending = False
        self.answered_tcp = False
        self.timer: Timer | None = None


class Prober:
    """Chooses targets, probes them, relays for others, answers pings."""

    def __init__(self, core: Core, transitions: Transitions, *, buddy: bool = True) -> None:
        self._core = core
        self._transitions = transitions
        self._buddy = buddy
        self.acks = Acks(core.timers)
        self._active: _Probe | None = None
        self._missed_tick = False
        self._next_tick = 0.0
        self._woke = float("-inf")  # when a stall of ours ended

    # -- scheduling -------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin probing after a random part of one interval."""
        interval = self._core.config.probe_interval
        if interval > 0:
            self._next_tick = now + self._core.rng.random() * interval + interval
            self._core.timers.call_at(self._next_tick, self._tick)

    def _tick(self, now: float) -> None:
        self._next_tick += self._core.config.probe_interval
        if self._next_tick <= now:
            self._next_tick = now + self._core.config.probe_interval
        self._core.timers.call_at(self._next_tick, self._tick)
        if self._active is None:
            self.probe(now)
        else:
            self._missed_tick = True  # one is remembered, further ones are not

    def probe(self, now: float) -> None:
        """Probe the next member in order, if there is one."""
        for member in self._core.table.next_in_order(lambda: self._reap(now)):
            if not member.gone and not self._core.is_self(member):
                self.probe_member(member, now)
                return

    def _reap(self, now: float) -> None:
        keep = self._core.config.gossip_to_the_dead_time
        self._core.table.reap(lambda member: member.gone and now - member.changed > keep)

    def abandon(self, now: float) -> None:
        """Give the probe under way up, with no effect on anybody, for we were not there to hear answers."""
        self._woke = now
        for member in self._core.table:
            if member.fallbacks or member.tcp_only:
                member.fallbacks = member.tcp_only = 0
        probe, self._active = self._active, None
        if probe is not None:
            self.acks.forget(probe.sequence)
            if probe.timer is not None:
                probe.timer.cancel()

    # -- one probe ----------------------------------------------------------------------

    def probe_member(self, member: Member, now: float) -> None:
        """Begin a probe of `member`."""
        core = self._core
        core.count("probes")
        deadline = now + core.awareness.scale(core.config.probe_interval)
        probe = self._active = _Probe(member, core.next_sequence(), now, deadline)
        self.acks.expect(
            probe.sequence,
            deadline,
            lambda payload, then: self._acked(probe, payload, then),
            lambda then: self._expired(probe, then),
            lambda: self._nacked(probe),
        )
        probe.timer = core.timers.call_at(
            min(now + core.config.probe_timeout, deadline), lambda then: self._direct_timeout(probe, then)
        )
        ping = self.message(probe.sequence, member.name)
        if member.state == NodeState.ALIVE or not self._buddy:
            core.send_with_piggyback(ping, probe.address, name=member.name)
        else:
            # Lifeguard's buddy system: a suspect learns of it with the ping and can refute at once.
            suspect = Suspect(probe.incarnation, member.name, core.name)
            parts = [core.codec.encode(ping), core.codec.encode(suspect)]
            core.send(parts, probe.address, protocol_max=probe.protocol_max, name=member.name)

    def write_failed(self, address: Address, now: float) -> None:
        """The operating system refused a datagram: go to the indirect part at once (memberlist-protocol §7.2.4)."""
        probe = self._active
        if probe is not None and probe.address == address and not probe.indirect:
            probe.delta = 0
            self._direct_timeout(probe, now)

    def _direct_timeout(self, probe: _Probe, now: float) -> None:
        if self._active is not probe or probe.indirect:
            return
        probe.indirect = True
        if probe.timer is not None:
            probe.timer.cancel()
        core, node = self._core, probe.node
        core.count("probes_indirect")
        log.debug("%% %s: no direct answer from %s, asking others", core.name, node.name)
        target = core.table.get(node.name)
        for peer in core.table.sample(
            core.config.indirect_checks,
            lambda m: m.state == NodeState.ALIVE and m.name != node.name and not core.is_self(m),
        ):
            nack = peer.protocol_max >= _PROTOCOL_MAX_NACK
            probe.asked_nacks += nack
            request = IndirectPing(
                probe.sequence, target.addr if target else node.addr, node.port, node.name, nack,
                core.addr, core.port, core.name,
            )  # fmt: skip
            core.send_with_piggyback(request, peer.address, name=peer.name)
        if self._tcp_ping_allowed(probe):
            probe.tcp_pending = True
            core.request_exchange(
                self.message(probe.sequence, node.name), probe.address, node.name, probe.deadline,
                lambda answer, error, then: self._tcp_done(probe, answer, error, then),
            )  # fmt: skip

    def _tcp_ping_allowed(self, probe: _Probe) -> bool:
        config = self._core.config
        disabled = config.disable_tcp_pings or (
            config.disable_tcp_pings_for_node is not None
            and self._core.ask("disable_tcp_pings_for_node", config.disable_tcp_pings_for_node, False, probe.node.name)
        )
        return not disabled and probe.protocol_max >= _PROTOCOL_MAX_TCP_PING

    def _acked(self, probe: _Probe, payload: bytes, now: float) -> None:
        if self._active is not probe:
            return
        member = self._core.table.get(probe.node.name)
        if member is not None:
            if member.tcp_only:
                member.tcp_only = 0
            self._transitions.answered(member, now)
        if not probe.indirect:
            self._core.times["probe"].observe(now - probe.sent)
            if self._core.ping_delegate is not None:
                self._core.emit(PingComplete(probe.node, now - probe.sent, payload))
        self._end(probe, probe.delta, now)

    def _nacked(self, probe: _Probe) -> None:
        probe.nacks += 1

    def _tcp_done(self, probe: _Probe, answer: Message | None, error: Exception | None, now: float) -> None:
        probe.tcp_pending = False
        if isinstance(error, ConnectionRefusedError):
            self._transitions.refused(probe.node.name, probe.address, now)
        probe.answered_tcp = isinstance(answer, AckResp) and answer.seq_no == probe.sequence
        if self._active is probe and now >= probe.deadline:
            self._conclude(probe, now)

    def _expired(self, probe: _Probe, now: float) -> None:
        if self._active is not probe:
            return
        if not probe.indirect:  # the interval is shorter than the probe timeout
            self._direct_timeout(probe, now)
        if probe.tcp_pending:
            # Its deadline is the same; give the driver a moment to say so.
            probe.timer = self._core.timers.call_at(
                now + self._core.config.probe_timeout, lambda then: self._conclude(probe, then)
            )
        else:
            self._conclude(probe, now)

    def _conclude(self, probe: _Probe, now: float) -> None:
        if self._active is not probe:
            return
        if probe.answered_tcp:
            self._only_tcp(probe.node.name, now)
            self._end(probe, probe.delta, now)
            return
        self._core.count("probes_failed")
        missed = probe.asked_nacks - probe.nacks
        delta = max(missed, 0) if probe.asked_nacks else 1
        log.info("%% %s: no answer from %s", self._core.name, probe.node.name)
        self._transitions.suspect(Suspect(probe.incarnation, probe.node.name, self._core.name), now)
        self._end(probe, delta, now)

    def _end(self, probe: _Probe, delta: int, now: float) -> None:
        self._core.awareness.apply(delta)
        if probe.timer is not None:
            probe.timer.cancel()
        self._active = None
        if self._missed_tick:
            self._missed_tick = False
            self._core.timers.call_at(now, self._make_up)

    def _make_up(self, now: float) -> None:
        """Do the probe whose time passed during another one; not in the turn of the answer that ended that."""
        if self._active is None:
            self.probe(now)

    # -- UDP that does not get through -----------------------------------------------------

    def _only_tcp(self, name: str, now: float) -> None:
        """Our probe of `name` was answered over TCP, not over UDP, directly or through others."""
        member = self._core.table.get(name)
        if member is None:
            return
        member = self._core.table.own(member)
        self._transitions.answered(member, now)
        member.tcp_only += 1
        if member.tcp_only >= _BLOCKED_PROBES:
            # Its own pings still come: then it is our packets that do not reach it.
            recent = now - member.heard < _HEARD_PERIODS * self._core.config.probe_interval
            self._report_blocked(member, "outbound" if recent else "unknown", now)

    def _fell_back(self, member: Member, sequence: int, now: float) -> None:
        """`member` pings us over TCP, so its probe over UDP has failed."""
        heard = member.heard_seq == sequence  # the same ping came over UDP as well: it is our acks that are lost
        if heard != member.fallback_heard:
            member.fallbacks = 0  # now the one way, now the other: that is plain loss
        member.fallback_heard = heard
        member.fallback_seq = sequence
        if now - self._woke < _FALLBACKS_LATE * self._core.config.probe_interval:
            return  # sent while we did not run, and answered by nobody for that reason
        member.fallbacks += 1
        if member.fallbacks >= _BLOCKED_PROBES:
            self._report_blocked(member, "outbound" if heard else "inbound", now)

    def _report_blocked(self, member: Member, direction: Direction, now: float) -> None:
        """Tell the owner that UDP with `member` does not work, at most every 30 s."""
        core = self._core
        if now - member.reported < _BLOCKED_REPORT_INTERVAL:
            return
        member.reported = now
        core.count("udp_blocked")
        port = core.port if direction == "inbound" else member.port
        log.warning(
            "%s: %s (%s:%d) answers over TCP but not over UDP (%s, port %d)",
            core.name, member.name, *member.address, direction, port,
        )  # fmt: skip
        core.emit(UdpBlocked(member.node(), port, direction))

    # -- answering --------------------------------------------------------------------------

    def handle_ping(self, ping: Ping, sender: Address, now: float) -> None:
        """Answer a ping to its source fields, else to the datagram's sender (memberlist-protocol §7.3)."""
        core = self._core
        if ping.node and ping.node != core.name:
            core.count("pings_misdirected")
            return
        if self._echoed(ping, sender):
            return
        member = core.table.get(ping.source_node)
        if member is not None:
            member = core.table.own(member)
            if member.heard_seq != member.fallback_seq:
                member.fallbacks = 0  # the ping before this one was answered
            member.heard = now
            member.heard_seq = ping.seq_no
        ack = AckResp(ping.seq_no, core.ack_payload())
        if core.has_left and core.config.leave_fanout:
            # Differs from memberlist: who still pings a node that left has not heard of it, and is told.
            parts = [core.codec.encode(message) for message in (ack, Dead(core.incarnation, core.name, core.name))]
            if core.send(parts, _reply_to(ping, sender), name=ping.source_node):
                return
        if not core.send_with_piggyback(ack, _reply_to(ping, sender), name=ping.source_node) and ack.payload:
            core.send_with_piggyback(AckResp(ping.seq_no, None), _reply_to(ping, sender), name=ping.source_node)

    def _echoed(self, message: Ping | IndirectPing, sender: Address) -> bool:
        """Return whether a ping is one of ours that somebody else sent back.

        Differs from memberlist: there it is answered, to ourselves, and whoever we asked counts as there. What we
        send to our own address, as in a ping of ourselves, also comes from it. Switched off by ``refuse_echoes=False``.
        """
        core = self._core
        own = (host_of(core.addr), core.port)
        source = (host_of(message.source_addr or b""), message.source_port)
        if not core.config.refuse_echoes or message.source_node != core.name or source != own or sender == own:
            return False
        core.count("pings_echoed")
        return True

    def handle_tcp_ping(self, ping: Ping, now: float) -> AckResp | None:
        """Answer a fallback ping; it also tells which direction of UDP is blocked."""
        if ping.node and ping.node != self._core.name:
            self._core.count("pings_misdirected")
            return None
        member = self._core.table.get(ping.source_node)
        if member is not None and not self._core.is_self(member):
            self._fell_back(self._core.table.own(member), ping.seq_no, now)
        return AckResp(ping.seq_no, None)

    def handle_indirect_ping(self, request: IndirectPing, sender: Address, now: float) -> None:
        """Ping somebody on another's behalf."""
        core = self._core
        if self._echoed(request, sender):
            return
        if self.acks.full:
            core.count("indirect_pings_refused")
            return
        port = core.port if request.port == 0 or core.config.protocol_version == 1 else request.port
        target = (host_of(request.target or b""), port)
        reply_to = _reply_to(request, sender)
        name = request.source_node
        nack = NackResp(request.seq_no) if request.nack else None
        allowed, allowance = core.set_aside(nack) if nack is not None else (True, None)
        if not allowed:
            return
        sequence = core.next_sequence()

        def on_ack(payload: bytes, then: float) -> None:
            core.send_with_piggyback(AckResp(request.seq_no, None), reply_to, name=name)

        def on_expiry(then: float) -> None:
            if nack is not None:
                with core.answering(allowance):
                    core.send_with_piggyback(nack, reply_to, name=name)

        sent = core.send_with_piggyback(self.message(sequence, request.node), target, name=request.node)
        if sent or nack is not None:
            self.acks.expect(sequence, now + core.config.probe_timeout, on_ack, on_expiry)

    # -- the public ping ----------------------------------------------------------------------

    def ping(self, name: str, address: Address, now: float) -> int:
        """Ping once and report the round trip, or ``NoPingResponse`` (memberlist-protocol §7.7)."""
        core = self._core
        operation = core.new_operation()
        sequence = core.next_sequence()

        def on_ack(payload: bytes, then: float) -> None:
            core.finish(operation, then - now)

        def on_expiry(then: float) -> None:
            text = f"no answer from {name or address[0]} at {address[0]}:{address[1]}"
            hint = "a wrong node name is ignored too; check the name, the port and a firewall for UDP"
            core.finish(operation, error=NoPingResponse(text, node=name, operation="ping", hint=hint))

        self.acks.expect(sequence, now + core.config.probe_timeout, on_ack, on_expiry)
        core.send_with_piggyback(self.message(sequence, name), address, name=name)
        return operation

    def check(
        self,
        name: str,
        address: Address,
        deadline: float,
        on_ack: Callable[[float], None],
        on_expiry: Callable[[float], None],
        *extra: Message,
    ) -> None:
        """Ping `name` at `address` for another part of the machine, `extra` messages in the same packet."""
        core = self._core
        sequence = core.next_sequence()
        self.acks.expect(sequence, deadline, lambda payload, now: on_ack(now), on_expiry)
        parts = [core.codec.encode(message) for message in (self.message(sequence, name), *extra)]
        core.send(parts, address, name=name)

    def ask(
        self, name: str, address: Address, deadline: float, end: Callable[[Exception | None, float], None]
    ) -> None:
        """Ping over TCP whoever is at `address`, if it is called `name`, or whatever it is called."""
        core, where = self._core, f"{address[0]}:{address[1]}"
        # Without our name: a fallback ping would tell the other side that UDP is blocked.
        ping = Ping(core.next_sequence(), name)

        def done(answer: Message | None, error: Exception | None, now: float) -> None:
            if error is None and answer is None:
                error = PeerUnreachable(f"{where} does not answer a ping", node=where)
            elif error is None and not (isinstance(answer, AckResp) and answer.seq_no == ping.seq_no):
                error = RemoteProtocolError(f"{where} answered a ping with something else", node=where)
            end(error, now)

        core.request_exchange(ping, address, name, deadline, done)

    def message(self, sequence: int, name: str) -> Ping:
        """Return our ping of that number for `name`."""
        core = self._core
        return Ping(sequence, name, core.addr, core.port, core.name)


def _reply_to(message: Ping | IndirectPing, sender: Address) -> Address:
    if message.source_addr and message.source_port:
        return (host_of(message.source_addr), message.source_port)
    return sender
