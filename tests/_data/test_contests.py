"""A name is that of the process which membership knows: others get nothing, one that restarted gets all in time."""

from __future__ import annotations

import pytest

from mycorrizal._data.contests import Contests
from mycorrizal._data.peer import Opening
from mycorrizal._wire.frames import Close, name_field
from mycorrizal.dataconfig import DataConfig
from mycorrizal.exceptions import NotRunningError, OperationTimeout, PeerUnreachable

from .harness import FakeSink, Node, Outcome, World, leftovers, pair
from .raw import Raw


def acquainted(seed: int = 0, config: DataConfig | None = None) -> tuple[World, Node, Node]:
    """Return two nodes whose membership knows each other's process."""
    world, a, b = pair(seed, config)
    a.processes["b"], b.processes["a"] = b.boot, a.boot
    return world, a, b


def impostor(world: World, a: Node, name: str = "b") -> Node:
    """Return a holder of the key with a name that is not its own."""
    other = Node(world, name, ("10.6.6.6", 666))
    other.addresses = {a.name: a.address}
    return other


def restarted(world: World, old: Node, *others: Node) -> Node:
    """Return the next process of a node, at the same address; nobody's membership knows of it."""
    old.die()
    node = Node(world, old.name, old.address)
    node.addresses, node.processes = old.addresses, dict(old.processes)
    return node


def told(node: Node, other: Node) -> None:
    """The membership of `node` hears of a process."""
    node.processes[other.name] = other.boot
    node.machine.peer_changed(other.name, node.world.now)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("before", [False, True], ids=["never spoken", "idle closed"])
def test_who_claims_a_members_name_gets_nothing(seed: int, before: bool) -> None:
    world, a, b = acquainted(seed, DataConfig(idle_timeout=2.0))
    if before:
        a.send("b", "before")
        world.run(10.0)
        assert not a.machine.links
    other = impostor(world, a)
    lie, question = other.send("a", "lie")[1], other.request("a", "lie", timeout=30.0)[1]
    world.run(2.0)
    outcomes = [a.send("b", "secret")[1], a.request("b", "secret")[1]]
    a.machine.open("b", Opening(name_field("s"), FakeSink(), Outcome(lambda: world.now)), world.now)
    world.run(2.0)
    assert all(outcome.ok for outcome in outcomes)
    assert b.messages[-1] == ("a", "secret") and b.ran == ["secret"]
    assert other.messages == [] and other.ran == [] and a.messages == [] and a.ran == []
    assert a.counters["quic.other_process"] >= 2
    assert a.machine.contests.recent(world.now) == [("b", ("10.6.6.6", 666))]
    world.run(200.0)
    assert lie.error is not None and question.error is not None and not question.error.indeterminate
    assert any("10.6.6.6" in text for text in a.warnings)
    assert a.messages == [] and a.ran == [] and other.messages == [] and other.ran == []
    assert leftovers(a.machine) == leftovers(b.machine) == leftovers(other.machine) == []
    assert a.machine.contests.recent(world.now) == []


@pytest.mark.parametrize("seed", range(10))
def test_who_answers_at_a_members_address_gets_nothing(seed: int) -> None:
    world, a, b = acquainted(seed)
    other = impostor(world, a)
    a.addresses["b"] = other.address
    message, call = a.send("b", "secret")[1], a.request("b", "secret", timeout=4.0)[1]
    greeting = Outcome(lambda: world.now)
    a.machine.greet(other.address, greeting, world.now)
    world.run(10.0)
    assert isinstance(call.error, OperationTimeout) and call.error.retriable and not call.error.indeterminate
    assert "membership of a knows another process as b" in str(call.error)
    assert isinstance(greeting.error, PeerUnreachable) and greeting.error.retriable
    assert message.ended is None and a.machine.delay("b") and a.machine.delay("nobody") == ""
    a.addresses["b"] = b.address
    a.machine.peer_changed("b", world.now)
    world.run(1.0)
    assert message.ok and b.messages == [("a", "secret")] and b.ran == []
    assert other.messages == [] and other.ran == [] and a.machine.delay("b") == ""


def test_attempts_become_rare_and_end() -> None:
    world, a, _ = acquainted()
    other = impostor(world, a)
    a.addresses["b"] = other.address
    dials: list[float] = []
    real = a.dial
    a.dial = lambda *args: dials.append(world.now) or real(*args)  # type: ignore[method-assign, func-returns-value]
    _, outcome = a.send("b", "secret")
    assert 120 <= world.until(lambda: outcome.ended, 200.0) < 123
    assert isinstance(outcome.error, PeerUnreachable) and outcome.error.retriable and not outcome.error.indeterminate
    assert 100 < len(dials) < 260
    _, again = a.send("b", "secret")
    world.run(30.0)
    assert again.ended is None  # it has its own time
    world.run(100.0)
    assert again.ended is not None and other.messages == []
    assert leftovers(a.machine) == []


def test_patience_begins_anew_with_what_waits() -> None:
    world, a, _ = acquainted()
    a.addresses["b"] = impostor(world, a).address
    _, first = a.request("b", 1, timeout=10.0)
    world.run(300.0)
    assert isinstance(first.error, OperationTimeout)
    _, second = a.send("b", 2)
    world.run(100.0)
    assert second.ended is None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("first", ["membership", "connection"])
def test_a_restarted_process_gets_what_is_sent_to_it(seed: int, first: str) -> None:
    """Whichever is here first, its gossip or its connection: everything arrives, once and in order."""
    world, a, b = acquainted(seed)
    a.send("b", "old")
    world.run(1.0)
    again = restarted(world, b)
    if first == "membership":
        told(a, again)
    there = [a.send("b", n)[1] for n in range(5)] + [a.request("b", n)[1] for n in range(5)]
    back = [again.send("a", n)[1] for n in range(5)] + [again.request("a", n)[1] for n in range(5)]
    if first == "connection":
        world.run(4.0)
        assert not any(outcome.ok for outcome in (*there, *back))
        told(a, again)
    assert world.until(lambda: all(outcome.ended for outcome in (*there, *back))) < 2.5
    # What was given to the connection of the one before may have been its; nothing else may fail.
    lost = [outcome for outcome in there if not outcome.ok]
    assert all(outcome.error is not None and outcome.error.indeterminate for outcome in lost)
    assert first == "connection" or not lost
    if not lost:
        assert again.messages == [("a", n) for n in range(5)] and sorted(again.ran) == list(range(5))
    assert all(outcome.ok for outcome in back)
    assert a.messages == [("b", n) for n in range(5)] and sorted(a.ran) == list(range(5))
    world.run(200.0)
    assert leftovers(a.machine) == leftovers(again.machine) == []


@pytest.mark.parametrize("seed", range(10))
def test_a_send_waits_until_membership_knows(seed: int) -> None:
    """No connection stands when the process restarts: nothing is lost, nothing fails, however late membership is."""
    world, a, b = acquainted(seed, DataConfig(idle_timeout=2.0))
    a.send("b", "old")
    world.run(10.0)
    again = restarted(world, b)
    there = [a.send("b", n)[1] for n in range(5)] + [a.request("b", n)[1] for n in range(5)]
    back = [again.send("a", n)[1] for n in range(5)] + [again.request("a", n)[1] for n in range(5)]
    world.run(40.0)
    assert not any(outcome.ended for outcome in (*there, *back)) and again.messages == [] and again.ran == []
    told(a, again)
    assert world.until(lambda: all(outcome.ended for outcome in there)) < 0.5  # news end the pause
    assert world.until(lambda: all(outcome.ended for outcome in back)) < 1.5
    assert all(outcome.ok for outcome in (*there, *back))
    assert again.messages == [("a", n) for n in range(5)] and sorted(again.ran) == list(range(5))
    assert a.messages == [("b", n) for n in range(5)] and sorted(a.ran) == list(range(5))


@pytest.mark.parametrize("seed", range(10))
def test_both_restart_and_know_nothing_of_each_other(seed: int) -> None:
    world, a, b = acquainted(seed)
    b2 = restarted(world, b)
    a2 = restarted(world, a)
    outcomes = [a2.send("b", 1)[1], b2.send("a", 2)[1], a2.request("b", 3)[1], b2.request("a", 4)[1]]
    world.run(3.0)
    assert not any(outcome.ended for outcome in outcomes)
    told(a2, b2)
    world.run(3.0)
    assert not any(outcome.ended for outcome in outcomes)
    told(b2, a2)
    world.run(3.0)
    assert all(outcome.ok for outcome in outcomes)
    assert (a2.messages, a2.ran, b2.messages, b2.ran) == ([("b", 2)], [4], [("a", 1)], [3])


@pytest.mark.parametrize("seed", range(10))
def test_news_of_another_process_end_what_is_open_with_this_one(seed: int) -> None:
    world, a, b = pair(seed)  # nothing is known yet, as before a plane follows
    b.handler = lambda request: None
    _, call = a.request("b", "asked")
    a.send("b", "said")
    b.request("a", "back")
    world.run(1.0)
    assert b.link("a") is not None
    other = Node(world, "b", ("10.0.0.9", 1))
    a.addresses["b"] = other.address
    told(a, b)
    assert a.link("b") is not None  # the same one
    told(a, other)
    assert a.machine.links == {} or all(link.name != "b" or link.state != "ready" for link in a.machine.links.values())
    assert isinstance(call.error, PeerUnreachable) and call.error.indeterminate
    _, message = a.send("b", "to the other")
    world.run(1.0)
    _, later = b.request("a", "later", timeout=5.0)
    world.run(6.0)
    assert message.ok and other.messages == [("a", "to the other")]
    assert b.messages == [("a", "said")] and a.ran == ["back"]
    assert later.error is not None and not later.error.indeterminate


def test_a_request_of_the_process_before_is_not_run_twice() -> None:
    """It was being served when membership heard of the next process, and then, late news, of this one again."""
    world, a, b = pair()
    a.handler = lambda request: None
    _, asked = b.request("a", "once")
    world.run(1.0)
    a.processes["b"] = b"before.."
    a.machine.peer_changed("b", world.now)
    world.run(1.0)
    assert isinstance(asked.error, PeerUnreachable) and asked.error.indeterminate
    told(a, b)
    _, more = b.request("a", "more")
    world.run(3.0)
    assert a.ran == ["once", "more"] and more.ended is None


@pytest.mark.parametrize("seed", range(10))
def test_membership_that_was_behind_costs_no_message(seed: int) -> None:
    """The connection was here first, then old news, then the right ones: the same process all the time."""
    world, a, b = pair(seed)
    b.inbox_limits, b.reading = (1, 1 << 30), False
    outcomes = [a.send("b", n)[1] for n in range(10)]
    world.run(1.0)
    a.processes["b"] = b"before.."
    a.machine.peer_changed("b", world.now)
    world.run(3.0)
    told(a, b)
    b.reading = True
    for _ in range(20):
        b.read()
        world.run(0.5)
    assert all(outcome.ok for outcome in outcomes)
    assert b.messages == [("a", n) for n in range(10)]


def test_a_live_holder_is_asked_first() -> None:
    """Who takes a name that is in use hears that at once, and not only that membership knows another process."""
    world, a, b = acquainted()
    a.request("b", 1)
    world.run(1.0)
    other = impostor(world, a)
    _, outcome = other.request("a", 2)
    assert world.until(lambda: outcome.ended) < 3.0
    assert "another live node" in str(outcome.error)
    assert a.machine.contests.recent(world.now) == [("b", other.address)]
    assert a.link("b").boot == b.boot


def test_a_dead_holder_is_not_followed_by_whom_membership_does_not_know() -> None:
    world, a, b = acquainted()
    a.request("b", 1)
    world.run(1.0)
    conn = a.link("b").conn
    conn.lost = conn.other.lost = True
    b.die()
    other = impostor(world, a)
    _, outcome = other.request("a", 2)
    world.run(20.0)
    assert outcome.ended is None and a.ran == []
    told(a, other)
    world.run(2.0)
    assert outcome.ok and a.ran == [2]


def test_our_own_name() -> None:
    world, a, _ = acquainted()
    a.processes["a"] = a.boot
    namesake = impostor(world, a, "a")
    namesake.addresses["b"] = a.address
    real = namesake.dial
    namesake.dial = lambda address, peer, now: real(address, None, now)  # type: ignore[method-assign]
    greeting = Outcome(lambda: world.now)
    namesake.machine.greet(a.address, greeting, world.now)
    world.run(1.0)
    assert greeting.error is not None
    raw = Raw(name="a", node=a)
    raw.say(raw.proof())
    assert raw.code == Close.NAME_TAKEN
    assert a.machine.contests.recent(world.now) == [("a", ("10.6.6.6", 666))]
    own = Outcome(lambda: world.now)
    a.machine.greet(a.address, own, world.now)
    world.run(20.0)
    assert own.error is not None and a.machine.contests.recent(world.now) == []


def test_a_claim_without_a_link_is_not_remembered_as_a_peer() -> None:
    _, a, _ = acquainted()
    raw = Raw(name="b", node=a)
    raw.say(raw.proof())
    assert raw.code == Close.OTHER_PROCESS
    assert set(a.machine.peers) == {"a"} and a.machine.links == {}
    assert raw.conn.sent.keys() == {3}  # the challenge, and no welcome


def test_the_end_while_it_waits() -> None:
    world, a, _ = acquainted()
    a.addresses["b"] = impostor(world, a).address
    _, call = a.request("b", 1)
    _, message = a.send("b", 1)
    world.run(2.0)
    a.machine.peer_down("b", "was declared dead", world.now)
    assert isinstance(call.error, PeerUnreachable) and isinstance(message.error, PeerUnreachable)
    assert a.machine.delay("b") == ""
    _, call = a.request("b", 1)
    world.run(2.0)
    a.machine.close(NotRunningError("closed"), world.now)
    assert isinstance(call.error, NotRunningError)


def test_contests_are_bounded_and_lasting_ones_are_told_from_restarts() -> None:
    contests = Contests()
    address = ("10.6.6.6", 666)
    assert [contests.note("b", address, now) for now in (0.0, 1.0, 2.9, 3.1, 4.0)] == [False, False, False, True, True]
    assert not contests.note("b", address, 20.0)  # another time
    for number in range(1000):
        contests.note(f"n{number}", address, 21.0)
    assert len(contests.recent(21.0)) == 256 and ("b", address) not in contests.recent(21.0)
    assert contests.recent(40.0) == []
