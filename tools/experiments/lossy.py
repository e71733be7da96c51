"""Our own ablation: what it saves to hear a suspect before it is buried (``verify_suspicions``).

A quiet cluster whose network loses, repeats and reorders packets; nobody
crashes, so every member declared dead is a false positive.
"""

from __future__ import annotations

from collections.abc import Sequence

from mycorrizal.config import Config
from mycorrizal.simulation.checkers import FalsePositiveChecker
from mycorrizal.simulation.cluster import Cluster
from mycorrizal.simulation.faults import Faults

from .report import Band, Plot, Report, Series

__all__ = ["lossy"]

MEMBERS = 8
LOSSES = (0.1, 0.2, 0.3)
RUNS = 20
SECONDS = 180.0


def lossy(
    seed: object = 1, *, members: int = MEMBERS, losses: Sequence[float] = LOSSES, runs: int = RUNS,
    seconds: float = SECONDS,
) -> Report:  # fmt: skip
    """Count false deaths with the setting off (as in memberlist) and on."""
    report = Report(
        "lossy",
        f"false deaths among {members} members in {seconds:.0f} s, mean of {runs} runs",
        "docs/wire.md, differences from memberlist",
        seed,
        ("loss", "as memberlist", "verify_suspicions"),
    )
    counts = [
        [
            sum(_deaths(f"{seed}/{loss}/{run}", members, seconds, loss, on) for run in range(runs)) / runs
            for loss in losses
        ]
        for on in (False, True)
    ]
    report.rows += zip(losses, *counts, strict=True)
    worst = max(losses)
    report.bands.append(Band(f"as memberlist, loss {worst:.0%}", "several", counts[0][-1], 1.0, 1e6))
    report.bands.append(Band(f"verify_suspicions, loss {worst:.0%}", "none", counts[1][-1], 0.0, 0.1))
    percent = [100 * loss for loss in losses]
    report.plot = Plot(
        f"False deaths among {members} members in {seconds:.0f} s",
        "packets lost, %",
        "reports of a death that was none",
        [Series("as memberlist", percent, counts[0]), Series("verify_suspicions", percent, counts[1])],
    )
    return report


def _deaths(seed: str, members: int, seconds: float, loss: float, verify: bool) -> int:
    # Conversations suffer too: with a third of the frames lost half of them need a second or break off.
    faults = Faults(
        loss=loss, duplicate=0.05, reorder=0.25, exchange_cut=1.6 * loss, exchange_slow=1.6 * loss, exchange_slow_by=1.0
    )
    config = Config.lan(name="template", verify_suspicions=verify)
    cluster = Cluster.converged(members, seed, config=config, faults=faults, digest=False)
    checker = FalsePositiveChecker(cluster)
    cluster.watchers.append(checker)
    cluster.run(seconds)
    return checker.total
