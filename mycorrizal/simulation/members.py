"""One life of one simulated process: its machine, its condition, what waits for it.

A restart is a new ``Member`` (a new ``index``) in the same *slot*; slots are
what links connect and what a name belongs to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Any

from .._swim.machine import Swim
from .._wire.security import Keyring
from .._wire.stream import StreamCodec
from ..config import Config
from ..types import Address, Node, host_of
from .bodies import SharedBodies, SharedPackets
from .faults import Condition

__all__ = ["Member", "SimulatedDelegate", "Supply"]

PORT = 7946


class SimulatedDelegate:
    """A delegate with settable metadata, state and broadcasts, that keeps what arrives.

    It is the supply side only; what observation would get is in ``messages``
    and ``states``, filled by the cluster from the machine's events.
    """

    def __init__(self, meta: bytes = b"") -> None:
        self.meta = meta
        self.state = b""
        self.broadcasts: list[bytes] = []
        self.messages: list[bytes] = []
        self.states: list[bytes] = []

    def node_meta(self, limit: int) -> bytes:
        return self.meta

    def notify_msg(self, data: bytes) -> None:
        self.messages.append(data)

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        taken: list[bytes] = []
        while self.broadcasts and len(self.broadcasts[0]) + overhead <= limit:
            limit -= len(self.broadcasts[0]) + overhead
            taken.append(self.broadcasts.pop(0))
        return taken

    def local_state(self, join: bool) -> bytes:
        return self.state

    def merge_remote_state(self, buf: bytes, join: bool) -> None:
        self.states.append(buf)


Supply = Callable[["Member", bytes], SimulatedDelegate]
"""Makes the delegate of a member that has metadata, before its machine."""


class Member:
    """A process and its sockets. Created by ``Cluster.add`` and ``Cluster.restart`` only."""

    __slots__ = (
        "address",
        "condition",
        "config",
        "delegate",
        "ended",
        "filed",
        "inbox",
        "index",
        "last_timer",
        "left",
        "machine",
        "name",
        "outbox",
        "received",
        "sent",
        "silent",
        "slot",
        "spins",
        "started",
        "streams",
        "version",
    )

    def __init__(
        self,
        index: int,
        slot: int,
        host: int,
        config: Config,
        seed: object,
        machine: type[Swim],
        meta: bytes | None,
        supply: Supply,
        bodies: SharedBodies,
    ) -> None:
        addr = (0x0A000000 + host).to_bytes(4, "big")
        keyring = Keyring.of(config)
        nonce = partial(Random(f"{seed}/{index}/nonce").randbytes, 12)
        self.index = index
        self.slot = slot
        self.name = config.name
        self.config = config
        self.address: Address = (host_of(addr), PORT)
        self.delegate = None if meta is None else supply(self, meta)
        self.streams = StreamCodec(config, keyring, nonce)
        self.streams.body = bodies
        self.machine = machine(
            config,
            addr=addr,
            port=PORT,
            codec=SharedPackets(config, keyring, nonce, bodies),
            rng=Random(f"{seed}/{index}"),
            delegate=self.delegate,
        )
        self.condition = Condition.RUNNING
        self.silent = False
        self.left = False
        self.started = 0.0
        self.ended: float | None = None
        self.filed: float | None = None
        self.last_timer = -1.0
        self.spins = 0
        self.sent = 0
        self.received = 0
        self.version = -1
        self.inbox: deque[tuple[int, Any]] = deque()
        """Inputs that wait while frozen or slow, as (kind, payload)."""
        self.outbox: deque[Any] = deque()
        """Datagrams and exchange requests that wait while slow."""

    @property
    def alive(self) -> bool:
        """Whether the process exists, in whatever condition, and has not left."""
        return self.condition is not Condition.GONE and not self.left

    @property
    def view(self) -> frozenset[str]:
        """Names of the members this one believes in (alive or suspect)."""
        return frozenset(node.name for node in self.machine.members())

    def sees(self, name: str) -> Node | None:
        """Return this member's record of `name`, in any state."""
        return next((node for node in self.machine.nodes() if node.name == name), None)

    def __repr__(self) -> str:
        return f"<{self.name}#{self.index} at {self.address[0]} {self.condition.value}>"
