"""S7, how fast gossip reaches everyone: Serf's convergence formula, also under loss.

Serf's documentation computes the share of members that know an update after x
rounds as conv(x) = 1 / (1 + (n+1) e^(-c n x)) with
c = fanout/n x (1 - loss) x 0.5, a round being one gossip interval. The factor
0.5 is an allowance: it halves the speed. Without it the formula is the
logistic curve of an epidemic in which every informed member tells `fanout`
others a round at a phase of its own, and that is what the protocol does. So
the machine must come within one round of the formula without the allowance,
and must never be slower than Serf promises.

One in ten thousand is a rare event: with as many members told the measured
time rests on a handful of them. So what must lie in the band is the point of
its 95 % confidence interval that is nearest to the formula.

The formula knows no retransmit limit. Here it is doubled, so that it does not
bind; what memberlist's own limit leaves untold under loss is the business of
push/pull.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mycorrizal._swim.events import Event, NodeUpdated
from mycorrizal.config import Config
from mycorrizal.simulation.cluster import Cluster
from mycorrizal.simulation.faults import Faults
from mycorrizal.simulation.members import Member

from .report import Band, Plot, Report, Series

__all__ = ["convergence", "serf_rounds"]

SIZES = (30, 100, 300, 1000)
LOSSES = (0.0, 0.1, 0.3)
SAMPLES = 10000
TARGET = 0.9999


def serf_rounds(size: int, loss: float, *, target: float = TARGET, fanout: int = 3, allowance: float = 0.5) -> float:
    """Return the rounds after which Serf's formula reaches `target`."""
    rate = fanout * (1.0 - loss) * allowance
    return math.log((size + 1) * target / (1.0 - target)) / rate


def convergence(
    seed: object = 1,
    *,
    sizes: Sequence[int] = SIZES,
    losses: Sequence[float] = LOSSES,
    samples: int = SAMPLES,
    target: float = TARGET,
) -> Report:
    """Inject updates into quiet clusters, with gossip alone, until `samples` members have been told of one."""
    report = Report(
        "s7",
        f"seconds until {target:.2%} know, from {samples} or more members told",
        "Serf's convergence simulator",
        seed,
        ("members", "loss", "updates", "measured s", "95 % from", "to", "Serf s", "without allowance s", "never told"),
    )
    # Gossip alone: no probes to ride on, no push/pull.
    config = Config.lan(
        name="template", probe_interval=0.0, push_pull_interval=0.0, early_push_pulls=0, reconnect_interval=0.0,
        retransmit_mult=8,
    )  # fmt: skip
    interval = config.gossip_interval
    series: list[Series] = []
    for loss in losses:
        measured: list[float] = []
        for size in sizes:
            updates = max(2, math.ceil(samples / size))
            times = _updates(size, loss, f"{seed}/{size}/{loss}", config, updates)
            times.sort()
            when = times[min(len(times) - 1, int(target * len(times)))]
            measured.append(when)
            low, high = _confidence(times, target)
            serf = math.ceil(serf_rounds(size, loss, target=target)) * interval
            bare = serf_rounds(size, loss, target=target, allowance=1.0) * interval
            untold = sum(time == math.inf for time in times)
            report.rows.append((size, f"{loss:.0%}", updates, when, low, high, serf, bare, untold))
            what = f"{size} members, {loss:.0%} loss"
            nearest = min(max(bare, low), high)
            report.bands.append(Band(what, f"{bare:.2f} s +- one round", nearest, bare - interval, bare + interval))
            report.bands.append(Band(f"{what}, against Serf", f"at most {serf:.1f} s", when, 0.0, serf))
        series.append(Series(f"{loss:.0%} loss", sizes, measured))
        for allowance, label in ((0.5, "Serf"), (1.0, "without its allowance")):
            curve = [serf_rounds(size, loss, target=target, allowance=allowance) * interval for size in sizes]
            series.append(Series(f"{label}, {loss:.0%}", sizes, curve, True))
    report.plot = Plot(f"S7: time until {target:.2%} know", "members", "seconds", series, log_x=True)
    return report


def _confidence(times: Sequence[float], target: float) -> tuple[float, float]:
    """Return the 95 % confidence interval of the `target` quantile of sorted `times`: so few lie beyond it.

    How many of them exceed the true quantile follows a binomial law, here nearly Poisson's.
    """
    beyond = len(times) * (1.0 - target)
    spread = 2.0 * math.sqrt(beyond)
    last = len(times) - 1
    return times[max(0, last - math.ceil(beyond + spread))], times[min(last, last - math.floor(beyond - spread))]


class _Told:
    """Notes when each member learns of the current update (a watcher)."""

    def __init__(self) -> None:
        self.meta = b""
        self.times: dict[int, float] = {}

    def event(self, member: Member, event: Event, now: float) -> None:
        if isinstance(event, NodeUpdated) and event.node.meta == self.meta:
            self.times.setdefault(member.index, now)

    def changed(self, member: Member, now: float) -> None:
        return None


def _updates(size: int, loss: float, seed: str, config: Config, updates: int) -> list[float]:
    """Return, for each update and each member, the seconds until it knew (inf if never)."""
    cluster = Cluster.converged(size, seed, metas={0: b"0"}, config=config, faults=Faults(loss=loss), digest=False)
    told = _Told()
    cluster.watchers.append(told)
    interval = config.gossip_interval
    cluster.run(interval)
    result: list[float] = []
    for number in range(updates):
        told.meta = b"%d" % (number + 1)
        told.times = {}
        began = cluster.clock.now
        cluster.update(cluster.members[0], told.meta)
        cluster.run_while(lambda: len(told.times) < size, 6.0, step=interval / 2)
        result += [told.times.get(index, math.inf) - began for index in range(size)]
        cluster.run(interval * (number % 7) / 7)  # not always at the same phase of everybody's rounds
    return result
