"""What was recorded and is sent again: which of it is dropped, and which carriers may bring what is old."""

from __future__ import annotations

from mycorrizal._replica import messages
from mycorrizal._replica.clock import Stamp
from mycorrizal._replica.limits import Limits
from mycorrizal._replica.machine import Replica
from mycorrizal._replica.messages import Event, Sender
from mycorrizal._replica.outputs import EventReceived, EventsMissed

from .harness import WALL, Net, boot, drain, exchange, of, replica

HOUR = 3600.0
DAY = 24 * HOUR


def pair(limits: Limits = Limits()) -> tuple[Replica, Replica]:  # noqa: B008 - immutable
    """Two members that have joined."""
    a, b = replica("a", limits=limits), replica("b", limits=limits)
    for one, other in ((a, b), (b, a)):
        one.member_up(other.name, other.boot, 0.0)
        one.joined(0.0)
    return a, b


def deleted_long_ago() -> tuple[Replica, Replica, bytes, bytes, float]:
    """Return two replicas that have forgotten a deletion, the write and the state from before it, and the time."""
    a, b = pair()
    a.set_setting("key", b"old", 0.0)
    (kept,) = a.settings_entries()
    state = a.local_state(False)
    exchange(a, b)
    a.set_setting("key", None, 1.0)
    exchange(a, b, 1.0)
    now = DAY + 60.0
    for one in (a, b):
        one.handle_timer(now)
        assert not one.gauges["settings.tombstones"]
        one.get_broadcasts(2, 100_000)
    return a, b, kept.data, state, now


# -- settings ---------------------------------------------------------------------------


def test_a_recorded_write_does_not_come_back_when_its_deletion_is_forgotten() -> None:
    _, b, write, _, now = deleted_long_ago()
    b.receive(write, now)
    assert not b.settings
    assert b.counters["settings.old"] == 1


def test_nor_does_a_recorded_deletion_take_the_place_of_a_live_tombstone() -> None:
    b = replica("b", limits=Limits(tombstones=1))
    b.set_setting("new", b"", DAY)
    b.set_setting("new", None, DAY)
    b.receive(messages.Setting("key", None, Stamp(int(WALL * 1000), 0, "a", boot("a"))).encode(), DAY)
    assert list(b.kept(["key", "new"])) == ["new"]


def test_a_recorded_state_brings_nothing_back_to_who_is_dialled() -> None:
    _, b, _, state, now = deleted_long_ago()
    b.merge_state(state, True, now)
    assert not b.settings
    assert b.counters["settings.old"] == 1


def test_within_the_day_the_tombstone_is_what_refuses_it() -> None:
    a, b = pair()
    a.set_setting("key", b"old", 0.0)
    (kept,) = a.settings_entries()
    a.set_setting("key", None, 1.0)
    exchange(a, b, 1.0)
    b.receive(kept.data, 20 * HOUR)
    assert not b.settings
    assert "settings.old" not in b.counters


def test_there_is_no_hour_between_tombstone_and_rule_not_even_for_a_newcomer_or_a_clock_an_hour_ahead() -> None:
    """Whoever comes does not learn tombstones of the last hour, and the writer's clock may be ahead."""
    a, b = replica("a", wall=WALL + 0.9 * HOUR), replica("b")
    a.set_setting("key", b"old", 0.0)
    (kept,) = a.settings_entries()
    a.set_setting("key", None, 1.0)
    now = 0.0
    while now < 23 * HOUR + 60.0:
        now += 60.0
        a.handle_timer(now)
    exchange(b, a, now)
    assert not b.gauges["settings.tombstones"]
    b.receive(kept.data, now)
    assert not b.settings


def test_who_joins_gets_settings_of_any_age() -> None:
    a, b = replica("a"), replica("b")
    a.set_setting("key", b"value", 0.0)
    exchange(b, a, 30 * DAY)
    assert b.settings == a.settings
    assert "settings.old" not in b.counters


def test_what_a_file_brings_back_reaches_who_was_dialled_when_it_dials() -> None:
    a, late = replica("a"), replica("late")
    a.set_setting("key", b"value", 0.0)
    late.restore([(kept.data, kept.age) for kept in a.settings_entries()], 3 * DAY)
    b, c = replica("b"), replica("c")
    exchange(late, b, 3 * DAY)
    assert not b.settings
    exchange(b, late, 3 * DAY + 30.0)
    exchange(c, b, 3 * DAY + 30.0)
    assert late.settings == b.settings == c.settings


def test_over_quic_settings_of_any_age_come_in_both_directions() -> None:
    a, b = pair()
    a.set_setting("a", b"", 0.0)
    b.set_setting("b", b"", 0.0)
    sync = a.sync("b", 3 * DAY)
    (fetch,) = a.fetches_to_start()
    a.fetched(fetch.fetch_id, b.answer_fetch(fetch.payload, 3 * DAY), 3 * DAY)
    assert sync
    assert sorted(a.settings) == sorted(b.settings) == ["a", "b"]


def test_what_is_old_is_not_gossiped_on_either() -> None:
    a, b = pair()
    a.set_setting("key", b"value", 0.0)
    exchange(b, a, 3 * DAY)
    assert b.settings == a.settings
    assert b.gauges["queue"] == 0


def test_a_later_write_of_a_known_key_is_taken_whatever_its_age() -> None:
    a, b = pair()
    a.set_setting("key", b"one", 0.0)
    exchange(a, b)
    a.set_setting("key", b"two", 1.0)
    (kept,) = a.settings_entries()
    b.receive(kept.data, 3 * DAY)
    assert b.settings["key"].value == b"two"


def test_clocks_that_are_wrong_delay_a_new_setting_and_lose_none() -> None:
    a, ahead = replica("a"), replica("b", wall=WALL + 365 * DAY)
    for one in (a, ahead):
        one.joined(0.0)
    a.set_setting("key", b"value", 0.0)
    (kept,) = a.settings_entries()
    ahead.receive(kept.data, 0.0)
    assert not ahead.settings
    exchange(ahead, a)
    assert ahead.settings == a.settings
    ahead.set_setting("other", b"value", 0.0)  # from a clock that is a year ahead: never old
    a.receive(ahead.kept(["other"])["other"].data, 0.0)
    assert a.settings == ahead.settings
    a.set_setting("third", b"value", 0.0)  # who has seen that writes later stamps
    ahead.receive(a.kept(["third"])["third"].data, 0.0)
    assert a.settings == ahead.settings


# -- services ---------------------------------------------------------------------------


def test_a_recorded_service_that_is_as_old_is_not_taken_from_gossip() -> None:
    a, b = pair()
    a.register("web", b"80", 0.0)
    raw = a.service_message("web")
    b.receive(raw, DAY)
    assert not b.services
    assert b.counters["services.old"] == 1
    exchange(a, b, DAY)  # but with a state, whoever dialled
    assert b.services == {("a", "web"): b"80"}


def test_a_recorded_service_of_a_life_that_is_over_is_never_seen() -> None:
    a, b = pair()
    a.register("web", b"80", 0.0)
    raw = a.service_message("web")
    b.member_down("a", 1.0)
    b.member_up("a", boot("a", 1), 2.0)
    b.receive(raw, 3.0)
    assert not b.services


def test_a_withdrawn_service_that_a_recording_brings_back_is_withdrawn_again() -> None:
    net = Net(*"ab")
    net["a"].register("web", b"80", net.now)
    recorded = net["a"].local_state(False)
    net["a"].deregister("web", net.now)
    net.run(3.0)
    net.now = DAY + 60.0
    net.turn()
    net["b"].merge_state(recorded, False, net.now)
    assert net["b"].services == {("a", "web"): b"80"}
    exchange(net["b"], net["a"], net.now)  # the next push/pull
    net.run(3.0)
    assert not net["b"].services


# -- events -----------------------------------------------------------------------------


def recorded(one: Replica, count: int, now: float = 0.0) -> list[bytes]:
    """Publish events and return them as they are gossiped."""
    numbers = [one.publish("t", b"%d" % turn, now) for turn in range(count)]
    return [Event(Sender(one.name, one.boot), number, "t", b"%d" % (number - 1)).encode() for number in numbers]


def test_a_recorded_event_is_dropped_though_nobody_remembers_it() -> None:
    a, b = pair(limits=Limits(remembered=2))
    raws = recorded(a, 50)
    for raw in raws:
        b.receive(raw, 0.0)
    assert b.gauges["events.remembered"] == 2
    drain(b)
    for raw in raws:
        b.receive(raw, DAY)
    assert drain(b) == []
    assert b.counters["events.duplicate"] == 50


def test_a_recorded_event_is_dropped_when_its_sender_has_left_or_restarted() -> None:
    a, b = pair()
    raws = recorded(a, 3)
    for raw in raws:
        b.receive(raw, 0.0)
    drain(b)
    b.member_down("a", 1.0)
    b.receive(raws[0], 2.0)
    b.member_up("a", boot("a", 1), 3.0)
    for raw in raws:
        b.receive(raw, 4.0)
    assert drain(b) == []


def test_a_recorded_event_is_dropped_by_who_joined_later() -> None:
    a, b = pair()
    raws = recorded(a, 3)
    for raw in raws:
        b.receive(raw, 0.0)
    c = replica("c")
    c.receive(raws[1], 0.0)  # also in the middle of the join
    c.member_up("a", a.boot, 0.0)
    exchange(c, b)
    c.joined(0.0)
    for raw in raws:
        c.receive(raw, 1.0)
    assert drain(c) == []


def test_a_recorded_event_of_nobody_we_know_is_asked_for_and_not_handed_on() -> None:
    """Its sender is long gone, and we have started since: neither the first of its events nor a later one."""
    raws = recorded(replica("gone"), 5)
    b = replica("b")
    b.member_up("c", boot("c"), 0.0)
    b.joined(0.0)
    b.receive(raws[0], 0.0)
    b.receive(raws[4], 0.0)
    assert b.counters["events.unvouched"] == 2
    assert b.gauges["queue"] == 0
    now, asked = 0.0, 0
    while now < 200.0:
        now += 0.5
        b.handle_timer(now)
        for fetch in b.fetches_to_start():
            asked += 1
            header, _ = messages.decode_header(fetch.payload)
            assert isinstance(header, messages.Want)
            b.fetched(fetch.fetch_id, messages.pack(messages.Have(header.sender, 0), ()), now)
    assert 1 <= asked < 30
    assert drain(b) == []
    # Nor do two of us vouch for each other.
    want = messages.Want(Sender("gone", boot("gone")), ((1, 5),))
    answer = b.answer_fetch(messages.pack(want, ()), now)
    _, at = messages.decode_header(answer)
    assert list(messages.items(answer, at, 10)) == []


def test_an_event_that_comes_before_its_sender_is_known_is_fetched() -> None:
    a, b = pair()
    raws = recorded(a, 2)
    c = replica("c")
    c.member_up("b", b.boot, 0.0)
    c.joined(0.0)
    for raw in raws:
        b.receive(raw, 0.0)
        c.receive(raw, 0.0)
    assert drain(c) == []
    c.handle_timer(0.5)
    (fetch,) = c.fetches_to_start()
    c.fetched(fetch.fetch_id, b.answer_fetch(fetch.payload, 0.5), 0.5)
    found = drain(c)
    assert [event.number for event in of(found, EventReceived)] == [1, 2]
    assert not of(found, EventsMissed)


def test_with_a_recorded_alive_the_events_of_who_is_gone_count_as_a_members_once() -> None:
    """A limit, documented: for the seconds until it is found dead, somebody recorded is a member like any other."""
    raws = recorded(replica("gone"), 2)
    b = replica("b")
    b.joined(0.0)
    b.member_up("gone", boot("gone"), 0.0)
    for _ in range(2):
        for raw in raws:
            b.receive(raw, 0.0)
    assert [event.number for event in of(drain(b), EventReceived)] == [1, 2]
