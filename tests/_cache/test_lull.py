"""Many caches that many open at once: what that takes, and what is put off until somebody uses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from mycorrizal._cache.core import Call
from mycorrizal._cache.definition import Definition, Limits
from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.messages import Answer, Message, Request, decode_request
from mycorrizal._cache.operations import Kind, Op
from mycorrizal._cache.placement import PARTITIONS, Owner, Placement
from mycorrizal._cache.space import Space
from mycorrizal._cache.survey import Cursor
from mycorrizal.simulation.faults import Faults
from simulated.cache_cluster import CacheCluster, CacheNode
from tests._cache.harness import Unopened, arrived, ask, reply_of, run_due, space_in

EVERY = b"\xff" * (PARTITIONS // 8)


def opened(*names: str, others: str = "bob", **limits: Any) -> CacheMachine:
    """Return a machine that has opened caches, at 1.0, and told all of it; `others` have too."""
    machine = CacheMachine("me", b"me      ", rng=Random(1), wall=1.8e9, now=0.0, limits=Limits(**limits))
    machine.members_changed(announced(names, *others.split()), 0.0)
    for name in names:
        machine.define(Definition(name), 1.0, telling=3.0)
        machine.told(name, 1.0)
    return machine


def announced(caches: tuple[str, ...], *members: str) -> dict[str, Any]:
    return {name: (name.encode().ljust(8), {cache: Definition(cache) for cache in caches}) for name in members}


def asked(machine: CacheMachine) -> list[tuple[Message, Any]]:
    """Return the kind and the caches of each message that goes out."""
    found: list[tuple[Message, Any]] = []
    for call in machine.calls_to_start():
        request = decode_request(arrived(call.payload))
        many = request.kind == Message.MANY
        found.append((Message(request.kind), [row[1] for row in request.body] if many else request.cache))
    return found


def test_claims_of_unused_caches_go_out_together_once_there_is_a_lull() -> None:
    machine = opened("c", "d", "e", others="bob eve")
    run_due(machine, 1.45)
    assert asked(machine) == []
    assert not any(shard.owners for space in machine.spaces() for shard in space.shards), "and nothing is placed"
    run_due(machine, 1.5)
    assert asked(machine) == [(Message.MANY, ["c", "d", "e"])] * 2


def test_news_put_a_lull_off_but_not_for_ever() -> None:
    machine = opened("c", lull_most=3.0)
    for number in range(1, 9):
        machine.members_changed(announced(("c",), "bob", f"n{number}"), 1.0 + 0.4 * number)
        run_due(machine, 1.2 + 0.4 * number)
        assert bool(asked(machine)) == (1.2 + 0.4 * number >= 4.0), number
    machine = opened("c")
    machine.members_changed(announced(("another",), "bob", "eve"), 1.4)
    run_due(machine, 1.6)
    assert not asked(machine), "somebody came"
    machine.members_changed({**announced(("another",), "bob", "eve"), **announced(("more",), "eve")}, 1.85)
    run_due(machine, 1.9)
    assert not space_in(machine).core.lull.__contains__(space_in(machine)), "a cache that is not opened here is no news"


@pytest.mark.parametrize(
    "use",
    [
        lambda it: it.operate("c", [Op(Kind.GET, b"k")], "ticket", 9.0, 1.1),
        lambda it: it.keys("c", Cursor(), 1, "ticket", 9.0, 1.1),
        lambda it: it.stats("c", "ticket", 9.0, 1.1),
        lambda it: it.synced("c", "ticket", 9.0, 1.1),
        lambda it: it.receive("bob", arrived(request(Message.SYNCED, [])), 1.1),
        lambda it: it.receive("bob", arrived(request(Message.RELEASE, [EVERY])), 1.1),
        lambda it: it.receive("bob", arrived(request(Message.OPERATE, [1000, 0, [int(Kind.GET), b"k"]])), 1.1),
    ],
)
def test_a_cache_that_somebody_uses_is_claimed_at_once(use: Callable[[CacheMachine], object]) -> None:
    machine = opened("c", "d")
    use(machine)
    assert (Message.CLAIM, "c") in asked(machine)
    assert "d" not in [cache for _, cache in asked(machine)]


def request(kind: Message, body: list[Any]) -> Request:
    return Request(kind, b"me      ", b"bob     ", 0, "c", body)


def test_it_is_not_used_by_who_claims_it_nor_asked_for_before_the_others_were_told() -> None:
    machine = opened("c")
    reply = reply_of(machine.receive("bob", arrived(request(Message.CLAIM, [EVERY])), 1.1))
    assert reply.status == Answer.OK and any(reply.body[1]), "bob has what it may ask for"
    assert not asked(machine)
    machine.members_changed(announced(("c", "d"), "bob"), 1.1)
    machine.define(Definition("d"), 1.1, telling=3.0)
    machine.operate("d", [Op(Kind.GET, b"k")], "ticket", 9.0, 1.2)
    assert not asked(machine)
    machine.told("d", 1.4)
    assert asked(machine) == [(Message.CLAIM, "d")]


def test_who_uses_a_cache_need_not_wait_for_the_others_that_are_asked_at_leisure() -> None:
    machine = opened("c", others="ann bob eve joe kim zoe")
    run_due(machine, 1.5)
    assert len(asked(machine)) == 4
    machine.synced("c", "ticket", 9.0, 1.6)
    assert len(asked(machine)) == 2


def test_patience_with_who_does_not_agree_begins_when_it_is_asked() -> None:
    machine = opened("c", lull_most=20.0, takeover_patience=2.0)
    machine.receive("bob", arrived(request(Message.CLAIM, [EVERY])), 1.1)
    space = space_in(machine)
    for number in range(1, 10):
        machine.members_changed(announced(("c",), "bob", *["eve"] * (number % 2)), 1.1 + 0.4 * number)
        run_due(machine, 1.1 + 0.4 * number)
    assert not asked(machine) and not any(shard.serving for shard in space.shards)
    machine.synced("c", "ticket", 99.0, 5.0)
    assert asked(machine)
    run_due(machine, 6.9)
    assert not any(shard.serving for shard in space.shards), "nobody has answered"
    run_due(machine, 7.0)
    assert all(shard.serving for shard in space.shards if shard.primary == Owner("me", b"me      "))


def test_who_leads_is_known_before_anything_is_placed() -> None:
    machine = opened("c", others="bob eve")
    keys = [b"%d" % number for number in range(50)]
    before = [machine.leads("c", key) for key in keys]
    assert len({*before}) == 2 and not any(shard.owners for shard in space_in(machine).shards)
    run_due(machine, 2.0)
    assert before == [machine.leads("c", key) for key in keys]


def test_a_cache_that_is_redefined_meanwhile_has_the_members_that_were_seen_last() -> None:
    machine = opened("c")
    machine.receive("bob", arrived(request(Message.CLAIM, [EVERY])), 1.1)
    machine.members_changed(announced(("c",), "bob", "eve"), 1.2)
    machine.define(Definition("c", replicas=3), 1.3, redefine=True)
    run_due(machine, 2.0)
    assert [member.name for member in space_in(machine).members] == ["bob", "eve", "me"]


def test_a_cache_that_is_left_unused_waits_for_nothing() -> None:
    machine = opened("c")
    machine.retire("c", 1.1)
    assert machine.retired("c")
    run_due(machine, 3.0)
    assert not asked(machine)


def test_who_holds_something_tells_a_newcomer_which_claims_it_at_once() -> None:
    """Else ``len`` would count too few until the lull, or until somebody reads."""
    alice = opened("c", "d", others="")
    for number in range(20):
        ask(alice, Op(Kind.SET, b"%d" % number, value=b"v"), now=1.1)
    bob = CacheMachine("bob", b"bob     ", rng=Random(2), wall=1.8e9, now=0.0)
    bob.members_changed(announced(("c", "d"), "me"), 1.1)
    for name in "cd":
        bob.define(Definition(name), 1.2, telling=1.0)
    alice.members_changed(announced(("c", "d"), "bob"), 1.2)
    (call,) = alice.calls_to_start()
    many = decode_request(arrived(call.payload))
    assert [row[:2] for row in many.body] == [[Message.RELEASE, "c"], [Message.OFFER, "c"]]
    assert reply_of(bob.receive("me", arrived(call.payload), 1.2)).status == Answer.OK
    assert not asked(bob)
    for name in "cd":
        bob.told(name, 1.3)
    assert asked(bob) == [(Message.CLAIM, "c")], "nothing is in the other"


def test_alone_it_is_served_as_soon_as_it_is_used() -> None:
    machine = opened("c", others="")
    (result,) = ask(machine, Op(Kind.SET, b"k", value=b"v"), now=1.1)
    assert result.version


# -- in numbers ----------------------------------------------------------------------------------


class Many(CacheCluster):
    """Nodes that know each other open many caches, one after the other; each hears of each within `spread`."""

    def __init__(self, size: int, caches: int, *, spread: float) -> None:
        self.caches = [Definition(f"c{number}") for number in range(caches)]
        self.heard: list[dict[str, dict[str, Definition]]] = [
            {f"n{number}": {} for number in range(size)} for _ in range(size)
        ]
        self.kinds: Counter[Message] = Counter()
        self.opened = 0
        faults = Faults(delay=0.001, jitter=0.001)
        super().__init__(size, seed=1, definition=self.caches[0], faults=faults, spread=spread, machine=Unopened)
        for node in self.nodes:
            self.at(self.random.random() * 0.01, lambda node=node: self._open_next(node, 0))

    def _open_next(self, node: CacheNode, number: int) -> None:
        if number == len(self.caches):
            self.opened += 1
            return
        cache = self.caches[number]
        node.machine.define(cache, self.now + node.offset, telling=3.0)
        self.pull(node)
        whens = [self.now + self.random.random() * self.spread for _ in self.nodes]
        for other, when in zip(self.nodes, whens, strict=True):
            if other is not node:
                self.at(when, lambda other=other: self._hear(other, node, cache))

        def told() -> None:
            node.machine.told(cache.name, self.now + node.offset)
            self.pull(node)
            self._open_next(node, number + 1)

        self.at(max(whens), told)

    def _hear(self, node: CacheNode, other: CacheNode, cache: Definition) -> None:
        heard = self.heard[node.index]
        heard[other.name] = {**heard[other.name], cache.name: cache}
        self._show(node)

    def _show(self, node: CacheNode) -> None:
        view = {other.name: (other.boot, self.heard[node.index][other.name]) for other in self.nodes}
        node.machine.members_changed(view, self.now + node.offset)
        self.pull(node)

    def _start(self, source: CacheNode, call: Call) -> None:
        self.kinds[Message(decode_request(arrived(call.payload)).kind)] += 1
        super()._start(source, call)


@pytest.mark.parametrize("spread", [0.05, 2.0])
def test_caches_that_many_open_at_once_take_messages_by_members_not_by_caches(
    monkeypatch: pytest.MonkeyPatch, spread: float
) -> None:
    """Twelve caches on eight took 500 messages, 1,200 where all heard late of each other, and a view for each news."""
    taken: Counter[str] = Counter()

    def noted(owner: Any, name: str) -> None:
        method = getattr(owner, name)

        def run(*args: Any) -> Any:
            taken[name] += 1
            return method(*args)

        monkeypatch.setattr(owner, name, run)

    noted(Space, "_take_view")
    noted(Placement, "_place")
    noted(Space, "_move")
    size, caches = 8, 12
    cluster = Many(size, caches, spread=spread)
    assert cluster.run_until(lambda: cluster.opened == size, 60.0)
    cluster.run(1.0 + spread)
    spaces = [space for node in cluster.nodes for space in node.machine.spaces()]
    assert len(spaces) == size * caches and all(space.synced and len(space.members) == size for space in spaces)
    windows = 1 + int(cluster.now / Limits().lull_most)
    assert cluster.kinds.total() <= windows * size * (size - 1), cluster.kinds
    assert not sum(node.machine.counters().get("claims_refused", 0) for node in cluster.nodes)
    assert taken["_take_view"] <= windows * size * caches
    assert taken["_place"] <= windows * size
