"""Data machines in virtual time: a seeded network of fake QUIC connections, hosts, and trust.

Streams deliver in order each, and in any order among each other, in pieces of
any size. A connection can be lost without a word, closed, refused, and made by
both sides at once; a process can be restarted under its name.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from mycorrizal._data.calls import Call
from mycorrizal._data.channel import OutMessage
from mycorrizal._data.machine import DataMachine
from mycorrizal._data.ports import BY_QUIC, Pipe, Received, Served
from mycorrizal._wire.frames import Close, Status, name_field
from mycorrizal._wire.values import DEFAULT, encode_value
from mycorrizal.dataconfig import DataConfig
from mycorrizal.exceptions import MycorrizalError, ProofError, RemoteProtocolError
from mycorrizal.types import Address

QUIC_IDLE = 70.0


class Outcome:
    """A ticket that may end once."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.began = now()
        self.ended: float | None = None
        self.result: Any = None
        self.error: MycorrizalError | None = None

    def _end(self) -> None:
        assert self.ended is None, "a call ended twice"
        self.ended = self._now()

    def succeed(self, outcome: object) -> None:
        self._end()
        self.result = outcome

    def fail(self, error: MycorrizalError) -> None:
        self._end()
        self.error = error

    @property
    def ok(self) -> bool:
        return self.ended is not None and self.error is None


class FakeTrust:
    """Proofs that say what they are bound to; ``keys`` are held, the first one proves."""

    early, compare = True, "compare key= and cluster= of both sides"

    def __init__(self, *keys: str) -> None:
        self.keys = list(keys) or ["k"]

    def offer(self) -> bytes:
        return ",".join(self.keys).encode()

    def prove(self, s: Any, offer: bytes) -> tuple[bytes, str]:
        for key in self.keys:
            if key in offer.decode().split(","):
                return f"{key}|proof|{s}".encode(), key
        raise ProofError("no key in common")

    def verify(self, s: Any, proof: bytes) -> str:
        for key in self.keys:
            if proof == f"{key}|proof|{s}".encode():
                return key
        raise ProofError("the proof does not hold")

    def answer(self, s: Any, key_id: str) -> bytes:
        return f"{key_id}|answer|{s}".encode()

    def check_answer(self, s: Any, key_id: str, answer: bytes) -> None:
        if answer != f"{key_id}|answer|{s}".encode():
            raise ProofError("the answer does not hold")

    def holds(self, key_id: str) -> bool:
        return key_id in self.keys


class World:
    """Clock, events and network."""

    def __init__(self, seed: int = 0, *, delay: tuple[float, float] = (0.001, 0.02)) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.delay, self.way = delay, BY_QUIC
        self.nodes: dict[Address, Node] = {}
        self.blocked: set[frozenset[Address]] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def later(self, delay: float, run: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._count), run))

    def random_delay(self) -> float:
        return self.rng.uniform(*self.delay)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> float:
        """Let time pass until `condition` holds; return how long that took."""
        began = self.now
        while not condition():
            assert self._events and self._events[0][0] <= began + seconds, "it did not happen in time"
            self.now, _, event = heapq.heappop(self._events)
            event()
        return self.now - began

    def reachable(self, one: Address, other: Address) -> bool:
        return frozenset((one, other)) not in self.blocked


class Conn:
    """One end of a connection."""

    full = False

    def __init__(self, node: Node, address: Address, *, dialled: bool) -> None:
        self.node = node
        self.world = node.world
        self.address = address
        self.dialled = dialled
        self.created = self.last_received = self.world.now
        self.channel: bytes | None = None
        self.way, self.boot, self.why = node.world.way, None, ""
        self.other: Conn | None = None
        self.up = self.gone = self.proved = self._gap = False
        self.lost = False  # nothing passes any more
        self.pings = 0
        self.sent: dict[int, int] = {}
        self.acked: dict[int, int] = {}
        self.stopped: set[int] = set()
        self.ended: set[int] = set()  # no more may be sent
        self._arrival: dict[int, float] = {}
        self._next = {True: 2, False: 0} if dialled else {True: 3, False: 1}
        self._touched = False

    # -- what the machine calls ---------------------------------------------------------------

    def open_stream(self, *, uni: bool) -> int:
        stream = self._next[uni]
        self._next[uni] += 4
        return stream

    def send(self, stream: int, data: bytes | memoryview, fin: bool = False) -> None:
        if self.gone or stream in self.ended:
            return
        data = bytes(data)
        if fin:
            self.ended.add(stream)
        self.sent[stream] = self.sent.get(stream, 0) + len(data) + fin
        rng = self.world.rng
        at = 0
        while True:
            size = len(data) - at if rng.random() < 0.5 else rng.choice((1, 7, 1200, 1 << 18))
            piece, at = data[at : at + size], at + size
            last = at >= len(data)
            self._deliver(stream, lambda c, p=piece, f=fin and last: c._data(stream, p, f), len(piece) + (fin and last))
            if last:
                break
        self.touch()

    put = send

    def read(self, who: Any, take: Any, deadline: Any) -> bool:
        raise NotImplementedError

    def backlog(self, stream: int) -> int:
        return 0 if self.gone else self.sent.get(stream, 0) - self.acked.get(stream, 0)

    def reset(self, stream: int, code: int) -> None:
        if not self.gone and stream in self.sent and stream not in self.stopped:
            self.ended.add(stream)
            self.stopped.add(stream)
            self.acked[stream] = self.sent[stream]
            self._deliver(stream, lambda c: c.node.machine.stream_reset(c, stream, code, c.world.now), 0, reset=True)

    def stop(self, stream: int, code: int) -> None:
        if not self.gone:
            self._deliver(-1 - stream, lambda c: c._stop(stream, code), 0)

    def touch(self) -> None:
        if not self._touched and not self.gone:
            self._touched = True
            self.world.later(0.0, self._turn)

    def ping(self) -> None:
        self.pings += 1
        self._deliver(-1, lambda c: None, 0)

    def stats(self) -> dict[str, float | int]:
        return {}

    def follow(self, address: Address) -> None:
        self.address = address

    def mark_proved(self) -> None:
        self.proved = True

    def close(self, code: int, reason: str, now: float) -> None:
        if self.gone:
            return
        other = self.other
        self._end(code, reason, False, "local")
        if other is not None:

            def farewell() -> None:
                if self._passes():
                    other._end(code, reason, True, "closed")

            self.world.later(self.world.random_delay(), farewell)

    # -- the network --------------------------------------------------------------------------

    def _passes(self) -> bool:
        other = self.other
        if self.lost or other is None or not self.world.reachable(self.node.address, other.node.address):
            return False
        return not self.node.dead

    def _deliver(self, stream: int, run: Callable[[Conn], None], size: int, *, reset: bool = False) -> None:
        """Bring something to the other end, in order on its stream; only a reset may overtake."""
        delay = self.world.random_delay() * (10 if self.world.rng.random() < 0.03 else 1)  # lost once, and sent again
        when = self.world.now + delay
        if not reset:
            when = self._arrival[stream] = max(when, self._arrival.get(stream, 0.0))
        self.world.later(when - self.world.now, lambda: self._arrive(stream, run, size, reset))

    def _arrive(self, stream: int, run: Callable[[Conn], None], size: int, reset: bool) -> None:
        other = self.other
        if other is None or self._gap or (stream in self.stopped and not reset):
            return
        if self.gone and self.world.rng.random() < 0.5:
            self._gap = True  # what a closed connection had lost is not sent again: nothing after it counts
            return
        if not self._passes():
            self.lost = True
            return
        if other.gone:
            return
        if other.node.dead:
            if other.node.world.nodes.get(other.node.address) not in (None, other.node):
                self.world.later(self.world.random_delay(), lambda: self._end(0, "", True, "reset"))
            return
        other.last_received = self.world.now
        run(other)
        other.touch()
        self.world.later(self.world.random_delay(), lambda: self._acknowledged(stream, size))

    def _acknowledged(self, stream: int, size: int) -> None:
        if self.gone or self.other is None or self.other.gone:
            return
        if not self.other._passes():
            self.other.lost = True
            return
        self.last_received = self.world.now
        if stream not in self.stopped:
            self.acked[stream] = self.acked.get(stream, 0) + size
        self.touch()

    def _data(self, stream: int, data: bytes, fin: bool) -> None:
        self.node.machine.stream_data(self, stream, data, fin, self.world.now)

    def _stop(self, stream: int, code: int) -> None:
        self.ended.add(stream)
        if stream not in self.stopped:
            self.stopped.add(stream)
            self.acked[stream] = self.sent.get(stream, 0)
            self._deliver(stream, lambda c: c.node.machine.stream_reset(c, stream, code, c.world.now), 0, reset=True)
        self.node.machine.stream_stopped(self, stream, code, self.world.now)

    def _turn(self) -> None:
        self._touched = False
        if self.up and not self.gone and not self.node.dead:
            self.node.machine.before_transmit(self, self.world.now)

    def connect(self) -> None:
        """Both ends have finished TLS."""
        if not self.gone and not self.node.dead:
            self.up = True
            self.last_received = self.world.now
            self.node.machine.connected(self, self.world.now)
            self.touch()
            self._watch()

    def _watch(self) -> None:
        if self.gone or self.node.dead:
            return
        if self.world.now - self.last_received >= QUIC_IDLE:
            self._end(0, "Idle timeout", False, "idle")
        else:
            self.world.later(5.0, self._watch)

    def _end(self, code: int, reason: str, by_peer: bool, kind: str) -> None:
        if self.gone:
            return
        self.gone = True
        if not self.node.dead:
            machine = self.node.machine
            self.world.later(0.0, lambda: machine.closed(self, code, reason, by_peer, kind, self.world.now))


class Node:
    """A process: a machine, its host, and what a user sees."""

    def __init__(
        self,
        world: World,
        name: str,
        address: Address,
        config: DataConfig | None = None,
        trust: FakeTrust | None = None,
        inbox: tuple[int, int] = (1 << 20, 1 << 40),
    ) -> None:
        self.world = world
        self.name = name
        self.address = address
        self.boot = world.rng.randbytes(8)
        self.dead = False
        self.addresses: dict[str, Address] = {}
        self.members: dict[str, bool] = {}
        self.processes: dict[str, bytes] = {}  # boot ids, as membership knows them
        self.counters: dict[str, int] = {}
        self.warnings: list[str] = []
        self.handler: Callable[[Served], None] = lambda request: self.answer(request)
        self.serving = 0
        self.capacity = 1 << 20
        self.has_thread: Callable[[int], bool] = lambda depth: True
        self.ran: list[Any] = []
        self.messages: list[tuple[str, Any]] = []
        self.inbox: deque[tuple[tuple[str, Received], int]] = deque()
        self.inbox_limits = inbox
        self.reading = True
        self.sinks: dict[str, Callable[[], Any]] = {}
        self._refused = False
        self.trust = trust or FakeTrust()
        self.settling, self.missing = False, lambda node: (f"no address is known for {node!r}", "")
        self.machine = DataMachine(self, self.trust, config or DataConfig())
        world.nodes[address] = self

    # -- the host ---------------------------------------------------------------------------------

    def dial(self, address: Address, peer: str | None, now: float) -> Conn:
        world = self.world
        conn = Conn(self, address, dialled=True)
        other = world.nodes.get(address)
        if not world.reachable(self.address, address):
            pass  # nobody answers
        elif other is None or other.dead:
            world.later(world.random_delay(), lambda: conn._end(0, "", False, "refused"))
        elif peer is not None and other.name != peer:
            world.later(2 * world.random_delay(), lambda: conn._end(0x12A, "certificate", False, "handshake"))
        else:
            back = Conn(other, self.address, dialled=False)
            conn.other, back.other = back, conn
            conn.channel = back.channel = world.rng.randbytes(8)
            first = world.random_delay()
            world.later(first, back.connect)
            world.later(first + world.delay[0] / 2, conn.connect)  # before anything of the server
        return conn

    def resolve(self, node: str) -> Address | None:
        return self.addresses.get(node)

    def member(self, node: str) -> bool | None:
        return self.members.get(node)

    def process(self, node: str) -> bytes | None:
        return self.processes.get(node)

    def offer(self, item: tuple[str, Received], size: int) -> bool:
        messages, total = self.inbox_limits
        if self.inbox and (len(self.inbox) >= messages or sum(s for _, s in self.inbox) + size > total):
            self._refused = True
            return False
        self.inbox.append((item, size))
        if self.reading:
            self.world.later(0.0, self.read)
        return True

    def read(self) -> None:
        """Take one message out of the inbox."""
        if self.inbox and not self.dead:
            (sender, received), _ = self.inbox.popleft()
            if self._refused:
                self._refused = False
                self.world.later(0.0005, self.machine.room)
            try:
                self.messages.append((sender, received.decode(DEFAULT)))
            except RemoteProtocolError as error:
                self.machine.bad_value(sender, error, self.world.now)

    def serve(self, request: Served) -> bool:
        if self.serving >= self.capacity:
            return False
        self.serving += 1
        try:
            self.ran.append(request.value.decode(DEFAULT))
        except RemoteProtocolError as error:
            wrong = error
            self.world.later(0.0, lambda: self.machine.bad_value(request.sender, wrong, self.world.now))
            self.answer(request)
        else:
            self.handler(request)
        return True

    def answer(self, request: Served, value: object = "done", delay: float = 0.0) -> None:
        """Let a handler finish."""

        def finish() -> None:
            self.serving -= 1
            if not self.dead:
                request.link.respond(request, Status.OK, encode_value(value), self.world.now)

        self.world.later(delay, finish)

    def has_handler(self, name: str) -> bool:
        return name != "unknown"

    def accept_stream(self, name: str, sender: str) -> Any:
        make = self.sinks.get(name)
        return Close.UNKNOWN if make is None else make()

    def arm(self, delay: float) -> None:
        def tick() -> None:
            if not self.dead:
                self.machine.tick(self.world.now)

        self.world.later(delay, tick)

    def nonce(self) -> bytes:
        return self.world.rng.randbytes(32)

    def jitter(self) -> float:
        return self.world.rng.random()

    def binding(self, channel: bytes, server_nonce: bytes, client_nonce: bytes, client: str, server: str) -> Any:
        return (channel, server_nonce, client_nonce, client, server)

    def count(self, name: str, amount: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + amount

    def warn(self, kind: str, message: str, *args: object) -> None:
        self.warnings.append(message % args)

    # -- the user ---------------------------------------------------------------------------------

    def send(self, node: str, value: object) -> tuple[OutMessage, Outcome]:
        outcome = Outcome(lambda: self.world.now)
        message = OutMessage(encode_value(value), outcome)
        self.machine.send(node, message, self.world.now)
        return message, outcome

    def request(
        self, node: str, value: object = None, *, name: str = "echo", timeout: float | None = None
    ) -> tuple[Call, Outcome]:
        outcome = Outcome(lambda: self.world.now)
        deadline = None if timeout is None else self.world.now + timeout
        call = Call(node, name_field(name), encode_value(value), deadline, outcome)
        self.machine.request(call, self.world.now)
        return call, outcome

    def link(self, node: str) -> Any:
        return self.machine.peers[node].link

    def die(self) -> None:
        """The process is killed; nothing is said."""
        self.dead = True
        if self.world.nodes.get(self.address) is self:
            del self.world.nodes[self.address]


def answer_of(outcome: Outcome) -> Any:
    """Return the value of a request that was answered."""
    status, received = outcome.result
    assert status == Status.OK, status
    return received.decode(DEFAULT)


def pair(seed: int = 0, config: DataConfig | None = None, **more: Any) -> tuple[World, Node, Node]:
    """Return two nodes that know each other."""
    world = World(seed)
    nodes = mesh(world, ["a", "b"], config, **more)
    return world, nodes[0], nodes[1]


def mesh(world: World, names: list[str], config: DataConfig | None = None, **more: Any) -> list[Node]:
    """Return nodes that all know each other."""
    nodes = [Node(world, name, ("10.0.0.1", 7000 + index), config, **more) for index, name in enumerate(names)]
    for node in nodes:
        node.addresses = {other.name: other.address for other in nodes if other is not node}
    return nodes


def leftovers(machine: DataMachine) -> list[str]:
    """Return what a machine still holds, where an idle one holds nothing."""
    found = [f"link {link}" for link in machine.links.values()]
    if machine.budget.used or machine.budget.wanted:
        found.append(f"budget {machine.budget.used} {machine.budget.wanted}")
    if machine.local_calls or machine._blocked:
        found.append("local calls or blocked peers")
    for peer in machine.peers.values():
        for what in ("links", "link", "dialling", "calls", "openings", "holding", "blocked", "in_line"):
            if getattr(peer, what):
                found.append(f"{peer.name}: {what}")
        if peer.outgoing.open or peer.outgoing.waiting:
            found.append(f"{peer.name}: {len(peer.outgoing)} messages")
    return found


class FakeSink:
    """A user's end of a stream that keeps what it hears."""

    def __init__(self) -> None:
        self.pipe: Pipe | None = None
        self.data = bytearray()
        self.fin = self.is_accepted = False
        self.sent = 0
        self.errors: list[MycorrizalError] = []

    def opened(self, pipe: Pipe) -> None:
        self.pipe = pipe

    def accepted(self) -> None:
        self.is_accepted = True

    def feed(self, data: bytes, fin: bool) -> None:
        self.data += data
        self.fin = fin

    def taken(self, size: int) -> None:
        self.sent += size

    def stopped(self, error: MycorrizalError) -> None:
        self.errors.append(error)

    def broken(self, error: MycorrizalError) -> None:
        self.errors.append(error)


def packed(value: object) -> bytes:
    """Return the wire form of a value."""
    return encode_value(value).pack()
