"""Times as people read them."""

from __future__ import annotations

from mycorrizal._runtime.threads import clock


def test_times_are_told_in_two_units() -> None:
    seconds = (0.4, 4.9, 80, 3600, 3605, 90061, 172800)
    assert [clock.span(value) for value in seconds] == ["0 s", "4 s", "1 min 20 s", "1 h", "1 h", "1 d 1 h", "2 d"]


def test_a_moment_is_told_in_utc() -> None:
    assert clock.date(86399.9) == "1970-01-01 23:59 UTC"
