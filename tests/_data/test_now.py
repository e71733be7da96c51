"""What a caller's thread and a handler's send themselves: only what nothing waits before, and each call ends once."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal._data.calls import Call
from mycorrizal._data.link import Link
from mycorrizal._data.ports import BY_QUIC, ON_HOST, Served
from mycorrizal._wire.frames import (
    INLINE_MAX,
    Close,
    Frame,
    Status,
    frame,
    name_field,
    request_body,
    response_body,
)
from mycorrizal._wire.values import DEFAULT, encode_value

from .harness import Node, Outcome, World, answer_of, mesh, packed

SECONDS = 5.0


def friends(way: Any = ON_HOST) -> tuple[World, Node, Node]:
    """Return two nodes with a connection that both have welcomed."""
    world = World()
    world.way = way
    a, b = mesh(world, ["a", "b"])
    _, outcome = a.request("b", 0)
    world.until(lambda: outcome.ok and b.link("a").open, SECONDS)
    return world, a, b


def now(node: Node, call: Call) -> bool:
    """Do what a caller's thread does."""
    peer = node.machine.peers.get(call.node)
    return peer is not None and peer.request_now(call, node.world.now) is not None


def made(node: Node, value: object = 1) -> tuple[Call, Outcome]:
    outcome = Outcome(lambda: node.world.now)
    return Call("b", name_field("echo"), encode_value(value), None, outcome), outcome


def test_a_call_that_is_alone_is_on_its_way_at_once() -> None:
    world, a, b = friends()
    call, outcome = made(a)
    assert now(a, call)
    assert call.sent and a.link("b").calls == {call.number: call} and not a.link("b")._out
    world.until(lambda: outcome.ok, SECONDS)
    assert answer_of(outcome) is not None and b.ran[-1] == 1 and call.done and not a.link("b").calls


class Stale(dict[int, Call]):
    """Calls of which another thread has just noted one that a look at them did not show yet."""

    def __contains__(self, number: object) -> bool:
        return False


def test_two_threads_that_draw_one_number_do_not_share_it() -> None:
    """Where there is no GIL a counter may give a number twice."""
    world, a, b = friends()
    link = a.link("b")
    link.calls, link._numbers = Stale(), iter([7, 7, 7, 8])
    first, one = made(a, 1)
    second, other = made(a, 2)
    for call in (first, second):
        link.request(call, world.now)
    assert link.calls == {8: first, 9: second} and (first.number, second.number) == (8, 9)
    link.calls = dict(link.calls)  # a look shows what is there
    world.until(lambda: one.ok and other.ok, SECONDS)
    assert b.ran[-2:] == [1, 2]


def busy(world: World, a: Node) -> None:
    a.request("b", 2)
    a.link("b").flush(world.now)


def queued(world: World, a: Node) -> None:
    a.link("b").put(frame(Frame.CANCEL, bytes(4)))


def gone(world: World, a: Node) -> None:
    a.link("b").close(Close.IDLE, "idle", world.now)


def unwelcome(world: World, a: Node) -> None:
    a.link("b").live = False


def small(world: World, a: Node) -> None:
    a.link("b").remote = a.link("b").remote._replace(value=1)


@pytest.mark.parametrize("why", [busy, queued, gone, unwelcome, small])
def test_a_call_that_something_waits_before_is_left_to_the_loop(why: Any) -> None:
    world, a, _ = friends()
    why(world, a)
    call, _ = made(a)
    assert not now(a, call)
    assert not call.sent and call.link is None


def test_a_large_call_an_ended_one_and_one_to_nobody_are_left_to_the_loop() -> None:
    _, a, _ = friends()
    large, _ = made(a, bytes(INLINE_MAX))
    ended, _ = made(a)
    ended.done = True
    stranger, _ = made(a)
    stranger.node = "nobody"
    assert not any(now(a, call) for call in (large, ended, stranger))
    assert "nobody" not in a.machine.peers


def test_on_quic_nothing_is_sent_by_another_thread() -> None:
    _, a, _ = friends(BY_QUIC)
    call, _ = made(a)
    assert not now(a, call) and not call.sent


def test_a_call_that_is_noted_as_its_connection_ends_is_taken_back_or_ends_with_it() -> None:
    world, a, _ = friends()
    link = a.link("b")
    call, outcome = made(a)
    link.state = "closed"  # the loop is in the middle of ``ended``
    assert not link.request_now(call, world.now) and not link.calls and not call.sent and call.link is None
    link.state = "ready"
    assert link.request_now(call, world.now)
    link.close(Close.SHUTDOWN, "", world.now)
    assert outcome.error is not None and outcome.error.indeterminate and not link.calls


def served(a: Node, b: Node, count: int) -> list[Served]:
    """Let `count` requests of a's be with handlers of b's."""
    b.handler = lambda request: None
    for number in range(count):
        a.request("b", number)
    a.world.until(lambda: len(b.link("a").served) == count, SECONDS)
    return list(b.link("a").served.values())


def test_an_answer_that_is_alone_is_on_its_way_at_once() -> None:
    world, a, b = friends()
    (request,) = served(a, b, 1)
    (call,) = a.link("b").calls.values()
    assert b.link("a").respond_now(request, Status.OK, encode_value("now"), world.now)
    assert not b.link("a").served and not b.link("a")._out
    world.until(lambda: call.done, SECONDS)
    assert call.ticket.ok and call.ticket.result[1].decode(DEFAULT) == "now"


def test_amid_others_or_behind_a_frame_an_answer_is_left_to_the_loop() -> None:
    world, a, b = friends()
    first, second = served(a, b, 2)
    link = b.link("a")
    assert not link.respond_now(first, Status.OK, encode_value(1), world.now)
    link.respond(first, Status.OK, encode_value(1), world.now)
    assert not link.respond_now(second, Status.OK, encode_value(1), world.now), "it would overtake the first"
    link.flush(world.now)
    assert not link.respond_now(second, Status.OK, encode_value(bytes(INLINE_MAX)), world.now)
    assert link.respond_now(second, Status.OK, encode_value(2), world.now)


@pytest.mark.parametrize("end", ["cancelled", "gone"])
def test_an_answer_that_nobody_waits_for_is_not_sent(end: str) -> None:
    world, a, b = friends()
    (request,) = served(a, b, 1)
    link = b.link("a")
    sent: list[bytes] = []
    link.conn.put = lambda stream, data: sent.append(data)
    if end == "cancelled":
        request.cancelled = True
    else:
        link.served.clear()
    assert link.respond_now(request, Status.OK, encode_value(1), world.now)
    assert sent == [] and not link.served


def test_the_packed_value_is_what_the_loop_would_send() -> None:
    world, a, b = friends()
    call, outcome = made(a, {"x": [1, b"y"]})
    assert now(a, call)
    world.until(lambda: outcome.ok, SECONDS)
    assert b.ran[-1] == {"x": [1, b"y"]} and packed({"x": [1, b"y"]})


def test_a_connection_is_not_closed_as_idle_under_a_call_that_has_just_begun() -> None:
    """One of the two sees the other: see ``Link.shut_idle``."""
    world, a, b = friends()
    link = a.link("b")
    link.shut = True
    call, _ = made(a)
    assert not now(a, call) and not link.calls and not call.sent
    link.shut = False
    outcomes: list[Outcome] = []

    class Slips(Link):
        """A link on which a caller begins a call between the loop's look and its ``shut``."""

        def __setattr__(self, name: str, value: object) -> None:
            if name == "shut" and value and not outcomes:
                call, outcome = made(a)
                outcomes.append(outcome)
                assert now(a, call)
            super().__setattr__(name, value)

    link.__class__ = Slips
    world.until(lambda: outcomes and outcomes[0].ended, 200.0)
    assert outcomes[0].ok and link.state == "ready"
    world.until(lambda: not a.machine.links and not b.machine.links, 200.0)


def test_an_answer_that_is_about_to_go_is_work(monkeypatch: pytest.MonkeyPatch) -> None:
    _, a, b = friends()
    (request,) = served(a, b, 1)
    link = b.link("a")
    seen = []

    def put(stream: int, data: bytes) -> None:
        seen.append((link.busy, b.machine.serving, bool(link.served)))

    monkeypatch.setattr(link.conn, "put", put)
    assert link.respond_now(request, Status.OK, encode_value(1), a.world.now)
    assert seen == [(True, 1, False)] and not link.busy and b.machine.serving == 0


# -- what a thread that waits at the socket takes itself ---------------------------------------------


def answer(number: int, value: object = 1, status: Status = Status.OK) -> bytes:
    return frame(Frame.RESPONSE, response_body(number, status) + packed(value))


def lane_of(node: Node, peer: str) -> int:
    lane: int = node.link(peer)._remote_lane
    return lane


def test_the_answer_that_a_caller_waits_for_is_its_own() -> None:
    world, a, _ = friends()
    link, (call, outcome) = a.link("b"), made(a)
    assert now(a, call)
    found = link.answer_now(call, lane_of(a, "b"), answer(call.number, "x"), world.now)
    assert found is not None and found[0] == Status.OK and found[1].decode(DEFAULT) == "x"
    assert call.done and not link.calls and outcome.ended is None, "who waits knows by himself"
    assert link.answer_now(call, lane_of(a, "b"), answer(call.number), world.now) is None


@pytest.mark.parametrize("why", ["other", "two", "half", "kind", "stream", "begun", "dead", "bad", "gone"])
def test_anything_else_is_left_to_the_loop(why: str) -> None:
    world, a, _ = friends()
    link, (call, _) = a.link("b"), made(a)
    assert now(a, call)
    data, stream = answer(call.number), lane_of(a, "b")
    if why == "other":
        data = answer(call.number + 1)
    elif why == "two":
        data += data
    elif why == "half":
        data = data[:-1]
    elif why == "kind":
        data = frame(Frame.CANCEL, bytes(4))
    elif why == "stream":
        stream = 6
    elif why == "begun":
        list(link._reader.feed(b"\0"))
    elif why == "dead":
        link.live = False
    elif why == "bad":
        data = frame(Frame.RESPONSE, response_body(call.number, 99))
    else:
        link.calls.clear()
    assert link.answer_now(call, stream, data, world.now) is None and not call.done


def asked(number: int, name: str = "echo", left: int = 0, value: object = 1) -> bytes:
    return frame(Frame.REQUEST, request_body(number, left) + name_field(name) + packed(value))


def test_the_next_request_may_be_a_handlers_own() -> None:
    world, _, b = friends()
    link = b.link("a")
    request = link.serve_now(lane_of(b, "a"), asked(7, left=2000, value="x"), world.now)
    assert request is not None and request.value.decode(DEFAULT) == "x" and request.sender == "a"
    assert request.deadline == world.now + 2.0 and link.served == {7: request} and b.machine.serving == 1
    assert link.respond_now(request, Status.OK, encode_value(1), world.now) and not link.served


@pytest.mark.parametrize("why", ["two", "half", "kind", "closing", "unknown", "in use", "bad"])
def test_a_request_that_is_more_than_that_is_left_to_the_loop(why: str) -> None:
    world, _, b = friends()
    link, data = b.link("a"), asked(7)
    if why == "two":
        data += asked(8)
    elif why == "half":
        data = data[:-1]
    elif why == "kind":
        data = frame(Frame.CANCEL, bytes(4))
    elif why == "closing":
        b.machine.closing = True
    elif why == "unknown":
        b.has_handler = lambda name: False  # type: ignore[method-assign]
    elif why == "in use":
        link.served[7] = link.serve_now(lane_of(b, "a"), data, world.now)
    else:
        data = frame(Frame.REQUEST, b"\0")
    before = dict(link.served)
    assert link.serve_now(lane_of(b, "a"), data, world.now) is None and link.served == before
