"""The text for Prometheus, read by a strict reader; what is in it comes from dicts, whoever named the labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal._agent.cachemetrics import escaped
from mycorrizal._agent.exposition import exposition
from mycorrizal._histogram import Histogram

from .prometheus_text import read


def test_names_have_units_and_counters_say_so() -> None:
    numbers = {"udp.sent": 7, "members": 3, "timers.late_ms": 1500, "inbox.bytes": 9, "probes_failed": 2}
    text = exposition({"name": "a"}, numbers, {})
    found = read(text)
    assert found["mycorrizal_udp_sent_bytes_total"] == {(): 7.0} and found["mycorrizal_members"] == {(): 3.0}
    assert found["mycorrizal_timers_late_seconds"] == {(): 1.5} and found["mycorrizal_inbox_bytes"] == {(): 9.0}
    assert found["mycorrizal_agent_info"] == {(("name", "a"),): 1.0} and found["mycorrizal_probes_failed_total"]
    assert "# TYPE mycorrizal_members gauge\n" in text and "# TYPE mycorrizal_udp_sent_bytes_total counter\n" in text


def test_the_end_of_a_name_is_a_label_where_the_total_is_counted_too() -> None:
    found = read(exposition({}, {"offences": 2, "offences.flood": 1, "offences.a.b": 1, "dropped.notify_msg": 3}, {}))
    assert found["mycorrizal_offences_total"] == {(): 2.0}
    assert found["mycorrizal_offences_by_what_total"] == {(("what", "flood"),): 1.0, (("what", "a.b"),): 1.0}
    assert found["mycorrizal_dropped_by_what_total"] == {(("what", "notify_msg"),): 3.0}


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
def test_labels_may_hold_anything(name: str, cache: str) -> None:
    key = f'cache.gets{{cache="{escaped(cache)}",at="local"}}'
    found = read(exposition({"name": name}, {key: 4}, {f'cache.operation{{cache="{escaped(cache)}"}}': Histogram()}))
    assert found["mycorrizal_cache_gets_total"] == {(("at", "local"), ("cache", cache)): 4.0}
    assert found["mycorrizal_agent_info"] == {(("name", name),): 1.0}
    assert found["mycorrizal_cache_operation_seconds_count"] == {(("cache", cache),): 0.0}


def test_a_histogram_is_cumulated() -> None:
    times = Histogram((0.001, 0.5))
    for seconds in (0.0005, 0.1, 0.1, 3.0):
        times.observe(seconds)
    found = read(exposition({}, {}, {"request": times}))
    buckets = {dict(labels)["le"]: value for labels, value in found["mycorrizal_request_seconds_bucket"].items()}
    assert buckets == {"0.001": 1.0, "0.5": 3.0, "+Inf": 4.0}
    assert found["mycorrizal_request_seconds_sum"][()] == pytest.approx(3.2005)


def test_a_name_that_nobody_described_is_told_all_the_same() -> None:
    text = exposition({}, {'new.thing{a="b"}': 1}, {})
    assert read(text)["mycorrizal_new_thing"] == {(("a", "b"),): 1.0}
    assert "# TYPE mycorrizal_new_thing untyped\n" in text
