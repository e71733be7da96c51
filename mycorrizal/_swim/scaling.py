"""How memberlist's limits and timeouts grow with the size of the cluster.

Pure arithmetic, in integer nanoseconds where Go computes so, because the
floors are visible in timing (memberlist ``util.go``; memberlist-protocol §7.6, §8.2, §8.5).
"""

from __future__ import annotations

import math

__all__ = ["push_pull_scale", "remaining_suspicion_ms", "retransmit_limit", "suspicion_timeout"]

_PUSH_PULL_SCALE_THRESHOLD = 32


def retransmit_limit(retransmit_mult: int, nodes: int) -> int:
    """Return how often one broadcast is sent: mult x ceil(log10(n + 1))."""
    return retransmit_mult * math.ceil(math.log10(nodes + 1))


def suspicion_timeout(suspicion_mult: int, nodes: int, probe_interval: float) -> float:
    """Return the shortest suspicion window in seconds: mult x log10(n) x interval, at least mult x interval."""
    scale_thousandths = int(max(1.0, math.log10(max(1.0, float(nodes)))) * 1000)
    interval_ns = round(probe_interval * 1e9)
    return suspicion_mult * scale_thousandths * interval_ns // 1000 / 1e9


def remaining_suspicion_ms(confirmations: int, expected: int, minimum_ms: float, maximum_ms: float) -> float:
    """Return the whole window in ms after `confirmations` of `expected` (Lifeguard LHA-Suspicion)."""
    fraction = math.log(confirmations + 1.0) / math.log(expected + 1.0)
    return max(minimum_ms, math.floor(maximum_ms - fraction * (maximum_ms - minimum_ms)))


def push_pull_scale(nodes: int) -> int:
    """Return the factor on the push/pull interval: 1 up to 32 nodes, one more per doubling."""
    if nodes <= _PUSH_PULL_SCALE_THRESHOLD:
        return 1
    return math.ceil(math.log2(nodes) - math.log2(_PUSH_PULL_SCALE_THRESHOLD)) + 1
