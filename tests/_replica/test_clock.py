"""Stamps: always later, whatever the clocks do."""

from __future__ import annotations

import pytest

from mycorrizal import LocalProtocolError
from mycorrizal._replica.clock import COUNTER_MAX, WALL_MAX, HybridClock, Stamp


def test_a_stamp_is_the_wall_clock_and_who_wrote() -> None:
    clock = HybridClock("a", b"bootboot", 1000.0)
    assert clock.tick(5.0) == Stamp(1_005_000, 0, "a", b"bootboot")


def test_stamps_rise_within_a_millisecond_and_when_the_clock_is_set_back() -> None:
    clock = HybridClock("a", b"bootboot", 1000.0)
    stamps = [clock.tick(5.0), clock.tick(5.0)]
    clock.offset = 0.0
    stamps += [clock.tick(6.0), clock.tick(7.0)]
    assert stamps == sorted(stamps)
    assert len({stamp[:2] for stamp in stamps}) == 4
    clock.offset = 2000.0
    assert clock.tick(7.0)[:2] == (2_007_000, 0)


def test_after_a_clock_that_is_an_hour_ahead_our_own_next_write_wins() -> None:
    ahead, behind = HybridClock("z", b"bootboot", 4600.0), HybridClock("a", b"bootboot", 1000.0)
    theirs = ahead.tick(0.0)
    assert behind.tick(0.0) < theirs
    behind.witness(theirs)
    assert behind.tick(0.0) > theirs
    assert behind.tick(1.0) > theirs


def test_an_older_stamp_changes_nothing() -> None:
    clock = HybridClock("a", b"bootboot", 1000.0)
    clock.witness(Stamp(5, 7, "b", b"bootboot"))
    assert clock.tick(0.0)[:2] == (1_000_000, 0)


def test_a_used_up_millisecond_gives_way_to_the_next_and_a_used_up_calendar_is_an_error() -> None:
    clock = HybridClock("a", b"bootboot", 0.0)
    clock.witness(Stamp(10**12, COUNTER_MAX - 1, "b", b"bootboot"))
    assert clock.tick(0.0)[:2] == (10**12 + 1, 0)
    clock.witness(Stamp(WALL_MAX - 1, COUNTER_MAX - 1, "b", b"bootboot"))
    with pytest.raises(LocalProtocolError, match="2500"):
        clock.tick(0.0)


def test_a_clock_before_1970_or_beyond_the_calendar_stays_within_it() -> None:
    assert HybridClock("a", b"bootboot", -50.0).tick(0.0).wall == 0
    assert HybridClock("a", b"bootboot", 1e15).tick(0.0).wall == WALL_MAX - 1
