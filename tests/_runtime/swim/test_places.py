"""Who gets a place, who gives way, and what all may hold together; without a clock."""

from __future__ import annotations

import pytest

from mycorrizal._runtime.net.addresses import source_of
from mycorrizal._runtime.swim import places as rules
from mycorrizal._runtime.swim.places import (
    ADDRESS_BUSY_MAX,
    ADDRESS_PLACES_MAX,
    BUSY_SECONDS,
    BYTES_MAX,
    GRACE_SECONDS,
    PATIENCE_SECONDS,
    PLACES_MAX,
    SHARE_BYTES,
    Place,
    Places,
    Tally,
)


def sit(places: Places[Place], source: str, now: float) -> Place:
    """Let one from `source` in, in the place of whoever gives way."""
    entry = places.admit(source, now, now)
    assert entry.enters
    if entry.victim is not None:
        places.remove(entry.victim)
    place = Place(source=source, since=now, until=now + 1)
    places.add(place)
    return place


def full(source: str = "a", now: float = 0.0) -> tuple[Places[Place], list[Place]]:
    places: Places[Place] = Places()
    return places, [sit(places, source, now) for _ in range(ADDRESS_PLACES_MAX)]


def test_an_address_has_a_quarter_and_others_the_rest() -> None:
    assert ADDRESS_PLACES_MAX * 4 == PLACES_MAX
    places, mine = full()
    now = GRACE_SECONDS
    assert places.admit("a", now, now).victim is mine[0]
    for source in "bcd":
        for _ in range(ADDRESS_PLACES_MAX):
            sit(places, source, now)
    assert len(places) == PLACES_MAX
    newcomer = places.admit("e", now, now)
    assert newcomer.enters
    assert newcomer.victim is mine[0]
    assert len({place.source for place in places.all()}) == 4


def test_the_eldest_of_the_silent_goes_before_the_slowest_of_those_that_speak() -> None:
    places, mine = full()
    now = 10.0
    for place in mine[:-2]:
        place.moved = 1000
    assert places.admit("a", now, now).victim is mine[-2]
    mine[-2].moved = 1000
    assert places.admit("a", now, now).victim is mine[-1]
    mine[-1].moved, mine[7].moved = 2000, 10  # ten bytes in ten seconds: a trickle
    assert places.admit("a", now, now).victim is mine[7]
    assert places.slowest(now) is mine[7]
    for place in mine:
        place.busy = True
    assert places.slowest(now) is None


def test_nobody_gives_way_at_once_but_a_newcomer_waits_no_longer_than_that() -> None:
    places, mine = full(now=5.0)
    entry = places.admit("a", 5.1, 5.1)
    assert not entry.enters
    assert entry.again == 5.0 + GRACE_SECONDS
    assert places.admit("b", 5.1, 5.1).enters  # the door is for one; who comes from elsewhere has a place
    assert places.admit("a", entry.again, 5.1).victim is mine[0]
    assert places.refusing(entry.again)


def test_patience_is_used_up_and_comes_back() -> None:
    places, _ = full()
    now, waits = 0.0, 0
    while (entry := places.admit("a", now, now)).again is not None:
        came, now = now, entry.again
        victim = places.admit("a", now, came).victim
        assert victim is not None
        places.remove(victim)
        for place in places.all():
            place.since = now  # everybody is new again, as in a flood
        places.add(Place(source="a", since=now, until=now + 1))
        waits += 1
    assert 0 <= waits - PATIENCE_SECONDS / GRACE_SECONDS <= 1  # a little comes back meanwhile
    assert entry.victim is not None  # without grace
    now += 100.0
    for place in places.all():
        place.since = now
    assert places.admit("a", now, now).again == now + GRACE_SECONDS


def test_a_burst_that_has_spoken_does_not_count_against_the_quarter_up_to_a_half() -> None:
    places: Places[Place] = Places()
    for _ in range(ADDRESS_BUSY_MAX):
        sit(places, "a", 0.0).busy = True
    late = places.admit("a", 0.0, 0.0)
    assert (late.enters, late.again) == (False, BUSY_SECONDS)
    assert places.admit("b", 0.0, 0.0).enters
    refused = places.admit("a", BUSY_SECONDS, 0.0)
    assert (refused.enters, refused.again) == (False, None)
    places.remove(places.all()[0])
    assert places.admit("a", 0.1, 0.0).enters


def test_of_those_that_hold_more_than_their_share_the_slowest_is_ended_when_it_is_too_much() -> None:
    places: Places[Place] = Places()
    small, slow, fast = (sit(places, "a", 0.0) for _ in range(3))
    tenth = BYTES_MAX // 10
    for place, moved, held in ((small, 1, 1), (slow, 9 * tenth, tenth), (fast, BYTES_MAX, BYTES_MAX)):
        place.moved = moved
        places.hold(place, held)
    fresh = sit(places, "b", 1.0)
    places.hold(fresh, 2 * BYTES_MAX)
    assert places.excess(1.0) is slow
    places.remove(slow)
    assert places.excess(1.0) is fast
    places.remove(fast)
    assert places.excess(1.0) is fresh


def test_what_those_hold_that_we_dialled_comes_out_of_the_same_budget() -> None:
    dialled = Tally()
    places: Places[Place] = Places(dialled)
    assert dialled.change(0, BYTES_MAX)
    assert dialled.change(0, SHARE_BYTES)
    assert not dialled.change(SHARE_BYTES, SHARE_BYTES + 1)
    place = sit(places, "a", 0.0)
    places.hold(place, SHARE_BYTES)
    assert places.excess(0.0) is None
    places.hold(place, SHARE_BYTES + 1)
    assert places.excess(0.0) is place


def test_if_all_have_just_begun_who_holds_most_is_ended_but_nobody_with_its_share() -> None:
    places: Places[Place] = Places()
    large, larger = sit(places, "a", 0.0), sit(places, "b", 0.0)
    small = [sit(places, "c", 0.0) for _ in range(3)]
    places.hold(large, BYTES_MAX // 2 - SHARE_BYTES)
    places.hold(larger, BYTES_MAX // 2 + SHARE_BYTES)
    assert places.held == BYTES_MAX
    assert places.excess(0.0) is None
    places.hold(small[0], SHARE_BYTES)
    assert places.excess(0.0) is larger
    assert places.refusing(0.0)
    larger.busy = True
    assert places.excess(0.0) is large
    places.remove(large)
    assert places.held == BYTES_MAX // 2 + 2 * SHARE_BYTES
    places.hold(larger, 2 * BYTES_MAX)
    assert places.excess(0.0) is None  # it is being decoded, and the others hold no more than their share


def test_time_runs_for_all_but_those_that_a_thread_is_at_work_for() -> None:
    places, mine = full()
    assert places.get_timer() == 1.0
    assert places.expired(0.9) == []
    mine[0].busy = True
    mine[1].begin(0.5, 7.0)
    assert places.expired(1.0) == mine[2:]
    for place in mine[2:]:
        places.remove(place)
    assert places.get_timer() == 7.5
    assert mine[1] in places
    assert mine[2] not in places


def test_that_somebody_was_turned_away_is_told_for_a_while() -> None:
    places: Places[Place] = Places()
    assert not places.refusing(0.0)
    places.refused(3.0)
    assert places.refusing(3.0 + rules.REFUSING_SECONDS - 0.1)
    assert not places.refusing(3.0 + rules.REFUSING_SECONDS)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1:2:3:4", "2001:db8::2:2:3:4", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
    ],
)
def test_an_ipv6_subscriber_is_one_source(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


def test_what_is_held_for_a_place_is_counted_once_and_given_back() -> None:
    places, mine = full()
    for size in (10, 25, 4):
        places.hold(mine[0], size)
        places.hold(mine[1], 1)
        assert places.held == size + 1 == sum(place.held for place in places.all())
    places.remove(mine[0])
    assert places.held == 1
