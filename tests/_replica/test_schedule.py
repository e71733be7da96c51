"""When whole states are compared: at intervals, early a few times, and with whom came back first."""

from __future__ import annotations

from random import Random

from mycorrizal._replica.schedule import _BACK_MAX, _BACK_SECONDS, _EARLY, SyncSchedule


def schedule(interval: float = 30.0) -> SyncSchedule:
    return SyncSchedule(interval, Random(1), 0.0, on=True)


def early(one: SyncSchedule, now: float) -> int:
    """Return how many early comparisons there are if something is learnt all the time."""
    found = 0
    for _ in range(10 * _EARLY):
        one.done(now)
        filed = one.at
        one.hasten(now)
        found += one.at != filed
    return found


def test_early_ones_are_a_few_in_an_interval_however_long_it_was_quiet() -> None:
    one = schedule()
    assert early(one, 0.0) == _EARLY
    assert early(one, 0.0) == 0
    assert early(one, 30.0) == _EARLY
    assert early(one, 3600.0) == _EARLY


def test_who_came_is_compared_with_first_and_each_once() -> None:
    one, names = schedule(), [f"n{n}" for n in range(2 * _BACK_MAX)]
    for name in names:
        one.hasten(0.0, name)
    first = [one.peer(names) for _ in range(_BACK_MAX)]
    assert sorted(first) == sorted(names[:_BACK_MAX]), "as many as are remembered, and no more"


def test_who_came_and_went_is_not_waited_for() -> None:
    one = schedule()
    one.hasten(0.0, "gone")
    assert one.peer(["other"]) == "other"
    assert one.peer(["gone", "gone"]) == "gone"


def test_after_a_failure_the_next_is_soon_and_never_later_than_it_was() -> None:
    one = schedule()
    one.done(0.0)
    filed = one.at
    one.ended(False, 1.0)
    assert one.at == filed
    one.ended(True, 1.0)
    assert one.at == 1.0 + _BACK_SECONDS
    one.ended(True, 2.0)
    assert one.at == 1.0 + _BACK_SECONDS


def test_where_it_is_off_nothing_switches_it_on() -> None:
    one = SyncSchedule(30.0, Random(1), 0.0, on=False)
    one.hasten(0.0, "came")
    one.ended(True, 0.0)
    one.done(0.0)
    assert one.at is None
