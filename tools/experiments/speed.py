"""How fast the simulation itself runs: virtual seconds per second of one core.

Wall time is the caller's (``tools/simulate`` passes ``time.process_time``):
nothing in the package reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable

from mycorrizal.config import Config
from mycorrizal.simulation.cluster import Cluster

from .report import Band, Report

__all__ = ["speed"]

MEMBERS = 1000


WAVE = 3
EVERY = 5.0


def speed(
    clock: Callable[[], float],
    seed: object = 1,
    *,
    members: int = MEMBERS,
    wave: int = WAVE,
    config: Config | None = None,
) -> Report:
    """Measure an idle cluster, and one in which every 5 s a member crashes and another joins.

    Args:
        clock: returns seconds of processor time.
        seed: of the cluster.
        members: how many to begin with.
        wave: how many crash, and how many join.
        config: settings; the default is the LAN profile as it is.
    """
    config = config or Config.lan(name="template")
    report = Report(
        "speed",
        f"virtual time per time of one core, {members} members",
        "the issue: 1,000 members faster than real time",
        seed,
        ("phase", "virtual s", "cpu s", "ratio", "steps/s", "datagrams"),
    )
    began = clock()
    cluster = Cluster.converged(members, seed, config=config, digest=False)
    report.notes.append(f"building took {clock() - began:.1f} s")
    idle = _phase(report, cluster, clock, "idle", 10.0)
    for number in range(wave):
        cluster.at(cluster.clock.now + EVERY * number, cluster.crash, cluster.members[number])
        cluster.at(cluster.clock.now + EVERY * (number + 0.5), _join, cluster)
    busy = _phase(report, cluster, clock, "crashes and joins", EVERY * wave + 5.0)
    # Whoever started together pushes and pulls together: some 30 whole tables a second, for a while.
    _phase(report, cluster, clock, "first push/pulls", 10.0)
    report.bands.append(Band("ratio, idle", "above 1", idle, 1.0, float("inf")))
    report.bands.append(Band("ratio, crashes and joins", "above 1", busy, 1.0, float("inf")))
    return report


def _join(cluster: Cluster) -> None:
    cluster.join(cluster.add(), cluster.members[-2])


def _phase(report: Report, cluster: Cluster, clock: Callable[[], float], name: str, seconds: float) -> float:
    steps, datagrams, began = cluster.steps, cluster.network.counters.datagrams, clock()
    cluster.run(seconds)
    spent = max(clock() - began, 1e-9)
    ratio = seconds / spent
    report.rows.append(
        (name, seconds, spent, ratio, (cluster.steps - steps) / spent, cluster.network.counters.datagrams - datagrams)
    )
    return ratio
