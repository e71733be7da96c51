"""One peer: when it is dialled, how long what waits goes on waiting, and what of it is in doubt."""

from __future__ import annotations

import pytest

from mycorrizal._data import machine as machines
from mycorrizal._data.calls import Call
from mycorrizal._data.flows import Outflow
from mycorrizal._data.peer import _OTHER_PROCESS_SECONDS, Peer, _fail
from mycorrizal._endings import Ending, error
from mycorrizal._wire.frames import Close, name_field
from mycorrizal._wire.values import encode_value
from mycorrizal.dataconfig import DataConfig
from mycorrizal.exceptions import MycorrizalError, OperationTimeout, QueueFull

from .harness import Node, Outcome, World, pair
from .raw import Raw, RawConn

GONE = error(Ending.LOST, "gone")


def lonely(config: DataConfig | None = None) -> tuple[Node, Peer]:
    """Return a node and a peer that it may dial, and that never answers."""
    node = Node(World(), "a", ("10.0.0.1", 1), config)
    node.addresses["x"] = ("10.0.0.9", 9)
    node.world.blocked.add(frozenset((node.address, node.addresses["x"])))
    return node, node.machine.peer("x")


def call_of(node: Node, deadline: float | None = None) -> tuple[Call, Outcome]:
    outcome = Outcome(lambda: node.world.now)
    return Call("x", name_field("echo"), encode_value(1), deadline, outcome), outcome


def test_back_off_doubles_and_has_a_most() -> None:
    node, peer = lonely(DataConfig(redial_first=0.1, redial_max=3.0))
    delays = []
    for _ in range(8):
        peer._back_off(2.0, 100.0)
        delays.append(peer.next_dial - 100.0)
    for number, delay in enumerate(delays):
        full = min(2.0, 0.1 * 2**number)
        assert full / 2 <= delay <= full
    assert node.machine.peers["x"].failures == 8


def test_nobody_dials_before_its_time_and_news_end_the_wait() -> None:
    node, peer = lonely()
    peer.failures, peer.next_dial = 3, node.world.now + 5.0
    node.request("x", 1)
    assert peer.dialling is None
    node.machine.peer_changed("x", node.world.now)
    assert peer.failures == 0
    node.world.run(0.1)
    assert peer.dialling is not None


@pytest.mark.parametrize(("code", "seconds"), [(Close.TRY_AGAIN, 5.0), (Close.OTHER_PROCESS, _OTHER_PROCESS_SECONDS)])
def test_what_waits_for_another_try_does_not_wait_for_ever(code: Close, seconds: float) -> None:
    node, peer = lonely(DataConfig(connect_timeout=5.0))
    call, outcome = call_of(node)
    peer.calls.append(call)
    began = node.world.now
    peer._come_again(GONE, code, began)
    assert peer.again_since == began and peer.delayed == "gone"
    peer._come_again(GONE, code, began + seconds - 0.01)
    assert outcome.error is None
    peer._come_again(GONE, code, began + seconds)
    assert outcome.error is not None and not outcome.error.indeterminate and peer.delayed == ""


@pytest.mark.parametrize(("given", "doubt"), [(None, True), (0, True), (-1, True), (1, False)])
def test_what_may_have_been_read_is_in_doubt(given: int | None, doubt: bool) -> None:
    """`given`: the limit of the flow that carries its value; -1 is all of it."""
    node, _ = lonely()
    call, outcome = call_of(node)
    if given is not None:
        call.flow = Outflow(2, [], fin=True)
        call.flow.limit = -1 if given <= 0 else given
    _fail(call, GONE, read=True)
    assert isinstance(outcome.error, MycorrizalError) and outcome.error.indeterminate == doubt


@pytest.mark.parametrize("sent", [True, False])
def test_a_call_whose_time_is_up_is_in_doubt_if_it_was_sent(sent: bool) -> None:
    node, peer = lonely()
    call, outcome = call_of(node, node.world.now + 1.0)
    call.sent = sent
    peer.calls.append(call)
    peer._expire(node.world.now + 0.5)
    assert outcome.error is None
    peer._expire(node.world.now + 1.0)
    assert isinstance(outcome.error, OperationTimeout) and outcome.error.indeterminate == sent


def test_a_message_that_was_sent_is_in_doubt_and_one_that_waits_is_not() -> None:
    world, a, b = pair()
    b.reading = False
    b.inbox_limits = (1, 1 << 40)
    outcomes = [a.send("b", number)[1] for number in range(2)]
    world.until(lambda: outcomes[0].ok)
    a.machine.peer_down("b", "has left", world.now)
    assert outcomes[1].error is not None and outcomes[1].error.indeterminate
    node, peer = lonely()
    waiting = node.send("x", 1)[1]
    peer.fail_waiting(GONE)
    assert waiting.error is not None and not waiting.error.indeterminate


def test_a_dial_to_who_is_declared_dead_ends_with_it() -> None:
    node, peer = lonely()
    _, outcome = node.request("x", 1)
    dialling = peer.dialling
    assert dialling is not None
    node.machine.peer_down("x", "has left", node.world.now)
    assert outcome.error is not None and peer.dialling is None
    assert dialling.state == "closed" and node.machine.links == {}


def test_who_greets_hears_that_the_connection_gives_way() -> None:
    raw = Raw().prove()
    link = raw.node.machine.links[raw.conn]
    link.greeting = outcome = Outcome(lambda: raw.world.now)
    assert link.peer is not None
    link.peer.replaced(raw.world.now)
    assert outcome.error is not None and link.greeting is None


def test_what_waits_for_one_peer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_QUEUE_MAX", 3)
    node, _ = lonely()
    outcomes = [node.request("x", number)[1] for number in range(4)]
    assert [outcome.error is None for outcome in outcomes] == [True, True, True, False]
    assert isinstance(outcomes[3].error, QueueFull) and outcomes[3].error.node == "x"


def test_a_plane_that_has_ended_takes_no_connection() -> None:
    node, _ = lonely()
    node.machine.close(GONE, node.world.now)
    conn = RawConn(node.world, dialled=False)
    node.machine.connected(conn, node.world.now)
    assert conn.closed is not None and conn.closed[0] == Close.SHUTDOWN and node.machine.links == {}


def test_a_key_that_expires_without_a_word_ends_what_was_proved_with_it() -> None:
    raw = Raw(DataConfig(idle_timeout=1e6)).prove()
    raw.world.run(61.0)
    raw.node.trust.keys = ["another"]
    raw.world.run(machines._RECHECK_SECONDS + 2.0)
    assert raw.code == Close.KEY_REMOVED and raw.node.counters["quic.key_removed"] == 1
