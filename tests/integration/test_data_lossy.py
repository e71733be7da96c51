"""Data planes on a network that loses, delays, repeats and reorders; and many connections in one process.

``tools/chaos data`` and ``tools/chaos connections`` are the same for longer;
docs/performance.md has their figures.
"""

from __future__ import annotations

import pytest

from campaigns import connections as chaos_connections
from campaigns import data as chaos_data


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_on_a_bad_network(need_network_namespace: None) -> None:
    faults = {"loss": 0.02, "duplicate": 0.02, "reorder": 0.02, "delay": 0.01, "jitter": 0.001}
    found = chaos_data.run(count=500, threads=16, numbers=500, size=2 << 20, seed=1, faults=faults)
    assert found["wrong"] == []
    assert found["frames"]["lost"] > 30, "the switch did lose frames"
    assert found["frames"]["repeated"] > 30
    assert found["frames"]["held"] > 30
    assert found["requests"]["p50"] > 0.02, "and did delay them"
    assert found["bulk"]["mtu"] == 1472


def test_300_connections_one_after_another_leave_nothing_behind() -> None:
    assert chaos_connections.wrong(chaos_connections.one_after_another(300)) == []


@pytest.mark.slow
def test_100_connections_at_once_leave_nothing_behind() -> None:
    found = chaos_connections.at_once(100)
    assert found["connected"] == 100
    assert chaos_connections.wrong(found) == []
