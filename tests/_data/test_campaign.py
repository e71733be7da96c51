"""Many seeds of everything at once: three nodes that talk while connections break and processes die.

Run one seed again with ``run_campaign(seed)``; each failure names its seed.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from mycorrizal._data.machine import DataMachine
from mycorrizal._data.ports import BY_QUIC, ON_HOST, Served
from mycorrizal._wire.frames import BULK_INITIAL, Status
from mycorrizal._wire.values import DEFAULT
from mycorrizal.dataconfig import DataConfig

from .harness import Conn, Node, Outcome, World, leftovers

NAMES = "abc"
CONFIG = DataConfig(
    idle_timeout=8.0,
    stall_timeout=8.0,
    silence_timeout=6.0,
    keepalive_interval=1.5,
    window_messages=8,
    requests_per_peer=16,
    bulk_memory=1 << 20,
)


@pytest.fixture(autouse=True)
def _let_go_of_worlds() -> Iterator[None]:
    """A world is a cycle of few objects and much memory: the collector would come after a gigabyte of them."""
    yield
    gc.collect()


class Campaign:
    """What users do, and what must come of it."""

    def __init__(self, seed: int, *, restarts: bool) -> None:
        self.world = World(seed)
        self.world.way = ON_HOST if seed % 2 else BY_QUIC
        self.rng = self.world.rng
        self.restarts = restarts
        self.number = itertools.count()
        self.nodes: dict[str, Node] = {}
        self.all: list[Node] = []
        self.calls: list[tuple[Any, Outcome, list[Any]]] = []
        self.messages: list[tuple[Any, Outcome, list[Any]]] = []
        self.withdrawn: set[int] = set()
        self.gossips = False
        self.impostors: list[Node] = []
        for name in NAMES:
            self.start(name)

    def start(self, name: str) -> None:
        limits = self.rng.choice(((1, 1 << 30), (4, 100_000), (1 << 20, 1 << 40)))
        node = Node(self.world, name, ("10.0.0.1", 7000 + NAMES.index(name)), CONFIG, inbox=limits)
        node.addresses = {other: ("10.0.0.1", 7000 + NAMES.index(other)) for other in NAMES if other != name}
        node.capacity = self.rng.choice((3, 100))
        node.handler = lambda request: self.handle(node, request)
        self.nodes[name] = node
        self.all.append(node)
        if self.gossips:
            self.known_late(node)

    # -- membership, which is late, and who is no member ------------------------------------------

    def gossip(self) -> None:
        """From now on everybody hears after a while who has which name, and holders of the key claim others' names."""
        self.gossips = True
        for node in self.nodes.values():
            for other in self.nodes.values():
                self.told(node, other)

    def told(self, node: Node, other: Node) -> None:
        if node is not other and other is self.nodes[other.name] and not node.dead:
            node.members[other.name] = True
            node.processes[other.name] = other.boot
            node.machine.peer_changed(other.name, self.world.now)

    def known_late(self, node: Node) -> None:
        """A process has taken the place of another one: the others hear of it, and it of them."""
        for other in self.nodes.values():
            if other is not node:
                node.members[other.name] = False
                for one, two in ((node, other), (other, node)):
                    self.world.later(self.rng.choice((0.0, 0.01, 0.5, 4.0)), partial(self.told, one, two))

    def impose(self) -> None:
        """Claim a name, or answer at the address of its holder."""
        name, victim = self.rng.sample(NAMES, 2)
        node = Node(self.world, name, ("10.6.6.6", len(self.impostors)), CONFIG)
        node.addresses = {victim: self.nodes[victim].address}
        self.impostors.append(node)
        for _ in range(3):
            node.send(victim, self.value(node)), node.request(victim, self.value(node))
        if self.rng.random() < 0.5 and name in self.nodes[victim].processes:
            self.moved(self.nodes[victim], name, node.address)
            self.world.later(3.0, partial(self.moved, self.nodes[victim], name, self.nodes[name].address))
        self.world.later(self.rng.choice((1.0, 20.0)), node.die)

    def moved(self, node: Node, name: str, address: Any) -> None:
        node.addresses[name] = address
        node.machine.peer_changed(name, self.world.now)

    def handle(self, node: Node, request: Served) -> None:
        delay = self.rng.choice((0.0, 0.01, 0.3, 20.0) if self.rng.random() < 0.3 else (0.0, 0.01))
        size = self.rng.choice((0, 0, 0, 100_000, 600_000))
        node.answer(request, bytes(size), delay)

    def value(self, node: Node) -> list[Any]:
        size = self.rng.choice((0, 0, 0, 0, 2000, 70_000, 300_000, 800_000))
        return [node.name, node.boot, next(self.number), bytes(size)]

    # -- what happens --------------------------------------------------------------------------

    def step(self) -> None:
        node = self.nodes[self.rng.choice(NAMES)]
        other = self.rng.choice([name for name in NAMES if name != node.name] + [node.name] * (self.rng.random() < 0.2))
        kind = self.rng.random()
        if kind < 0.35:
            value = self.value(node)
            call, outcome = node.request(other, value, timeout=self.rng.choice((0.5, 5.0, 30.0)))
            self.calls.append((call, outcome, value))
        elif kind < 0.75:
            for _ in range(self.rng.choice((1, 1, 5, 20))):
                value = self.value(node)
                message, outcome = node.send(other, value)
                self.messages.append((message, outcome, value))
                if self.rng.random() < 0.1:
                    self.world.later(self.rng.random() * 0.1, partial(self.withdraw, node, other, message))
        elif kind < 0.8:
            if self.calls:
                call, outcome, value = self.rng.choice(self.calls)
                self.cancel(call, outcome, value)
        elif kind < 0.85:
            self.fault(node, other)
        elif kind < 0.92 and self.gossips:
            self.impose()
        self.world.run(self.rng.choice((0.0, 0.001, 0.01, 0.1, 0.5)))

    def withdraw(self, node: Node, other: str, message: Any) -> None:
        if not node.dead:
            self.withdrawn.add(id(message))
            node.machine.peer(other).withdraw(message, self.world.now)

    def cancel(self, call: Any, outcome: Outcome, value: list[Any]) -> None:
        for node in self.nodes.values():
            if node.boot == value[1] and outcome.ended is None:
                node.machine.peer(call.node).cancel(call, self.world.now)
                self.withdrawn.add(id(call))

    def fault(self, node: Node, other: str) -> None:
        kind = self.rng.random()
        conns = [conn for conn in node.machine.links if isinstance(conn, Conn)]
        if kind < 0.3 and conns:
            self.rng.choice(conns).lost = True
        elif kind < 0.4 and other != node.name:
            pair = frozenset((node.address, self.nodes[other].address))
            self.world.blocked.add(pair)
            self.world.later(self.rng.choice((0.5, 3.0, 12.0)), lambda: self.world.blocked.discard(pair))
        elif kind < 0.55:
            node.machine.peer_down(other, "was declared dead", self.world.now)
        elif kind < 0.7:
            node.reading = not node.reading
            while node.reading and node.inbox:
                node.read()
        elif kind < 0.8:
            node.trust.keys = self.rng.choice((["k"], ["k", "n"], ["n", "k"]))
            node.machine.keys_changed(self.world.now)
        elif kind < 0.9 and self.restarts:
            node.die()
            self.start(node.name)
        elif conns:
            conn = self.rng.choice(conns)
            conn.close(0x1, "an error of the transport", self.world.now)
            conn.node.machine.closed(conn, 0x1, "an error of the transport", False, "closed", self.world.now)

    # -- what must be ----------------------------------------------------------------------------

    def finish(self) -> None:
        world = self.world
        for node in self.nodes.values():
            node.reading = True
            node.trust.keys = ["k", "n"]

        def read() -> None:
            for node in self.nodes.values():
                node.read()
            world.later(0.05, read)

        read()
        world.run(120.0)
        self.check_ends()
        self.check_messages()
        self.check_requests()
        assert not any(node.messages or node.inbox or node.ran for node in self.impostors), "an impostor got something"
        for node in self.nodes.values():
            assert leftovers(node.machine) == []
            assert node.machine.serving == 0
            assert "offences" not in node.counters, (node.counters, node.warnings)

    def check_ends(self) -> None:
        dead = {node.boot for node in self.all if node.dead}
        for item, outcome, value in (*self.calls, *self.messages):
            if value[1] not in dead and id(item) not in self.withdrawn:
                assert outcome.ended is not None, f"{value[:3]} has not ended"

    def check_messages(self) -> None:
        seen: set[int] = set()
        for node in self.all:
            last: dict[bytes, int] = {}
            for sender, (name, boot, number, _) in node.messages:
                assert sender == name
                assert number not in seen, f"message {number} came twice"
                seen.add(number)
                assert number > last.get(boot, -1), f"message {number} came after {last[boot]}"
                last[boot] = number
        unread = {unread_number(item) for node in self.all for item in node.inbox}
        for _, outcome, value in self.messages:
            if outcome.ok:
                assert value[2] in seen | unread, f"message {value[2]} was lost"
            elif outcome.error is not None and not outcome.error.indeterminate:
                assert value[2] not in seen, f"message {value[2]} came, and was said not to: {outcome.error!r}"

    def check_requests(self) -> None:
        ran = [value[2] for node in self.all for value in node.ran]
        assert len(ran) == len(set(ran)), "a request ran twice"
        for _, outcome, value in self.calls:
            if outcome.ok and outcome.result[0] == Status.OK:
                assert value[2] in ran
            elif outcome.ok or (outcome.error is not None and not outcome.error.indeterminate):
                assert value[2] not in ran, f"request {value[2]} ran, and was said not to: {outcome.error!r}"


def check_places(machine: DataMachine) -> None:
    """What is counted as taken is taken, at any time: memory for large values, connections, and requests."""
    budget = machine.budget
    values = [(link, value) for link in machine.links.values() for value in link.bulk.values.values()]
    granted = [(link.peer, value.size) for link, value in values if value.granted]
    assert budget.used == sum(size for _, size in granted) <= max([budget.limit, *(size for _, size in granted)])
    held: dict[object, int] = {}
    for peer, size in granted:
        assert peer is not None
        held[peer] = held.get(peer, 0) + size
        if held[peer] > budget.limit // 2:
            assert sum(owner is peer for owner, _ in granted) == 1, "one peer has more than half of it"
    assert budget._held == held
    asking = {value for _, value in values if not value.granted and value.size > BULK_INITIAL}
    assert {value for waiting in budget._waiting.values() for value in waiting} == asking
    assert all(budget._waiting.values())
    for peer in machine.peers.values():
        for link in peer.links:
            assert machine.links.get(link.conn) is link, f"{peer.name} has a connection that has ended"
        assert peer.link is None or peer.link in peer.links
    for conn, link in machine.links.items():
        assert isinstance(conn, Conn) and (link.state != "closed" or conn.gone)


def unread_number(item: Any) -> int:
    """Return the number of a message that is in an inbox."""
    value: Any = item[0][1].decode(DEFAULT)
    return int(value[2])


def run_campaign(seed: int, steps: int = 150, *, restarts: bool = True, gossip: bool = False) -> Campaign:
    """Run one seed."""
    campaign = Campaign(seed, restarts=restarts)
    if gossip:
        campaign.gossip()
    for _ in range(steps):
        campaign.step()
        for node in campaign.nodes.values():
            check_places(node.machine)
    campaign.finish()
    return campaign


@pytest.mark.parametrize("seed", range(25))
def test_campaign(seed: int) -> None:
    run_campaign(seed)


@pytest.mark.parametrize("seed", range(1000, 1015))
def test_nothing_is_lost_while_both_live(seed: int) -> None:
    """Without restarts, and with nobody declared dead, all that was not withdrawn arrives or fails for a reason."""
    campaign = run_campaign(seed, 80, restarts=False)
    assert sum(outcome.ok for _, outcome, _ in campaign.messages) > 20


@pytest.mark.parametrize("seed", range(2000, 2020))
def test_names_belong_to_whom_membership_knows(seed: int) -> None:
    """With membership that is seconds behind, and holders of the key that claim others' names."""
    campaign = run_campaign(seed, gossip=True)
    assert campaign.impostors
    values = [value for node in campaign.all for value in (*node.ran, *(value for _, value in node.messages))]
    assert not {value[1] for value in values} & {node.boot for node in campaign.impostors}
    assert sum(outcome.ok for _, outcome, _ in campaign.messages) > 20
