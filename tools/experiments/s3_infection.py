"""S3, how an update infects a cluster on piggyback alone: a logistic curve.

SWIM (DSN 2002) §4.1 and Figure 3b. A member meets two others a period, the one
it pings and the one that pings it, so the informed follow
x(t) = n / (1 + (n-1) e^(-(2-1/n) t)), and after lambda ln(n) periods all but
n^(2-2 lambda) members know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mycorrizal._swim.events import Event, NodeUpdated
from mycorrizal.simulation.cluster import Cluster
from mycorrizal.simulation.members import Member

from .report import Band, Plot, Report, Series
from .s1_load import plain_swim

__all__ = ["Spread", "infection", "logistic"]

SIZES = (8, 16, 32, 56)
RUNS = 40
_STEP = 0.25  # periods between two points of a curve


class Spread:
    """Notes when each member learns of an update (a watcher)."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}

    def event(self, member: Member, event: Event, now: float) -> None:
        if isinstance(event, NodeUpdated) and event.node.name == "m0":
            self.times.setdefault(member.index, now)

    def changed(self, member: Member, now: float) -> None:
        return None


def logistic(size: int, periods: float) -> float:
    """Return the paper's number of informed members after `periods`."""
    return size / (1.0 + (size - 1) * math.exp(-(2.0 - 1.0 / size) * periods))


def infection(seed: object = 1, *, sizes: Sequence[int] = SIZES, runs: int = RUNS) -> Report:
    """Inject one update into quiet clusters and follow it."""
    report = Report(
        "s3",
        f"infection by piggyback, mean of {runs} updates a size",
        "SWIM (DSN 2002) §4.1, Fig. 3b",
        seed,
        ("members", "median, periods", "formula", "mean gap to curve", "untold after ln(n)", "after 2 ln(n)"),
    )
    series: list[Series] = []
    for size in sizes:
        spreads = [_spread(size, f"{seed}/{size}/{run}") for run in range(runs)]
        points = [step * _STEP for step in range(int(3 * math.log(size) / _STEP) + 1)]
        measured = [sum(_informed(times, point) for times in spreads) / runs for point in points]
        curve = [logistic(size, point) for point in points]
        gap = sum(abs(a - b) for a, b in zip(measured, curve, strict=True)) / len(points) / size
        median = sum(sorted(times)[len(times) // 2] for times in spreads) / runs
        expected = math.log(size - 1) / (2.0 - 1.0 / size)
        untold = [sum(size - _informed(times, lam * math.log(size)) for times in spreads) / runs for lam in (1, 2)]
        report.rows.append((size, median, expected, gap, *untold))
        report.bands.append(Band(f"median member, {size}", "1 to 3 periods (Fig. 3b)", median, 0.7, 3.0))
        report.bands.append(Band(f"median against formula, {size}", f"{expected:.2f}", median - expected, -0.5, 0.5))
        report.bands.append(Band(f"mean gap to the curve, {size}", "0", gap, 0.0, 0.08))
        report.bands.append(Band(f"untold after 2 ln(n), {size}", f"{size**-2:.4f}", untold[1], 0.0, 0.1))
        series.append(Series(f"n={size}", points, [value / size for value in measured]))
        series.append(Series(f"n={size}, logistic", points, [value / size for value in curve], True))
    report.plot = Plot("S3: infection by piggyback", "protocol periods", "share informed", series)
    return report


def _spread(size: int, seed: str) -> list[float]:
    """Return, for each member, the periods until it was informed (inf if never)."""
    # 8 x ceil(log10(n + 1)) sends are about the paper's 3 x ceil(ln(n + 1)).
    config = plain_swim(retransmit_mult=8)
    cluster = Cluster.converged(size, seed, metas={0: b"old"}, config=config, digest=False)
    spread = Spread()
    cluster.watchers.append(spread)
    interval = config.probe_interval
    cluster.run(2.5 * interval)
    began = cluster.clock.now
    cluster.update(cluster.members[0], b"new")
    cluster.run_while(lambda: len(spread.times) < size, 3 * math.log(size) * interval, step=interval)
    return [(spread.times.get(index, math.inf) - began) / interval for index in range(size)]


def _informed(times: Sequence[float], when: float) -> int:
    return sum(time <= when for time in times)
