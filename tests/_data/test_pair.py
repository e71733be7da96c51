"""Two nodes: the plain cases, one rule of the protocol each."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from mycorrizal._data.calls import Call
from mycorrizal._data.channel import OutMessage
from mycorrizal._endings import Ending, error
from mycorrizal._wire.frames import INLINE_MAX, Close, Status, name_field
from mycorrizal._wire.values import DEFAULT, encode_value
from mycorrizal.dataconfig import DataConfig
from mycorrizal.exceptions import NotRunningError, OperationTimeout, PeerUnreachable, ValueTooLarge

from .harness import Node, Outcome, World, answer_of, leftovers, mesh, pair

BIG = bytes(1 << 20)


def settle(world: World, *nodes: Node) -> None:
    """Wait until everything is idle, and see that nothing is left."""
    world.run(200.0)
    for node in nodes:
        assert leftovers(node.machine) == []
        assert node.machine.serving == 0
        assert "offences" not in node.counters, node.warnings


@pytest.mark.parametrize("seed", range(10))
def test_messages_and_requests_of_all_sizes(seed: int) -> None:
    world, a, b = pair(seed)
    sizes = [1, 1000, INLINE_MAX - 100, INLINE_MAX + 100, 300 << 10, 2 << 20]
    sent = [a.send("b", bytes([n]) * size)[1] for n, size in enumerate(sizes)]
    asked = [a.request("b", bytes([n]) * size)[1] for n, size in enumerate(sizes)]
    back = [b.request("a", bytes([n]) * size)[1] for n, size in enumerate(sizes)]
    world.run(20.0)
    assert all(outcome.ok for outcome in (*sent, *asked, *back))
    assert [(len(m), m[:1]) for _, m in b.messages] == [(size, bytes([n])) for n, size in enumerate(sizes)]
    assert len(b.ran) == len(a.ran) == len(sizes)
    settle(world, a, b)
    assert a.counters.get("quic.idle_closed", 0) + b.counters.get("quic.idle_closed", 0) >= 1


def test_large_answers() -> None:
    world, a, b = pair()
    b.handler = lambda request: b.answer(request, BIG)
    outcomes = [a.request("b", n)[1] for n in range(100)]
    world.run(20.0)
    assert all(answer_of(outcome) == BIG for outcome in outcomes)
    settle(world, a, b)


@pytest.mark.parametrize("seed", range(20))
def test_both_dial_at_once_and_settle_on_one(seed: int) -> None:
    world, a, b = pair(seed)
    outcomes = [side.request(other, 1)[1] for side, other in ((a, "b"), (b, "a")) for _ in range(3)]
    world.run(5.0)
    assert all(outcome.ok for outcome in outcomes)
    assert len(a.machine.links) == len(b.machine.links) == 1
    assert a.link("b").conn.other is b.link("a").conn
    settle(world, a, b)


def test_idle_connection_is_closed_and_opened_again_unnoticed() -> None:
    world, a, b = pair()
    a.request("b")
    world.run(1.0)
    first = a.link("b")
    world.run(100.0)
    assert first.state == "closed"
    _, outcome = a.request("b")
    world.run(1.0)
    assert outcome.ok
    settle(world, a, b)


@pytest.mark.parametrize("seed", range(30))
def test_request_into_the_idle_close(seed: int) -> None:
    """The peer closes for idleness while a request is on its way: it is sent again, and runs once."""
    world, a, b = pair(seed, DataConfig(idle_timeout=5.0))
    a.request("b", 0)
    world.until(lambda: b.counters.get("quic.idle_closed") or a.counters.get("quic.idle_closed"), 20)
    _, outcome = a.request("b", 1)
    world.run(2.0)
    assert outcome.ok and b.ran == [0, 1]
    settle(world, a, b)


def test_no_pings_without_work_and_few_with() -> None:
    world, a, b = pair()
    a.request("b")
    world.run(50.0)
    link = a.link("b")
    assert link.conn.pings == link.conn.other.pings == 0
    b.handler = lambda request: b.answer(request, delay=30.0)
    _, outcome = a.request("b")
    world.run(40.0)
    assert outcome.ok
    assert 5 <= link.conn.pings <= 11
    settle(world, a, b)


def test_silence_while_work_is_open_ends_it_and_silence_before_does_not_count() -> None:
    world, a, b = pair()
    a.request("b")
    world.run(40.0)
    _, quick = a.request("b", "after 40 s of silence")
    world.run(1.0)
    assert quick.ok
    world.run(30.0)
    b.handler = lambda request: None
    a.link("b").conn.lost = a.link("b").conn.other.lost = True
    _, outcome = a.request("b", "lost")
    took = world.until(lambda: outcome.ended)
    assert 9.0 < took < 12.0
    assert isinstance(outcome.error, PeerUnreachable) and outcome.error.indeterminate


def test_message_survives_a_lost_connection() -> None:
    world, a, b = pair()
    a.send("b", 0)
    world.run(1.0)
    a.link("b").conn.lost = True
    outcomes = [a.send("b", n)[1] for n in range(1, 5)] + [a.send("b", BIG)[1]]
    world.run(30.0)
    assert all(outcome.ok for outcome in outcomes)
    assert [m for _, m in b.messages] == [0, 1, 2, 3, 4, BIG]
    settle(world, a, b)


def test_nobody_there() -> None:
    world, a, b = pair()
    b.die()
    _, call = a.request("b")
    _, message = a.send("b", 1)
    assert world.until(lambda: call.ended and message.ended) < 1.0
    assert isinstance(call.error, PeerUnreachable) and not call.error.indeterminate
    assert isinstance(message.error, PeerUnreachable) and not message.error.indeterminate
    _, unknown = a.request("nobody")
    assert isinstance(unknown.error, PeerUnreachable)
    settle(world, a)


def test_back_off_grows_with_jitter_and_ends_with_a_new_address() -> None:
    world, a, b = pair()
    b.die()
    dials: list[float] = []
    real = a.dial
    a.dial = lambda *args: dials.append(world.now) or real(*args)  # type: ignore[method-assign, func-returns-value]

    def again() -> None:
        if world.now < 1060.0:
            a.request("b")
            world.later(0.01, again)

    again()
    world.run(100.0)
    gaps = [later - earlier for earlier, later in itertools.pairwise(dials)]
    assert 8 < len(gaps) < 25
    assert gaps[0] < 0.2 and max(gaps) > 4.0 and max(gaps) < 10.5
    other = Node(world, "b", ("10.0.0.9", 1))
    a.addresses["b"] = other.address
    a.machine.peer_changed("b", world.now)
    _, outcome = a.request("b")
    assert world.until(lambda: outcome.ended) < 0.2
    assert outcome.ok
    settle(world, a, other)


def test_new_address_while_dialling_the_old_one() -> None:
    world, a, b = pair()
    world.blocked.add(frozenset((a.address, b.address)))
    _, outcome = a.request("b")
    world.run(1.0)
    other = Node(world, "b", ("10.0.0.9", 1))
    a.addresses["b"] = other.address
    a.machine.peer_changed("b", world.now)
    assert world.until(lambda: outcome.ended) < 0.2
    assert outcome.ok


def test_connect_timeout() -> None:
    world, a, b = pair()
    world.blocked.add(frozenset((a.address, b.address)))
    _, outcome = a.request("b")
    _, late = a.request("b", timeout=1.0)
    assert 1.0 <= world.until(lambda: late.ended) < 1.2
    assert isinstance(late.error, OperationTimeout) and not late.error.indeterminate
    assert 3.0 < world.until(lambda: outcome.ended) < 4.5
    settle(world, a, b)


def test_statuses() -> None:
    world, a, b = pair(config=DataConfig(requests_per_peer=4))
    b.handler = lambda request: b.answer(request, delay=5.0)
    calls = [a.request("b", n)[1] for n in range(6)]
    _, unknown = a.request("b", name="unknown")
    _, big = a.request("b", BIG, name="unknown")
    world.run(1.0)
    assert unknown.result[0] == big.result[0] == Status.UNKNOWN
    b.settling = True
    _, early = a.request("b", name="unknown")
    _, big = a.request("b", BIG, name="unknown")
    world.run(1.0)
    assert early.result[0] == big.result[0] == Status.NOT_YET
    assert [call.result[0] for call in calls if call.ok] == [Status.BUSY] * 2
    b.machine.closing = True
    _, closing = a.request("b")
    world.run(10.0)
    assert closing.result[0] == Status.CLOSING
    assert sum(call.result[0] == Status.OK for call in calls) == 4
    settle(world, a, b)


def test_too_large() -> None:
    world = World()
    a = mesh(world, ["a", "b"])[0]
    b = Node(world, "b", ("10.0.0.1", 7001), DataConfig(max_value=1 << 16))
    b.addresses["a"] = a.address
    call, message = a.request("b", BIG)[1], a.send("b", BIG)[1]
    a.send("b", "after")
    world.run(2.0)
    assert isinstance(call.error, ValueTooLarge) and isinstance(message.error, ValueTooLarge)
    assert b.messages == [("a", "after")]
    a.handler = lambda request: a.answer(request, BIG)
    _, answer = b.request("a")
    world.run(2.0)
    assert answer.result[0] == Status.TOO_LARGE
    settle(world, a, b)


def test_inbox_backpressure_and_window() -> None:
    world, a, b = pair(inbox=(4, 1 << 30))
    b.reading = False
    outcomes = [a.send("b", n)[1] for n in range(200)]
    world.run(30.0)
    assert sum(outcome.ok for outcome in outcomes) == 4
    assert len(b.machine.peers["a"].incoming_for(a.boot)._held) == 64
    world.run(200.0)  # what waits for us keeps the connection
    assert len(b.machine.links) == 1 and "quic.idle_closed" not in b.counters
    for _ in range(200):
        b.read()
        world.run(0.1)
    assert [m for _, m in b.messages] == list(range(200))
    assert all(outcome.ok for outcome in outcomes)
    settle(world, a, b)


def test_a_full_inbox_is_shared_in_turn() -> None:
    world = World()
    a, b, c = mesh(world, ["a", "b", "c"], inbox=(2, 1 << 30))
    c.reading = False
    for n in range(100):
        a.send("c", n)
        b.send("c", n)
    c.send("c", "own")
    world.run(5.0)
    for _ in range(60):
        c.read()
        world.run(0.1)
    counts = [sum(sender == name for sender, _ in c.messages) for name in "ab"]
    assert min(counts) >= 25, counts
    assert ("c", "own") in c.messages


@pytest.mark.parametrize("reading", [False, True])
def test_withdrawn_messages_at_every_moment(reading: bool) -> None:
    for step in range(40):
        world, a, b = pair(step, inbox=(1, 1 << 30))
        b.reading = reading
        messages = [a.send("b", n if n % 3 else [n, BIG[: 400 << 10]]) for n in range(12)]
        world.run(step * 0.004)
        for message, _ in messages[1::2]:
            a.machine.peer("b").withdraw(message, world.now)
        for _ in range(30):
            world.run(1.0)
            b.read()
        values = [m if isinstance(m, int) else m[0] for _, m in b.messages]
        assert values == sorted(set(values))
        kept = {n for n in range(12) if n % 2 == 0} | {n for n, (_, outcome) in enumerate(messages) if outcome.ok}
        assert kept <= set(values)
        settle(world, a, b)


@pytest.mark.parametrize("value", [1, BIG], ids=["small", "large"])
@pytest.mark.parametrize("node", ["a", "b"])
def test_what_its_sender_has_given_up_is_not_sent(node: str, value: object) -> None:
    world, a, b = pair()
    a.send("b", "first")
    world.run(1.0)
    message = OutMessage(encode_value(value), Outcome(lambda: world.now))
    call = Call(node, name_field("echo"), encode_value(value), None, Outcome(lambda: world.now))
    message.over = call.over = True  # by the thread that waited, before the loop has looked at them
    a.machine.send(node, message, world.now)
    a.machine.request(call, world.now)
    a.send(node, "next")
    world.run(1.0)
    assert [m for _, m in b.messages + a.messages] == ["first"] and a.ran == b.ran == []
    a.machine.peer(node).withdraw(message, world.now)
    a.machine.peer(node).cancel(call, world.now)
    world.run(1.0)
    assert [m for _, m in b.messages + a.messages] == ["first", "next"] and a.ran == b.ran == []
    settle(world, a, b)


def test_large_value_given_up_on_the_way_never_arrives_whole() -> None:
    world, a, b = pair()
    memory = bytearray(b"\1" * (4 << 20))  # more than goes to QUIC at once
    (message, _), (call, _) = a.send("b", memory), a.request("b", memory)
    world.until(lambda: bool(a.link("b") and a.link("b").bulk.flows))
    message.over = call.over = True
    memory[:] = bytes(len(memory))
    world.run(5.0)
    assert b.messages == [] and b.ran == []
    a.machine.peer("b").withdraw(message, world.now)
    a.machine.peer("b").cancel(call, world.now)
    settle(world, a, b)


def test_cancelled_calls_at_every_moment() -> None:
    for step in range(40):
        world, a, b = pair(step)
        b.handler = lambda request, b=b: b.answer(request, delay=0.02)
        calls = [a.request("b", n if n % 3 else BIG) for n in range(8)]
        world.run(step * 0.004)
        for call, _ in calls[::2]:
            a.machine.peer("b").cancel(call, world.now)
        world.run(10.0)
        assert all(outcome.ok for _, outcome in calls[1::2])
        settle(world, a, b)


def test_peer_down_at_every_moment() -> None:
    for step in range(40):
        world, a, b = pair(step)
        b.handler = lambda request, b=b: b.answer(request, delay=0.02)
        outcomes = [a.request("b", BIG if n == 2 else n)[1] for n in range(4)]
        outcomes += [a.send("b", BIG if n == 2 else n)[1] for n in range(4)]
        outcomes += [b.request("a", n)[1] for n in range(4)]
        world.run(step * 0.004)
        a.machine.peer_down("b", "was declared dead", world.now)
        assert all(outcome.ended for outcome in outcomes[:8])
        world.run(20.0)
        assert all(outcome.ended for outcome in outcomes)
        assert len(b.ran) == len({str(value) for value in b.ran})
        _, outcome = a.request("b", "again")
        _, message = a.send("b", "again")
        world.run(5.0)
        assert outcome.ok and message.ok and b.messages[-1] == ("a", "again")
        settle(world, a, b)


def test_unacknowledged_answer_is_not_cut_off_by_the_idle_close() -> None:
    """What was given to QUIC and not acknowledged may be lost with the connection: it counts as open."""
    world, a, b = pair()
    b.machine.config = DataConfig(idle_timeout=1.0)
    a.request("b", 0)
    world.run(0.5)
    link = b.link("a")
    link.conn.sent[link.lane] += 1  # a byte that is not acknowledged
    world.run(20.0)
    assert not link.conn.gone
    link.conn.acked[link.lane] += 1
    world.run(2.0)
    assert link.conn.gone


def test_code_of_a_shut_down() -> None:
    world, a, b = pair()
    b.handler = lambda request: None
    _, outcome = a.request("b")
    world.run(1.0)
    codes: list[int] = []
    real = a.machine.closed

    def closed(conn: Any, code: int, *rest: Any) -> None:
        codes.append(code)
        real(conn, code, *rest)

    a.machine.closed = closed  # type: ignore[method-assign, assignment]
    b.machine.close(error(Ending.CLOSED, "closed"), world.now)
    world.run(1.0)
    assert codes == [Close.SHUTDOWN]
    assert outcome.error is not None and outcome.error.indeterminate
    assert b.machine.links == {}


@pytest.mark.parametrize("after", [0.0, 0.005, 0.02, 0.05, 0.2, 1.0, 5.0])
def test_close_ends_all_that_is_under_way(after: float) -> None:
    """While the peer is dialled, proves itself, takes what is sent, runs it, or does not take it."""
    world, a, b = pair(inbox=(2, 1 << 30))
    b.handler = lambda request: None
    b.reading = False
    asked = [(n, a.request("b", [n, bytes(size)])[1]) for n, size in enumerate((0, 0, 70_000, 1 << 20))]
    sent = [(n, a.send("b", [n, bytes(size)])[1]) for n, size in enumerate((0, 0, 0, 70_000, 1 << 20))]
    back = b.request("a", 1)[1]
    world.run(after)
    a.machine.close(error(Ending.CLOSED, "closed"), world.now)
    for _, outcome in (*asked, *sent):
        assert outcome.ok or isinstance(outcome.error, NotRunningError), "it has not ended"
    assert all(outcome.error is not None for _, outcome in asked)
    world.run(100.0)
    came: list[Any] = [received.decode(DEFAULT) for (_, received), _ in b.inbox]
    for where, outcomes in (([value[0] for value in b.ran], asked), ([value[0] for value in came], sent)):
        for number, outcome in outcomes:
            if outcome.error is not None and not outcome.error.indeterminate:
                assert number not in where, "it was said not to have come"
    assert back.ended is not None
    assert leftovers(a.machine) == leftovers(b.machine) == []
    assert a.machine.serving == b.machine.serving == 0


def test_connection_ends_with_the_certificate_that_proved_it() -> None:
    """Nobody says so when one expires: what is open is looked through once a minute."""
    world, a, b = pair(config=DataConfig(idle_timeout=1000.0))
    b.handler = lambda request: None
    waiting = a.request("b")[1]
    world.run(61.0)
    first = b.link("a").conn
    assert waiting.ended is None and not first.gone
    b.trust.keys = ["new"]
    world.run(61.0)
    assert first.gone and b.counters["quic.key_removed"] == 1
    assert waiting.error is not None and waiting.error.indeterminate
    a.trust.keys = ["new"]
    again = a.request("b")[1]
    world.run(61.0)
    assert again.ended is None and not b.link("a").conn.gone and b.counters["quic.key_removed"] == 1
