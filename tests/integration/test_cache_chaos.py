"""Agents that hold caches are killed, restarted and cut off while callers never stop; then everything is judged.

``tools/chaos cache`` is the same for longer.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from campaigns import cache as chaos_cache

FAST: dict[str, Any] = {
    "probe_interval": 0.2,
    "probe_timeout": 0.2,
    "gossip_interval": 0.05,
    "push_pull_interval": 5.0,
    "suspicion_min_timeout": 3.0,
    "reconnect_interval": 1.0,
}
BUSY: dict[str, Any] = {"pause": 0.05, "patience": 5.0, "config": FAST}
"""The machine that runs the tests may be busy: callers are modest, and times five times as long as promised pass."""


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_one_after_another_is_killed() -> None:
    found = chaos_cache.run_kills(nodes=4, kills=2, every=4.0, seed=1, rolling=False, **BUSY)
    assert found["wrong"] == []
    assert len(found["kills"]) == 2 and found["acknowledged_writes"] > 100


@pytest.mark.slow
@pytest.mark.parametrize("graceful", [True, False], ids=["leaving", "killed"])
def test_rolling_restart_loses_nothing(graceful: bool) -> None:
    with chaos_cache.Campaign(3, seed=2, **BUSY) as campaign:
        campaign.roll(graceful=graceful)
        time.sleep(2.0)  # callers go on: three kills take too little time for a judgement on a busy machine
        found = campaign.judge()
    assert found["wrong"] == []
    assert len(found["rolled"]) == 3 and found["acknowledged_writes"] > 100


@pytest.mark.slow
def test_halves_of_a_network_agree_on_the_last_write_when_they_meet_again(need_network_namespace: None) -> None:
    found = chaos_cache.run_partition(nodes=5, seconds=14.0, calm=3.0, seed=3, **BUSY)
    assert found["wrong"] == []
    assert found["quorum"]["refused"] > 0 and found["quorum"]["acknowledged"] > 0
