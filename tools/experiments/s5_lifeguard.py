"""S5, Lifeguard's ablations: what each mechanism saves in false accusations.

Lifeguard (DSN 2018) §V: some members suffer anomalies, all at the same times:
for a while whatever they send or receive waits, while their timers run; then
they are well for a moment, and again. Nobody crashes, so every member declared
dead is a false positive. FP counts those about members without anomalies,
wherever they are believed; FP- only at members without anomalies.

The paper ran 128 agents for many combinations of durations; this is a small
copy of it (a run takes about a minute), so the bands are orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mycorrizal._swim.machine import Swim
from mycorrizal.config import Config
from mycorrizal.simulation.checkers import FalsePositiveChecker
from mycorrizal.simulation.cluster import Cluster

from .report import Band, Plot, Report, Series

__all__ = ["ABLATIONS", "Ablation", "lifeguard"]

MEMBERS = 48
CONCURRENT = (1, 4, 8, 16)
ANOMALY = 16.384
PAUSE = 0.512
SECONDS = 120.0


class _NoBuddy(Swim):
    """The machine without the buddy system."""

    buddy = False


@dataclass(frozen=True, slots=True)
class Ablation:
    """One of the paper's configurations, with its share of SWIM's FP and FP- there."""

    name: str
    probe: bool
    suspicion: bool
    buddy: bool
    paper_fp: float
    paper_fp_healthy: float

    def config(self) -> Config:
        """Return memberlist's LAN settings, alpha = 5 and beta = 6, with the mechanisms on or off."""
        return Config.lan(
            name="template",
            suspicion_mult=5,
            suspicion_max_timeout_mult=6 if self.suspicion else 1,
            awareness_max_multiplier=8 if self.probe else 1,
            early_push_pulls=0,
            reconnect_interval=0.0,
            stall_threshold=0.0,
            verify_suspicions=False,
        )


ABLATIONS = (
    Ablation("SWIM", False, False, False, 1.0, 1.0),
    Ablation("LHA-Probe", True, False, False, 0.6772, 0.3288),
    Ablation("LHA-Suspicion", False, True, False, 0.0300, 0.0671),
    Ablation("Buddy", False, False, True, 0.9408, 0.4457),
    Ablation("Lifeguard", True, True, True, 0.0153, 0.0189),
)


@dataclass(slots=True)
class _Outcome:
    fp: int = 0
    fp_healthy: int = 0
    datagrams: int = 0
    bytes: int = 0


def lifeguard(
    seed: object = 1,
    *,
    members: int = MEMBERS,
    concurrent: Sequence[int] = CONCURRENT,
    seconds: float = SECONDS,
    anomaly: float = ANOMALY,
    pause: float = PAUSE,
) -> Report:
    """Run every ablation with every number of concurrent anomalies."""
    report = Report(
        "s5",
        f"false positives of {members} members in {seconds:g} s, anomalies of {anomaly:g} s with {pause:g} s between",
        "Lifeguard (DSN 2018), table of aggregate false positives",
        seed,
        ("configuration", "FP", "FP-", "FP %", "paper", "FP- %", "paper", "messages %", "bytes %"),
    )
    totals: dict[str, _Outcome] = {}
    series: list[Series] = []
    for ablation in ABLATIONS:
        total = totals[ablation.name] = _Outcome()
        counts: list[float] = []
        for anomalies in concurrent:
            outcome = _run(ablation, f"{seed}/{anomalies}", members, anomalies, seconds, anomaly, pause)
            counts.append(outcome.fp)
            total.fp += outcome.fp
            total.fp_healthy += outcome.fp_healthy
            total.datagrams += outcome.datagrams
            total.bytes += outcome.bytes
        series.append(Series(ablation.name, concurrent, counts))
    _judge(report, totals)
    report.plot = Plot("S5: false positives", "members with concurrent anomalies", "FP events", series, log_y=True)
    return report


def _judge(report: Report, totals: dict[str, _Outcome]) -> None:
    swim = totals["SWIM"]
    shares: dict[str, tuple[float, float]] = {}
    for ablation in ABLATIONS:
        own = totals[ablation.name]
        fp, healthy = own.fp / max(1, swim.fp), own.fp_healthy / max(1, swim.fp_healthy)
        shares[ablation.name] = fp, healthy
        report.rows.append(
            (
                ablation.name, own.fp, own.fp_healthy, 100 * fp, 100 * ablation.paper_fp, 100 * healthy,
                100 * ablation.paper_fp_healthy, 100 * own.datagrams / swim.datagrams, 100 * own.bytes / swim.bytes,
            )
        )  # fmt: skip
    report.bands.append(Band("FP of SWIM", "many", swim.fp, 50, float("inf")))
    for name, low, high in (("LHA-Probe", 0.2, 1.1), ("LHA-Suspicion", 0.0, 0.3), ("Buddy", 0.5, 1.2)):
        paper = next(a.paper_fp for a in ABLATIONS if a.name == name)
        report.bands.append(Band(f"FP of {name} / SWIM", f"{paper:.3f}", shares[name][0], low, high))
    report.bands.append(Band("FP of Lifeguard / SWIM", "0.0153", shares["Lifeguard"][0], 0.0, 0.1))
    report.bands.append(Band("FP- of Lifeguard / SWIM", "0.0189", shares["Lifeguard"][1], 0.0, 0.1))
    load = totals["Lifeguard"].datagrams / swim.datagrams
    report.bands.append(Band("messages of Lifeguard / SWIM", "1.11", load, 0.6, 1.6))


def _run(
    ablation: Ablation, seed: str, size: int, anomalies: int, seconds: float, anomaly: float, pause: float
) -> _Outcome:
    cluster = Cluster.converged(
        size, seed, config=ablation.config(), machine=Swim if ablation.buddy else _NoBuddy, digest=False
    )
    distressed = cluster.members[:anomalies]
    checker = FalsePositiveChecker(cluster, distressed=distressed)
    cluster.watchers.append(checker)
    cluster.run(5.0)
    end = cluster.clock.now + seconds
    while cluster.clock.now < end:
        for member in distressed:
            cluster.slow(member)
        cluster.run(anomaly)
        for member in distressed:
            cluster.resume(member)
        cluster.run(pause)
    cluster.run(10.0)
    counters = cluster.network.counters
    return _Outcome(checker.total, checker.healthy, counters.datagrams, counters.bytes)
