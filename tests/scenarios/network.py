"""A virtual network that carries real bytes: datagrams one by one, conversations through the stream codec.

Time moves in ``run`` only. Links can be cut by direction and by kind, a member
can be frozen (its datagrams wait in its socket), switched off, or be a
listener that never says a word. Everything sent is logged, every event has the
time it came out.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mycorrizal._swim import Swim
from mycorrizal._swim.events import Event, ExchangeRequested, OperationDone
from mycorrizal._wire.messages import Message, User
from mycorrizal._wire.stream import StreamCodec
from mycorrizal.exceptions import RemoteProtocolError
from mycorrizal.types import Address, Node, NodeState, pack_host
from tests._swim.harness import FAITHFUL, make, nonces

__all__ = ["LIVELY", "Network", "Peer", "Sent", "faithful", "named", "state_of"]

E = TypeVar("E")

LIVELY: dict[str, Any] = {"probe_interval": 1.0, "gossip_interval": 0.2, "push_pull_interval": 30.0}
"""The LAN profile's periodic work, which the harness leaves out by default."""

_STEPS_AT_ONCE = 1000


@dataclass(frozen=True)
class Sent:
    """One message in a datagram or a conversation that was begun."""

    at: float
    sender: str
    to: Address
    message: Message
    over: str  # "udp" or "tcp"


@dataclass
class Peer:
    """A member of the network."""

    swim: Swim
    stream: StreamCodec
    events: list[tuple[float, Event]] = field(default_factory=list)
    frozen: bool = False
    waiting: list[tuple[bytes, Address]] = field(default_factory=list)


def faithful(name: str, host: str, port: int = 7946, **settings: Any) -> Swim:
    """Return a machine with everything beyond memberlist switched off."""
    return make(name, host, port, **{**FAITHFUL, **settings})


def named(nodes: Sequence[Node]) -> list[str]:
    """Return the names of `nodes`."""
    return [node.name for node in nodes]


def state_of(swim: Swim, name: str) -> NodeState | None:
    """Return what `swim` holds `name` for, ``None`` if it does not know it."""
    return next((node.state for node in swim.nodes() if node.name == name), None)


class Network:
    """Machines and what lies between them.

    Args:
        latency: seconds a datagram, or each direction of a conversation, takes.
    """

    def __init__(self, *swims: Swim, latency: float = 0.0) -> None:
        self.now = 0.0
        self.latency = latency
        self.log: list[Sent] = []
        self.raw: list[tuple[str, Address, bytes]] = []
        self.silent: set[Address] = set()  # takes connections, never answers
        self.drop: Callable[[str, Address, bytes], bool] = lambda sender, to, data: False
        self._cut: set[tuple[str, Address, str]] = set()  # from, to, "udp" or "tcp"
        self._peers: dict[Address, Peer] = {}
        self._under_way: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        for swim in swims:
            self.add(swim)

    # -- who takes part ---------------------------------------------------------------

    def add(self, swim: Swim) -> Swim:
        """Switch a machine on; it takes the place of one that had its address."""
        core = swim._core
        if not swim._started:
            swim.start(self.now)
        stream = StreamCodec(core.config, core.codec.keyring, nonces(f"stream/{core.name}"))
        self._peers[swim.local_node.address] = Peer(swim, stream)
        return swim

    def remove(self, swim: Swim) -> None:
        """Switch a machine off, without a word."""
        del self._peers[self.peer(swim).swim.local_node.address]

    def move(self, swim: Swim, host: str, *, notice: float = 0.0) -> None:
        """Give a machine's host another address; the machine is told after `notice` seconds."""
        peer = self._peers.pop(self.peer(swim).swim.local_node.address)
        self._peers[host, swim.local_node.port] = peer

        def told() -> None:
            swim.moved(pack_host(host), self.now)

        self._later(self.now + notice, told)

    def peer(self, swim: Swim) -> Peer:
        """Return the entry of `swim`."""
        return next(peer for peer in self._peers.values() if peer.swim is swim)

    def freeze(self, swim: Swim) -> None:
        """Stop a process: what is sent to it waits in its socket."""
        self.peer(swim).frozen = True

    def thaw(self, swim: Swim) -> None:
        """Let a process run again: it drains its socket first, as an owner must, and looks at its timers then."""
        peer = self.peer(swim)
        peer.frozen = False
        waiting, peer.waiting = peer.waiting, []
        for data, sender in waiting:
            swim.receive_datagram(data, sender, self.now)
        due = swim.get_timer()
        if due is not None and due <= self.now:
            swim.handle_timer(self.now)
        self.flush()

    # -- links ------------------------------------------------------------------------

    def cut(self, sender: Swim, to: Swim, *kinds: str) -> None:
        """Cut one direction for "udp", "tcp" or, by default, both. A conversation needs "tcp" from its dialler."""
        for kind in kinds or ("udp", "tcp"):
            self._cut.add((sender.local_node.name, to.local_node.address, kind))

    def cut_both(self, a: Swim, b: Swim, *kinds: str) -> None:
        """Cut both directions."""
        self.cut(a, b, *kinds)
        self.cut(b, a, *kinds)

    def part(self, left: Sequence[Swim], right: Sequence[Swim]) -> None:
        """Cut everything between two sides."""
        for a in left:
            for b in right:
                self.cut_both(a, b)

    def heal(self) -> None:
        """Mend every link."""
        self._cut.clear()

    # -- time -------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let `seconds` pass for all."""
        self.run_until(lambda: False, seconds)

    def run_until(self, done: Callable[[], bool], seconds: float) -> float | None:
        """Let time pass until `done()`, at most `seconds`; return how long it took, ``None`` if it never was."""
        began = self.now
        until = began + seconds
        still = 0  # steps since time moved
        self.flush()
        while not done():
            at = self._next()
            if at is None or at > until:
                self.now = until
                return None
            still = 0 if at > self.now else still + 1
            assert still < _STEPS_AT_ONCE, "time stands still: some timer is due again at once"
            self.now = max(self.now, at)
            for peer in list(self._peers.values()):
                due = peer.swim.get_timer()
                if not peer.frozen and due is not None and due <= self.now:
                    peer.swim.handle_timer(self.now)
            self.flush()
        return self.now - began

    def flush(self) -> None:
        """Carry everything that is due now."""
        while True:
            for address, peer in list(self._peers.items()):
                if not peer.frozen:
                    self._collect(address, peer)
            if not self._under_way or self._under_way[0][0] > self.now:
                return
            heapq.heappop(self._under_way)[2]()

    def _next(self) -> float | None:
        times = [due for p in self._peers.values() if not p.frozen and (due := p.swim.get_timer()) is not None]
        times += [at for at, _, _ in self._under_way[:1]]
        return min(times, default=None)

    def _later(self, at: float, call: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._under_way, (at, self._sequence, call))

    # -- carrying ---------------------------------------------------------------------

    def _collect(self, address: Address, peer: Peer) -> None:
        swim, name = peer.swim, peer.swim._core.name
        for data, to in swim.datagrams_to_send():
            self.raw.append((name, to, data))
            self.log += [Sent(self.now, name, to, m, "udp") for m in swim._core.codec.open(data).messages]
            if (name, to, "udp") not in self._cut and not self.drop(name, to, data):
                self._later(self.now + self.latency, lambda data=data, to=to: self._arrive(data, address, to))
        for request in swim.exchanges_to_start():
            self.log.append(Sent(self.now, name, request.address, request.message, "tcp"))
            self._dial(peer, address, request)
        while (event := swim.next_event()) is not None:
            peer.events.append((self.now, event))

    def _arrive(self, data: bytes, sender: Address, to: Address) -> None:
        peer = self._peers.get(to)
        if peer is None:
            return
        if peer.frozen:
            peer.waiting.append((data, sender))
        else:
            peer.swim.receive_datagram(data, sender, self.now)

    def _dial(self, peer: Peer, address: Address, request: ExchangeRequested) -> None:
        target = self._peers.get(request.address)
        name = peer.swim._core.name
        if request.address in self.silent or (target is not None and target.frozen):
            self._fail(peer, request, TimeoutError("no answer"), max(request.deadline, self.now))
        elif target is None or (name, request.address, "tcp") in self._cut:
            self._fail(peer, request, ConnectionRefusedError("nobody there"), self.now)
        else:
            sealed = peer.stream.seal(request.message, answer=False)
            self._later(self.now + self.latency, lambda: self._converse(peer, address, request, target, sealed))

    def _converse(self, peer: Peer, address: Address, request: ExchangeRequested, target: Peer, sealed: bytes) -> None:
        back = self.now + self.latency
        if back > request.deadline:
            self._fail(peer, request, TimeoutError("no answer in time"), back)
            return
        reply = answer_bytes(target, sealed, address, self.now)
        reader = peer.stream.reader(answer=True)
        try:
            answer = reader.feed(reply or b"")
        except RemoteProtocolError as exc:
            self._fail(peer, request, exc, back)
            return
        if answer is None:
            self._fail(peer, request, ConnectionResetError("closed without a word"), back)
            return
        self._later(back, lambda: peer.swim.exchange_answered(request.exchange_id, answer, self.now))

    def _fail(self, peer: Peer, request: ExchangeRequested, error: Exception, at: float) -> None:
        self._later(at, lambda: peer.swim.exchange_failed(request.exchange_id, error, self.now))

    # -- what happened ------------------------------------------------------------------

    def events(self, swim: Swim, kind: type[E], since: float = float("-inf")) -> list[E]:
        """Return the events of one kind that `swim` reported, from `since` on."""
        return [event for at, event in self.peer(swim).events if at >= since and isinstance(event, kind)]

    def when(self, swim: Swim, kind: type[Event]) -> list[float]:
        """Return the times of the events of one kind."""
        return [at for at, event in self.peer(swim).events if isinstance(event, kind)]

    def sent(self, sender: str, kind: type[E], *, over: str = "udp", since: float = float("-inf")) -> list[E]:
        """Return the messages of one kind that `sender` sent."""
        return [
            s.message for s in self.log
            if s.sender == sender and s.over == over and s.at >= since and isinstance(s.message, kind)
        ]  # fmt: skip

    def forget(self) -> None:
        """Drop log and events so far."""
        self.flush()
        self.log.clear()
        self.raw.clear()
        for peer in self._peers.values():
            peer.events.clear()

    def join(self, joiner: Swim, seed: Swim | Address, *, name: str = "", patience: float = 60.0) -> Exception | None:
        """Join and wait for the end; return the error, ``None`` if it worked."""
        address = seed if isinstance(seed, tuple) else seed.local_node.address
        operation = joiner.join(address, self.now, name=name)

        def ends() -> list[OperationDone]:
            return [e for e in self.events(joiner, OperationDone) if e.operation_id == operation]

        assert self.run_until(lambda: bool(ends()), patience) is not None, "the join never ended"
        return ends()[0].error

    def send_reliable(self, sender: Swim, to: Swim, data: bytes) -> None:
        """Send a user message over a conversation; the machine has no part in it on the sending side."""
        sealed = self.peer(sender).stream.seal(User(data), answer=False)
        assert answer_bytes(self.peer(to), sealed, sender.local_node.address, self.now) is None
        self.flush()


def answer_bytes(target: Peer, sealed: bytes, sender: Address, now: float) -> bytes | None:
    """Return what `target` writes back to somebody who dialled it and wrote `sealed`."""
    reader = target.stream.reader(answer=False)
    try:
        message = reader.feed(sealed)
    except RemoteProtocolError:
        return reader.reply
    if message is None:
        return None
    answer = target.swim.answer_exchange(message, sender, now)
    return None if answer is None else target.stream.seal(answer, answer=True)
