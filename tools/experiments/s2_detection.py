"""S2, first detection of a crash: e/(e-1) = 1.58 periods, whatever the size.

SWIM (DSN 2002) §3.1 and Figure 3a. A crash is detected in the first period in
which any member picks the crashed one as its ping target. Every member picks
one target a period, so for n - 1 members with one in n - 1 each the mean is
1 / (1 - (1 - 1/(n-1))^(n-1)), which tends to e/(e-1). memberlist walks its
list round-robin, which for a handful of members makes it a little sooner;
``round_robin`` is the exact mean for that.

Periods are counted from the crash, as windows of one probe interval: each
member begins exactly one probe in each window, whatever its phase.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from mycorrizal.simulation.cluster import Cluster
from mycorrizal.simulation.members import Member
from mycorrizal.types import Address, NodeState

from .report import Band, Plot, Report, Series
from .s1_load import plain_swim

__all__ = ["first_detection", "round_robin"]

SIZES = (8, 16, 32, 64, 128, 256, 512)
SAMPLES = 1000
LIMIT = math.e / (math.e - 1)


def round_robin(size: int) -> float:
    """Return the mean number of periods until some member probes a given one, with shuffled round-robin lists."""
    others = size - 1
    mean, missed = 1.0, 1.0
    for periods in range(1, 2 * others):
        missed = _miss(others, periods) ** others
        mean += missed
    return mean


def _miss(targets: int, periods: int) -> float:
    """Return the chance that one walker, somewhere in its list, misses a target for `periods` steps."""
    total = 0.0
    for done in range(targets):
        rest = targets - done
        if periods <= rest:
            total += (targets - periods) / targets
        else:
            total += (done / targets) * max(0, targets - (periods - rest)) / targets
    return total / targets


def first_detection(seed: object = 1, *, sizes: Sequence[int] = SIZES, samples: int = SAMPLES) -> Report:
    """Crash members of quiet clusters and count periods until the first probe that fails."""
    report = Report(
        "s2",
        f"periods from a crash to its first detection, {samples} crashes a size",
        "SWIM (DSN 2002) Fig. 3a",
        seed,
        ("members", "mean", "exact for round-robin", "max", "2n-1", "suspected within, s"),
    )
    means: list[float] = []
    for size in sizes:
        counts = _first_probes(size, f"{seed}/{size}", samples)
        suspected = _suspected(size, f"{seed}/{size}/crash")
        mean, exact = sum(counts) / len(counts), round_robin(size)
        means.append(mean)
        report.rows.append((size, mean, exact, max(counts), 2 * size - 1, suspected))
        # Three standard errors of the mean beside the 5 % of the figure.
        error = 3 * _deviation(counts, mean) / math.sqrt(len(counts))
        low, high = exact * 0.95 - error, exact * 1.05 + error
        report.bands.append(Band(f"mean, {size} members", f"{exact:.3f} +- 5 %", mean, low, high))
        report.bands.append(Band(f"longest, {size} members", "at most 2n-1", max(counts), 1, 2 * size - 1))
    overall = sum(means) / len(means)
    report.bands.append(Band("mean over all sizes", "1.58 +- 5 %", overall, LIMIT * 0.95, LIMIT * 1.05))
    large = [(math.log2(size), mean) for size, mean in zip(sizes, means, strict=True) if size >= 32]
    slope = _slope([x for x, _ in large], [y for _, y in large])
    report.bands.append(Band("slope per doubling from 32 members on", "0", slope, -0.05, 0.05))
    report.plot = Plot(
        "S2: first detection of a crash",
        "members",
        "periods",
        [
            Series("measured mean", sizes, means),
            Series("exact for round-robin", sizes, [round_robin(size) for size in sizes], True),
            Series("e/(e-1)", sizes, [LIMIT] * len(sizes), True),
        ],
        log_x=True,
    )
    return report


class _FirstPing:
    """A tap that notes when the first datagram goes to one address."""

    def __init__(self) -> None:
        self.address: Address = ("", 0)
        self.when: float | None = None

    def __call__(self, sender: Member, data: bytes, address: Address, now: float) -> None:
        if self.when is None and address == self.address:
            self.when = now


def _first_probes(size: int, seed: str, samples: int) -> list[int]:
    """Measure many crashes in one cluster.

    Up to the first ping that meets it, a frozen member is as good as a crashed
    one. Then it is thawed and answers before the probe times out: nobody is
    suspected, and the next crash meets the same quiet cluster.
    """
    config = plain_swim()
    cluster = Cluster.converged(size, seed, config=config, digest=False)
    random = Random(f"{seed}/victims")
    first = _FirstPing()
    cluster.taps.append(first)
    interval = config.probe_interval
    cluster.run(3 * interval)
    counts: list[int] = []
    while len(counts) < samples:
        cluster.run(interval * (1.0 + random.random()))
        victim = cluster.members[random.randrange(size)]
        crashed = cluster.clock.now
        first.address, first.when = victim.address, None
        cluster.freeze(victim)
        if not cluster.run_while(lambda: first.when is None, 2 * size * interval, step=0.05 * interval):
            raise AssertionError(f"nobody probed {victim!r} for {2 * size} periods")
        cluster.resume(victim)
        assert first.when is not None
        counts.append(math.ceil((first.when - crashed) / interval))
    return counts


def _suspected(size: int, seed: str) -> float:
    """Crash one member for good; return the seconds until the first other one suspects it."""
    cluster = Cluster.converged(size, seed, config=plain_swim(), digest=False)
    cluster.run(6.0)
    victim = cluster.members[0]
    cluster.crash(victim, silent=True)
    crashed = cluster.clock.now

    def unnoticed() -> bool:
        return all(
            (node := member.sees(victim.name)) is not None and node.state == NodeState.ALIVE
            for member in cluster.members[1:]
        )

    if not cluster.run_while(unnoticed, 2 * size * cluster.config.probe_interval, step=0.25):
        raise AssertionError(f"nobody suspected {victim!r}")
    return cluster.clock.now - crashed


def _deviation(values: Sequence[float], mean: float) -> float:
    return math.sqrt(sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1))


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    if len(x) < 2:
        return 0.0
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
