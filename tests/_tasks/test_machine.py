"""The rules by which tasks go to workers, one by one."""

from __future__ import annotations

import itertools

import pytest

from mycorrizal._tasks.machine import Fate, NoWorker, Tasks

from .field import Field

SILENT = 3.0  # after so long without an answer nobody doubts it


def field_of(*names: str, slots: int = 2, **settings: object) -> Field:
    field = Field(Tasks(**settings))  # type: ignore[arg-type]
    field.join(*names, slots=slots)
    return field


# -- who gets what -------------------------------------------------------------------------------


def test_a_worker_gets_as_many_as_it_says_and_the_next_one_when_it_has_answered() -> None:
    field = field_of("bob")
    assert field.add(1, 2, 3, 4) == [(1, "bob"), (2, "bob")]
    assert field.machine.waiting == 2 and field.machine.under_way == 2
    field.now += 1
    assert field.end(2) == [(3, "bob")]
    assert field.ended[2].outcome == "ANSWERED at bob" and field.ended[2].worker == "bob"


def test_nobody_gets_a_task_before_it_has_said_what_it_can_take() -> None:
    field = Field()
    field.join("bob", slots=None)
    assert field.add(1) == []
    assert field.tell("bob", 1) == [(1, "bob")]


def test_the_least_busy_for_its_size_is_next() -> None:
    field = Field()
    field.join("big", slots=8)
    field.join("small", slots=2)
    sent = field.add(1, 2, 3, 4, 5, 6)
    assert [worker for _, worker in sent] == ["big", "small", "big", "big", "big", "small"]


def test_of_two_that_are_as_busy_the_one_that_waits_longer_is_next() -> None:
    field = field_of("bob", "cyd", slots=1)
    for task in range(4):
        ((_, worker),) = field.add(task)
        field.now += 1
        field.end(task)
        assert worker == ("bob", "cyd")[task % 2]


def test_who_joins_takes_part() -> None:
    field = field_of("bob", slots=1)
    field.add(1, 2)
    assert field.join("cyd", slots=1) == [(2, "cyd")]


def test_short_tasks_are_sent_ahead_and_long_ones_not() -> None:
    field = field_of("bob", slots=2)
    numbers = itertools.count()
    field.add(*(next(numbers) for _ in range(40)))
    for seconds, ahead in ((0.04, 1), (0.001, 15), (2.0, 0), (0.0, 15)):
        for _ in range(60):
            field.add(next(numbers))
            field.now += seconds / 2
            field.end(field.at("bob")[0])
        assert len(field.at("bob")) == 2 * (1 + ahead), seconds


# -- what was not looked at ----------------------------------------------------------------------


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("fate", [Fate.BUSY, Fate.AWAY, Fate.UNREACHED])
def test_what_nobody_has_looked_at_goes_elsewhere_first_of_all(fate: Fate, idempotent: bool) -> None:
    field = field_of("bob", idempotent=idempotent)
    field.add(1, 2, 3, 4)
    field.join("cyd", slots=None)
    assert field.end(1, fate) == []  # a moment's rest for bob
    assert field.tell("cyd", 2) == [(1, "cyd"), (3, "cyd")]
    assert field.ended == {} and field.machine.counters["tasks.again"] == 1


def test_who_is_busy_gets_less_and_more_again() -> None:
    field = field_of("bob", slots=8)
    field.add(*range(100))
    field.end(0, Fate.BUSY)
    assert len(field.at("bob")) == 7
    most = 0
    for _ in range(60):
        field.now += 2.0
        field.end(field.at("bob")[0])
        most = max(most, len(field.at("bob")))
        if len(field.history) < 12:
            assert len(field.at("bob")) <= 7
    assert most == 8


def test_who_is_busy_again_and_again_is_left_alone_for_longer() -> None:
    field = field_of("bob", slots=1)
    field.add(1)
    tries = []
    for _ in range(8):
        began = field.now
        field.end(1, Fate.BUSY)
        for _ in range(50):
            if not field.at("bob"):
                field.wait(0.1)
        tries.append(round(field.now - began, 1))
    assert tries == sorted(tries) and tries[0] <= 0.2 and 1.9 <= tries[-1] <= 2.2


def test_who_has_no_such_handler_is_asked_again() -> None:
    field = field_of("bob", slots=0)
    assert field.add(1) == [] and "bob" not in field.asked
    field.wait(1.0)
    assert field.tell("bob", 1) == [(1, "bob")]
    field.end(1, Fate.AWAY)
    assert field.wait(0.1) == [] and not field.asked
    field.wait(3.0)
    assert field.tell("bob", 1) == [(1, "bob")]


def test_who_does_not_answer_the_question_is_asked_again() -> None:
    field = Field()
    field.join("bob", slots=None)
    field.add(1)
    field.tell("bob", None)
    field.wait(3.0)
    assert field.tell("bob", 1) == [(1, "bob")]


# -- what is lost --------------------------------------------------------------------------------


def test_a_task_whose_worker_died_goes_to_another_one() -> None:
    field = field_of("bob", "cyd", slots=1)
    field.add(1, 2, 3)
    assert field.at("bob") == [1] and field.at("cyd") == [2]
    field.leave("bob")
    assert field.end(1, Fate.LOST) == []
    field.now += 1
    assert field.end(2) == [(1, "cyd")]
    assert field.ended.keys() == {2}


def test_what_may_not_run_twice_fails_when_its_worker_died() -> None:
    field = field_of("bob", "cyd", idempotent=False)
    field.add(1)
    field.end(1, Fate.LOST)
    assert field.ended[1].outcome == "LOST at bob" and field.ended[1].died == ("bob",)
    assert len(field.history) == 1


def test_a_task_under_which_every_worker_dies_is_given_up() -> None:
    field = field_of("a", "b", "c", slots=1, retries=2)
    field.add(1)
    for name in "abc":
        assert field.at(name) == [1]
        field.end(1, Fate.LOST)
    assert field.ended[1].died == ("a", "b", "c") and field.ended[1].outcome == "LOST at c"


def test_a_task_that_takes_too_long_fails() -> None:
    field = field_of("bob")
    field.add(1)
    field.end(1, Fate.LATE)
    assert field.ended[1].outcome == "LATE at bob" and field.ended[1].died == ()


def test_a_new_life_of_a_worker_is_another_worker() -> None:
    field = field_of("bob", slots=1)
    field.add(1, 2)
    assert field.join("bob", boot=b"2", slots=1) == [(2, "bob")]
    field.now += 1
    assert field.end(2) == [(1, "bob")]  # what the life before has is not waited for: nothing else waits
    before, after = sorted(field.out)
    field.machine.ended(before, Fate.LOST, "before", field.now)
    assert field.pull() == [] and field.ended.keys() == {2}
    field.machine.ended(after, Fate.ANSWERED, "after", field.now)
    field.pull()
    assert field.ended[1].outcome == "after"


# -- who is silent -------------------------------------------------------------------------------


def test_what_a_silent_worker_has_goes_to_others_once_nothing_else_waits() -> None:
    field = field_of("bob", "cyd", slots=1)
    field.add(1, 2, 3)
    assert field.at("bob") == [1]
    for _ in range(4):  # cyd answers what it is asked
        field.wait(1.0)
        if "cyd" in field.asked:
            field.tell("cyd", 1)
    assert field.machine.workers["bob"].silent
    assert field.end(2) == [(3, "cyd")]
    assert field.end(3) == [(1, "cyd")]
    assert field.machine.counters["tasks.spare"] == 1


def test_the_first_answer_counts_and_the_other_attempt_is_withdrawn() -> None:
    for first in ("bob", "cyd"):
        field = field_of("bob", slots=1)
        field.add(1)
        field.wait(SILENT)
        assert field.join("cyd", slots=1) == [(1, "cyd")]
        field.end(1, worker=first)
        assert field.ended[1].worker == first
        assert [send.worker for send in field.withdrawn] == [{"bob": "cyd", "cyd": "bob"}[first]]
        assert field.machine.under_way == field.machine.waiting == 0 and not field.out


def test_a_silent_worker_gets_nothing_until_it_is_heard() -> None:
    field = field_of("bob", slots=2)
    field.add(1)
    field.wait(SILENT)
    assert field.add(2) == []
    assert field.tell("bob", 2) == [(2, "bob")]


def test_who_is_heard_in_time_keeps_what_it_has() -> None:
    field = field_of("bob", slots=1)
    field.add(1)
    field.wait(SILENT)
    field.tell("bob", 1)
    assert field.join("cyd", slots=1) == []
    for _ in range(20):  # a long task, at a worker that answers
        field.wait(0.5)
        if "bob" in field.asked:
            field.tell("bob", 1)
    assert field.machine.counters["tasks.spare"] == 0


def test_what_may_not_run_twice_is_left_to_its_silent_worker() -> None:
    field = field_of("bob", idempotent=False)
    field.add(1)
    field.wait(60.0)
    assert field.join("cyd") == []
    field.end(1)
    assert field.ended[1].worker == "bob"


def test_a_task_that_is_late_at_a_silent_worker_goes_to_another_one() -> None:
    field = field_of("bob", slots=1)
    field.add(1)
    field.wait(SILENT)
    assert field.end(1, Fate.LATE) == []
    assert field.join("cyd") == [(1, "cyd")]


def test_a_death_at_one_of_two_workers_leaves_the_task_to_the_other() -> None:
    field = field_of("bob", slots=1)
    field.add(1)
    field.wait(SILENT)
    field.join("cyd", "dan", slots=1)
    assert field.end(1, Fate.LOST, "bob") == [] and field.ended == {}
    field.end(1)
    assert field.ended[1].worker == "cyd"


def test_no_third_worker_gets_what_one_that_is_heard_has() -> None:
    field = field_of("bob", slots=1)
    field.add(1)
    field.wait(SILENT)
    assert field.join("cyd", slots=1) == [(1, "cyd")]
    field.tell("bob", 1)
    field.join("dan", slots=1)
    for _ in range(4):  # cyd answers what it is asked, bob does not any more
        assert field.wait(1.0) == []
        if "cyd" in field.asked:
            field.tell("cyd", 1)
    assert field.machine.workers["bob"].silent and field.at("dan") == []


def test_who_slept_itself_knows_nothing_of_the_others() -> None:
    field = field_of("bob", slots=1)
    field.add(1)
    field.wait(1.2)
    assert "bob" in field.asked
    field.now += 60
    field.machine.handle_timer(field.now)
    assert not field.machine.workers["bob"].silent
    field.wait(SILENT)
    assert field.machine.workers["bob"].silent


# -- waiting, ending -----------------------------------------------------------------------------


def test_tasks_wait_for_ever_for_a_worker() -> None:
    field = Field()
    field.add(1)
    assert field.wait(3600.0) == []
    assert field.join("bob") == [(1, "bob")]


def test_patience_ends() -> None:
    field = Field(Tasks(patience=5.0))
    field.add(1, 2)
    field.wait(4.0)
    field.join("bob", slots=0)
    field.wait(0.5)
    assert field.ended == {}
    field.wait(1.0)
    assert field.ended.keys() == {1, 2} and field.ended[1].outcome == NoWorker(5.0)


def test_patience_begins_anew_with_each_worker() -> None:
    field = Field(Tasks(patience=5.0))
    field.add(1, 2)
    field.wait(4.0)
    assert field.join("bob", slots=1) == [(1, "bob")]
    field.wait(10.0)
    assert field.ended == {}  # bob has the handler
    field.leave("bob")
    field.wait(4.0)
    assert field.ended == {}
    field.wait(2.0)
    assert field.ended.keys() == {2}  # the other one is under way


def test_what_is_cancelled_is_withdrawn_and_makes_room() -> None:
    field = field_of("bob", slots=1)
    field.add(1, 2, 3)
    field.machine.cancel(2, field.now)
    field.machine.cancel(1, field.now)
    assert field.pull() == [(3, "bob")]
    assert [send.task for send in field.withdrawn] == [1] and field.ended == {}
    field.machine.cancel(1, field.now)
    field.machine.cancel(99, field.now)
    assert field.pull() == []


def test_nothing_is_to_be_done_at_rest() -> None:
    field = field_of("bob")
    assert field.machine.get_timer() is None
    field.add(1)
    assert field.machine.get_timer() is not None
    field.end(1)
    assert field.machine.get_timer() is None


def test_the_end_of_what_was_withdrawn_says_nothing() -> None:
    field = field_of("bob")
    field.add(1)
    (attempt,) = field.out
    field.machine.cancel(1, field.now)
    field.pull()
    field.machine.ended(attempt, Fate.ANSWERED, "late", field.now)
    field.machine.told(12345, "bob", 9, field.now)
    field.machine.told(12345, "nobody", 9, field.now)
    assert field.pull() == [] and field.ended == {} and field.machine.workers["bob"].slots == 2


def test_who_owes_an_answer_and_goes_on_working_is_not_silent() -> None:
    field = field_of("bob", slots=1)
    field.add(*range(9))
    for _ in range(8):  # each of a second; the question got lost
        field.wait(1.0)
        field.end(field.at("bob")[0])
        assert not field.machine.workers["bob"].silent
