"""Buckets: what falls where, and what is read while it is counted."""

from __future__ import annotations

import pytest

from mycorrizal._histogram import SECONDS, Histogram


def test_a_bound_includes_its_own() -> None:
    times = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 2.0, 2.5):
        times.observe(seconds)
    assert times.cumulated() == [2, 4, 5]
    assert times.total == pytest.approx(7.5)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("-inf"), float("nan")])
def test_what_is_no_duration_counts_as_none(seconds: float) -> None:
    times = Histogram()
    times.observe(seconds)
    assert times.cumulated()[0] == times.cumulated()[-1] == 1 and times.total == 0.0


def test_bounds_rise_and_are_few() -> None:
    assert list(SECONDS) == sorted(set(SECONDS)) and len(SECONDS) <= 20 and SECONDS[-1] == 10.0


def test_an_observation_that_is_half_done_shows_in_the_total_alone() -> None:
    times = Histogram()
    times.observe(0.1)
    times.total += 5.0  # as another thread may find it
    counts = times.cumulated()
    assert counts[-1] == max(counts) == 1


def test_what_other_threads_note_counts_once_the_owner_settles() -> None:
    times = Histogram((1.0, 2.0))
    times.observe(0.5)
    times.note(1.5)
    assert times.cumulated() == [1, 1, 1] and times.total == 0.5
    times.settle()
    times.settle()
    assert times.cumulated() == [1, 2, 2] and times.total == 2.0
    both = times.plus(times)
    assert both.cumulated() == [2, 4, 4] and both.total == 4.0 and times.total == 2.0
