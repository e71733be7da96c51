"""N machines, one heap of events, virtual time: a whole cluster as one function of its seed.

A step pops the earliest entry, gives it to one machine as input, pulls all
outputs and files what follows from them. Entries of equal time come out in the
order they were filed. All bytes go through the real codecs. No threads, no
clock, no hash order: the same seed and the same calls give the same ``digest``
in every process.

The cluster is one more owner of the machines, beside the runtime, and adds no
rule of the protocol. What a stopped process finds on waking is the kernel's
doing: its socket buffer first, up to a bound, then whatever timer is due.
"""

from __future__ import annotations

import gc
import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from random import Random
from typing import Any, Protocol

from .._swim.events import Event, ExchangeRequested, OperationDone, RemoteState, UserMessage
from .._swim.machine import Swim
from ..config import Config
from ..exceptions import ConnectionRefused, LocalProtocolError, OperationTimeout, PeerUnreachable, RemoteProtocolError
from ..types import Address
from .acquaint import acquaint
from .bodies import SharedBodies
from .clock import VirtualClock
from .faults import Condition, Faults
from .members import Member, SimulatedDelegate, Supply
from .network import Conversation, Network

__all__ = ["Cluster", "Watcher"]

SOCKET_BUFFER = 256
"""Datagrams a process that does not read can have waiting: about what Linux's default 208 KiB holds of small ones."""

BACKLOG = 128
"""Connections and answers that can wait likewise."""

_SPINS = 1000  # timers of one member in a row that fire without time passing: more is a machine that is stuck
_TIMER, _DATAGRAM, _CALL, _ANSWER, _FAILURE, _ACTION = range(6)
_STAMP = struct.Struct("<dii")


class Watcher(Protocol):
    """Sees every change as it happens, not only the state at the end of a step (see ``checkers``)."""

    def event(self, member: Member, event: Event, now: float) -> None:
        """`member`'s machine reported `event`."""

    def changed(self, member: Member, now: float) -> None:
        """`member`'s view of the cluster is another one than before this input."""


class Cluster:
    """Simulated members and the network between them.

    Args:
        seed: of everything that is random; each member has generators of its own.
        config: settings of the members; each gets its own name.
        faults: odds of the network; ``cluster.network.faults`` may be replaced later.
        machine: the class to run, for experiments and planted faults.
        digest: whether to hash all that happens (costs a few per cent).
        supply: makes the delegates of those members that have metadata.
    """

    def __init__(
        self,
        seed: object = 0,
        *,
        config: Config | None = None,
        faults: Faults | None = None,
        machine: type[Swim] = Swim,
        digest: bool = True,
        supply: Supply = lambda member, meta: SimulatedDelegate(meta),
    ) -> None:
        self.seed = seed
        self.config = config or Config.lan(name="template")
        self.machine = machine
        self.supply = supply
        self.clock = VirtualClock()
        self.network = Network(faults or Faults(), Random(f"{seed}/faults"))
        self.members: list[Member] = []
        self.watchers: list[Watcher] = []
        self.taps: list[Callable[[Member, bytes, Address, float], None]] = []
        self.results: dict[tuple[int, int], OperationDone] = {}
        self.steps = 0
        self._heap: list[tuple[float, int, int, int, Any]] = []
        self._sequence = 0
        self._at: dict[Address, Member] = {}
        self._slots = 0
        self._hosts = 0
        self._bodies: dict[tuple[str, str, bool], SharedBodies] = {}
        self._hash = hashlib.blake2b(digest_size=16) if digest else None

    @classmethod
    def converged(
        cls, size: int, seed: object = 0, *, metas: Mapping[int, bytes] | None = None, **arguments: Any
    ) -> Cluster:
        """Return a cluster of `size` whose members all know each other, without the storm of joining.

        Nothing is queued for gossip and no suspicion runs; each starts its
        rounds at a random moment of the first interval, as after a join.

        Args:
            metas: metadata of those members that have any, by index; only they can ``update``.
            arguments: as for the class.
        """
        cluster = cls(seed, **arguments)
        collecting = gc.isenabled()
        gc.disable()  # the tables hold size² records and not one cycle to find
        try:
            for index in range(size):
                cluster.add(meta=(metas or {}).get(index))
            acquaint(cluster.members, cluster.clock.now)
            for member in cluster.members:
                cluster._pump(member)
        finally:
            if collecting:
                gc.enable()
        return cluster

    # -- members ----------------------------------------------------------------------

    @property
    def alive(self) -> list[Member]:
        """Members whose process exists and has not left."""
        return [member for member in self.members if member.alive]

    def add(self, name: str | None = None, *, meta: bytes | None = None, config: Config | None = None) -> Member:
        """Start a new member at a new address; it knows nobody yet."""
        self._slots += 1
        name = name or f"m{self._slots - 1}"
        return self._start((config or self.config).replace(name=name), self._slots - 1, self._new_host(), meta)

    def restart(self, member: Member, *, new_address: bool = False, meta: bytes | None = None) -> Member:
        """Start a new process under the name of one that is gone; it knows nobody yet."""
        if member.condition is not Condition.GONE:
            raise LocalProtocolError(f"{member!r} still runs")
        addr = int.from_bytes(bytes(map(int, member.address[0].split("."))), "big") - 0x0A000000
        return self._start(member.config, member.slot, self._new_host() if new_address else addr, meta)

    def join(self, member: Member, other: Member) -> int:
        """Let `member` join at the address of `other`; the outcome is in ``results`` later."""
        operation = self._running(member).machine.join(other.address, self.clock.now)
        self._pump(member)
        return operation

    def leave(self, member: Member) -> int:
        """Let `member` say goodbye; its process goes on until ``crash``."""
        operation = self._running(member).machine.leave(self.clock.now)
        member.left = True
        self._pump(member)
        return operation

    def update(self, member: Member, meta: bytes) -> int:
        """Change a member's metadata (it was added with some)."""
        if self._running(member).delegate is None:
            raise LocalProtocolError(f"{member!r} was added without metadata")
        assert member.delegate is not None
        member.delegate.meta = meta
        operation = member.machine.update_meta(self.clock.now)
        self._pump(member)
        return operation

    def send_user(self, member: Member, other: Member, data: bytes) -> None:
        """Send a user message in a datagram."""
        self._running(member).machine.send_user(data, other.address, self.clock.now, name=other.name)
        self._pump(member)

    def send_users(self, member: Member, messages: Sequence[bytes], names: Sequence[str]) -> None:
        """Send user messages to several members by name, as ``Swim.send_users``."""
        self._running(member).machine.send_users(messages, names, self.clock.now)
        self._pump(member)

    # -- faults inside a member -----------------------------------------------------------

    def crash(self, member: Member, *, silent: bool = False) -> None:
        """End a process at once.

        Args:
            silent: the host is gone too: dials time out instead of being refused.
        """
        member.condition = Condition.GONE
        member.silent = silent
        member.ended = self.clock.now
        member.inbox.clear()
        member.outbox.clear()
        self._note(b"crash", member)

    def freeze(self, member: Member) -> None:
        """Stop a process as SIGSTOP does."""
        self._running(member).condition = Condition.FROZEN
        self._note(b"freeze", member)

    def slow(self, member: Member) -> None:
        """Begin an anomaly: what the member sends and receives waits; its timers run."""
        self._running(member).condition = Condition.SLOW
        self._note(b"slow", member)

    def resume(self, member: Member) -> None:
        """End ``freeze`` or ``slow``; nothing happens if the member runs or is gone."""
        if member.condition not in (Condition.FROZEN, Condition.SLOW):
            return
        member.condition = Condition.RUNNING
        self._note(b"resume", member)
        while member.outbox:
            self._emit(member, member.outbox.popleft())
        waiting = list(member.inbox)
        member.inbox.clear()
        # One wake-up of the runtime's loop: sockets, then timers, then what other threads brought.
        for kind, payload in waiting:
            if kind == _DATAGRAM:
                self._input(member, kind, payload)
        timer = member.machine.get_timer()
        if timer is not None and timer <= self.clock.now:
            member.machine.handle_timer(self.clock.now)
        self._pump(member)
        for kind, payload in waiting:
            if kind != _DATAGRAM:
                self._input(member, kind, payload)
                self._pump(member)

    # -- time ---------------------------------------------------------------------------

    def at(self, when: float, action: Callable[..., object], *arguments: object) -> None:
        """Arrange ``action(*arguments)`` at virtual time `when`, for instance a fault."""
        self._push(max(when, self.clock.now), -1, _ACTION, (action, arguments))

    def run(self, seconds: float) -> None:
        """Let `seconds` of virtual time pass."""
        self.run_until(self.clock.now + seconds)

    def run_until(self, end: float) -> None:
        """Run everything up to and including virtual time `end`."""
        heap, clock, members = self._heap, self.clock, self.members
        while heap and heap[0][0] <= end:
            now, _, target, kind, payload = heappop(heap)
            clock.advance(now)
            self.steps += 1
            if kind == _ACTION:
                payload[0](*payload[1])
                continue
            member = members[target]
            if member.condition is not Condition.RUNNING:
                found = self._absent(member, kind, payload)
                if found is None:
                    continue
                member = found
            self._input(member, kind, payload)
            self._pump(member)
        clock.advance(end)

    def run_while(self, condition: Callable[[], bool], timeout: float, *, step: float = 0.05) -> bool:
        """Run until `condition` is false; look every `step` seconds; return whether that came in time."""
        end = self.clock.now + timeout
        while condition():
            if self.clock.now >= end:
                return False
            self.run_until(min(end, self.clock.now + step))
        return True

    # -- views --------------------------------------------------------------------------

    @property
    def digest(self) -> str:
        """Hash of every datagram, conversation, event and fault so far."""
        if self._hash is None:
            raise LocalProtocolError("the cluster was made with digest=False")
        return self._hash.hexdigest()

    @property
    def agreed(self) -> bool:
        """Whether every live member believes in exactly the live members, at their addresses."""
        expected = {member.name: member.address for member in self.alive}
        return all(_believes(member, expected) for member in self.alive)

    def at_address(self, address: Address) -> Member | None:
        """Return the latest member that had `address`."""
        return self._at.get(address)

    # -- private: inputs ------------------------------------------------------------------

    def _start(self, config: Config, slot: int, host: int, meta: bytes | None) -> Member:
        alike = config.wire, config.label, config.skip_inbound_label_check
        bodies = self._bodies.setdefault(alike, SharedBodies(config.wire))
        member = Member(len(self.members), slot, host, config, self.seed, self.machine, meta, self.supply, bodies)
        self.members.append(member)
        self._at[member.address] = member
        member.started = self.clock.now
        member.machine.start(self.clock.now)
        self._note(b"start", member)
        self._pump(member)
        return member

    def _input(self, member: Member, kind: int, payload: Any) -> None:
        now, machine = self.clock.now, member.machine
        if kind == _DATAGRAM:
            self.network.counters.delivered += 1
            member.received += 1
            machine.receive_datagram(payload[0], payload[1], now)
        elif kind == _TIMER:
            if payload != member.filed:
                return  # an earlier deadline was filed meanwhile
            member.filed = None
            timer = machine.get_timer()
            if timer is not None and timer <= now:
                self._guard(member, now)
                machine.handle_timer(now)
        elif kind == _CALL:
            self._called(member, payload, now)
        elif not payload[0].done:
            payload[0].done = True
            if kind == _ANSWER:
                self._answered(member, payload[0], payload[1], now)
            else:
                self.network.counters.exchanges_failed += 1
                machine.exchange_failed(payload[0].exchange_id, payload[1], now)

    def _absent(self, member: Member, kind: int, payload: Any) -> Member | None:
        """Take an input for a member that does not run normally; return who handles it now, if anyone."""
        if member.condition is Condition.GONE:
            if kind in (_DATAGRAM, _CALL):
                heir = self._at[member.address]
                if heir is not member:
                    return heir if heir.condition is Condition.RUNNING else self._absent(heir, kind, payload)
                if kind == _CALL:
                    self._refuse(payload)
                else:
                    self.network.counters.unbound += 1
            return None
        if kind == _TIMER:
            if member.condition is Condition.SLOW:
                return member
            member.filed = None  # the process looks at its timers again when it wakes
        elif sum(1 for waiting, _ in member.inbox if (waiting == _DATAGRAM) == (kind == _DATAGRAM)) < (
            SOCKET_BUFFER if kind == _DATAGRAM else BACKLOG
        ):
            member.inbox.append((kind, payload))
        else:
            self.network.counters.overflowed += 1
        return None

    def _guard(self, member: Member, now: float) -> None:
        if now != member.last_timer:
            member.last_timer, member.spins = now, 0
        member.spins += 1
        if member.spins > _SPINS:
            raise LocalProtocolError(f"timers of {member!r} fire without end at {now}")

    def _running(self, member: Member) -> Member:
        if member.condition in (Condition.GONE, Condition.FROZEN):
            raise LocalProtocolError(f"{member!r} cannot act")
        return member

    # -- private: outputs -----------------------------------------------------------------

    def _pump(self, member: Member) -> None:
        """Pull every output of a machine, then file its next timer."""
        machine = member.machine
        now = self.clock.now
        slow = member.condition is Condition.SLOW
        for datagram in machine.datagrams_to_send():
            if slow:
                member.outbox.append(datagram)
            else:
                self._emit(member, datagram)
        for request in machine.exchanges_to_start():
            conversation = self._prepare(member, request)
            if slow:
                member.outbox.append(conversation)
            else:
                self._emit(member, conversation)
        while (event := machine.next_event()) is not None:
            self._event(member, event, now)
        if self.watchers and machine.node_version != member.version:
            member.version = machine.node_version
            for watcher in self.watchers:
                watcher.changed(member, now)
        timer = machine.get_timer()
        if timer is not None and (member.filed is None or timer < member.filed):
            timer = max(timer, now)
            member.filed = timer
            self._push(timer, member.index, _TIMER, timer)

    def _emit(self, member: Member, output: tuple[bytes, Address] | Conversation) -> None:
        if isinstance(output, Conversation):
            self._dial(member, output)
            return
        data, address = output
        target = self._at.get(address)
        member.sent += 1
        counters = self.network.counters
        counters.datagrams += 1
        counters.bytes += len(data)
        if self._hash is not None:
            self._hash.update(_STAMP.pack(self.clock.now, member.index, -1 if target is None else target.index))
            self._hash.update(data)
        for tap in self.taps:
            tap(member, data, address, self.clock.now)
        route = self.network.route(member.slot, -1 if target is None else target.slot)
        if route is None:
            member.machine.write_failed(address, self.clock.now)
            for datagram in member.machine.datagrams_to_send():
                self._emit(member, datagram)
            return
        if target is None:
            counters.unbound += 1
            return
        for delay in route:
            self._push(self.clock.now + delay, target.index, _DATAGRAM, (data, member.address))

    def _event(self, member: Member, event: Event, now: float) -> None:
        if self._hash is not None:
            self._hash.update(_STAMP.pack(now, member.index, -2))
            self._hash.update(repr(event).encode("utf-8", "surrogateescape"))
        if isinstance(event, OperationDone):
            self.results[member.index, event.operation_id] = event
        elif member.delegate is not None:
            if isinstance(event, UserMessage):
                member.delegate.notify_msg(event.data)
            elif isinstance(event, RemoteState):
                member.delegate.merge_remote_state(event.data, event.join)
        for watcher in self.watchers:
            watcher.event(member, event, now)

    def _push(self, when: float, target: int, kind: int, payload: Any) -> None:
        self._sequence += 1
        heappush(self._heap, (when, self._sequence, target, kind, payload))

    def _note(self, what: bytes, member: Member) -> None:
        if self._hash is not None:
            self._hash.update(_STAMP.pack(self.clock.now, member.index, -3) + what)

    def _new_host(self) -> int:
        self._hosts += 1
        return self._hosts

    # -- private: conversations -------------------------------------------------------------

    def _prepare(self, member: Member, request: ExchangeRequested) -> Conversation:
        fate = self.network.converse()
        data = member.streams.seal(request.message, answer=False)
        if self._hash is not None:
            self._hash.update(_STAMP.pack(self.clock.now, member.index, -4) + data)
        self.network.counters.exchange_bytes += len(data)
        conversation = Conversation(
            request.exchange_id, member.index, request.address, data, fate, request.expects_reply
        )
        timeout = OperationTimeout(f"no answer from {request.address[0]}:{request.address[1]} in time")
        self._push(max(request.deadline, self.clock.now), member.index, _FAILURE, (conversation, timeout))
        return conversation

    def _dial(self, member: Member, conversation: Conversation) -> None:
        target = self._at.get(conversation.address)
        if target is None or not self.network.connects(member.slot, target.slot):
            return  # silence: the deadline ends it
        conversation.target = target.index
        self._push(self.clock.now + conversation.fate.there, target.index, _CALL, conversation)

    def _refuse(self, conversation: Conversation) -> None:
        if self.members[conversation.target].silent:
            return
        refused = ConnectionRefused("connection refused")
        self._push(
            self.clock.now + conversation.fate.back, conversation.initiator, _FAILURE, (conversation, refused)
        )

    def _called(self, member: Member, conversation: Conversation, now: float) -> None:
        """The accepting side: read the request, answer, close."""
        initiator = self.members[conversation.initiator]
        if not self.network.connects(initiator.slot, member.slot):
            return
        data = conversation.request
        whole = conversation.fate.cut_request >= 1.0
        if not whole:
            data = data[: int(len(data) * conversation.fate.cut_request)]
        reader = member.streams.reader(answer=False)
        answer = b""
        try:
            middle = len(data) // 2  # in two pieces, as a kernel may well deliver it
            message = reader.feed(data[:middle]) or reader.feed(data[middle:])
            if message is None:
                reader.feed_eof()
        except RemoteProtocolError:
            message = None
            answer = reader.reply or b""
        if message is not None:
            reply = member.machine.answer_exchange(message, (initiator.address[0], 40000), now)
            if reply is not None:
                answer = member.streams.seal(reply, answer=True)
        if conversation.fate.cut_answer < 1.0:
            answer = answer[: int(len(answer) * conversation.fate.cut_answer)]
            whole = False
        self.network.counters.exchange_bytes += len(answer)
        payload: tuple[Conversation, Any] = (conversation, answer)
        kind = _ANSWER
        if not whole and not answer:
            payload, kind = (conversation, PeerUnreachable("connection reset")), _FAILURE
        self._push(now + conversation.fate.back, conversation.initiator, kind, payload)

    def _answered(self, member: Member, conversation: Conversation, data: bytes, now: float) -> None:
        """The dialling side: read the answer."""
        machine = member.machine
        if not conversation.expects_reply:
            machine.exchange_answered(conversation.exchange_id, None, now)
            return
        reader = member.streams.reader(answer=True)
        try:
            message = reader.feed(data)
            if message is None:
                reader.feed_eof()
        except RemoteProtocolError as error:
            machine.exchange_failed(conversation.exchange_id, error, now)
            return
        if message is None:
            closed = PeerUnreachable("closed without an answer")
            machine.exchange_failed(conversation.exchange_id, closed, now)
            return
        machine.exchange_answered(conversation.exchange_id, message, now)


def _believes(member: Member, expected: dict[str, Address]) -> bool:
    nodes = member.machine.members()
    return len(nodes) == len(expected) and all(expected.get(node.name) == node.address for node in nodes)
