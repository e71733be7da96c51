"""S9: one member's process is frozen for a while, is killed, or vanishes with its host.

Who is frozen, as by a C call that holds the GIL, should not be declared dead
before a stated time and must never bury a healthy member when it wakes. What
the floor under suspicion windows (``suspicion_min_timeout``) costs is the time
until a member that is really gone is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from mycorrizal._swim.events import Event, NodeLeft
from mycorrizal.config import Config
from mycorrizal.simulation.cluster import Cluster
from mycorrizal.simulation.faults import Faults
from mycorrizal.simulation.members import Member

from .report import Band, Plot, Report, Series

__all__ = ["stall"]

FLOOR = 12.0
SIZES = (2, 3, 5, 30)
STALLS = (2.0, 5.0, 6.0, 10.0, 12.0, 20.0, 40.0)
LOSS = 0.1
WORK = 600
_PEACE = 5.0
_AFTERMATH = 20.0
_PATIENCE = 120.0


class _Verdicts:
    """Notes who was declared dead, and when."""

    def __init__(self, victim: Member) -> None:
        self._victim = victim
        self.healthy = 0
        self.times: list[float] = []

    def event(self, member: Member, event: Event, now: float) -> None:
        if not isinstance(event, NodeLeft):
            return
        if event.node.name == self._victim.name:
            self.times.append(now)
        else:
            self.healthy += 1

    def changed(self, member: Member, now: float) -> None:
        pass


def stall(
    seed: object = 1, *, sizes: Sequence[int] = SIZES, stalls: Sequence[float] = STALLS, work: int = WORK,
    floor: float = FLOOR,
) -> Report:  # fmt: skip
    """Freeze, kill and lose one member, with memberlist's windows, with the floor, and with it on a bad network.

    Args:
        seed: of everything that is random; runs with and without the floor have the same seeds.
        sizes: numbers of members; above ``suspicion_min_nodes`` the floor is set too, without effect.
        stalls: seconds that the process is frozen.
        work: each size has `work` / size runs of everything.
        floor: ``suspicion_min_timeout``.
    """
    report = Report(
        "s9",
        "one member frozen (% of runs in which it is declared dead), killed, or lost with its host (s until one knows)",
        "the issue: a process that one C call holds for 6 s is not declared dead",
        seed,
        (
            "members", "loss", "floor", "runs", *(f"{seconds:g} s" for seconds in stalls), "healthy",
            "killed", "worst", "no rule", "lost", "least", "worst",
        ),
    )  # fmt: skip
    series: list[Series] = []
    for size in sizes:
        small = size <= Config.suspicion_min_nodes
        plain = _row(report, size, 0.0, 0.0, stalls, work) if small else None
        shares = _row(report, size, 0.0, floor, stalls, work)
        if plain is not None:
            series.append(Series(f"{size} members, as memberlist", stalls, plain))
            _check(report, size, 0.0, floor, stalls, shares)
            place = list(report.columns).index("killed")
            killed, before = (row[place] for row in (report.rows[-1], report.rows[-2]))
            assert isinstance(killed, float) and isinstance(before, float)
            what = f"{size} members, floor {floor:g} s: seconds until a kill is noticed"
            report.bands.append(Band(what, f"{before:.3g}, as without", killed, 0, 1.1 * before))
            _check(report, size, LOSS, floor - 2, stalls, _row(report, size, LOSS, floor, stalls, work))
        series.append(Series(f"{size} members, floor {floor:g} s", stalls, shares))
    report.plot = Plot(
        "A process that does not run is declared dead", "seconds that it is frozen", "share of runs, %", series
    )
    return report


def _row(
    report: Report, size: int, loss: float, floor: float, stalls: Sequence[float], work: int
) -> list[float]:
    """Add the row of one size and one setting; return the share of runs with a death, in per cent, for each stall."""
    runs = max(1, work // size)
    seeds = [f"{report.seed}/{size}/{run}" for run in range(runs)]
    scene = _Scene(size, Config.lan(name="template", suspicion_min_timeout=floor), loss)
    columns = [[scene.freeze(seed, seconds) for seed in seeds] for seconds in stalls]
    shares = [100.0 * sum(dead for dead, _ in column) / runs for column in columns]
    healthy = sum(wrong for column in columns for _, wrong in column)
    killed = [scene.crash(seed) for seed in seeds]
    waited = [scene.crash(seed, trust_refusals=False) for seed in seeds]
    lost = [scene.crash(seed, silent=True) for seed in seeds]
    report.rows.append(
        (
            size, loss, floor, runs, *shares, healthy,
            _mean(killed), max(killed), _mean(waited), _mean(lost), min(lost), max(lost),
        )
    )  # fmt: skip
    what = f"{size} members, loss {loss:.0%}, floor {floor:g} s: healthy members declared dead"
    report.bands.append(Band(what, "none", healthy, 0, 0))
    return shares


def _check(
    report: Report, size: int, loss: float, most: float, stalls: Sequence[float], shares: Sequence[float]
) -> None:
    """Add the band of what must be survived."""
    worst = max((share for seconds, share in zip(stalls, shares, strict=True) if seconds <= most), default=0.0)
    what = f"{size} members, loss {loss:.0%}: declared dead when frozen for up to {most:g} s, %"
    report.bands.append(Band(what, "never", worst, 0, 0))


class _Scene:
    """One size, one configuration, one network; each call is a run of its own."""

    def __init__(self, size: int, config: Config, loss: float) -> None:
        self._size = size
        self._config = config
        self._faults = Faults(loss=loss, exchange_cut=1.6 * loss, exchange_slow=1.6 * loss, exchange_slow_by=1.0)

    def freeze(self, seed: str, seconds: float) -> tuple[bool, int]:
        """Freeze one member; return whether anybody declared it dead, and how often a healthy one was."""
        cluster, verdicts = self._peace(seed, self._config)
        victim = cluster.members[0]
        cluster.freeze(victim)
        cluster.run(seconds)
        cluster.resume(victim)
        cluster.run(_AFTERMATH)
        return bool(verdicts.times), verdicts.healthy

    def crash(self, seed: str, *, silent: bool = False, trust_refusals: bool = True) -> float:
        """End one member; return the seconds until the first of the others declares it dead."""
        cluster, verdicts = self._peace(seed, self._config.replace(trust_refusals=trust_refusals))
        ended = cluster.clock.now
        cluster.crash(cluster.members[0], silent=silent)
        cluster.run_while(lambda: not verdicts.times, _PATIENCE)
        return min(verdicts.times, default=ended + _PATIENCE) - ended

    def _peace(self, seed: str, config: Config) -> tuple[Cluster, _Verdicts]:
        cluster = Cluster.converged(self._size, seed, config=config, faults=self._faults, digest=False)
        verdicts = _Verdicts(cluster.members[0])
        cluster.watchers.append(verdicts)
        cluster.run(_PEACE + Random(f"{seed}/moment").random())
        return cluster, verdicts


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
