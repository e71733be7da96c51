"""One connection's frames: what is counted, answered, bounded, and given up with it."""

from __future__ import annotations

import itertools

import pytest

from mycorrizal._data.calls import Call
from mycorrizal._data.link import _EARLY_MAX, _LANE_MAX, _WASTE_MAX, _WASTE_RATE, Flood, Link
from mycorrizal._data.ports import Received, Served
from mycorrizal._wire.frames import (
    INLINE_MAX,
    Close,
    Frame,
    Limits,
    Status,
    id_body,
    message_body,
    name_field,
    parse_request,
    parse_response,
    parse_sequence,
    request_body,
)
from mycorrizal._wire.values import encode_value
from mycorrizal.dataconfig import DataConfig

from .harness import Node, Outcome, World, packed, pair
from .raw import LANE, Raw, RawConn

NONE = packed(None)
LARGE = bytes(INLINE_MAX + 1000)


def dialled(config: DataConfig | None = None) -> tuple[Node, Link, RawConn]:
    """Return a node with a connection to "x" over which it may send, and hears nothing by itself."""
    node = Node(World(), "a", ("10.0.0.1", 1), config)
    conn = RawConn(node.world, dialled=True)
    link = node.machine.add(conn, "x")
    link.boot, link.remote = b"x" * 8, Limits(64, 1 << 20, 1024, 1 << 30)
    link.connected(node.world.now)
    link.proved(node.machine.peer("x"), node.world.now)
    return node, link, conn


def call_of(node: Node, value: object = None, deadline: float | None = None) -> tuple[Call, Outcome]:
    outcome = Outcome(lambda: node.world.now)
    return Call("x", name_field("echo"), encode_value(value), deadline, outcome), outcome


def welcomed() -> tuple[Node, Link, RawConn]:
    node, link, conn = dialled()
    link.welcome(0, node.world.now)
    return node, link, conn


def lane(link: Link, conn: RawConn) -> bytes:
    link.flush(link.machine.now)
    return bytes(conn.sent.get(link.lane, b""))


def test_what_achieves_nothing_is_forgiven_with_time() -> None:
    _, link, _ = dialled()
    now = 0.0
    for _ in range(3):
        for _ in range(int(_WASTE_MAX)):
            link.wasted(now)
        now += _WASTE_MAX / _WASTE_RATE
    for _ in range(int(_WASTE_MAX)):
        link.wasted(now)
    with pytest.raises(Flood):
        link.wasted(now)


def test_what_comes_before_the_proof_is_counted() -> None:
    raw = Raw()
    raw.request(1)
    assert raw.node.counters["quic.not_proved"] == 1


def test_requests_open_at_a_time_are_as_many_as_the_limits_say() -> None:
    raw = Raw(DataConfig(requests_per_peer=3)).prove()
    held: list[Served] = []
    raw.node.handler = held.append
    for number in range(1, 5):
        raw.request(number, NONE)
    assert [request.number for request in held] == [1, 2, 3]
    assert [parse_response(body) for _, body in raw.heard()] == [(4, Status.BUSY)]
    assert raw.node.counters["requests.busy"] == 1


def test_a_full_lane_refuses_requests_and_then_ends_the_connection() -> None:
    raw = Raw().prove()
    raw.conn.unread = _LANE_MAX
    raw.request(1, NONE)
    assert len(raw.node.ran) == 1
    raw.conn.unread = _LANE_MAX + 1
    raw.request(2, NONE)
    assert len(raw.node.ran) == 1 and raw.node.counters["requests.busy"] == 1
    raw.conn.unread = 2 * _LANE_MAX + 1
    raw.request(3, NONE)
    raw.expect_end(Close.FLOOD)


def test_a_request_that_no_handler_takes_leaves_its_number_free() -> None:
    raw = Raw().prove()
    raw.node.capacity = 0
    for _ in range(2):
        raw.request(7, NONE)
        assert [parse_response(body) for _, body in raw.heard()] == [(7, Status.BUSY)]
    assert raw.code is None and raw.node.machine.serving == 0


def test_the_time_of_a_request_is_in_milliseconds() -> None:
    raw = Raw().prove()
    held: list[Served] = []
    raw.node.handler = held.append
    raw.frame(Frame.REQUEST, request_body(1, 1500) + name_field("echo") + NONE)
    assert held[0].deadline == raw.world.now + 1.5
    node, link, conn = welcomed()
    for left, sent in ((2.5, 2500), (0.0001, 1), (None, 0), (1e9, 0xFFFFFFFF)):
        before = len(lane(link, conn))
        link.request(call_of(node, None, None if left is None else node.world.now + left)[0], node.world.now)
        assert abs(parse_request(lane(link, conn)[before + 5 :])[1] - sent) <= 1, left


def test_a_request_within_too_many_handlers_is_answered_at_once() -> None:
    raw = Raw().prove()
    raw.node.has_thread = lambda depth: depth < 5
    name = name_field("echo")
    raw.frame(Frame.REQUEST, request_body(1, 0, 4) + name + NONE)
    raw.heard()
    raw.frame(Frame.REQUEST, request_body(2, 0, 5) + name + NONE)
    raw.value(6, Frame.REQUEST, request_body(3, 0, 5) + name, 100_000, b"\x00")
    assert [parse_response(body) for _, body in raw.heard()] == [(2, Status.TOO_DEEP), (3, Status.TOO_DEEP)]
    assert len(raw.node.ran) == 1 and raw.node.counters["requests.too_deep"] == 2 and raw.code is None


def test_a_skipped_number_is_acknowledged() -> None:
    raw = Raw().prove()
    raw.heard()
    raw.frame(Frame.SKIP, message_body(1))
    assert [(kind, parse_sequence(body)) for kind, body in raw.heard()] == [(Frame.ACCEPTED, 1)]


def test_a_request_is_cancelled_once_and_not_answered() -> None:
    raw = Raw().prove()
    held: list[Served] = []
    raw.node.handler = held.append
    raw.request(1, NONE)
    link = raw.node.machine.links[raw.conn]
    before = link._wasted
    for _ in range(3):
        raw.frame(Frame.CANCEL, id_body(1))
    assert raw.node.counters["requests.cancelled"] == 1 and held[0].cancelled
    assert link._wasted == before + 2
    link.respond(held[0], Status.OK, encode_value(1), raw.world.now)
    assert raw.heard() == [] and raw.node.machine.serving == 0


def test_handlers_hear_that_the_connection_is_gone() -> None:
    raw = Raw().prove()
    held: list[Served] = []
    raw.node.handler = held.append
    raw.request(1, NONE)
    raw.node.machine.closed(raw.conn, 0, "", True, "closed", raw.world.now)
    assert held[0].cancelled and raw.node.machine.serving == 0


def test_an_answer_as_large_as_the_peer_takes_and_one_byte_more() -> None:
    raw = Raw().prove()
    held: list[Served] = []
    raw.node.handler = held.append
    link = raw.node.machine.links[raw.conn]
    value = encode_value(b"answer")
    for number, most, status in ((1, value.size, Status.OK), (2, value.size - 1, Status.TOO_LARGE)):
        link.remote = Limits(64, 1 << 20, 1024, most)
        raw.request(number, NONE)
        link.respond(held[-1], Status.OK, value, raw.world.now)
        assert [parse_response(body[:5]) for _, body in raw.heard()] == [(number, status)]


def test_a_number_that_is_in_use_is_not_given_again() -> None:
    node, link, _ = welcomed()
    first, second, third = (call_of(node)[0] for _ in range(3))
    link.request(first, node.world.now)
    link._numbers = itertools.count(0xFFFFFFFE)
    link.request(second, node.world.now)
    link.request(third, node.world.now)
    assert [one.number for one in (first, second, third)] == [1, 0xFFFFFFFF, 2]
    assert link.calls == {1: first, 0xFFFFFFFF: second, 2: third}


@pytest.mark.parametrize("how", ["answered", "cancelled"])
def test_a_call_that_is_over_sends_no_more_of_its_value(how: str) -> None:
    node, link, _ = welcomed()
    call, outcome = call_of(node, LARGE)
    link.request(call, node.world.now)
    assert link.bulk.sending == 1
    if how == "answered":
        link.answered(call.number, Status.BUSY, Received(b""), node.world.now)
        assert outcome.ok
    else:
        link.cancel(call, node.world.now)
    assert link.bulk.sending == 0 and not link.calls


def test_a_message_that_is_skipped_sends_no_more_of_its_value() -> None:
    node, link, _ = welcomed()
    message, _ = node.send("x", LARGE)
    assert link.bulk.sending == 1
    link.skip(message)
    assert link.bulk.sending == 0


def test_bytes_before_the_welcome_are_bounded_in_all() -> None:
    _, link, conn = dialled()
    size = _EARLY_MAX // 4
    for _ in range(10):
        link.put(bytes(size))
    before = len(conn.sent.get(link.lane, b""))
    for _ in range(3):
        link.flush(link.machine.now)
    assert len(conn.sent[link.lane]) - before == 4 * size
    link.welcome(0, link.machine.now)
    link.flush(link.machine.now)
    assert len(conn.sent[link.lane]) - before >= 10 * size


def test_a_call_that_has_ended_is_not_ended_again_with_its_connection() -> None:
    _, a, b = pair()
    b.handler = lambda request: None
    call, outcome = a.request("b", 1)
    a.world.until(lambda: b.ran)
    call.done = True
    outcome.succeed(None)
    a.link("b").close(Close.SHUTDOWN, "", a.world.now)
    a.world.run(1.0)
    assert outcome.ok


def test_a_lane_of_ours_that_is_stopped_ends_the_connection_and_the_peers_does_not() -> None:
    raw = Raw().prove()
    raw.node.machine.stream_stopped(raw.conn, LANE, 0, raw.world.now)
    assert raw.code is None
    raw.node.machine.stream_stopped(raw.conn, 3, 0, raw.world.now)
    raw.expect_end(Close.PROTOCOL)
