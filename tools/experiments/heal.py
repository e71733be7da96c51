"""Our own: how long a partition takes to heal, by how many dead are remembered and when they died.

A cluster falls into two halves for two minutes. Members that are gone for good
died before that, after it, both, or at random moments all the while; their
hosts are gone too, so that nothing tells them from those across the partition.
Counted is the time from the mended network until everybody knows everybody.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from random import Random

from mycorrizal.config import Config
from mycorrizal.simulation.acquaint import bury
from mycorrizal.simulation.cluster import Cluster

from .report import Band, Plot, Report, Series

__all__ = ["heal"]

DEAD = (0, 100, 200, 5000)
ORDERS = ("before", "after", "both", "amid")
RUNS = 30
MEMBERS = 6
_PARTED, _MENDED = 60.0, 180.0  # seconds from the start
_KNOWN = 30.0  # seconds until those across are dead to everybody
_PATIENCE = 1800.0
_INTERVAL = Config.reconnect_interval


def heal(
    seed: object = 1, *, dead: Sequence[int] = DEAD, orders: Sequence[str] = ORDERS, runs: int = RUNS,
    members: int = MEMBERS,
) -> Report:  # fmt: skip
    """Part and mend a cluster of `members` beside so many dead, which died in such an order."""
    report = Report(
        "heal",
        f"seconds until a partition of {members} is whole again, median (worst) of {runs}",
        "docs/wire.md, differences from memberlist",
        seed,
        ("dead", *orders, "pings/interval"),
    )
    medians: dict[str, list[float]] = {order: [] for order in orders}
    for count in dead:
        cells: list[str] = []
        pings = 0.0
        for order in orders if count else orders[:1]:
            outcomes = [_run(f"{seed}/{order}/{count}/{run}", members, count, order) for run in range(runs)]
            times = [seconds for seconds, _ in outcomes]
            pings = max(pings, sum(sent for _, sent in outcomes) / sum(times) * _INTERVAL / members)
            medians[order].append(statistics.median(times))
            cells.append(f"{statistics.median(times):.1f} ({max(times):.0f})")
        if not count:
            for order in orders[1:]:
                medians[order].append(medians[orders[0]][-1])
        report.rows.append((count, *(cells + [""] * (len(orders) - len(cells))), pings))
        report.bands.append(Band(f"{count} dead: pings of the lost in an interval, by one", "up to 4", pings, 0, 4.2))
    for order in orders:
        plain = medians[order][0]
        for count, median in zip(dead, medians[order], strict=True):
            if count:
                most = 3 * plain + 20 if count <= 200 else 120.0 if order != "amid" else 2 * _chance(members, count)
                what = f"{count} dead, {order}: median seconds"
                report.bands.append(Band(what, f"up to {most:.0f}", median, 0, most))
    report.plot = Plot(
        f"A partition of {members} heals", "dead members that are remembered", "seconds, median",
        [Series(order, dead, medians[order]) for order in orders],
    )  # fmt: skip
    return report


def _run(seed: str, members: int, dead: int, order: str) -> tuple[float, int]:
    """Return the seconds until all is whole, and the pings of lost members meanwhile."""
    cluster = Cluster.converged(members, seed, config=Config.lan(name="template"), digest=False)
    rng = Random(f"{seed}/deaths")
    for number, moment in enumerate(sorted(_moment(order, number, rng) for number in range(dead))):
        cluster.at(moment, lambda name=f"dead{number}": bury(cluster.members, cluster.clock.now, name))
    cluster.at(_PARTED, cluster.network.links.partition, range(members // 2))
    cluster.run_until(_MENDED + rng.random() * _INTERVAL)
    cluster.network.links.heal()
    mended, before = cluster.clock.now, _pings(cluster)
    cluster.run_while(lambda: not cluster.agreed, _PATIENCE)
    return cluster.clock.now - mended, _pings(cluster) - before


def _chance(members: int, dead: int) -> float:
    """Return the median seconds if nothing but chance leads to one of those across."""
    across = members // 2
    return math.log(2) * (dead + across) / (4 * members * across) * _INTERVAL


def _moment(order: str, number: int, rng: Random) -> float:
    """Return when somebody dies."""
    before, after = rng.uniform(0, _PARTED), rng.uniform(_PARTED + _KNOWN, _MENDED)
    both, amid = (before, after)[number % 2], rng.uniform(0, _MENDED)
    return {"before": before, "after": after, "both": both, "amid": amid}[order]


def _pings(cluster: Cluster) -> int:
    return sum(member.machine.counters.get("reconnect_pings", 0) for member in cluster.members)
