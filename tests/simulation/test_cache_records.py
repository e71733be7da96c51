"""The judge of ``tools/chaos cache``: each rule lets a good record pass, and catches a fault planted in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mycorrizal.simulation.checkers import CheckFailed
from simulated.cache_records import (
    Book,
    check_final,
    check_history,
    check_holders,
    check_refused,
    staleness,
)
from simulated.linearizable import FOREVER, Event


def fail(checker: str, text: str) -> CheckFailed:
    return CheckFailed(checker, 0.0, text)


class Pen:
    """Writes events of one key, each a second after the one before."""

    def __init__(self, key: bytes = b"0.1.0/0") -> None:
        self.key = key
        self.now = 0.0
        self.events: list[Event] = []

    def __call__(self, kind: str, argument: Any = None, answer: Any = True, *, known: bool = True) -> Pen:
        self.now += 1.0
        ended = self.now + 0.5 if known else FOREVER
        self.events.append(Event(0, self.key, kind, argument, self.now, ended, answer if known else None))
        return self


def line(**fields: Any) -> str:
    return json.dumps(fields)


def test_records_are_read_even_if_a_kill_came_in_the_middle() -> None:
    begin = {"cache": "c", "key": "k", "arg": 1}
    lines = [
        line(begin=1, kind="set", t=1.0, **begin), line(begin=2, kind="get", t=1.5, **begin),
        line(end=1, answer=None, t=2.0), line(end=2, error="CacheUnavailable", sure=True, t=2.5),
        line(begin=3, kind="delete", t=3.0, **begin), line(end=3, error="CacheOutcomeUnknown", sure=False, t=4.0),
        line(view=[["n0", "aa"]], t=5.0), line(begin=4, kind="cas", t=6.0, cache="c", key="k", arg=[1, 2]), '{"end":4,',
    ]  # fmt: skip
    book = Book.read({"3.1": lines})
    assert book.events["c"] == [
        Event(3, b"k", "set", 1, 1.0, 2.0, True), Event(3, b"k", "delete", 1, 3.0, FOREVER),
        Event(3, b"k", "cas", (1, 2), 6.0, FOREVER),
    ]  # fmt: skip
    assert [event.kind for event in book.refused["c"]] == ["get"]
    assert book.views == {"3.1": [(5.0, [["n0", "aa"]])]}
    assert book.errors == {"CacheUnavailable": 1, "CacheOutcomeUnknown": 1}


def test_lost_write_and_returned_delete_are_no_history() -> None:
    good = Pen()("set", 1)("get", answer=1)("delete", 2)("get", answer=None).events
    assert check_history(good, fail) == (1, 0)
    for bad in (Pen()("set", 1)("get", answer=None), Pen()("set", 1)("delete", 2)("get", answer=1)):
        with pytest.raises(CheckFailed, match="linearizable"):
            check_history(bad.events, fail)


def test_keys_in_use_while_nothing_is_promised_are_left_out() -> None:
    bad = Pen()("set", 1)("get", answer=None).events
    assert check_history(bad, fail, without=[(0.0, 0.5), (2.2, 3.0)]) == (0, 0)
    with pytest.raises(CheckFailed):
        check_history(bad, fail, without=[(3.0, 4.0)])


def test_staleness_is_the_time_since_the_overwriting_write_was_acknowledged() -> None:
    pen = Pen()("set", 1)("set", 2)("get", answer=2)("get", answer=1)("delete", 3)("get", answer=2)("get", answer=None)
    found = staleness(pen.events, fail)
    assert found.reads == 4 and found.late == [0.5, 1.5] and found.worst == 1.5
    assert found.share(0.0) == 0.5
    assert staleness(pen.events, fail, without=[(3.9, 6.1)]).reads == 2
    assert staleness(Pen(b"shared/1/1")("get", answer=1).events, fail).reads == 0


def test_write_that_may_have_happened_later_is_not_called_stale() -> None:
    pen = Pen()("set", 1)("set", 2, known=False)("set", 3)("get", answer=2)
    found = staleness(pen.events, fail)
    assert found.late == [] and found.undecided == 1


def test_value_from_nowhere_is_noticed() -> None:
    with pytest.raises(CheckFailed, match="phantom"):
        staleness(Pen()("set", 1)("get", answer=7).events, fail)


def test_end_is_the_last_write_or_one_that_may_have_happened() -> None:
    written = Pen()("set", 1)("set", 2)("set", 3, known=False).events
    name = "0.1.0/0"
    for value in (2, 3):
        assert check_final(written, [{name: value}] * 2, fail) == 1
    with pytest.raises(CheckFailed, match="final"):
        check_final(written, [{name: 1}], fail)
    with pytest.raises(CheckFailed, match="final"):
        check_final(written, [{}], fail)
    with pytest.raises(CheckFailed, match="converged"):
        check_final(written, [{name: 2}, {name: 3}], fail)
    deleted = Pen()("set", 1)("delete", 2).events
    check_final(deleted, [{}], fail)
    with pytest.raises(CheckFailed, match="final"):
        check_final(deleted, [{name: 1}], fail)
    check_final(Pen()("set", 1, known=False).events, [{}], fail)


def test_end_of_keys_that_all_write() -> None:
    shared = Pen(b"shared/1/1")("set", "a")("cas", ("a", "b"))("add", "c", answer=False).events
    for value in ("a", "b", None):
        check_final(shared, [{"shared/1/1": value}], fail)
    with pytest.raises(CheckFailed, match="final"):
        check_final(shared, [{"shared/1/1": "c"}], fail)
    check_final(shared, [{"shared/1/1": "c"}], fail, without=[(0.0, 9.0)])  # an earlier try, on the other side
    counted = Pen(b"nshared/1/1")("incr", 1, 1)("incr", 1, known=False).events
    check_final(counted, [{"nshared/1/1": 2}], fail)
    check_final(counted, [{}], fail, without=[(0.0, 2.0)])
    with pytest.raises(CheckFailed, match="final"):
        check_final(counted, [{}], fail)
    with pytest.raises(CheckFailed, match="final"):
        check_final(counted, [{"nshared/1/1": 3}], fail)


def test_copies_are_as_many_as_they_should_be_and_equal() -> None:
    assert check_holders([{"a": 1}, {"a": 1, "b": 2}, {"b": 2}], 2, fail) == 2
    for bad in ([{"a": 1}, {}, {}], [{"a": 1}, {"a": 1}, {"a": 1}], [{"a": 1}, {"a": 2}, {}]):
        with pytest.raises(CheckFailed, match="copies"):
            check_holders(bad, 2, fail)


def test_smaller_side_acknowledges_nothing_once_it_has_noticed() -> None:
    three, one = [["n0", ""], ["n1", ""], ["n2", ""]], [["n0", ""]]
    views = {"0.1": [(0.0, one), (1.0, three), (5.0, one), (9.0, three)], "1.1": [(1.0, three)]}
    there = Event(1, b"k", "set", 1, 6.0, 7.0, True)
    refused = Event(0, b"k", "set", 1, 6.0, 7.0)
    book = Book({"q": [there]}, {"q": [refused]}, views, {})
    assert check_refused(book, "q", {0}, 3, fail) == (1, 1)
    with pytest.raises(CheckFailed, match="not every node"):
        check_refused(book, "q", {0, 1}, 3, fail)
    for began, wrong in ((6.0, True), (4.0, False)):
        book.events["q"] = [Event(0, b"k", "set", 1, began, began + 1, True)]
        if wrong:
            with pytest.raises(CheckFailed, match="acknowledged on the smaller side"):
                check_refused(book, "q", {0}, 3, fail)
        else:
            check_refused(book, "q", {0}, 3, fail)
