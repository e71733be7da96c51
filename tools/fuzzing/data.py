"""The data plane's machine as a target of tools/fuzz: bytes from a peer that is proved, or is not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from mycorrizal import DataConfig, MycorrizalError
from mycorrizal._data.calls import Call
from mycorrizal._data.channel import OutMessage
from mycorrizal._data.machine import DataMachine
from mycorrizal._data.ports import BY_QUIC, Received, Served
from mycorrizal._wire import frames
from mycorrizal._wire.frames import Challenge, Close, Frame, Limits, Proof, Welcome, frame, stream_head
from mycorrizal._wire.values import DEFAULT, encode_value

LIMITS = Limits(64, 1 << 20, 64, 1 << 22)
NONCE, BOOT = bytes(32), bytes(8)


class Connection:
    """Takes everything, and keeps what is needed to answer a challenge."""

    channel = b"channel"
    address = ("10.6.6.6", 666)
    way, boot, why = BY_QUIC, None, ""
    full = False

    def __init__(self, now: float, *, dialled: bool) -> None:
        self.dialled = dialled
        self.created = self.last_received = now
        self.closed: int | None = None
        self.first = b""
        self._next = {True: 2, False: 0} if dialled else {True: 3, False: 1}

    def open_stream(self, *, uni: bool) -> int:
        self._next[uni] += 4
        return self._next[uni] - 4

    def send(self, stream: int, data: bytes | memoryview, fin: bool = False) -> None:
        assert self.closed is None, "bytes on a connection that is closed"
        self.first = self.first or bytes(data)

    def close(self, code: int, reason: str, now: float) -> None:
        self.closed = code

    put = send

    def backlog(self, stream: int) -> int:
        return 0

    def stats(self) -> dict[str, float | int]:
        return {}

    def read(self, *args: object) -> bool:
        raise NotImplementedError

    def nothing(self, *args: object) -> None:
        """Reset, stop, touch, ping, mark_proved, follow."""

    reset = stop = touch = ping = mark_proved = follow = nothing


class World:
    """Host, trust, ticket and sink in one: says yes to most things, at random."""

    name, boot = "fuzzed", b"bootboot"

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.counters: dict[str, int] = {}
        self.served: list[Served] = []

    def count(self, name: str, amount: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + amount

    def warn(self, kind: str, message: str, *args: object) -> None:
        message % args

    def offer(self, item: tuple[str, Received], size: int) -> bool:
        return self.rng.random() < 0.7

    def serve(self, request: Served) -> bool:
        self.served.append(request)
        return True

    def accept_stream(self, name: str, sender: str) -> Any:
        return self if self.rng.random() < 0.7 else Close.UNKNOWN

    def missing(self, node: str) -> tuple[str, str]:
        return "no address", "none"

    def has_handler(self, name: str) -> bool:
        return self.rng.random() < 0.8

    @property
    def settling(self) -> bool:
        return self.rng.random() < 0.5

    def has_thread(self, depth: int) -> bool:
        return self.rng.random() < 0.9

    def binding(self, *parts: Any) -> Any:
        return b"binding"

    def dial(self, address: Any, peer: str | None, now: float) -> Connection:
        return Connection(now, dialled=True)

    def nothing(self, *args: object) -> None:
        """What a sink, a ticket or a host hears and does not care for."""

    opened = accepted = feed = taken = stopped = broken = succeed = fail = arm = resolve = member = process = nothing

    def nonce(self) -> bytes:
        return NONCE

    def jitter(self) -> float:
        return 0.5


class Trust:
    """A trust that believes everything."""

    early = True
    compare = "compare both sides"

    def offer(self) -> bytes:
        return b"k"

    def prove(self, s: Any, offer: bytes) -> tuple[bytes, str]:
        return b"proof", "k"

    def verify(self, s: Any, proof: bytes) -> str:
        return "k"

    def answer(self, s: Any, key_id: str) -> bytes:
        return b"answer"

    def check_answer(self, s: Any, key_id: str, answer: bytes) -> None:
        """It holds."""

    def holds(self, key_id: str) -> bool:
        return True


def samples() -> Iterator[bytes]:
    """Yield what a peer may say: frames for a lane, and beginnings of streams."""
    value = encode_value([1, "two", b"three"]).pack()
    echo = frames.name_field("echo")
    lane = [
        frame(Frame.MESSAGE, frames.message_body(1) + value),
        frame(Frame.MESSAGE, frames.message_body(3) + value),
        frame(Frame.ACCEPTED, frames.message_body(1)),
        frame(Frame.SKIP, frames.message_body(2)),
        frame(Frame.REQUEST, frames.request_body(1, 1000) + echo + value),
        frame(Frame.RESPONSE, frames.response_body(1, 0) + value),
        frame(Frame.CANCEL, frames.id_body(1)),
        frame(Frame.GRANT, frames.grant_body(7, 1 << 20)),
    ]
    yield from lane
    yield b"".join(lane)
    for kind, body in (
        (Frame.MESSAGE, frames.message_body(1)),
        (Frame.REQUEST, frames.request_body(2, 0) + echo),
        (Frame.RESPONSE, frames.response_body(1, 0)),
    ):
        yield stream_head(kind, body, len(value)) + value
        yield stream_head(kind, body, 1 << 20) + b"\x00" + ((1 << 20) - 5).to_bytes(4, "big") + bytes(3000)
    yield stream_head(Frame.OPEN, frames.name_field("s")) + bytes(100)
    yield Challenge(NONCE, "peer", BOOT, b"k", LIMITS).pack()
    yield Challenge(NONCE, "peer", BOOT, b"k", LIMITS).pack() + Welcome(b"answer", 0).pack() + lane[0]
    yield Proof(NONCE, "peer", BOOT, b"proof", LIMITS, 0).pack() + lane[4]
    yield Welcome(b"answer", 0).pack()


def link(rng: random.Random) -> Callable[[bytes], str]:
    """Make a target: one machine, and a connection for each input."""
    world, trust = World(rng), Trust()
    config = DataConfig(max_value=1 << 22, bulk_memory=1 << 22, requests_per_peer=64)
    host: Any = world
    machine = DataMachine(host, trust, config)
    now = 1000.0

    def run(data: bytes) -> str:
        nonlocal now
        now += 0.1
        kind = rng.random()
        conn = Connection(now, dialled=kind < 0.2)
        if conn.dialled:
            machine.add(conn, rng.choice((None, "peer")))
        machine.connected(conn, now)
        if kind > 0.35:
            name = rng.choice(("peer", "other"))
            machine.stream_data(conn, 2, Proof(NONCE, name, rng.randbytes(8), b"p", LIMITS, 0).pack(), False, now)
            machine.stream_data(conn, 2, frame(Frame.ACCEPTED, bytes(8)), False, now)
            _work(machine, world, name, now)
            assert conn.closed is None
        lane = 3 if conn.dialled else 2
        stream = lane if kind < 0.7 else lane + 4 if kind < 0.95 else 0
        _feed(machine, conn, rng, stream, data, now)
        outcome = "ok" if conn.closed is None else Close(conn.closed).name
        machine.tick(now)
        if rng.random() < 0.5:
            machine.stream_reset(conn, stream, 7, now)
            machine.stream_stopped(conn, rng.choice((3, 7, 11)), 7, now)
        machine.closed(conn, 0, "", True, "reset", now)
        _check(machine, world)
        return outcome

    return run


def _work(machine: DataMachine, world: World, name: str, now: float) -> None:
    ticket: Any = world
    machine.request(Call(name, frames.name_field("echo"), encode_value(1), None, ticket), now)
    machine.send(name, OutMessage(encode_value(bytes(100_000 if world.rng.random() < 0.3 else 1)), ticket), now)


def _feed(machine: DataMachine, conn: Connection, rng: random.Random, stream: int, data: bytes, now: float) -> None:
    at = 0
    while at < len(data) and conn.closed is None:
        size = rng.choice((1, 5, 64, 1500, len(data)))
        machine.stream_data(conn, stream, data[at : at + size], rng.random() < 0.05 and at + size >= len(data), now)
        at += size
        if rng.random() < 0.3:
            machine.before_transmit(conn, now)
    served, world = machine.host.served, machine.host  # type: ignore[attr-defined]
    for request in served:
        try:
            request.value.decode(DEFAULT)
        except MycorrizalError as error:
            machine.bad_value(request.sender, error, now)
        request.link.respond(request, 0, encode_value(bytes(world.rng.choice((1, 100_000)))), now)  # type: ignore[attr-defined]
    served.clear()
    machine.room()
    if conn.closed is None:
        machine.before_transmit(conn, now)


def _check(machine: DataMachine, world: World) -> None:
    assert not world.counters.get("offences.internal"), "a fault of ours"
    assert not machine.links, "a connection is left"
    assert machine.budget.used == 0 and not machine.budget.wanted, "memory is left"
    assert not any(peer.holding or peer.links for peer in machine.peers.values()), "messages are left"
