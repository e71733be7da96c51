"""A peer made of bytes: says whatever a test wants to a machine, and writes down what it hears."""

from __future__ import annotations

from typing import Any

from mycorrizal._data.ports import BY_QUIC
from mycorrizal._wire.frames import (
    FRAME_MAX,
    Challenge,
    Close,
    Frame,
    LaneReader,
    Limits,
    Proof,
    Welcome,
    frame,
    name_field,
    request_body,
    stream_head,
)
from mycorrizal.dataconfig import DataConfig
from mycorrizal.types import Address

from .harness import FakeTrust, Node, World

LIMITS = Limits(64, 1 << 20, 1024, 1 << 30)
LANE = 2  # the client's; the server's is 3


class RawConn:
    """A connection that keeps what is written to it."""

    full = False

    def __init__(self, world: World, *, dialled: bool) -> None:
        self.world = world
        self.dialled = dialled
        self.address = ("10.6.6.6", 666)
        self.channel: bytes | None = b"channel"
        self.way, self.boot, self.why = BY_QUIC, None, ""
        self.created = self.last_received = world.now
        self.sent: dict[int, bytearray] = {}
        self.fins: set[int] = set()
        self.resets: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.closed: tuple[int, str] | None = None
        self.proved = False
        self.unread = 0  # bytes of the lane that the peer does not acknowledge
        self._next = {True: 2, False: 0} if dialled else {True: 3, False: 1}

    def open_stream(self, *, uni: bool) -> int:
        stream = self._next[uni]
        self._next[uni] += 4
        return stream

    def send(self, stream: int, data: bytes | memoryview, fin: bool = False) -> None:
        assert self.closed is None
        self.sent.setdefault(stream, bytearray()).extend(data)
        if fin:
            self.fins.add(stream)

    def put(self, stream: int, data: bytes) -> None:
        self.send(stream, data)

    def read(self, who: Any, take: Any, deadline: Any) -> bool:
        raise NotImplementedError

    def backlog(self, stream: int) -> int:
        return self.unread

    def reset(self, stream: int, code: int) -> None:
        self.resets[stream] = code

    def stop(self, stream: int, code: int) -> None:
        self.stops[stream] = code

    def touch(self) -> None:
        pass

    def ping(self) -> None:
        pass

    def follow(self, address: Address) -> None:
        self.address = address

    def stats(self) -> dict[str, float | int]:
        return {}

    def mark_proved(self) -> None:
        self.proved = True

    def close(self, code: int, reason: str, now: float) -> None:
        self.closed = code, reason


class Raw:
    """A client "m" of the node "b"."""

    def __init__(self, config: DataConfig | None = None, *, name: str = "m", seed: int = 0, node: Node | None = None):
        if node is None:
            node = Node(World(seed), "b", ("10.0.0.1", 1), config)
        self.world, self.node, self.name = node.world, node, name
        self.boot = self.world.rng.randbytes(8)
        self.conn = RawConn(self.world, dialled=False)
        self._reader = LaneReader(FRAME_MAX)
        self._read = 0
        self.node.machine.connected(self.conn, self.world.now)

    def heard(self) -> list[tuple[int, bytes]]:
        """Return the frames that have come on the lane since the last call."""
        self.node.machine.before_transmit(self.conn, self.world.now)
        data = bytes(self.conn.sent.get(3, b""))[self._read :]
        self._read += len(data)
        return list(self._reader.feed(data))

    def say(self, data: bytes, stream: int = LANE, fin: bool = False) -> None:
        self.node.machine.stream_data(self.conn, stream, data, fin, self.world.now)

    def frame(self, kind: int, body: bytes = b"") -> None:
        self.say(frame(kind, body))

    def proof(self, key: str = "k", accepted: int = 0) -> bytes:
        ((kind, body),) = self.heard()
        assert kind == Frame.CHALLENGE
        challenge = Challenge.parse(body)
        binding = (self.conn.channel, challenge.nonce, bytes(32), self.name, challenge.name)
        proof, _ = FakeTrust(key).prove(binding, key.encode())
        return Proof(bytes(32), self.name, self.boot, proof, LIMITS, accepted).pack()

    def prove(self) -> Raw:
        self.say(self.proof())
        assert [kind for kind, _ in self.heard()] == [Frame.WELCOME]
        self.frame(Frame.ACCEPTED, bytes(8))
        return self

    def request(self, number: int, value: bytes = b"", name: str = "echo") -> None:
        self.frame(Frame.REQUEST, request_body(number, 0) + name_field(name) + value)

    def value(self, stream: int, kind: int, body: bytes, size: int, data: bytes = b"", fin: bool = False) -> None:
        self.say(stream_head(kind, body, size) + data, stream, fin)

    @property
    def code(self) -> int | None:
        """How the machine closed the connection."""
        return None if self.conn.closed is None else self.conn.closed[0]

    def expect_end(self, code: Close) -> None:
        assert self.conn.closed is not None, "the connection is still open"
        assert self.conn.closed[0] == code, self.conn.closed
        assert self.node.machine.links == {}
        assert self.node.counters["offences"] == 1
        assert "offences.internal" not in self.node.counters
        assert self.node.machine.budget.used == 0 and not self.node.machine.budget.wanted


__all__ = ["LANE", "LIMITS", "Raw", "RawConn", "Welcome"]
