"""Questions under way: each ends once, by its answer or by its time, and only so many at a time."""

from __future__ import annotations

from mycorrizal._replica.fetches import Fetches


class Ends:
    """How fetches ended."""

    def __init__(self) -> None:
        self.all: list[tuple[bytes | None, float]] = []

    def __call__(self, data: bytes | None, now: float) -> None:
        self.all.append((data, now))


def test_a_whole_state_has_its_own_time() -> None:
    fetches, ends, whole = Fetches(16, 30.0, 120.0), Ends(), Ends()
    fetches.start("b", b"want", 1.0, ends)
    fetches.start("b", b"state", 1.0, whole, whole=True)
    assert fetches.due() == 31.0
    fetches.expire(31.0)
    assert (ends.all, whole.all) == ([(None, 31.0)], [])
    assert fetches.due() == 121.0
    fetches.expire(121.0)
    assert whole.all == [(None, 121.0)]
    assert fetches.due() is None


def test_what_expired_before_the_owner_took_it_is_not_asked() -> None:
    fetches, ends = Fetches(16, 30.0, 120.0), Ends()
    fetches.start("b", b"old", 0.0, ends)
    fetches.start("c", b"new", 10.0, ends)
    fetches.expire(30.0)
    assert [fetch.member for fetch in fetches.waiting] == ["c"]


def test_a_fetch_ends_once() -> None:
    fetches, ends = Fetches(1, 30.0, 120.0), Ends()
    number = fetches.start("b", b"", 0.0, ends)
    assert fetches.full
    fetches.ended(number, b"answer", 1.0)
    fetches.ended(number, b"again", 2.0)
    fetches.expire(99.0)
    assert ends.all == [(b"answer", 1.0)]
    assert not fetches.full and len(fetches) == 0
