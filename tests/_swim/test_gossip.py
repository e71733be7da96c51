"""Rounds: on their grid, to the right nodes, and none when there is nothing to say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from mycorrizal import BaseDelegate
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.messages import Dead
from tests._swim.harness import alive, drain, host_for, make, run_timers, sent, tell


def ticks(swim: Swim, until: float) -> list[float]:
    """Fire every timer until then; return when something was sent."""
    times = []
    while (due := swim.get_timer()) is not None and due <= until:
        swim.handle_timer(due)
        if swim.datagrams_to_send():
            times.append(due)
    return times


def test_rounds_stand_on_one_grid_with_pauses_between() -> None:
    swim = make(gossip_interval=0.2)
    tell(swim, alive("peer"))
    first = ticks(swim, 10.0)
    assert swim.get_timer() is None, "nothing to say, nothing to do"
    tell(swim, alive("peer", incarnation=2), now=20.05)
    second = ticks(swim, 30.0)
    assert first
    assert second
    for at in (*first, *second):
        steps = (at - first[0]) / 0.2
        assert abs(steps - round(steps)) < 1e-6
    assert 20.05 < second[0] <= 20.25 + 1e-9


@pytest.mark.parametrize("start", [1e6, 1e9, 123456789.123])
@pytest.mark.parametrize("interval", [0.1, 0.2, 1 / 3])
def test_rounding_never_makes_a_round_due_at_once(start: float, interval: float) -> None:
    swim = make(start=False, gossip_interval=interval, push_pull_interval=0, probe_interval=0)
    swim.start(start)
    tell(swim, *(alive(f"peer{n}") for n in range(20)), now=start)
    last, rounds = start, 0
    while (due := swim.get_timer()) is not None and due < start + 30:
        assert due > last or rounds == 0
        last = due
        swim.handle_timer(due)
        rounds += 1
    assert rounds <= 30 / interval + 2


def test_the_lately_dead_hear_it_too_and_the_left_do_not() -> None:
    swim = make(gossip_to_the_dead_time=30.0)
    tell(swim, alive("dead"), alive("left"), Dead(1, "dead", "x"), Dead(1, "left", "left"))
    drain(swim)
    swim._gossiper.round(30.0)
    assert {to[0] for _, to in sent(swim)} == {host_for("dead")}
    swim._gossiper.round(30.1)
    assert sent(swim) == []


class Teller(BaseDelegate):
    """Tells whether it has something to gossip."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def waiting(self) -> bool:
        return bool(self.messages)

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        taken, self.messages = self.messages, []
        return taken


def test_a_delegate_that_can_tell_is_asked_only_when_it_has_something() -> None:
    delegate = Teller()
    swim = make(delegates={"delegate": delegate}, gossip_interval=0.2, push_pull_interval=0, probe_interval=0)
    tell(swim, alive("peer"))
    ticks(swim, 10.0)
    assert swim.get_timer() is None, "nothing to say, nothing to do"
    delegate.messages.append(b"news")
    swim.broadcasts_waiting(20.05)
    due = swim.get_timer()
    assert due is not None and 20.05 < due <= 20.25 + 1e-9
    assert ticks(swim, 30.0) == [due]
    assert swim.get_timer() is None
    silent = make(delegates={"delegate": BaseDelegate()}, gossip_interval=0.2, push_pull_interval=0, probe_interval=0)
    tell(silent, alive("peer"))
    ticks(silent, 10.0)
    assert silent.get_timer() is not None, "one that cannot is asked every time"


@pytest.mark.parametrize("off", [{"gossip_interval": 0}, {"gossip_interval": 0.2, "gossip_nodes": 0}])
def test_switched_off(off: dict[str, Any]) -> None:
    swim = make(**off)
    tell(swim, alive("peer"))
    drain(swim)
    run_timers(swim, 100.0)
    assert sent(swim) == []
