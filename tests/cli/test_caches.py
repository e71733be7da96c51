"""``mycorrizal cache``: output, JSON, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests._control.fake import FakeAgent

from .conftest import Run

Start = Callable[..., FakeAgent]


def test_key_is_set_read_and_deleted(run: Run, start: Start) -> None:
    cache = start("alice").held["features"]
    assert run("cache", "set", "features", "x", '{"a": [1, 2]}', "--ttl", "2").exit_code == 0
    assert cache.entries == {"x": {"a": [1, 2]}} and cache.lives == {"x": 2.0}
    assert json.loads(run("cache", "get", "features", "x").stdout) == {"a": [1, 2]}
    assert run("cache", "set", "features", "word", "7", "--text").exit_code == 0
    assert run("cache", "get", "features", "word").stdout == "7\n"
    assert run("cache", "get", "features", "word", "--json").stdout == '"7"\n'
    assert run("cache", "delete", "features", "x").exit_code == 0
    for verb in ("get", "delete"):
        done = run("cache", verb, "features", "x")
        assert done.exit_code == 1 and "has no key 'x'" in done.stderr and done.stdout == ""


def test_keys_one_a_line_or_as_json(run: Run, start: Start) -> None:
    cache = start("alice").held["features"]
    empty = run("cache", "keys", "features")
    assert empty.exit_code == 0 and empty.stdout == "" and empty.stderr == "no keys\n"
    cache.entries = {"b": 1, "a": 2, "evil\x1b[2J": 3}
    assert run("cache", "keys", "features").stdout == "a\nb\nevil\\x1b[2J\n"
    done = run("cache", "keys", "features", "--json", "--limit", "2")
    assert json.loads(done.stdout) == ["a", "b"] and "more than 2" in done.stderr


def test_cache_is_made_listed_and_not_changed_unasked(run: Run, start: Start) -> None:
    agent = start("alice")
    done = run("cache", "create", "scores", "--max-entries", "100", "--ttl", "60", "--json")
    assert json.loads(done.stdout)["max_entries"] == 100
    assert agent.held["scores"].definition.ttl == 60.0
    assert run("cache", "create", "scores", "--max-entries", "100", "--ttl", "60").exit_code == 0
    other = run("cache", "create", "scores", "--replicas", "1")
    assert other.exit_code == 1 and "replicas=2" in other.stderr and "redefine" in other.stderr
    assert run("cache", "create", "scores", "--replicas", "1", "--redefine").exit_code == 0
    rows = run("cache", "list").stdout.splitlines()
    assert rows[0].split() == ["NAME", "REPLICAS", "TTL", "MAX", "ENTRIES", "MAX", "BYTES", "NEAR", "QUORUM"]
    assert [row.split()[:2] for row in rows[1:]] == [["features", "2"], ["scores", "1"]]
    assert [one["name"] for one in json.loads(run("cache", "list", "--json").stdout)] == ["features", "scores"]
    assert run("cache", "create", "scores", "--max-bytes", "0").exit_code == 2


def test_time_that_a_key_has_left(run: Run, start: Start) -> None:
    start("alice")
    assert run("cache", "set", "features", "x", "1", "--ttl", "90").exit_code == 0
    assert run("cache", "set", "features", "y", "1").exit_code == 0
    assert json.loads(run("cache", "ttl", "features", "x").stdout) == 90.0
    assert run("cache", "ttl", "features", "y").stdout == "null\n"
    done = run("cache", "ttl", "features", "z")
    assert done.exit_code == 1 and "has no key 'z'" in done.stderr


def test_stats_are_a_row_for_each_agent(run: Run, start: Start) -> None:
    start("alice")
    rows = run("cache", "stats", "features").stdout.splitlines()
    assert rows[0].split()[:3] == ["NODE", "ENTRIES", "BYTES"]
    assert rows[1].split()[:3] == ["alice", "0", "9"] and rows[2].split()[:2] == ["bob", "-"]
    assert json.loads(run("cache", "stats", "features", "--json").stdout)["bob"] is None


def test_cache_that_nobody_opened_is_told_and_wrong_usage_too(run: Run, start: Start) -> None:
    start("alice")
    done = run("cache", "get", "nothing", "x")
    assert done.exit_code == 1 and "has opened a cache 'nothing'" in done.stderr
    assert run("cache", "set", "features", "x").exit_code == 2
    assert run("cache", "get", "features", "").exit_code == 2
