"""Go's ``suspicion_test.go``, and the timers it stands for, in virtual time."""

from __future__ import annotations

import pytest

from mycorrizal._swim import Swim
from mycorrizal._swim.events import NodeLeft
from mycorrizal._swim.scaling import remaining_suspicion_ms
from mycorrizal._wire.messages import Suspect
from mycorrizal.types import NodeState
from tests._swim.harness import FAITHFUL, alive, drain, events, make, run_timers, state, tell

STEP = 0.025


def suspecting(nodes: int, *, mult: int, max_mult: int, originator: str = "me") -> Swim:
    """Return a machine that knows `nodes` nodes, itself included, and has suspected "bad" at time 0."""
    swim = make(
        suspicion_mult=mult, suspicion_max_timeout_mult=max_mult, probe_interval=0.1, **FAITHFUL, start=False,
    )  # fmt: skip
    swim._prober.start = lambda now: None  # type: ignore[method-assign]  # the interval counts, the probes would disturb
    swim.start(0.0)
    tell(swim, alive("bad"), *(alive(f"other{n}") for n in range(nodes - 2)))
    tell(swim, Suspect(1, "bad", originator))
    drain(swim)
    assert state(swim, "bad") == NodeState.SUSPECT
    return swim


def died(swim: Swim, until: float = 10.0) -> list[float]:
    """Return the times at which somebody was declared dead."""
    times = []
    while (due := swim.get_timer()) is not None and due <= until:
        swim.handle_timer(due)
        times += [due for event in events(swim) if isinstance(event, NodeLeft)]
    return times


@pytest.mark.parametrize(
    ("confirmations", "elapsed", "remaining"),
    [(0, 0, 30), (1, 2, 14), (2, 3, 4.810), (3, 4, -2), (4, 5, -3), (5, 10, -8)],
)
def test_Suspicion_remainingSuspicionTime(confirmations: int, elapsed: float, remaining: float) -> None:
    assert remaining_suspicion_ms(confirmations, 3, 2000, 30000) / 1000 - elapsed == pytest.approx(
        remaining, abs=0.0015
    )


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([], 2.0),
        (["me", "foo"], 1.25),
        (["me", "foo", "foo", "foo"], 1.25),
        (["me", "foo", "bar"], 0.81),
        (["me", "foo", "bar", "baz"], 0.5),
        (["me", "foo", "bar", "baz", "zoo"], 0.5),
    ],
    ids=["none", "one", "one repeated", "two", "three", "more than wanted"],
)
def test_Suspicion_Timer(sources: list[str], expected: float) -> None:
    swim = suspecting(5, mult=5, max_mult=4)
    for number, source in enumerate(sources, 1):
        tell(swim, Suspect(1, "bad", source), now=number * STEP)
    assert died(swim) == [pytest.approx(expected, abs=0.0015)], "at that time, and once"


def test_Suspicion_Timer_ZeroK() -> None:
    swim = suspecting(2, mult=5, max_mult=60)
    tell(swim, Suspect(1, "bad", "foo"), now=STEP)
    assert died(swim) == [pytest.approx(0.5)], "nobody is there to confirm: the shortest window at once"


def test_Suspicion_Timer_Immediate() -> None:
    swim = suspecting(3, mult=3, max_mult=30)  # 0.3 s to 9 s, one confirmation
    run_timers(swim, 0.4)
    assert state(swim, "bad") == NodeState.SUSPECT

    tell(swim, Suspect(1, "bad", "foo"), now=0.4)
    due = swim.get_timer()
    assert due is not None
    assert due <= 0.4, "the shorter window is over already"
    swim.handle_timer(0.4)
    assert state(swim, "bad") == NodeState.DEAD
    assert [type(event) for event in events(swim)] == [NodeLeft]
