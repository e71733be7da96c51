"""Machines under test: built with few words, driven in virtual time, no sleeping."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from mycorrizal import Config
from mycorrizal._swim import Swim
from mycorrizal._swim.events import Event, ExchangeRequested
from mycorrizal._wire.messages import Alive, Message
from mycorrizal._wire.packet import PacketCodec
from mycorrizal._wire.security import Keyring
from mycorrizal.types import Address, Node, NodeState, pack_host

VSN = bytes((1, 5, 2, 0, 0, 0))
QUIET: dict[str, Any] = {
    "gossip_interval": 0,
    "push_pull_interval": 0,
    "probe_interval": 0,
    "enable_compression": False,
}
"""No periodic work: the test drives every step by hand."""

FAITHFUL: dict[str, Any] = {
    "reconnect_interval": 0,
    "name_takeover": False,
    "stall_threshold": 0,
    "early_push_pulls": 0,
    "verify_suspicions": False,
    "suspicion_min_timeout": 0,
    "trust_refusals": False,
    "trust_kernel": False,
    "leave_fanout": 0,
    "number_messages": False,
    "limit_answers": False,
    "refuse_echoes": False,
    "check_hearsay": False,
    "check_seed_names": False,
}
"""Everything beyond memberlist switched off."""


def nonces(seed: str) -> Callable[[], bytes]:
    """Return a reproducible source of nonces."""
    rng = random.Random(f"nonce/{seed}")
    return lambda: rng.randbytes(12)


def keyring(config: Config) -> Keyring:
    """Return the keyring that `config` asks for."""
    return Keyring.of(config)


def make(
    name: str = "self", host: str = "10.0.0.1", port: int = 7946, *, seed: int = 0, start: bool = True,
    delegates: dict[str, Any] | None = None, **settings: Any,
) -> Swim:  # fmt: skip
    """Return a machine, started at time 0."""
    config = Config.lan(**{"name": name, "wire": "msgpack", **QUIET, **settings})
    codec = PacketCodec(config, keyring(config), nonces(f"{seed}/{name}"))
    rng = random.Random(f"{seed}/{name}")
    swim = Swim(config, addr=pack_host(host), port=port, codec=codec, rng=rng, **(delegates or {}))
    if start:
        swim.start(0.0)
    return swim


def alive(
    name: str, host: str = "", incarnation: int = 1, *, port: int = 7946, meta: bytes = b"", vsn: bytes = VSN
) -> Alive:
    """Return an alive message."""
    return Alive(incarnation, name, pack_host(host or host_for(name)), port, meta, vsn)


def host_for(name: str) -> str:
    """Return an address for a node that is just a name in a test."""
    return f"10.1.{len(name)}.{sum(name.encode()) % 254 + 1}"


def tell(swim: Swim, *messages: Message, now: float = 0.0, sender: Address = ("10.9.9.9", 7946)) -> None:
    """Deliver messages as packets."""
    codec = swim._core.codec
    for message in messages:
        for datagram in codec.seal([codec.encode(message)], crc=False):
            swim.receive_datagram(datagram, sender, now)


def sent(swim: Swim) -> list[tuple[Message, Address]]:
    """Take and open what the machine wants sent."""
    return [(m, a) for data, a in swim.datagrams_to_send() for m in swim._core.codec.open(data).messages]


def events(swim: Swim) -> list[Event]:
    """Take all events."""
    taken: list[Event] = []
    while (event := swim.next_event()) is not None:
        taken.append(event)
    return taken


def drain(swim: Swim) -> None:
    """Forget all outputs so far."""
    swim.datagrams_to_send()
    swim.exchanges_to_start()
    events(swim)


def record(swim: Swim, name: str) -> Node:
    """Return the record of `name`, in whatever state."""
    return next(node for node in swim.nodes() if node.name == name)


def state(swim: Swim, name: str) -> NodeState | None:
    """Return the state of `name`, ``None`` if unknown."""
    return next((node.state for node in swim.nodes() if node.name == name), None)


def queued(swim: Swim) -> list[Message]:
    """Return what waits to be gossiped."""
    from mycorrizal._wire.codec import decode_message

    core = swim._core
    return [decode_message(core.codec.body, entry.message) for entry in core.queue.broadcasts()]


def run_timers(swim: Swim, until: float) -> None:
    """Let virtual time pass, firing every timer at its time."""
    while (due := swim.get_timer()) is not None and due <= until:
        swim.handle_timer(due)


class Wire:
    """Several machines connected by a perfect network without delay; time only moves in ``run``."""

    def __init__(self, *swims: Swim) -> None:
        self.swims = {swim.local_node.address: swim for swim in swims}
        self.now = 0.0
        self.cut: set[Address] = set()
        self.udp_cut: set[Address] = set()
        self.events: dict[str, list[Event]] = {swim.local_node.name: [] for swim in swims}
        self.log: list[tuple[float, str, Address, Message]] = []

    def add(self, swim: Swim) -> None:
        """Connect another machine."""
        self.swims[swim.local_node.address] = swim
        self.events.setdefault(swim.local_node.name, [])

    def flush(self) -> None:
        """Deliver everything that is under way."""
        busy = True
        while busy:
            busy = False
            for address, swim in list(self.swims.items()):
                name = swim._core.name
                for data, to in swim.datagrams_to_send():
                    busy = True
                    for message in swim._core.codec.open(data).messages:
                        self.log.append((self.now, name, to, message))
                    if not {address, to} & (self.cut | self.udp_cut) and to in self.swims:
                        self.swims[to].receive_datagram(data, address, self.now)
                for request in swim.exchanges_to_start():
                    busy = True
                    self._exchange(swim, address, request)
                self.events[name] += events(swim)

    def _exchange(self, swim: Swim, address: Address, request: ExchangeRequested) -> None:
        target = self.swims.get(request.address)
        if target is None or {address, request.address} & self.cut:
            swim.exchange_failed(request.exchange_id, ConnectionRefusedError("nobody there"), self.now)
            return
        answer = target.answer_exchange(request.message, address, self.now)
        swim.exchange_answered(request.exchange_id, answer, self.now)

    def run(self, seconds: float) -> None:
        """Let `seconds` pass for all."""
        until = self.now + seconds
        self.flush()
        while True:
            timers = [(due, n) for n, swim in enumerate(self.swims.values()) if (due := swim.get_timer()) is not None]
            if not timers or min(timers)[0] > until:
                break
            due, n = min(timers)
            self.now = max(self.now, due)
            list(self.swims.values())[n].handle_timer(self.now)
            self.flush()
        self.now = until

    def join(self, joiner: Swim, seed: Swim) -> list[Event]:
        """Join and return the joiner's events since."""
        name = joiner._core.name
        before = len(self.events[name])
        joiner.join(seed.local_node.address, self.now)
        self.flush()
        return self.events[name][before:]
