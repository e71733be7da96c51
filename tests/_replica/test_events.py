"""Events: each once, in order, repaired when lost, given up when nobody has them."""

from __future__ import annotations

import pytest

from mycorrizal import QueueFull, ValueTooLarge
from mycorrizal._replica import messages
from mycorrizal._replica.limits import NUMBER_MAX, Limits
from mycorrizal._replica.machine import Replica
from mycorrizal._replica.messages import Event, Highest, Sender
from mycorrizal._replica.outputs import EventReceived, EventsMissed

from .harness import Net, boot, drain, exchange, of, replica


def event(number: int, name: str = "x", value: bytes = b"") -> bytes:
    return Event(Sender(name, boot(name)), number, "t", value or b"%d" % number).encode()


def gone_member(one: Replica, name: str, *numbers: int) -> None:
    """Let `name` be a member, tell these events, and go."""
    one.member_up(name, boot(name), 0.0)
    for number in numbers:
        one.receive(event(number, name), 0.0)
    one.member_down(name, 0.0)


def highest(number: int, name: str = "x") -> bytes:
    return Highest(Sender(name, boot(name)), number, 1).encode()


def test_own_events_are_handed_on_at_once_and_exactly_once() -> None:
    net = Net(*"ab")
    assert [net["a"].publish("t", b"%d" % n, net.now) for n in range(3)] == [1, 2, 3]
    assert drain(net["a"]) == [EventReceived("t", b"%d" % n, "a", n + 1) for n in range(3)]
    net.run(12.0)
    assert net.events("a") == []
    assert net.events("b") == [1, 2, 3]


def test_every_node_gets_each_once_and_in_order_though_messages_are_lost() -> None:
    net = Net(*"abcdef")
    net.lose = lambda what, source, target: net.rng.random() < 0.4
    for turn in range(60):
        net[net.rng.choice("abcdef")].publish("t", b"%d" % turn, net.now)
        net.run(0.1)
    net.run(20.0)
    for name in net.replicas:
        for sender in net.replicas:
            numbers = net.events(name, sender)
            assert numbers == list(range(1, len(numbers) + 1))
        assert len(net.events(name)) == 60
        assert net.missed(name) == 0


def test_large_events_are_pushed_and_holes_fetched() -> None:
    net = Net(*"abc")
    net.lose = lambda what, source, target: target == "c" and what == "push"
    net["a"].publish("t", b"x" * 100_000, net.now)
    net["a"].publish("t", b"small", net.now)
    net.run(0.2)
    assert net.events("b") == [1, 2]
    net.run(2.0)
    assert net.events("c") == [1, 2]
    assert net.fetches[0] == ("c", "a")


def test_a_lost_last_event_is_noticed_by_what_is_told_later() -> None:
    net = Net(*"abc")
    net.lose = lambda what, source, target: net.now < 4.0 and target == "c"
    net["a"].publish("t", b"x" * 5000, net.now)
    net.run(4.0)
    assert net.events("c") == []
    net.run(8.0)
    assert net.events("c") == [1]


def test_a_lost_last_event_is_noticed_by_the_state() -> None:
    net = Net(*"abc")
    net.lose = lambda what, source, target: target == "c"
    net["a"].publish("t", b"1", net.now)
    net.run(20.0)
    net.lose = lambda what, source, target: False
    exchange(net["c"], net["b"], net.now)
    net.run(1.0)
    assert net.events("c") == [1]


def test_others_are_asked_when_the_sender_is_gone() -> None:
    net = Net(*"abcd")
    net.lose = lambda what, source, target: target == "d"
    net["a"].publish("t", b"1", net.now)
    net.run(3.0)
    net.remove("a")
    net.lose = lambda what, source, target: False
    exchange(net["d"], net["b"], net.now)
    net.run(1.0)
    assert net.events("d") == [1]
    assert {member for name, member in net.fetches if name == "d"} <= {"b", "c"}


def test_a_hole_that_is_larger_than_one_answer_takes_several() -> None:
    net = Net(*"abc", limits=Limits(answer_bytes=150))
    net.lose = lambda what, source, target: target == "c"
    for _ in range(10):
        net["a"].publish("t", b"x" * 50, net.now)
    net.run(1.0)
    net.lose = lambda what, source, target: False
    net.run(3.0)
    assert net.events("c") == list(range(1, 11))
    assert len([member for name, member in net.fetches if name == "c"]) >= 5


def test_what_nobody_has_any_more_is_skipped_and_said() -> None:
    net = Net(*"abc", limits=Limits(remembered=5))
    net.lose = lambda what, source, target: target == "c"
    for _ in range(20):
        net["a"].publish("t", b"", net.now)
        net.run(0.1)
    net.lose = lambda what, source, target: False
    net.run(12.0)
    assert net.events("b") == list(range(1, 21))
    assert net.events("c") == [16, 17, 18, 19, 20]
    assert of(net.said["c"], EventsMissed) == [EventsMissed("a", 15)]


def test_all_missing_and_forgotten_counts_too() -> None:
    net = Net(*"abc", limits=Limits(remembered=1))
    net.lose = lambda what, source, target: target == "c"
    for _ in range(3):
        net["a"].publish("t", b"", net.now)
    net["b"].publish("t", b"", net.now)
    net.run(12.0)
    net["b"].publish("t", b"", net.now)
    net.run(3.0)  # a and b remember the last of b only
    net.lose = lambda what, source, target: False
    exchange(net["c"], net["b"], net.now)
    net.run(3.0)
    assert net.events("c", "a") == []
    assert net.missed("c") == 4
    net["a"].publish("t", b"", net.now)
    net.run(3.0)
    assert net.events("c", "a") == [4]


def test_a_member_that_cannot_be_reached_is_asked_again() -> None:
    net = Net(*"ab")
    net.lose = lambda what, source, target: target == "b" or what == "fetch"
    net["a"].publish("t", b"1", net.now)
    net.run(1.0)
    net.lose = lambda what, source, target: what == "fetch"
    net.run(10.0)
    assert net.events("b") == []
    net.lose = lambda what, source, target: False
    net.run(9.0)
    assert net.events("b") == [1]


def test_a_hole_whose_sender_stays_away_is_skipped_after_a_while() -> None:
    one = replica()
    one.joined(0.0)
    gone_member(one, "x", 1, 3)
    now = 0.0
    while now < 70.0:
        now += 0.5
        one.handle_timer(now)
        if now == 20.0:
            assert of(drain(one), EventReceived) == [EventReceived("t", b"1", "x", 1)]
    assert drain(one) == [EventsMissed("x", 1), EventReceived("t", b"3", "x", 3)]
    one.receive(event(2), now)
    assert drain(one) == []


def test_a_hole_that_holds_nothing_up_sleeps_until_somebody_comes_back() -> None:
    one = replica()
    one.joined(0.0)
    one.member_up("b", boot("b"), 0.0)
    one.receive(highest(1), 0.0)
    now, asked, lacking = 0.0, 0, messages.pack(messages.Have(Sender("x", boot("x")), 1), ())
    while now < 100.0:  # a newcomer says that event 1 is old, which it is for it only
        now += 0.5
        one.handle_timer(now)
        for fetch in one.fetches_to_start():
            asked += 1
            one.fetched(fetch.fetch_id, lacking, now)
    assert 5 < asked < 20
    assert drain(one) == []
    assert one.gauges["events.holes"] == 0
    one.receive(highest(1), now)
    assert one.gauges["events.holes"] == 0
    one.member_up("x", boot("x"), now)
    one.handle_timer(now + 0.5)
    (fetch,) = one.fetches_to_start()
    one.fetched(fetch.fetch_id, messages.pack(messages.Have(Sender("x", boot("x")), 1), [(event(1), 0.0)]), now)
    assert [e.number for e in of(drain(one), EventReceived)] == [1]


def test_a_sender_that_comes_back_is_given_time_before_its_events_are_given_up() -> None:
    one = replica()
    one.joined(0.0)
    one.member_up("b", boot("b"), 0.0)
    gone_member(one, "x", 2)
    now, have = 0.0, messages.Have(Sender("x", boot("x")), 2)
    while now < 55.0:
        now += 0.5
        if now == 29.0:
            one.member_up("x", boot("x"), now)
        one.handle_timer(now)
        for fetch in one.fetches_to_start():
            if fetch.member == "x" and now < 40.0:
                one.fetch_failed(fetch.fetch_id, now)
            else:
                content = [(event(1), 0.0)] if fetch.member == "x" else []
                one.fetched(fetch.fetch_id, messages.pack(have, content), now)
    found = drain(one)
    assert [e.number for e in of(found, EventReceived)] == [1, 2]
    assert not of(found, EventsMissed)


def test_who_did_not_have_an_event_is_asked_again() -> None:
    one = replica()
    one.joined(0.0)
    one.member_up("b", boot("b"), 0.0)
    gone_member(one, "x", 2)
    now, asked, answer = 0.0, 0, messages.pack(messages.Have(Sender("x", boot("x")), 0), ())
    while now < 25.0:
        now += 0.5
        one.handle_timer(now)
        for fetch in one.fetches_to_start():
            asked += 1
            if asked == 3:
                answer = messages.pack(messages.Have(Sender("x", boot("x")), 2), [(event(1), 0.0)])
            one.fetched(fetch.fetch_id, answer, now)
    assert [e.number for e in of(drain(one), EventReceived)] == [1, 2]
    assert asked == 3


# -- who has just come ------------------------------------------------------------------


def test_a_newcomer_does_not_get_old_events_but_all_that_follow() -> None:
    net = Net(*"ab")
    for _ in range(5):
        net["a"].publish("t", b"", net.now)
    net.run(3.0)
    new = net.add("c", joined=False)
    exchange(new, net["b"], net.now)
    net["a"].publish("t", b"", net.now)
    net.run(1.0)
    assert net.events("c") == []
    new.joined(net.now)
    new.joined(net.now)
    net.run(1.0)
    assert net.events("c") == [6]
    late = net.add("d")  # appeared after the newcomer
    late.publish("t", b"", net.now)
    net.run(1.0)
    assert net.events("c") == [6, 1]


def test_what_is_heard_before_the_first_state_waits_for_it() -> None:
    net = Net(*"ab")
    for _ in range(3):
        net["a"].publish("t", b"", net.now)
    net.run(12.0)
    new = net.add("c", joined=False)
    new.receive(event(2, "a"), net.now)
    new.receive(event(4, "a"), net.now)
    new.receive(highest(4, "a"), net.now)
    exchange(new, net["b"], net.now)
    assert drain(new) == []
    new.joined(net.now)
    assert [e.number for e in of(drain(new), EventReceived)] == [4]


def test_a_newcomer_that_learns_of_a_sender_late_gets_what_is_remembered() -> None:
    a, b = replica("a"), replica("b")
    b.joined(0.0)
    for _ in range(3):
        a.publish("t", b"", 0.0)
    net = Net()
    net.replicas = {"a": a, "b": b}
    net.said = {"a": [], "b": []}
    a.member_up("b", b.boot, 0.0)
    b.member_up("a", a.boot, 0.0)
    exchange(a, b)
    net.run(1.0)
    assert net.events("b", "a") == [1, 2, 3]


# -- bounds and hostile peers --------------------------------------------------------------


def test_own_events_have_limits() -> None:
    one = replica(limits=Limits(event=100, gossip_backlog=3, pushes=0))
    one.member_up("b", boot("b"), 0.0)
    with pytest.raises(ValueTooLarge):
        one.publish("t", b"x" * 101, 0.0)
    with pytest.raises(ValueTooLarge):
        one.publish("t" * 256, b"", 0.0)
    for _ in range(3):
        one.publish("t", b"", 0.0)
    with pytest.raises(QueueFull):
        one.publish("t", b"", 0.0)
    assert len(of(drain(one), EventReceived)) == 3


def test_too_many_pushes_are_refused() -> None:
    one = replica(limits=Limits(pushes=2))
    one.member_up("b", boot("b"), 0.0)
    for _ in range(2):
        one.publish("t", b"x" * 2000, 0.0)
    with pytest.raises(QueueFull):
        one.publish("t", b"x" * 2000, 0.0)
    assert len(one.pushes_to_send()) == 2


def test_a_forged_number_leads_to_a_few_questions_and_no_more() -> None:
    for forged in (highest(NUMBER_MAX - 1, "a"), event(NUMBER_MAX - 1, "a")):
        net = Net(*"abcd")
        net["a"].publish("t", b"", net.now)
        net.run(2.0)
        net.fetches.clear()
        net["b"].receive(forged, net.now)
        net.run(100.0)
        assert len(net.fetches) < 20
        assert net["b"].gauges["events.holes"] == 0
        assert net.missed("b") == 0
        net["a"].publish("t", b"", net.now)
        net.run(2.0)
        assert net.events("b") == [1, 2]


def test_a_forged_number_of_nobody_does_too() -> None:
    net = Net(*"abcd")
    net["b"].receive(highest(NUMBER_MAX - 1, "nobody"), net.now)
    net.run(100.0)
    assert 0 < len(net.fetches) < 20 * 4
    assert all(one.gauges["events.holes"] == 0 for one in net.replicas.values())
    assert net.missed("b") == 0


def test_a_lying_answer_skips_and_the_true_events_are_taken_all_the_same() -> None:
    one = replica()
    one.joined(0.0)
    one.member_up("x", boot("x"), 0.0)
    one.receive(highest(5), 0.0)
    one.handle_timer(1.0)
    (fetch,) = one.fetches_to_start()
    one.fetched(fetch.fetch_id, messages.pack(messages.Have(Sender("x", boot("x")), NUMBER_MAX - 1), ()), 1.0)
    one.handle_timer(2.0)
    assert of(drain(one), EventsMissed)
    for number in (1, 2, 3):
        one.receive(event(number), 3.0)
    assert [e.number for e in of(drain(one), EventReceived)] == [1, 2, 3]
    assert one.counters["events.late"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"garbage", messages.pack(messages.Have(Sender("y", boot("y")), 5), ()),
        messages.pack(messages.Have(Sender("x", boot("x")), 5), [(event(1, "y"), 0.0)]),
        messages.pack(messages.Have(Sender("x", boot("x")), 5), [(highest(5), 0.0)]),
    ],
)  # fmt: skip
def test_an_answer_to_something_else_is_refused_and_the_next_is_asked(answer: bytes) -> None:
    one = replica()
    one.joined(0.0)
    one.member_up("x", boot("x"), 0.0)
    one.member_up("b", boot("b"), 0.0)
    one.receive(event(2), 0.0)
    one.handle_timer(1.0)
    (fetch,) = one.fetches_to_start()
    assert fetch.member == "x"
    one.fetched(fetch.fetch_id, answer, 1.0)
    one.handle_timer(1.0)
    (fetch,) = one.fetches_to_start()
    assert fetch.member == "b"
    assert one.counters["rejected"] == 1


def test_held_events_are_bounded_and_fetched_again() -> None:
    one = replica(limits=Limits(held=4, held_bytes=400, remembered=3))
    one.joined(0.0)
    one.member_up("x", boot("x"), 0.0)
    one.member_up("y", boot("y"), 0.0)
    for number in range(2, 12):
        one.receive(event(number), 0.0)
    assert one.gauges["events.remembered"] == 3
    assert one.counters["events.not_held"] == 6
    one.receive(event(2, "y", b"x" * 1000), 0.0)
    assert one.counters["events.not_held"] == 7
    one.receive(event(1), 0.0)
    assert [e.number for e in of(drain(one), EventReceived)] == [1, 2, 3, 4, 5]
    assert one.gauges["events.held_bytes"] == 0
    assert one.gauges["events.holes"] == 2


def test_senders_are_bounded_and_those_who_are_gone_make_room() -> None:
    one = replica(limits=Limits(senders=3))
    one.joined(0.0)
    one.member_up("x", boot("x"), 0.0)
    for name in ("x", "y", "z"):
        one.receive(event(2, name), 0.0)
    assert one.counters["events.sender_forgotten"] == 1
    one.member_up("z", boot("z"), 0.0)
    one.receive(event(1, "w"), 0.0)
    assert one.counters["events.sender_refused"] == 1
    assert one.gauges["events.senders"] == 3
    one.receive(event(1, "x"), 0.0)
    assert [e.number for e in of(drain(one), EventReceived)] == [1, 2]


def test_only_so_many_fetches_at_a_time() -> None:
    one = replica(limits=Limits(fetches=2))
    one.joined(0.0)
    for name in "uvwxyz":
        one.member_up(name, boot(name), 0.0)
        one.receive(event(2, name), 0.0)
    one.handle_timer(1.0)
    fetches = one.fetches_to_start()
    assert len(fetches) == 2
    assert one.get_timer() == 10.0  # the sweep: a fetch that ends wakes us
    one.fetch_failed(fetches[0].fetch_id, 1.0)
    assert one.get_timer() is not None
    one.handle_timer(1.0)
    assert len(one.fetches_to_start()) == 1


def test_forged_events_of_ours_are_nothing() -> None:
    one = replica()
    one.joined(0.0)
    one.receive(event(7, "a"), 0.0)
    one.receive(highest(9, "a"), 0.0)
    assert drain(one) == []
    assert one.publish("t", b"", 0.0) == 1


def test_an_event_beyond_the_limit_is_refused() -> None:
    one = replica(limits=Limits(event=10))
    one.joined(0.0)
    one.receive(event(1, "x", b"x" * 11), 0.0)
    assert one.counters["rejected"] == 1


# -- history ------------------------------------------------------------------------------


def test_history_is_what_was_handed_on_in_that_order() -> None:
    one = replica(limits=Limits(remembered=4))
    one.joined(0.0)
    gone_member(one, "x", 2)
    one.publish("other", b"o", 0.0)
    assert [e.topic for e in one.history(None, 10)] == ["other"]
    one.receive(event(1), 0.0)
    assert [(e.sender, e.number) for e in one.history(None, 10)] == [("a", 1), ("x", 1), ("x", 2)]
    assert [(e.sender, e.number) for e in one.history(None, 2)] == [("x", 1), ("x", 2)]
    assert [(e.sender, e.number) for e in one.history("other", 5)] == [("a", 1)]
    assert one.history(None, 0) == []
    for number in range(3, 9):
        one.receive(event(number), 0.0)
    assert [e.number for e in one.history(None, 10)] == [5, 6, 7, 8]


def test_memory_is_bounded_by_bytes_and_answers_by_size() -> None:
    one = replica(limits=Limits(remembered_bytes=10_000, answer_bytes=4_000))
    one.joined(0.0)
    for _ in range(20):
        one.publish("t", b"x" * 1000, 0.0)
    assert one.gauges["events.remembered_bytes"] <= 10_000
    assert one.gauges["events.remembered"] == 9
    want = messages.pack(messages.Want(Sender("a", boot("a")), ((15, 14), (1, 1 << 40))), ())
    answer = one.answer_fetch(want, 0.0)
    header, at = messages.decode_header(answer)
    assert header == messages.Have(Sender("a", boot("a")), 20)
    numbers = [messages.decode(raw).number for raw, _ in messages.items(answer, at, 99)]  # type: ignore[union-attr]
    assert numbers == [12, 13, 14]


@pytest.mark.parametrize("answers", [True, False], ids=["lacks it", "does not answer"])
def test_who_could_not_fill_one_hole_is_asked_at_once_for_the_next(answers: bool) -> None:
    one = replica()
    one.joined(0.0)
    for name in "bc":
        one.member_up(name, boot(name), 0.0)
    gone_member(one, "x", 2, 4)
    have = messages.Have(Sender("x", boot("x")), 0)
    asked: list[str] = []
    now, got = 0.0, 0
    while got < 4 and now < 10.0:
        now += 0.01
        one.handle_timer(now)
        for fetch in one.fetches_to_start():
            asked.append(fetch.member)
            content = []
            if fetch.member != asked[0]:
                content = [(event(1), 0.0)]
            elif len(asked) > 1:
                content = [(event(3), 0.0)]
            if len(asked) == 1 and not answers:
                one.fetch_failed(fetch.fetch_id, now)
            else:
                one.fetched(fetch.fetch_id, messages.pack(have, content), now)
        got += len(of(drain(one), EventReceived))
    assert got == 4, asked
    assert now < 0.6, "nobody had to be waited for"


# -- bounds of what is held, asked and answered -------------------------------------------------------


def test_an_event_far_ahead_or_beyond_the_bytes_is_not_held() -> None:
    one = replica(limits=Limits(held=4, held_bytes=3 * len(event(9, value=bytes(100)))))
    one.member_up("x", boot("x"), 0.0)
    one.joined(0.0)
    one.receive(event(9), 0.0)
    assert one.counters["events.not_held"] == 1
    assert one.gauges["events.held_bytes"] == 0
    for number in (8, 7, 6, 5):
        one.receive(event(number, value=bytes(100)), 0.0)
    assert one.counters["events.not_held"] == 2, "one too much in bytes, not in number"


def test_old_news_that_was_held_gives_its_bytes_back() -> None:
    one = replica()
    one.member_up("x", boot("x"), 0.0)
    for number in (3, 4, 7):
        one.receive(event(number), 0.0)
    state = messages.pack(messages.State(bytes(16), ((Sender("x", boot("x")), 5),)), ())
    one.merge_state(state, True, 0.0)
    assert one.gauges["events.held_bytes"] == len(event(7))
    one.joined(0.0)
    one.receive(event(6), 0.0)
    assert [e.number for e in of(drain(one), EventReceived)] == [6, 7]
    assert one.gauges["events.held_bytes"] == 0


def test_a_state_speaks_of_who_is_gone_as_long_as_its_events_are_remembered() -> None:
    one = replica(limits=Limits(remembered=2))
    one.joined(0.0)
    gone_member(one, "x", 1)

    def seen() -> list[str]:
        header, _ = messages.decode_header(one.local_state(False))
        assert isinstance(header, messages.State)
        return [sender.name for sender, _ in header.seen]

    assert seen() == ["x"]
    for _ in range(2):
        one.publish("t", b"", 0.0)
    assert seen() == ["a"]


def test_a_question_asks_for_what_can_be_held_and_an_answer_looks_up_no_more() -> None:
    one, x = replica(limits=Limits(held=4)), Sender("x", boot("x"))
    one.member_up("x", boot("x"), 0.0)
    one.joined(0.0)
    one.receive(highest(1000), 0.0)
    one.handle_timer(1.0)
    (fetch,) = one.fetches_to_start()
    want, _ = messages.decode_header(fetch.payload)
    assert want == messages.Want(x, ((1, 4),))
    for number in range(1, 11):
        one.receive(event(number), 1.0)
    question = messages.pack(messages.Want(x, ((1, 3), (5, 9))), ())
    answer = one.answer_fetch(question, 1.0)
    header, at = messages.decode_header(answer)
    assert header == messages.Have(x, 10)
    assert [raw for raw, _ in messages.items(answer, at, 99)] == [event(n) for n in (1, 2, 3, 5)]


def test_an_event_larger_than_an_answer_is_given_alone() -> None:
    one, x = replica(limits=Limits(answer_bytes=100)), Sender("x", boot("x"))
    one.member_up("x", boot("x"), 0.0)
    one.joined(0.0)
    for number in (1, 2):
        one.receive(event(number, value=bytes(200)), 0.0)
    answer = one.answer_fetch(messages.pack(messages.Want(x, ((1, 2),)), ()), 0.0)
    _, at = messages.decode_header(answer)
    assert [raw for raw, _ in messages.items(answer, at, 99)] == [event(1, value=bytes(200))]
    one.receive(event(2, value=bytes(200)), 0.0)
    assert one.counters["events.duplicate"] == 1
