"""Our own: a host sleeps while somebody leaves or dies; and two halves that meet again (``check_hearsay``).

A host that was suspended for 50 to 75 s comes back with its old table. Those
who stayed awake should report nothing about who is gone, and the sleeper that
it is gone, once. What that costs is the time in which a partition heals.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from random import Random

from mycorrizal._swim.events import Event, NodeJoined, NodeLeft
from mycorrizal.config import Config
from mycorrizal.simulation.cluster import Cluster
from mycorrizal.simulation.members import Member

from .report import Band, Report

__all__ = ["sleepers"]

SIZES = (3, 8, 20)
RUNS = 1000
HALVES = 64
HEALS = 10
_PEACE = 5.0
_PARTED = 150.0
_PATIENCE = 300.0


class _Tales:
    """Counts what is said of one member, by the sleeper and by the others."""

    def __init__(self, cluster: Cluster) -> None:
        self._sleeper, self._gone = cluster.members[0], cluster.members[1]
        self.returned = False
        self.of_the_awake = 0
        self.of_the_sleeper = 0
        cluster.watchers.append(self)

    def event(self, member: Member, event: Event, now: float) -> None:
        if not isinstance(event, (NodeJoined, NodeLeft)) or event.node.name != self._gone.name:
            return
        self.of_the_sleeper += member is self._sleeper
        self.of_the_awake += self.returned and member is not self._sleeper

    def changed(self, member: Member, now: float) -> None:
        pass


def sleepers(
    seed: object = 1, *, sizes: Sequence[int] = SIZES, runs: int = RUNS, halves: int = HALVES, heals: int = HEALS
) -> Report:
    """Let a host sleep, and two halves heal, without the setting and with it.

    Args:
        seed: of everything that is random.
        sizes: members of the clusters with a sleeper, in turn.
        runs: of sleepers, with the setting; a tenth of it without.
        halves: members of a cluster that was in two halves.
        heals: how many of those.
    """
    report = Report(
        "sleepers",
        "what is told of who went while one host slept",
        "docs/wire.md, differences from memberlist",
        seed,
        ("check_hearsay", "runs", "told by the awake", "not once by the sleeper", "halves whole, s", "worst"),
    )
    medians = []
    for on in (False, True):
        count = runs if on else max(1, runs // 10)
        tales = [_sleep(f"{seed}/{run}", sizes[run % len(sizes)], on) for run in range(count)]
        whole = [_heal(f"{seed}/heal/{run}", halves, on) for run in range(heals)]
        medians.append(statistics.median(whole))
        awake, other = sum(tale[0] > 0 for tale in tales), sum(tale[1] != 1 for tale in tales)
        report.rows.append((str(on), count, awake, other, medians[-1], max(whole)))
    report.bands.append(Band("runs in which one who stayed awake told of who was gone", "none", awake, 0, 0))
    report.bands.append(Band("runs in which the sleeper did not tell of it exactly once", "none", other, 0, 0))
    most = 1.2 * medians[0]
    report.bands.append(Band("seconds until halves are whole, with the setting", "1.2 times", medians[1], 0, most))
    return report


def _sleep(seed: str, size: int, on: bool) -> tuple[int, int]:
    """Return how often the awake, after the sleeper is back, and the sleeper told of who is gone."""
    rng = Random(f"{seed}/moments")
    cluster = Cluster.converged(size, seed, config=Config.lan(name="template", check_hearsay=on), digest=False)
    tales = _Tales(cluster)
    cluster.run(_PEACE + rng.random())
    sleeper, gone = cluster.members[:2]
    cluster.freeze(sleeper)
    cluster.network.links.partition({sleeper.slot})
    cluster.run(rng.uniform(1.0, 8.0))
    if rng.random() < 0.5:
        cluster.leave(gone)
        cluster.run(2.0)
    cluster.crash(gone, silent=rng.random() < 0.5)
    cluster.run(rng.uniform(48.0, 65.0))
    tales.returned = True
    cluster.network.links.heal()
    cluster.resume(sleeper)
    cluster.run(60.0 + 3 * size)
    return tales.of_the_awake, tales.of_the_sleeper


def _heal(seed: str, members: int, on: bool) -> float:
    """Return how long it takes until two halves are whole again."""
    cluster = Cluster.converged(members, seed, config=Config.lan(name="template", check_hearsay=on), digest=False)
    cluster.run(_PEACE)
    cluster.network.links.partition(range(members // 2))
    cluster.run(_PARTED + 10.0 * Random(f"{seed}/moment").random())
    cluster.network.links.heal()
    mended = cluster.clock.now
    cluster.run_while(lambda: not cluster.agreed, _PATIENCE)
    return cluster.clock.now - mended
