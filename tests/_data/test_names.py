"""Who may have a name, and who takes it over: claims, restarts, greetings, removed keys, refusals."""

from __future__ import annotations

import pytest

from mycorrizal._data.peer import Opening
from mycorrizal._wire.frames import (
    Challenge,
    Close,
    Frame,
    LaneReader,
    Proof,
    Welcome,
    frame,
    message_body,
    name_field,
    parse_sequence,
)
from mycorrizal.dataconfig import DataConfig
from mycorrizal.exceptions import NotRunningError, PeerUnreachable

from .harness import FakeSink, FakeTrust, Node, Outcome, World, leftovers, mesh, pair
from .raw import LIMITS, Raw, RawConn


@pytest.mark.parametrize("seed", range(20))
def test_a_second_claimant_never_displaces_a_live_one(seed: int) -> None:
    world, a, b = pair(seed)
    a.request("b", 1)
    world.run(1.0)
    link = b.link("a")
    other = Node(world, "a", ("10.0.0.9", 1))
    other.addresses = {"b": b.address}
    _, outcome = other.request("b", 2)
    world.run(5.0)
    assert isinstance(outcome.error, PeerUnreachable) and not outcome.error.indeterminate
    assert "another live node" in str(outcome.error)
    assert b.link("a") is link
    _, after = a.request("b", 3)
    world.run(1.0)
    assert after.ok and b.ran == [1, 3]
    assert b.counters["quic.name_conflicts"] >= 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("told", [False, True], ids=["silent", "reset"])
def test_a_restarted_peer_is_taken_soon(seed: int, told: bool) -> None:
    """Even when its old connection is only silent, and not reset by the new process."""
    world, a, b = pair(seed)
    a.request("b", 1)
    _, old = b.send("a", "from the old process")
    world.run(1.0)
    conn = a.link("b").conn
    a.die()
    world.run(30.0)
    assert old.ok
    if not told:
        conn.lost = conn.other.lost = True
    again = Node(world, "a", a.address)
    again.addresses = {"b": b.address}
    calls = [again.request("b", "first")[1], again.send("b", "first")[1]]
    assert world.until(lambda: all(call.ended for call in calls)) < 2.5
    assert all(call.ok for call in calls)
    assert b.messages == [("a", "first")]
    _, back = b.send("a", "to the new process")
    world.run(1.0)
    assert back.ok and again.messages == [("b", "to the new process")]
    world.run(100.0)
    assert leftovers(again.machine) == leftovers(b.machine) == []


def test_messages_to_a_restarted_process_are_not_sent_to_the_new_one() -> None:
    world, a, b = pair(3)
    b.reading = False
    b.inbox_limits = (1, 1 << 30)
    outcomes = [a.send("b", n)[1] for n in range(4)]
    world.run(1.0)
    b.die()
    again = Node(world, "b", b.address)
    world.run(60.0)
    assert [outcome.ok for outcome in outcomes] == [True, False, False, False]
    assert all(outcome.error is not None and outcome.error.indeterminate for outcome in outcomes[1:])
    _, outcome = a.send("b", "new")
    world.run(5.0)
    assert outcome.ok and again.messages == [("a", "new")]


def test_an_old_question_does_not_count() -> None:
    """A claim long ago, then the holder dies: the next claimant is asked for patience, not refused."""
    world, a, b = pair()
    a.request("b", 1)
    world.run(1.0)
    stranger = Node(world, "a", ("10.0.0.9", 1))
    stranger.addresses = {"b": b.address}
    stranger.request("b", 2, timeout=0.001)
    world.run(0.06)
    stranger.die()
    world.run(30.0)
    conn = a.link("b").conn
    conn.lost = conn.other.lost = True
    a.die()
    again = Node(world, "a", ("10.0.0.8", 1))
    again.addresses = {"b": b.address}
    _, outcome = again.request("b", 3)
    assert world.until(lambda: outcome.ended) < 2.5
    assert outcome.ok


def test_a_dialled_process_does_not_displace_a_live_one_either() -> None:
    world, a, b = pair()
    b.request("a", 1)
    world.run(1.0)
    live = a.link("b")
    other = Node(world, "b", ("10.0.0.9", 1))
    outcome = Outcome(lambda: world.now)
    a.machine.greet(other.address, outcome, world.now)
    world.run(5.0)
    assert isinstance(outcome.error, PeerUnreachable)
    assert a.link("b") is live


def test_try_again_keeps_calls_and_ends_in_time() -> None:
    world, a, b = pair()
    b.members["a"] = False
    _, first = a.request("b", 1)
    _, message = a.send("b", 1)
    world.run(2.0)
    assert first.ended is None and message.ended is None
    b.members["a"] = True
    assert world.until(lambda: first.ended and message.ended) < 0.5
    assert first.ok and message.ok and b.ran == [1]
    world.run(100.0)
    b.members["a"] = False
    _, second = a.request("b", 2)
    dials = len(a.machine.links)
    assert 5.0 <= world.until(lambda: second.ended) < 6.0
    assert isinstance(second.error, PeerUnreachable) and not second.error.indeterminate
    assert dials <= 1


def test_a_peer_that_always_says_idle_is_not_dialled_for_ever() -> None:
    world, a, b = pair()
    b.handler = lambda request: b.link("a").close(Close.IDLE, "idle", world.now)
    _, outcome = a.request("b", 1)
    took = world.until(lambda: outcome.ended)
    assert 4.0 < took < 7.0
    assert isinstance(outcome.error, PeerUnreachable)
    assert len(b.ran) < 40


def test_greeting() -> None:
    world, a, b = pair()
    a.addresses.clear()
    outcomes = [Outcome(lambda: world.now) for _ in range(3)]
    a.machine.greet(b.address, outcomes[0], world.now)
    a.machine.greet(b.address, outcomes[1], world.now)
    world.run(1.0)
    a.machine.greet(b.address, outcomes[2], world.now)
    world.run(1.0)
    assert [outcome.result for outcome in outcomes] == ["b"] * 3
    assert len(a.machine.links) == len(b.machine.links) == 1
    _, call = a.request("b", 1)
    world.run(1.0)
    assert call.ok and len(b.machine.links) == 1
    own, nobody = Outcome(lambda: world.now), Outcome(lambda: world.now)
    a.machine.greet(a.address, own, world.now)
    a.machine.greet(("10.0.0.99", 1), nobody, world.now)
    world.run(1.0)
    assert own.error is not None and nobody.error is not None
    assert "own name" in str(own.error)
    late = Outcome(lambda: world.now)
    a.machine.greet(("10.0.0.98", 1), late, world.now)
    a.machine.close(NotRunningError("closed"), world.now)
    assert late.error is not None
    after = Outcome(lambda: world.now)
    a.machine.greet(b.address, after, world.now)
    assert isinstance(after.error, NotRunningError)


def test_wrong_name() -> None:
    world = World()
    a, b = mesh(world, ["a", "b"])
    b.addresses["a"] = a.address
    a.addresses = {"c": b.address}
    real = a.dial
    a.dial = lambda address, peer, now: real(address, None, now)  # type: ignore[method-assign]
    _, outcome = a.request("c", 1)
    world.run(1.0)
    assert "this is b, not c" in str(outcome.error)
    assert b.ran == [] and b.machine.links == {}


def test_another_key_and_trust_that_refuses() -> None:
    world = World()
    a, b = mesh(world, ["a", "b"])
    a.trust.keys = ["other"]
    call, message = a.request("b", 1)[1], a.send("b", 1)[1]
    world.run(1.0)
    for outcome in (call, message):
        assert isinstance(outcome.error, PeerUnreachable) and not outcome.error.indeterminate
    a.trust.offer = lambda: b"k"  # type: ignore[method-assign]
    a.trust.prove = lambda s, offer: (b"forged", "k")  # type: ignore[method-assign]
    _, call = a.request("b", 2)
    world.run(1.0)
    assert isinstance(call.error, PeerUnreachable) and not call.error.indeterminate
    assert b.ran == [] and b.messages == []
    assert b.counters["quic.not_proved"] == 1


def test_a_server_that_does_not_prove_itself() -> None:
    world, a, b = pair()
    b.trust.answer = lambda s, key_id: b"forged"  # type: ignore[method-assign]
    _, outcome = a.request("b", 1)
    world.run(1.0)
    assert isinstance(outcome.error, PeerUnreachable) and outcome.error.indeterminate  # it may have read it
    assert a.counters["quic.not_proved"] == 1
    assert a.messages == []


def test_a_trust_that_fails_ends_one_connection_and_not_the_machine() -> None:
    world, a, b = pair()
    real, b.trust.verify = b.trust.verify, lambda s, proof: str(1 // 0)  # type: ignore[method-assign]
    _, outcome = a.request("b", 1)
    world.run(1.0)
    assert outcome.error is not None
    assert b.counters["offences.internal"] == 1
    b.trust.verify = real  # type: ignore[method-assign]
    _, outcome = a.request("b", 1)
    world.run(1.0)
    assert outcome.ok


def test_removed_key_closes_what_was_proved_with_it() -> None:
    world = World()
    a, b = mesh(world, ["a", "b"])
    a.trust, b.trust = FakeTrust("old", "new"), FakeTrust("old", "new")
    a.machine.trust, b.machine.trust = a.trust, b.trust
    b.handler = lambda request: b.answer(request, delay=1.0)
    a.request("b", 1)
    world.run(0.5)
    _, outcome = a.request("b", 2)
    a.send("b", 1)
    world.run(0.2)
    b.trust.keys = ["new"]
    b.machine.keys_changed(world.now)
    _, message = a.send("b", 2)
    world.run(2.0)
    assert isinstance(outcome.error, PeerUnreachable) and outcome.error.indeterminate
    assert message.ok and b.messages == [("a", 1), ("a", 2)]
    assert a.link("b").key_id == "new"


def test_dial_under_way_begins_over_with_the_new_keys() -> None:
    world, a, b = pair()
    call, message = a.request("b", 1)[1], a.send("b", 2)[1]
    (first,) = a.machine.links.values()
    a.machine.keys_changed(world.now)
    assert first.state == "closed"
    world.run(2.0)
    assert call.ok and message.ok and len(b.ran) == 1 and b.messages == [("a", 2)]
    held = a.link("b")
    a.machine.keys_changed(world.now)
    world.run(1.0)
    assert a.link("b") is held


def test_server_opens_no_stream_before_the_client_is_known_to_listen() -> None:
    """A stream may overtake the welcome, and would then look like one of a server that has proved nothing."""
    raw = Raw()
    raw.say(raw.proof())
    raw.node.send("m", bytes(1 << 20))
    raw.node.request("m", "small")
    assert [kind for kind, _ in raw.heard()] == [Frame.WELCOME, Frame.REQUEST]
    assert set(raw.conn.sent) == {3}
    raw.frame(Frame.ACCEPTED, bytes(8))
    raw.heard()
    assert set(raw.conn.sent) == {3, 7}


@pytest.mark.parametrize("seed", range(10))
def test_large_values_both_ways_at_once_from_the_start(seed: int) -> None:
    world, a, b = pair(seed)
    big = bytes(700_000)
    outcomes = [side.send(other, big)[1] for side, other in ((a, "b"), (b, "a")) for _ in range(5)]
    outcomes += [side.request(other, big)[1] for side, other in ((a, "b"), (b, "a")) for _ in range(5)]
    world.run(10.0)
    assert all(outcome.ok for outcome in outcomes)
    assert "offences" not in {**a.counters, **b.counters}


def test_a_newer_connection_of_one_peer_replaces_the_older() -> None:
    raw = Raw().prove()
    raw.node.handler = lambda request: None
    raw.request(1, b"\x00\x00\x00\x00\x01\x01")
    raw.world.run(1.0)
    newer = Raw(node=raw.node)
    newer.boot = raw.boot
    newer.prove()
    assert raw.code == Close.REPLACED
    older = Raw(node=raw.node)
    older.boot = raw.boot
    older.conn.created = 0.0
    older.say(older.proof())
    assert older.code == Close.IDLE and newer.code is None
    assert len(raw.node.machine.peers["m"].links) == 1


def test_what_a_lost_connection_carried_goes_over_the_one_that_is_left() -> None:
    raw = Raw(name="m").prove()
    _, outcome = raw.node.send("m", "carried")
    assert [kind for kind, _ in raw.heard()] == [Frame.MESSAGE]
    conn = RawConn(raw.world, dialled=True)
    machine, now = raw.node.machine, raw.world.now
    machine.add(conn, "m")
    machine.connected(conn, now)
    machine.stream_data(conn, 3, Challenge(bytes(32), "m", raw.boot, b"k", LIMITS).pack(), False, now)
    assert raw.node.link("m").conn is raw.conn  # the other is not welcomed yet
    binding = (conn.channel, bytes(32), Proof.parse(bytes(conn.sent[2][5:])).nonce, "b", "m")
    machine.stream_data(conn, 3, Welcome(FakeTrust("k").answer(binding, "k"), 0).pack(), False, now)
    assert raw.node.link("m").conn is conn and len(machine.links) == 2
    before = len(conn.sent[2])
    machine.before_transmit(conn, now)
    assert Frame.MESSAGE not in [kind for kind, _ in LaneReader().feed(bytes(conn.sent[2][before:]))]
    machine.closed(raw.conn, 0, "", True, "reset", now)
    before = len(conn.sent[2])
    machine.before_transmit(conn, now)
    sent = list(LaneReader().feed(bytes(conn.sent[2][before:])))
    assert [(kind, parse_sequence(body)) for kind, body in sent] == [(Frame.MESSAGE, 1)]
    machine.stream_data(conn, 3, frame(Frame.ACCEPTED, message_body(1)), False, now)
    assert outcome.ok


def test_streams_of_users_in_virtual_time() -> None:
    world, a, b = pair()
    theirs, ours = FakeSink(), FakeSink()
    b.sinks["s"] = lambda: theirs
    outcome = Outcome(lambda: world.now)
    a.machine.open("b", Opening(name_field("s"), ours, outcome), world.now)
    world.run(1.0)
    assert outcome.ok and ours.is_accepted and ours.pipe is not None
    ours.pipe.write([memoryview(bytes(1 << 20))], False)
    world.run(1.0)
    assert len(theirs.data) == 256 << 10  # no more is granted
    assert theirs.pipe is not None
    theirs.pipe.consumed(256 << 10)
    world.run(1.0)
    assert len(theirs.data) == 1 << 20
    ours.pipe.write([], True)
    theirs.pipe.write([memoryview(b"back")], True)
    world.run(1.0)
    assert theirs.fin and ours.fin and ours.data == b"back"
    world.run(100.0)
    assert leftovers(a.machine) == leftovers(b.machine) == []
    none, refused = FakeSink(), Outcome(lambda: world.now)
    a.machine.open("b", Opening(name_field("none"), none, refused), world.now)
    world.run(1.0)
    assert len(none.errors) == 1
    world.run(100.0)
    assert leftovers(a.machine) == leftovers(b.machine) == []
    assert a.machine.close(NotRunningError("closed"), world.now) is None  # type: ignore[func-returns-value]


def test_names_that_nobody_has_are_not_remembered() -> None:
    world, a, _ = pair()
    a.send("b", 1)
    for number in range(50):
        outcomes = [a.send(f"nobody {number}", 1)[1], a.request(f"nobody {number}")[1]]
        assert all(isinstance(outcome.error, PeerUnreachable) for outcome in outcomes)
    world.run(1.0)
    assert set(a.machine.peers) == {"a", "b"}
    world.run(100.0)
    a.addresses.clear()
    assert isinstance(a.send("b", 2)[1].error, PeerUnreachable)
    assert set(a.machine.peers) == {"a", "b"}  # messages have been counted between these two


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "a/b", " "])
def test_names_that_no_node_may_have(name: str) -> None:
    raw = Raw(name=name)
    raw.say(raw.proof())
    assert raw.code == Close.WRONG_NAME and set(raw.node.machine.peers) == {"b"}


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mycorrizal._data.machine._PEERS_MAX", 3)
    raw = Raw().prove()
    other = Raw(name="n", node=raw.node).prove()
    third = Raw(name="o", node=raw.node)
    third.say(third.proof())
    assert third.code == Close.FULL and other.code is None


def test_idle_close_does_not_wait_for_the_default() -> None:
    world, a, b = pair(config=DataConfig(idle_timeout=2.0))
    a.request("b")
    assert world.until(lambda: not a.machine.links and not b.machine.links and b.ran) < 4.0
