"""Names that are gone: nothing of them is left but, if messages were exchanged, the last numbers."""

from __future__ import annotations

import pytest

from mycorrizal._data import gone as gone_module
from mycorrizal._data.peer import Peer
from mycorrizal.dataconfig import DataConfig

from .harness import Node, World, leftovers, mesh, pair


def come_and_go(world: World, server: Node, number: int, *, member: bool, messages: bool = False) -> Node:
    """A node of a new name talks with `server` and is killed."""
    node = Node(world, f"n{number}", ("10.0.1.1", number))
    node.addresses = {server.name: server.address}
    if member:
        server.members[node.name] = True
        server.addresses[node.name] = node.address
    outcomes = [node.request(server.name, number)[1]]
    if messages:
        outcomes.append(node.send(server.name, number)[1])
    assert world.until(lambda: all(outcome.ended for outcome in outcomes)) < 5.0
    assert all(outcome.ok for outcome in outcomes)
    if member:
        outcome = server.request(node.name, number)[1]
        world.until(lambda: outcome.ended)
    node.die()
    return node


def gone(server: Node, node: Node) -> None:
    """Membership declares `node` dead."""
    server.members[node.name] = False
    server.addresses.pop(node.name, None)
    server.machine.peer_down(node.name, "was declared dead", server.world.now)


@pytest.mark.parametrize("messages", [False, True])
def test_of_200_members_that_come_and_go_none_is_left(messages: bool) -> None:
    world = World(1)
    (server,) = mesh(world, ["server"])
    for number in range(200):
        node = come_and_go(world, server, number, member=True, messages=messages)
        world.run(1.0)
        gone(server, node)
        world.run(0.1)
        assert {*server.machine.peers} == {"server"}
    assert len(server.machine.gone._numbers) == (200 if messages else 0)
    assert server.counters["quic.names_forgotten"] == 200 and leftovers(server.machine) == []


def test_without_membership_names_that_nobody_knows_go_with_their_connections() -> None:
    world = World(2)
    (server,) = mesh(world, ["server"], DataConfig(idle_timeout=5.0))
    for number in range(50):
        come_and_go(world, server, number, member=False)
    world.run(60.0)
    assert {*server.machine.peers} == {"server"} and leftovers(server.machine) == []


def test_who_is_a_member_or_was_configured_stays_also_when_nothing_goes_on() -> None:
    world, a, _ = pair(3)
    a.request("b", 1)
    world.run(200.0)
    assert a.machine.links == {} and {*a.machine.peers} == {"a", "b"}, "it has an address"
    del a.addresses["b"]
    a.members["b"] = True
    a.request("b", 2)
    world.run(1.0)
    assert {*a.machine.peers} == {"a", "b"}, "a member, whose address is not known yet"
    a.machine.peer_down("b", "has left", world.now)
    world.run(1.0)
    assert {*a.machine.peers} == {"a", "b"}, "a new process of it is a member already"
    a.members["b"] = False
    a.machine.peer_down("b", "has left", world.now)
    world.run(1.0)
    assert {*a.machine.peers} == {"a"}


def test_what_is_removed_is_forgotten_though_it_has_an_address() -> None:
    world, a, _ = pair(4)
    a.request("b", 1)
    world.run(1.0)
    a.machine.peer_down("b", "was removed", world.now)
    world.run(1.0)
    assert {*a.machine.peers} == {"a"}
    _, outcome = a.request("b", 2)
    world.run(5.0)
    assert outcome.ok and {*a.machine.peers} == {"a", "b"}
    world.run(200.0)
    assert {*a.machine.peers} == {"a", "b"}, "it is used again, and so is known"


def test_who_is_back_before_it_was_forgotten_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    world, a, b = pair(4)
    a.request("b", 1)
    world.run(1.0)
    with monkeypatch.context() as patch:
        patch.setattr(a.machine.gone, "_is_gone", lambda peer: False)
        a.machine.peer_down("b", "was removed", world.now)
        assert a.machine.peers["b"].removed
        world.run(1.0)
        _, outcome = b.request("a", 2)
        world.run(5.0)
    assert outcome.ok
    world.run(200.0)
    assert a.machine.links == {} and {*a.machine.peers} == {"a", "b"}


def test_names_that_never_were_do_not_stay() -> None:
    world, a, _ = pair(5)
    outcomes = [a.request(f"slip{number}", timeout=1.0)[1] for number in range(100)]
    message, outcome = a.send("another", 1)
    world.run(0.1)
    assert all(one.error is not None for one in [*outcomes, outcome]) and {*a.machine.peers} == {"a"}
    a.machine.peer("another").withdraw(message, world.now)  # its caller is late
    world.run(0.1)
    assert {*a.machine.peers} == {"a"}


def test_a_tick_does_not_depend_on_names_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    world, _, b = pair(6)
    asked: list[str] = []
    for number in range(100):
        gone(b, come_and_go(world, b, number, member=True, messages=True))
    world.run(1.0)
    tick = Peer.tick

    def noted(peer: Peer, now: float) -> float:
        asked.append(peer.name)
        return tick(peer, now)

    def member(name: str) -> bool | None:
        asked.append(name)
        return None

    monkeypatch.setattr(Peer, "tick", noted)
    monkeypatch.setattr(b, "member", member)
    _, outcome = b.request("a", 1)
    world.run(5.0)
    assert outcome.ok and "a" in asked and {*asked} <= {"a", "b"}


def forgotten(world: World, a: Node, b: Node) -> None:
    """`a` takes `b` for dead, wrongly, and forgets it."""
    b.machine.peers["a"].dialling = None
    gone(a, b)
    world.run(1.0)
    assert {*a.machine.peers} == {"a"}


def back(world: World, a: Node, b: Node) -> None:
    a.members["b"] = True
    a.addresses["b"] = b.address


@pytest.mark.parametrize("seed", range(30))
def test_the_same_process_comes_back_and_each_message_arrives_once(seed: int) -> None:
    world, a, b = pair(seed)
    for number in range(5):
        a.send("b", number)
        b.send("a", number)
    world.run(5.0)
    b.reading, b.inbox_limits = False, (1, 1 << 30)
    lost = [a.send("b", f"lost {number}")[1] for number in range(5)]  # the first is in the inbox, the others wait
    late = b.send("a", "late")[1]
    world.run(0.02 * (seed % 3))
    forgotten(world, a, b)
    assert all(outcome.ended for outcome in lost)
    b.reading = True
    b.read()
    back(world, a, b)
    after = [a.send("b", "after")[1], b.send("a", "after")[1]]
    world.run(20.0)
    assert all(outcome.ok for outcome in after) and late.ended
    assert [value for _, value in a.messages if value != "late"] == [*range(5), "after"]
    assert sum(value == "late" for _, value in a.messages) == 1
    found = [value for _, value in b.messages]
    assert [value for value in found if not str(value).startswith("lost")] == [*range(5), "after"]
    assert len(found) == len({*found}) and found == sorted(found, key=lambda value: (value == "after", str(value)))
    assert {*a.machine.peers} == {"a", "b"} and a.machine.gone._numbers == {}
    world.run(100.0)
    assert leftovers(a.machine) == leftovers(b.machine) == []


def test_another_process_of_the_name_counts_from_1() -> None:
    world, a, b = pair(8)
    for number in range(5):
        a.send("b", number)
        b.send("a", number)
    world.run(5.0)
    forgotten(world, a, b)
    b.die()
    again = Node(world, "b", b.address)
    again.addresses = {"a": a.address}
    back(world, a, again)
    outcomes = [a.send("b", "new")[1], again.send("a", "new")[1]]
    world.run(10.0)
    assert all(outcome.ok for outcome in outcomes)
    assert again.messages == [("a", "new")] and a.messages[5:] == [("b", "new")]


def test_the_numbers_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gone_module, "_NUMBERS_MAX", 10)
    world = World(9)
    (server,) = mesh(world, ["server"])
    for number in range(25):
        gone(server, come_and_go(world, server, number, member=True, messages=True))
        world.run(0.1)
    assert [*server.machine.gone._numbers] == [f"n{number}" for number in range(15, 25)]
    assert server.counters["quic.numbers_forgotten"] == 15
