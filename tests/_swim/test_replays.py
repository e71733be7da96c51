"""Numbered user messages are taken once; what was sealed before by a life or for a name counts by its number."""

from __future__ import annotations

from typing import Any

from mycorrizal._swim.events import UserMessage
from mycorrizal._swim.machine import Swim
from mycorrizal._swim.replays import _SENDERS_MAX, _WINDOW, Replays
from mycorrizal._wire.messages import AckResp, Dead, Suspect, User
from mycorrizal.delegates import BaseDelegate
from mycorrizal.types import NodeState
from tests.keys import key_of

from .harness import Wire, alive, drain, events, make, record, run_timers, state, tell

BOOT, PEER = b"12345678", ("10.9.9.9", 7946)


def user(number: int, boot: bytes = BOOT, to: str = "me") -> User:
    return User(b"data", boot, number, to)


def take(seen: Replays, *numbers: int, stream: bool = False) -> list[int]:
    """Return the numbers that are taken."""
    return [number for number in numbers if seen.refusal(user(number), stream=stream) is None]


def receiver(**settings: Any) -> Swim:
    return make(wire="cbor", secret_key=key_of("a"), delegates={"delegate": BaseDelegate()}, **settings)


def heard(swim: Swim) -> list[bytes]:
    return [event.data for event in events(swim) if isinstance(event, UserMessage)]


def test_each_number_is_taken_once_in_any_order() -> None:
    seen = Replays("me")
    assert take(seen, 1, 2, 2, 5, 3, 5, 4, 3, 1, 6) == [1, 2, 5, 3, 4, 6]


def test_what_is_older_than_the_window_counts_as_taken() -> None:
    seen = Replays("me")
    assert take(seen, 10, _WINDOW + 9, 10, 11, _WINDOW + 10, 10, 9) == [10, _WINDOW + 9, 11, _WINDOW + 10]
    assert take(seen, 1 << 62, _WINDOW + 10, (1 << 62) - _WINDOW, (1 << 62) - _WINDOW + 1) == [
        1 << 62,
        (1 << 62) - _WINDOW + 1,
    ]


def test_packets_that_overtake_a_stream_do_not_cost_it_its_place() -> None:
    seen = Replays("me")
    assert take(seen, 10 * _WINDOW) == [10 * _WINDOW]
    assert take(seen, 1, 1, stream=True) == [1]


def test_lives_are_told_apart_and_unnumbered_messages_always_taken() -> None:
    seen = Replays("me")
    assert [seen.refusal(user(1, boot), stream=False) for boot in (BOOT, b"87654321", BOOT)] == [
        None,
        None,
        "user.replayed",
    ]
    assert [seen.refusal(User(b"x"), stream=False) for _ in range(2)] == [None, None]


def test_a_message_for_another_node_is_refused_one_without_a_name_is_not() -> None:
    seen = Replays("me")
    assert seen.refusal(user(1, to="you"), stream=False) == "user.misdirected"
    assert seen.refusal(user(1, to=""), stream=False) is None


def test_memory_is_bounded_and_the_longest_silent_is_forgotten() -> None:
    seen = Replays("me")
    for life in range(2 * _SENDERS_MAX + 1):
        seen.refusal(user(1, life.to_bytes(8, "big")), stream=False)
        seen.refusal(user(life + 2, BOOT), stream=False)
    assert len(seen) == 2 * _SENDERS_MAX
    assert seen.refusal(user(2, BOOT), stream=False) == "user.replayed"
    assert seen.refusal(user(1, bytes(8)), stream=False) is None


def test_a_recorded_packet_is_delivered_once_and_not_to_another_node() -> None:
    sender, swim, other = receiver(name="a"), receiver(name="me"), receiver(name="you")
    sender.send_user(user(1), PEER, 0.0, name="me")
    ((packet, _),) = sender.datagrams_to_send()
    for _ in range(3):
        swim.receive_datagram(packet, PEER, 1.0)
        other.receive_datagram(packet, PEER, 1.0)
    assert heard(swim) == [b"data"]
    assert swim.counters["user.replayed"] == 2
    assert heard(other) == []
    assert other.counters["user.misdirected"] == 3


def test_a_recorded_stream_is_delivered_once() -> None:
    swim = receiver(name="me")
    for _ in range(3):
        assert swim.answer_exchange(user(1), PEER, 1.0) is None
    assert heard(swim) == [b"data"]


def test_a_receiver_that_restarted_cannot_know() -> None:
    """A limit, documented: its memory of numbers went with its process."""
    for _ in range(2):
        swim = receiver(name="me")
        swim.answer_exchange(user(1), PEER, 1.0)
        assert heard(swim) == [b"data"]


# -- membership: what a replay can do, and for how long -----------------------------------


def test_a_recorded_alive_of_a_node_that_is_gone_makes_a_member_for_as_long_as_it_takes_to_find_it_dead() -> None:
    swim = make(probe_interval=1.0, gossip_to_the_dead_time=30.0)
    recorded = alive("gone", incarnation=3)
    tell(swim, recorded)
    now = 0.0
    while state(swim, "gone") != NodeState.DEAD and now < 60.0:
        now += 0.25
        run_timers(swim, now)
        for request in swim.exchanges_to_start():
            swim.exchange_failed(request.exchange_id, ConnectionRefusedError(), now)
    assert now < 20.0
    tell(swim, recorded, now=now)
    assert len(swim.members()) == 1, "while it is remembered as dead, its incarnation is stale"


def test_a_recorded_alive_of_a_live_member_changes_nothing() -> None:
    swim = make()
    tell(swim, alive("peer", incarnation=2, meta=b"new"))
    drain(swim)
    tell(swim, alive("peer", incarnation=1, meta=b"old"))
    assert record(swim, "peer").meta == b"new"
    assert events(swim) == []


def test_a_recorded_accusation_is_refuted_once_and_is_stale_then() -> None:
    a, b = make("a", "10.0.0.1", probe_interval=1.0), make("b", "10.0.0.2", probe_interval=1.0)
    wire = Wire(a, b)
    a.join(b.local_node.address, 0.0)
    wire.flush()
    for recorded in (Dead(3, "b", "b"), Dead(3, "b", "x"), Suspect(3, "b", "x")):  # of an earlier life of b
        tell(a, recorded, now=wire.now)
        tell(b, recorded, now=wire.now)
        wire.run(5.0)
        assert state(a, "b") == NodeState.ALIVE
    assert b.counters["refutations"] == 1
    assert b.incarnation == 4


def test_a_recorded_ack_answers_for_no_other_ping() -> None:
    recorded = [AckResp(number) for number in range(1, 10)]  # of the first pings of anybody's
    for anywhere, expected in ((False, NodeState.ALIVE), (True, NodeState.SUSPECT)):
        swim = make(probe_interval=1.0, refuse_echoes=anywhere)
        tell(swim, alive("gone"))
        now = 0.0
        while now < 4.0:
            now += 0.1
            run_timers(swim, now)
            for request in swim.exchanges_to_start():
                swim.exchange_failed(request.exchange_id, TimeoutError(), now)
            tell(swim, *recorded, now=now)
        assert state(swim, "gone") == expected


def test_what_was_sealed_with_a_removed_key_is_refused_and_until_then_numbers_hold() -> None:
    sender, swim, new = receiver(name="a"), receiver(name="me"), key_of("n")
    sender.send_user(user(1), PEER, 0.0, name="me")
    ((packet, _),) = sender.datagrams_to_send()
    swim.receive_datagram(packet, PEER, 1.0)
    ring = swim._core.codec.keyring
    ring.add(new)
    ring.use(new)
    swim.receive_datagram(packet, PEER, 2.0)
    assert swim.counters["user.replayed"] == 1
    ring.remove(key_of("a"))
    swim.receive_datagram(packet, PEER, 3.0)
    assert swim.counters["packets_rejected"] == 1
    assert heard(swim) == [b"data"]
