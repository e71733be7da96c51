"""S1, message load of plain SWIM: two messages sent and two received per member and period.

SWIM (DSN 2002) §5, Figure 2: one ping-req member, nothing fails, nothing is
lost. Each member sends one ping a period and answers one on average.
"""

from __future__ import annotations

from collections.abc import Sequence

from mycorrizal.config import Config
from mycorrizal.simulation.cluster import Cluster

from .report import Band, Plot, Report, Series

__all__ = ["message_load", "plain_swim"]

SIZES = (8, 16, 28, 40, 56)
PERIODS = 40


def plain_swim(**overrides: object) -> Config:
    """Return settings that reduce the machine to the paper's SWIM: piggyback only, one indirect check, no extras."""
    settings: dict[str, object] = {
        "name": "template",
        "probe_interval": 2.0,
        "probe_timeout": 0.5,
        "indirect_checks": 1,
        "disable_tcp_pings": True,
        "gossip_interval": 0.0,
        "push_pull_interval": 0.0,
        "awareness_max_multiplier": 1,
        "suspicion_max_timeout_mult": 1,
        "early_push_pulls": 0,
        "reconnect_interval": 0.0,
        "stall_threshold": 0.0,
        "verify_suspicions": False,
    }
    return Config.lan(**{**settings, **overrides})


def message_load(seed: object = 1, *, sizes: Sequence[int] = SIZES, periods: int = PERIODS) -> Report:
    """Count the datagrams of quiet clusters of several sizes."""
    report = Report(
        "s1",
        f"message load of plain SWIM, {periods} periods",
        "SWIM (DSN 2002) Fig. 2",
        seed,
        ("members", "sent/member/period", "received", "below 5 in a period"),
    )
    config = plain_swim()
    sent: list[float] = []
    received: list[float] = []
    for size in sizes:
        out, into, calm = _measure(Cluster.converged(size, f"{seed}/{size}", config=config, digest=False), periods)
        sent.append(out)
        received.append(into)
        report.rows.append((size, out, into, calm))
        report.bands.append(Band(f"sent, {size} members", "2.0 +- 0.1", out, 1.9, 2.1))
        report.bands.append(Band(f"received, {size} members", "2.0 +- 0.1", into, 1.9, 2.1))
        if size == 28:
            # One ping and about Poisson(1) acks: 0.981; the paper measured 0.99.
            report.bands.append(Band("share of periods with below 5 sent, 28 members", "0.98 to 0.99", calm, 0.97, 1.0))
    report.plot = Plot(
        "S1: messages per member and period, plain SWIM",
        "members",
        "messages",
        [
            Series("sent", sizes, sent),
            Series("received", sizes, received),
            Series("SWIM: 2.0", sizes, [2.0] * len(sizes), True),
        ],
    )
    return report


def _measure(cluster: Cluster, periods: int) -> tuple[float, float, float]:
    interval = cluster.config.probe_interval
    cluster.run(2 * interval)  # the first probe comes within two intervals
    members = cluster.members
    received = sum(member.received for member in members)
    before = [member.sent for member in members]
    start, calm = sum(before), 0
    for _ in range(periods):
        cluster.run(interval)
        after = [member.sent for member in members]
        calm += sum(now - then < 5 for now, then in zip(after, before, strict=True))
        before = after
    total = len(members) * periods
    return (
        (sum(before) - start) / total,
        (sum(member.received for member in members) - received) / total,
        calm / total,
    )
