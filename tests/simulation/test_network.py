"""Clock, faults, links and dice."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from mycorrizal import ConfigError, LocalProtocolError
from mycorrizal.simulation import Faults, Links, Network, VirtualClock


def test_the_clock_moves_forward_only() -> None:
    clock = VirtualClock()
    clock.advance(2.0)
    clock.advance(2.0)
    assert clock.now == 2.0
    with pytest.raises(LocalProtocolError, match="cannot go back"):
        clock.advance(1.0)


@pytest.mark.parametrize("field", ["loss", "delay"])
def test_odds_are_checked(field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Faults(**{field: -0.1})
    assert caught.value.field == field
    with pytest.raises(ConfigError):
        Faults(loss=1.1)


def test_a_partition_separates_groups_and_leaves_the_rest_together() -> None:
    links = Links()
    assert not links.closed
    links.partition({0, 1}, {2})
    assert links.closed
    assert links.carries_datagram(0, 1)
    assert not links.carries_datagram(0, 2)
    assert not links.carries_datagram(3, 0)
    assert links.carries_datagram(3, 4)
    links.heal()
    assert not links.closed
    assert links.carries_stream(0, 2)


def test_a_one_way_cut_stops_streams_in_both_directions() -> None:
    links = Links()
    links.cut(0, 1)
    assert not links.carries_datagram(0, 1)
    assert links.carries_datagram(1, 0)
    assert not links.carries_stream(0, 1)
    assert not links.carries_stream(1, 0)
    links.mend(0, 1)
    assert not links.closed


def test_a_cut_of_udp_leaves_streams() -> None:
    links = Links()
    links.cut(0, 1, udp_only=True)
    assert not links.carries_datagram(0, 1)
    assert links.carries_stream(0, 1)


def test_datagrams_meet_every_fault_as_often_as_the_odds_say() -> None:
    faults = Faults(loss=0.2, duplicate=0.1, reorder=0.1, send_error=0.05)
    network = Network(faults, Random(1))
    routes = [network.route(0, 1) for _ in range(10000)]
    counters = network.counters
    assert 400 < counters.refused_sends == routes.count(None) < 600
    assert 1750 < counters.lost == routes.count(()) < 2100
    arrived = [route for route in routes if route]
    assert 650 < counters.duplicated == sum(len(route) == 2 for route in arrived) < 900
    assert 650 < counters.reordered < 900
    assert min(min(route) for route in arrived) >= faults.delay


def test_a_fault_that_is_switched_off_does_not_move_the_others() -> None:
    faults = Faults(loss=0.2, duplicate=0.1, reorder=0.1, send_error=0.05)
    both = Network(faults, Random(1))
    without = Network(replace(faults, duplicate=0.0, send_error=0.0), Random(1))
    without.links.cut(7, 8)
    for _ in range(2000):
        one, other = both.route(0, 1), without.route(0, 1)
        if one:
            assert other
            assert one[0] == other[0]
        elif one == ():
            assert other == ()


def test_conversations_are_whole_slow_or_cut() -> None:
    network = Network(Faults(exchange_slow=0.3, exchange_cut=0.2), Random(1))
    fates = [network.converse() for _ in range(2000)]
    counters = network.counters
    assert counters.exchanges == 2000
    assert 500 < counters.exchanges_slow < 700
    cut = [fate for fate in fates if fate.cut_request < 1 or fate.cut_answer < 1]
    assert 320 < counters.exchanges_cut == len(cut) < 480
    assert any(fate.cut_request < 1 for fate in cut)
    assert any(fate.cut_answer < 1 for fate in cut)
