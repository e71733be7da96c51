"""The clock of versions: above everything made or seen, whatever the wall clock does."""

from __future__ import annotations

from mycorrizal._cache.versions import AHEAD_MAX, VERSION_MAX, VersionClock


def clock(name: str = "a", wall: float = 1.8e9) -> VersionClock:
    return VersionClock(name, b"12345678", wall=wall, now=100.0)


def test_versions_rise_also_within_one_instant() -> None:
    mine = clock()
    made = [mine.tick(100.0) for _ in range(1000)]
    assert made == sorted(set(made)) and made[-1] <= VERSION_MAX


def test_versions_follow_the_wall_clock() -> None:
    assert clock(wall=1.8e9 + 1).tick(100.0) > clock(wall=1.8e9).tick(100.9)


def test_versions_do_not_fall_when_the_wall_clock_does() -> None:
    mine = clock()
    before = mine.tick(100.0)
    mine.set_wall(1.8e9 - 3600, 101.0)
    assert mine.tick(101.0) > before


def test_next_version_is_above_what_was_seen() -> None:
    slow, fast = clock("slow", 1.8e9 - 3600), clock("fast")
    seen = fast.tick(100.0)
    assert slow.observe(seen, 100.0)
    assert slow.tick(100.0) > seen


def test_two_nodes_make_different_versions() -> None:
    assert clock("a").tick(100.0) != clock("b").tick(100.0)


def test_version_far_ahead_is_refused() -> None:
    mine = clock()
    before = mine.peek()
    ahead = clock("b", 1.8e9 + AHEAD_MAX + 10).tick(100.0)
    assert not mine.observe(ahead, 100.0)
    assert not mine.observe(VERSION_MAX, 100.0)
    assert mine.peek() == before
    assert mine.observe(clock("b", 1.8e9 + AHEAD_MAX - 10).tick(100.0), 100.0)


def test_version_fits_a_small_integer() -> None:
    assert clock(wall=2.5e9).tick(100.0) < 1 << 60


def test_many_versions_at_once_are_those_of_one_after_the_other() -> None:
    one, other = (VersionClock("n", b"12345678", wall=1.8e9, now=0.0) for _ in range(2))
    for count, now in ((3, 1.0), (600, 1.0), (2, 1.001), (0, 2.0), (5, 9.0)):
        assert one.ticks(count, now) == [other.tick(now) for _ in range(count)]
        assert count == 0 or one.peek() == other.peek()
