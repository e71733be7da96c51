"""Agents on eight hosts of which one frame in ten is lost, and on four that a cut parts for a while.

``tools/chaos events`` and ``tools/chaos settings`` are the same for longer; docs/performance.md has their figures.
"""

from __future__ import annotations

from typing import Any

import pytest

from campaigns import events as chaos_events
from campaigns import settings as chaos_settings

from .conftest import FAST

HEALING: dict[str, Any] = {**FAST, "gossip_to_the_dead_time": 1.0, "tcp_timeout": 1.0, "reconnect_interval": 1.0}


@pytest.mark.slow
def test_each_event_once_and_in_order_at_ten_percent_loss(need_network_namespace: None) -> None:
    found = chaos_events.run(8, 200, 100, 0.0, 60.0, 1, {"loss": 0.1}, wire="cbor")
    assert found["wrong"] == []
    assert found["frames"]["lost"] > 50, "the switch did lose frames"
    assert found["totals"]["share.events.fetches"] > 0, "and what was lost was fetched again"


@pytest.mark.slow
def test_two_halves_agree_again(need_network_namespace: None) -> None:
    found = chaos_settings.run(4, 6.0, 20.0, 1, {}, wire="msgpack", **HEALING)
    assert found["wrong"] == []
    assert found["frames"]["cut"] > 0
    assert found["shared"] not in ("before", "a", "b")
