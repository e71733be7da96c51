"""Deadlines: order, cancelling, and that cancelled ones do not pile up."""

from __future__ import annotations

from mycorrizal._swim.timers import Timers
from mycorrizal._wire.messages import Suspect
from tests._swim.harness import alive, drain, make, tell


def test_equal_deadlines_fire_in_the_order_they_were_set() -> None:
    timers, said = Timers(), []
    for name in "abc":
        timers.call_at(1.0, lambda now, name=name: said.append(name))
    timers.call_at(0.5, lambda now: said.append("first"))
    assert timers.next_deadline() == 0.5
    timers.fire(1.0)
    assert said == ["first", "a", "b", "c"]
    assert timers.next_deadline() is None


def test_what_a_timer_adds_for_now_waits_for_the_next_call() -> None:
    timers, said = Timers(), []

    def again(now: float) -> None:
        said.append(now)
        timers.call_at(now, again)

    timers.call_at(1.0, again)
    timers.fire(1.0)
    assert said == [1.0]
    assert timers.next_deadline() == 1.0
    timers.fire(1.0)
    assert said == [1.0, 1.0]


def test_a_deadline_in_the_past_is_taken_for_now() -> None:
    timers = Timers()
    timers.now = 5.0
    assert timers.call_at(3.0, lambda now: None).deadline == 5.0


def test_cancelled_timers_do_not_fire_and_do_not_pile_up() -> None:
    timers, said = Timers(), []
    kept = [timers.call_at(50.0 + n, lambda now, n=n: said.append(n)) for n in range(10)]
    for n in range(100_000):
        timers.call_at(100.0 + n, lambda now: said.append(-1)).cancel()
    assert len(timers) < 3000
    kept[3].cancel()
    timers.fire(1e9)
    assert said == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert len(timers) == 0


def test_a_quarrel_about_a_node_leaves_no_timers_behind() -> None:
    swim = make()
    tell(swim, *(alive(f"peer{n}") for n in range(5)))
    for incarnation in range(1, 6000):
        tell(swim, Suspect(incarnation, "peer1", "x"), alive("peer1", incarnation=incarnation + 1))
        drain(swim)
    assert swim.gauges["timers"] < 3000
