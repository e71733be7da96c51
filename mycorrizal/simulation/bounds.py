"""How long things may take at worst, derived from the settings; the yardstick of checkers and tests.

The formulas are written down here a second time on purpose: a mistake in the
machine's own scaling must not move the yardstick with it.
"""

from __future__ import annotations

import math

from ..config import Config

__all__ = ["agreement_bound", "detection_bound", "spread_time", "suspicion_window"]


def suspicion_window(config: Config, size: int) -> tuple[float, float]:
    """Return the shortest and the longest suspicion, in seconds, in a cluster of `size`."""
    shortest = config.suspicion_mult * max(1.0, math.log10(max(1, size))) * config.probe_interval
    floor = config.suspicion_min_timeout if size <= config.suspicion_min_nodes else 0.0
    return max(floor, shortest), max(floor, shortest * config.suspicion_max_timeout_mult)


def spread_time(config: Config, size: int) -> float:
    """Return the time in which a piece of gossip reaches everyone with room to spare.

    Epidemics double at least once a round; the factor 4 leaves room for a
    start, an end and 30 % loss.
    """
    rounds = 4 * math.ceil(math.log2(size + 1))
    if config.gossip_interval > 0:
        return rounds * config.gossip_interval
    return rounds * config.probe_interval


def detection_bound(config: Config, size: int) -> float:
    """Return the time in which a crash is known to everyone, with no other fault.

    A round-robin walk comes to the member within 2n - 1 probes (SWIM §4.3),
    the probe fails, the suspicion runs out unconfirmed, the news spreads.
    """
    walk = (2 * size - 1) * config.probe_interval
    return walk + config.probe_interval + suspicion_window(config, size)[1] + spread_time(config, size)


def agreement_bound(config: Config, size: int) -> float:
    """Return the time from the end of all faults to agreement on who is alive.

    Failed probes may have stretched intervals to their limit, so the walk and
    the last probe count with the full health score. A member that everybody
    has buried and forgotten comes back with a reconnection, or with the
    periodic push/pull of someone who still knows it: three of each are
    granted, since either is a throw of dice.
    """
    stretched = (2 * size - 1) * config.probe_interval * config.awareness_max_multiplier
    push_pull = config.push_pull_interval * max(1, math.ceil(math.log2(max(size, 1)) - 5) + 1)
    heal = 3 * (push_pull + max(config.reconnect_interval, 0.0)) + config.tcp_timeout
    return stretched + suspicion_window(config, size)[1] + heal + 2 * spread_time(config, size)
