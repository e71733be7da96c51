"""The replica as a whole: settings and services by gossip and by state, bounds, and what a peer cannot do."""

from __future__ import annotations

from random import Random

import cbor2
import pytest

from mycorrizal import ConfigError, LocalProtocolError, QueueFull, ValueTooLarge
from mycorrizal._replica import messages
from mycorrizal._replica.clock import Stamp
from mycorrizal._replica.limits import Limits
from mycorrizal._replica.machine import Replica
from mycorrizal._replica.outputs import (
    DeletionChanged,
    MessageRejected,
    ServiceChanged,
    Setting,
    SettingChanged,
    SyncDone,
)
from mycorrizal._replica.schedule import SyncSchedule
from mycorrizal._swim.broadcasts import TransmitLimitedQueue

from .harness import WALL, Net, boot, drain, exchange, of, replica


def test_a_setting_reaches_all_by_gossip_and_is_told_once_to_each() -> None:
    net = Net(*"abcdef")
    net["a"].set_setting("key", b"value", net.now)
    net.run(3.0)
    for name, one in net.replicas.items():
        assert one.settings == {"key": Setting(b"value", "a")}
        changes = of(net.said[name], SettingChanged)
        assert [(c.key, c.value, c.writer) for c in changes] == [("key", b"value", "a")]


def test_a_deleted_setting_is_gone_everywhere_and_an_older_write_does_not_bring_it_back() -> None:
    net = Net(*"abc")
    net["a"].set_setting("key", b"value", net.now)
    net.run(3.0)
    late = messages.Setting("key", b"late", Stamp(int(WALL * 1000), 0, "z", boot("z"))).encode()
    net["b"].set_setting("key", None, net.now)
    net.run(3.0)
    assert all(not one.settings for one in net.replicas.values())
    net["c"].receive(late, net.now)
    net.run(3.0)
    assert all(not one.settings for one in net.replicas.values())


def test_a_large_setting_is_pushed_and_what_is_lost_comes_with_the_state() -> None:
    net = Net(*"abc")
    net.lose = lambda what, source, target: target == "c"
    net["a"].set_setting("key", b"x" * 5000, net.now)
    net.run(2.0)
    assert net["b"].settings["key"].value == b"x" * 5000
    assert not net["c"].settings
    exchange(net["b"], net["c"], net.now)
    assert net["c"].settings == net["a"].settings


def test_a_clock_an_hour_ahead_freezes_nothing() -> None:
    a, b = replica("a", wall=WALL + 3600.0), replica("b")
    a.set_setting("key", b"ahead", 0.0)
    exchange(a, b)
    b.set_setting("key", b"behind", 0.0)
    exchange(a, b)
    assert a.settings == b.settings == {"key": Setting(b"behind", "b")}
    a.set_wall(WALL - 3600.0)
    a.set_setting("key", b"again", 0.0)
    exchange(a, b)
    assert b.settings["key"].value == b"again"


def test_own_writes_have_limits() -> None:
    one = replica(limits=Limits(settings=2, setting_bytes=1000, value=600))
    with pytest.raises(ValueTooLarge, match="601"):
        one.set_setting("key", b"x" * 601, 0.0)
    with pytest.raises(ConfigError):
        one.set_setting("", b"", 0.0)
    one.set_setting("a", b"x" * 600, 0.0)
    with pytest.raises(QueueFull):
        one.set_setting("b", b"x" * 600, 0.0)
    one.set_setting("b", b"", 0.0)
    with pytest.raises(QueueFull):
        one.set_setting("c", b"", 0.0)
    one.set_setting("b", None, 0.0)
    one.set_setting("c", b"", 0.0)
    assert sorted(one.settings) == ["a", "c"]


def test_others_writes_are_taken_a_little_beyond_the_limit_and_then_counted() -> None:
    limits = Limits(settings=4)
    one, others = replica(limits=limits), [replica(name, limits=limits) for name in "bc"]
    for other in others:
        for number in range(4):
            other.set_setting(f"{other.name}{number}", b"", 0.0)
        exchange(one, other)
    assert len(one.settings) == 5
    assert one.counters["settings.refused"] == 3


def test_the_queue_is_bounded_for_own_and_for_others() -> None:
    one, other = replica(limits=Limits(queue=8, gossip_backlog=8, batch_bytes=0, pushes=2)), replica("b")
    one.member_up("b", boot("b"), 0.0)
    one.joined(0.0)
    for number in range(20):
        other.set_setting(f"key{number}", b"", 0.0)
    exchange(one, other)
    assert len(one.settings) == 20
    assert one.gauges["queue"] == 6
    one.set_setting("a", b"", 0.0)
    one.set_setting("b", b"", 0.0)
    assert one.gauges["queue"] == 8
    for key in ("c", "d"):  # gossip has enough to do: these are pushed
        one.set_setting(key, b"", 0.0)
    with pytest.raises(QueueFull, match="waiting"):
        one.set_setting("e", b"", 0.0)
    assert "e" not in one.settings
    assert [push.targets for push in one.pushes_to_send()] == [("b",), ("b",)]
    one.set_setting("e", b"", 0.0)


def test_who_has_nobody_to_tell_queues_nothing() -> None:
    one = replica()
    for number in range(5_000):
        one.publish("t", b"", float(number))
    assert one.gauges["queue"] == 0
    assert one.pushes_to_send() == []


def test_what_was_pushed_is_not_passed_on() -> None:
    one, other = replica(), replica("b")
    one.member_up("b", boot("b"), 0.0)
    one.joined(0.0)
    for number, pushed in ((1, True), (2, False)):
        event = messages.Event(messages.Sender("b", other.boot), number, "t", b"")
        one.receive(event.encode(), 0.0, pushed=pushed)
        assert one.gauges["queue"] == number - 1


def test_equal_states_are_not_decoded() -> None:
    a, b = replica("a"), replica("b")
    a.set_setting("key", b"value", 0.0)
    exchange(a, b)
    exchange(a, b)
    assert a.counters.get("states.same", 0) == 1
    _, at = messages.decode_header(a.local_state(False))
    garbage = a.local_state(False)[:at] + b"\xff" * 9
    b.merge_state(garbage, False, 0.0)
    assert b.counters["states.same"] == 2
    assert "rejected" not in b.counters


def test_tombstones_are_forgotten_for_good_though_nodes_keep_telling_each_other() -> None:
    a, b = replica("a"), replica("b")
    a.set_setting("key", b"", 0.0)
    a.set_setting("key", None, 0.0)
    now = 0.0
    while now < 3 * 86_400.0:
        now += 300.0
        for one in (a, b):
            one.handle_timer(now)
        if now > 80_000.0:  # b learns of it late
            exchange(b, a, now)
    assert a.gauges["settings.tombstones"] == b.gauges["settings.tombstones"] == 0


def test_a_tombstone_that_has_almost_run_out_still_deletes_what_is_there() -> None:
    a, b = replica("a"), replica("b")
    a.set_setting("key", b"", 0.0)
    exchange(a, b)
    a.set_setting("key", None, 1.0)
    for now in range(0, 85_000, 10):
        a.handle_timer(float(now))
    exchange(a, b, 85_000.0)
    assert not b.settings


def test_settings_survive_in_a_file_with_their_stamps() -> None:
    a = replica("a")
    a.set_setting("kept", b"value", 0.0)
    a.set_setting("gone", b"value", 0.0)
    a.set_setting("gone", None, 0.0)
    b = replica("a", life=1)
    b.restore(a.settings_entries(), 0.0)
    assert b.settings == a.settings
    assert drain(b) == []
    assert [kept.data for kept in b.settings_entries()] == [kept.data for kept in a.settings_entries()]
    b.restore([(b"garbage", 0.0), (messages.Service("x", b"", Stamp(1, 1, "b", boot("b"))).encode(), 0.0)], 0.0)
    assert b.counters["rejected"] == 2


def test_deletions_of_what_was_not_there_are_told_for_the_file_and_so_is_when_they_are_forgotten() -> None:
    a, b = replica("a", limits=Limits(tombstones=2)), replica("b")
    a.set_setting("key", b"", 0.0)
    a.set_setting("key", None, 0.0)
    assert [type(event) for event in drain(a)] == [SettingChanged, SettingChanged]
    exchange(a, b)
    assert drain(b) == [DeletionChanged("key")]
    assert list(b.kept(["key", "other"])) == ["key"]
    for key in ("one", "two"):
        a.set_setting(key, None, 1.0)
    assert drain(a) == [DeletionChanged("one"), DeletionChanged("key"), DeletionChanged("two")]
    assert a.counters["settings.tombstones_forgotten"] == 1
    a.handle_timer(90_000.0)
    assert drain(a) == [DeletionChanged("one"), DeletionChanged("two")]
    assert a.kept(["one"]) == {}


# -- services -------------------------------------------------------------------------


def services(one: object) -> list[tuple[str, str, str]]:
    return [(c.kind, c.node, c.service_id) for c in of(drain(one), ServiceChanged)]  # type: ignore[arg-type]


def test_a_service_is_seen_as_long_as_its_node_is() -> None:
    net = Net(*"abc")
    net["a"].register("web", b"80", net.now)
    net.run(3.0)
    assert all(one.services == {("a", "web"): b"80"} for one in net.replicas.values())
    net["a"].register("web", b"81", net.now)
    net.run(3.0)
    assert net["c"].services == {("a", "web"): b"81"}
    net["b"].member_down("a", net.now)
    assert net["b"].services == {}
    net["b"].member_up("a", boot("a"), net.now + 60.0)
    assert net["b"].services == {("a", "web"): b"81"}
    net["a"].deregister("web", net.now)
    net["a"].deregister("never", net.now)
    net.run(3.0)
    assert all(one.services == {} for one in net.replicas.values())
    kinds = [(c.kind, c.record) for c in of(net.said["c"], ServiceChanged)]
    assert kinds == [("added", b"80"), ("updated", b"81"), ("removed", b"81")]


def test_a_restart_drops_the_services_of_the_life_before() -> None:
    a, b = replica("a"), replica("b")
    a.register("old", b"", 0.0)
    a.register("same", b"1", 0.0)
    b.member_up("a", a.boot, 0.0)
    exchange(a, b)
    again = replica("a", life=1)
    again.register("same", b"2", 1.0)
    exchange(again, b)
    assert b.services == {("a", "old"): b"", ("a", "same"): b"1"}  # its new boot id is not known yet
    drain(b)
    b.member_up("a", again.boot, 1.0)
    assert services(b) == [("removed", "a", "old"), ("removed", "a", "same"), ("added", "a", "same")]
    assert b.services == {("a", "same"): b"2"}
    assert b.gauges["services"] == 1


def test_services_come_before_their_node_and_wait_for_it() -> None:
    a, b = replica("a"), replica("b")
    a.register("web", b"", 0.0)
    exchange(a, b)
    assert b.services == {}
    b.member_up("a", a.boot, 0.0)
    assert b.services == {("a", "web"): b""}


def test_orphans_are_forgotten_for_good_though_nodes_keep_telling_each_other() -> None:
    a, b, c = replica("a"), replica("b"), replica("c")
    a.register("web", b"", 0.0)
    b.member_up("a", a.boot, 0.0)
    exchange(a, b)
    b.member_down("a", 0.0)
    now = 0.0
    while now < 3000.0:
        now += 10.0
        b.handle_timer(now)
        c.handle_timer(now)
        if now > 200.0:
            exchange(b, c, now)
    assert b.gauges["services"] == c.gauges["services"] == 0
    assert b.gauges["services.orphans"] == c.gauges["services.orphans"] == 0
    exchange(a, b, now)
    b.member_up("a", a.boot, now)
    assert b.services == {("a", "web"): b""}


def test_the_owner_contradicts_what_others_say_of_it() -> None:
    net = Net(*"ab")
    net["a"].register("web", b"80", net.now)
    forged = [
        messages.Service("ghost", b"boo", Stamp(int(WALL) * 1000 - 5, 0, "a", boot("a"))),
        messages.Service("web", None, Stamp(2 * int(WALL) * 1000, 0, "a", boot("a"))),
    ]
    for one in forged:
        net["b"].receive(one.encode(), net.now)
    net.run(3.0)
    assert net["a"].services == net["b"].services == {("a", "web"): b"80"}
    assert net["a"].counters["services.contradicted"] == 2


def test_services_have_limits() -> None:
    one = replica(limits=Limits(services_per_node=2, record=100))
    with pytest.raises(ValueTooLarge):
        one.register("a", b"x" * 101, 0.0)
    one.register("a", b"", 0.0)
    one.register("b", b"", 0.0)
    with pytest.raises(QueueFull):
        one.register("c", b"", 0.0)
    for number in range(20):
        one.deregister("b", 0.0)
        one.register("b", b"%d" % number, 0.0)
    for number in range(20):  # ids that come and go
        one.deregister("b" if not number else f"n{number - 1}", 0.0)
        one.register(f"n{number}", b"", 0.0)
    assert sorted(one.services) == [("a", "a"), ("a", "n19")]
    assert one.gauges["services"] == 2
    assert len(list(messages.items(one.local_state(False), messages.decode_header(one.local_state(False))[1], 99))) <= 4


def test_one_node_cannot_take_the_room_of_the_others() -> None:
    limits = Limits(services_per_node=3)
    one, greedy, modest = replica("a", limits=limits), replica("b"), replica("c")
    for number in range(10):
        greedy.register(f"s{number}", b"", 0.0)
    modest.register("s", b"", 0.0)
    for other in (greedy, modest):
        one.member_up(other.name, other.boot, 0.0)
        exchange(one, other)
    assert len([node for node, _ in one.services if node == "b"]) == 3
    assert ("c", "s") in one.services
    assert one.counters["services.refused"] == 7


def test_those_who_are_gone_make_room_for_those_who_are_there() -> None:
    limits = Limits(services=4, slack=1.0)
    one, gone, there = replica("a", limits=limits), replica("b"), replica("c")
    for number in range(4):
        gone.register(f"s{number}", b"", 0.0)
        there.register(f"s{number}", b"", 0.0)
    exchange(one, gone)
    assert one.gauges["services"] == 4
    exchange(one, replica("d"))
    one.member_up("c", there.boot, 0.0)
    exchange(one, there)
    assert len(one.services) == 4
    assert one.counters["services.orphans_forgotten"] == 1
    exchange(one, gone)
    assert len(one.services) == 4
    assert one.counters["services.refused"] == 4
    with pytest.raises(QueueFull):
        one.register("own", b"", 0.0)


def test_a_refused_entry_of_a_state_spoils_no_other() -> None:
    one, other = replica("a"), replica("b")
    other.set_setting("key", b"value", 0.0)
    header, at = messages.decode_header(other.local_state(False))
    good = [raw for raw, _ in messages.items(other.local_state(False), at, 9)]
    later = cbor2.dumps([99, "something new"])
    event = messages.Event(messages.Sender("b", boot("b")), 1, "t", b"").encode()
    one.merge_state(messages.pack(header, [(raw, 0.0) for raw in (later, event, *good)]), False, 0.0)
    assert one.settings == other.settings
    assert one.counters["states.items_refused"] == 2
    assert len(of(drain(one), MessageRejected)) == 1
    assert not one.history(None, 9)


def test_a_service_that_was_deregistered_is_forgotten_after_a_day() -> None:
    a, b = replica("a"), replica("b")
    a.register("web", b"", 0.0)
    a.register("api", b"", 0.0)
    b.member_up("a", a.boot, 0.0)
    exchange(a, b)
    a.deregister("web", 0.0)
    exchange(a, b)
    for now in range(0, 90_000, 10):
        a.handle_timer(float(now))
    old = a.local_state(False)
    assert len(list(messages.items(old, messages.decode_header(old)[1], 9))) == 1
    c = replica("c")
    c.member_up("a", a.boot, 90_000.0)
    exchange(b, c, 90_000.0)  # b was not woken, and still knows it
    assert list(c.services) == [("a", "api")]
    b.handle_timer(90_000.0)
    state = b.local_state(False)
    assert len(list(messages.items(state, messages.decode_header(state)[1], 9))) == 1


def test_what_is_larger_than_allowed_is_refused_from_others_too() -> None:
    one = replica(limits=Limits(value=10, record=10))
    stamp = Stamp(5, 0, "b", boot("b"))
    for message in (messages.Setting("key", bytes(11), stamp), messages.Service("web", bytes(11), stamp)):
        one.receive(message.encode(), 0.0)
    assert one.counters["rejected"] == 2
    assert one.gauges["settings"] == one.gauges["services"] == 0


# -- states by fetch -------------------------------------------------------------------


def test_sync_brings_both_to_the_same_and_says_when() -> None:
    net = Net("a", "b", gossip=False)
    net.lose = lambda what, source, target: True
    net["a"].set_setting("of a", b"1", 0.0)
    net["b"].set_setting("of b", b"2", 0.0)
    net.carry("a", net["a"])
    net.carry("b", net["b"])
    net.lose = lambda what, source, target: False
    ids = [net["a"].sync("b", 0.0), net["a"].sync("b", 0.0)]
    net.carry("a", net["a"])
    assert net["a"].settings == net["b"].settings
    assert len(net["a"].settings) == 2
    assert of(net.said["a"], SyncDone) == [SyncDone(ids[0]), SyncDone(ids[1])]
    failed = net["a"].sync("nobody", 0.0)
    net.carry("a", net["a"])
    (done,) = [d for d in of(net.said["a"], SyncDone) if d.error]
    assert done.sync_id == failed


def test_without_gossip_everything_goes_by_push_and_heals_by_itself() -> None:
    net = Net(*"abc", gossip=False)
    net["a"].set_setting("key", b"1", net.now)
    net["a"].register("web", b"", net.now)
    net["a"].publish("t", b"1", net.now)
    net.run(1.0)
    assert net["b"].settings == net["c"].settings == {"key": Setting(b"1", "a")}
    assert net["b"].services == {("a", "web"): b""}
    assert net.events("c") == [1]
    assert net["a"].get_broadcasts(0, 1400) == []
    net.lose = lambda what, source, target: True
    net["b"].set_setting("key", b"2", net.now)
    net["b"].publish("t", b"2", net.now)
    net.run(1.0)
    net.lose = lambda what, source, target: False
    net.run(90.0)
    assert all(one.settings == {"key": Setting(b"2", "b")} for one in net.replicas.values())
    assert net.events("c", "b") == [1]
    assert net.missed("c") == 0


def test_whoever_learns_by_a_state_compares_soon_but_not_without_end() -> None:
    random = Random(1)
    schedule = SyncSchedule(30.0, random, 0.0, on=True)
    assert schedule.at is not None
    early, now = 0, 0.0
    while now < 300.0:
        now += 0.1
        schedule.hasten(now)
        if schedule.at <= now:
            early += 1
            schedule.done(now)
    assert 50 <= early <= 70  # five an interval, and those of the interval itself
    off = SyncSchedule(30.0, random, 0.0, on=False)
    off.hasten(1.0)
    off.done(1.0)
    assert off.at is None


def test_who_came_back_is_compared_with_first_and_soon_however_many_early_ones_there_were() -> None:
    schedule = SyncSchedule(30.0, Random(1), 0.0, on=True)
    for _ in range(20):  # as many early ones as there may be
        schedule.hasten(0.0)
        schedule.done(0.0)
    schedule.hasten(1.0)
    assert schedule.at is not None and schedule.at > 20.0
    schedule.hasten(1.0, "back")
    schedule.hasten(1.0, "gone again")
    assert schedule.at <= 6.0
    peers = [f"p{index}" for index in range(50)] + ["back"]
    assert schedule.peer(peers) == "back"
    assert len({schedule.peer(peers) for _ in range(20)}) > 10, "then anybody"
    schedule.done(6.0)
    assert schedule.at > 20.0
    schedule.ended(False, 7.0)
    assert schedule.at > 20.0
    schedule.ended(True, 7.0)  # it got no answer
    assert schedule.at == 12.0



# -- what cannot go wrong ------------------------------------------------------------------


def test_misuse_is_an_error() -> None:
    with pytest.raises(LocalProtocolError, match="8 bytes"):
        Replica("a", b"short", rng=Random(1), queue=TransmitLimitedQueue(4, lambda: 1), wall=0.0, now=0.0)
    one = replica(limits=Limits(fetches=1))
    one.sync("b", 0.0)
    with pytest.raises(QueueFull):
        one.sync("b", 0.0)


def test_a_fetch_that_nobody_reports_on_fails_by_itself() -> None:
    one = replica()
    one.sync("b", 0.0)
    assert one.get_timer() is not None
    one.handle_timer(120.0)
    (done,) = of(drain(one), SyncDone)
    assert done.error
    one.fetched(1, b"", 121.0)
    one.fetch_failed(99, 121.0)
    assert drain(one) == []
    assert one.gauges["fetches"] == 0


def test_garbage_is_a_count_and_an_event() -> None:
    one = replica()
    one.receive(b"\xff", 0.0)
    one.merge_state(b"\x00\x00\x00\x09", False, 0.0)
    assert one.answer_fetch(b"", 0.0) == b""
    one.sync("b", 0.0)
    one.fetched(1, b"garbage", 0.0)
    found = drain(one)
    assert len(of(found, MessageRejected)) == 4
    assert of(found, SyncDone)[0].error
    assert one.counters["rejected"] == 4


@pytest.mark.parametrize(
    ("old", "learnt", "told"),
    [(60.0, True, True), (5_000.0, True, False), (82_000.0, True, False), (83_000.0, False, False)],
)
def test_deletions_of_long_ago_do_not_go_round(old: float, learnt: bool, told: bool) -> None:
    """What others forget within the hour is not learnt, else it would never be forgotten; only news is passed on."""
    a, b = replica("a"), replica("b")
    b.joined(0.0)
    b.member_up("a", boot("a"), 0.0)
    a.set_setting("key", b"", 0.0)
    a.set_setting("key", None, 0.0)
    a.register("api", b"", 0.0)
    a.deregister("api", 0.0)
    drain(b)
    a.handle_timer(old)
    exchange(b, a, old)
    assert [change.key for change in of(drain(b), DeletionChanged)] == ["key"] * learnt
    assert b.gauges["settings.tombstones"] == learnt
    assert b.counters.get("settings.old_tombstones", 0) == (not learnt)
    assert any(b"key" in part for part in b.get_broadcasts(2, 1400)) is told
    c = replica("c")
    exchange(c, b, old)
    assert c.gauges["settings.tombstones"] == learnt


# -- what is refused leaves nothing behind, and what is no news makes no work -----------------------


def crammed() -> Replica:
    """Return a replica with a peer and no room for a message to it."""
    one = replica(gossip=False, limits=Limits(pushes=0))
    one.member_up("b", boot("b"), 0.0)
    one.joined(0.0)
    return one


def test_what_finds_no_room_is_not_done_here_either() -> None:
    one = crammed()
    with pytest.raises(QueueFull):
        one.set_setting("key", b"value", 0.0)
    with pytest.raises(QueueFull):
        one.register("web", b"80", 0.0)
    with pytest.raises(QueueFull):
        one.publish("topic", b"value", 0.0)
    assert (dict(one.settings), dict(one.services), drain(one)) == ({}, {}, [])
    assert one.history(None, 9) == []
    one.deregister("web", 0.0)  # nothing was registered, so there is nothing to say
    one.member_down("b", 0.0)
    assert one.publish("topic", b"value", 0.0) == 1


def test_a_broken_push_does_not_keep_what_a_state_brings_from_being_passed_on() -> None:
    one, other = replica(), replica("b")
    one.member_up("b", boot("b"), 0.0)
    one.joined(0.0)
    other.set_setting("key", b"value", 0.0)
    one.receive(b"garbage", 0.0, pushed=True)
    exchange(one, other)
    assert one.gauges["queue"] == 1


def test_who_asks_with_the_same_state_is_not_sent_it() -> None:
    one, other = replica(), replica("b")
    other.set_setting("key", bytes(1000), 0.0)
    assert len(other.answer_fetch(one.local_state(False), 0.0)) > 1000
    exchange(one, other)
    answer = other.answer_fetch(one.local_state(False), 0.0)
    assert len(answer) < 200
    assert other.counters["states.same"] == 1


def test_a_node_is_not_its_own_peer() -> None:
    one = replica(gossip=False)
    one.member_up("a", one.boot, 0.0)
    one.set_setting("key", b"value", 0.0)
    assert one.pushes_to_send() == []


def test_a_file_from_the_future_makes_no_tombstone_younger() -> None:
    one, other = replica(limits=Limits(tombstone_seconds=10_000.0)), replica("b")
    other.set_setting("key", None, 0.0)
    (kept,) = other.settings_entries()
    one.restore([(kept.data, -50_000.0)], 0.0)
    assert one.gauges["settings.tombstones"] == 1
    one.handle_timer(10_000.0)
    assert one.gauges["settings.tombstones"] == 0


def test_an_old_deletion_is_taken_and_not_gossiped_as_if_it_were_new() -> None:
    one, other = replica(), replica("b")
    one.member_up("b", boot("b"), 0.0)
    one.joined(0.0)
    for number, (now, gossiped) in enumerate(((1000.0, 1), (6000.0, 0))):  # when it comes, it is so old
        key = f"key{number}"
        other.set_setting(key, b"", now)
        exchange(one, other, now)
        other.set_setting(key, None, now)
        one.get_broadcasts(2, 100_000)
        one._spread._queue.reset()  # type: ignore[union-attr]
        content = [(entry.data, now) for entry in other.kept([key]).values()]
        state = messages.pack(messages.State(bytes(16), ()), content)
        one.merge_state(state, False, now)
        assert key not in one.settings
        assert one.gauges["queue"] == gossiped


def test_services_of_who_is_long_gone_are_taken_and_not_gossiped() -> None:
    for age, gossiped in ((30.0, 1), (90.0, 0)):
        one, gone = replica(), replica("x")
        one.member_up("b", boot("b"), 0.0)
        one.joined(0.0)
        gone.register("web", b"80", 0.0)
        state = messages.pack(messages.State(b"x" * 16, ()), [(gone.service_message("web"), age)])
        one.merge_state(state, False, 0.0)
        assert (one.gauges["services"], one.gauges["queue"]) == (1, gossiped)


def test_a_state_that_holds_no_news_makes_nobody_hurry() -> None:
    one, other = (replica(name, gossip=False) for name in "ab")
    one.set_setting("key", b"value", 0.0)
    filed = one._schedule.at
    one.merge_state(other.local_state(False), False, 0.0)
    assert one._schedule.at == filed
    other.merge_state(one.local_state(False), False, 0.0)
    assert other._schedule.at is not None and other._schedule.at < 2.0


def test_after_a_comparison_that_failed_the_next_is_soon() -> None:
    one = replica(gossip=False)
    one.member_up("b", boot("b"), 0.0)
    one._schedule.done(0.0)
    one.sync("b", 0.0)
    (fetch,) = one.fetches_to_start()
    one.fetch_failed(fetch.fetch_id, 1.0)
    assert one._schedule.at == 6.0
    assert one.counters["syncs_failed"] == 1


def test_each_time_a_number_is_told_it_is_passed_on_once() -> None:
    one = replica()
    one.member_up("x", boot("x"), 0.0)
    one.joined(0.0)
    x = messages.Sender("x", boot("x"))
    passed = []
    for number, place in ((3, 1), (3, 1), (3, 2), (3, 1), (4, 1)):
        one.receive(messages.Highest(x, number, place).encode(), 0.0)
        passed.append(one.gauges["queue"])
        one._spread._queue.reset()  # type: ignore[union-attr]
    assert passed == [1, 0, 1, 0, 1]
