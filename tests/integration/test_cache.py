"""The cache between real agents: every operation, who holds what, and what survives a crash or a goodbye."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

from mycorrizal import (
    ABSENT,
    Agent,
    Cache,
    CacheRedefined,
    ConfigError,
    LockLost,
    NotACounter,
    NotRunningError,
    OperationTimeout,
    ReentrantCallError,
    UnknownCache,
    ValueEncodeError,
)

from .agents import QUICK, QUICK_IN_SCRIPTS, Make, agents, meeting_place, runtime_dir  # noqa: F401 - fixtures
from .conftest import until
from .planes import Script, spawn, together

NAMES = ("alice", "bob", "carol")


@pytest.fixture(scope="module")
def team() -> Iterator[list[Agent]]:
    """Three agents that stay for all tests of this module which kill nobody."""
    with meeting_place():
        found = [Agent(name, config_file=False) for name in NAMES]
        try:
            for agent in found:
                agent.wait_for(3)
            yield found
        finally:
            for agent in found:
                agent.close()


def opened(team: list[Agent], name: str, **settings: Any) -> list[Cache]:
    caches = [agent.cache(name, **settings) for agent in team]
    caches[0].synced(20)
    return caches


def test_what_one_writes_all_read(team: list[Agent]) -> None:
    a, b, c = opened(team, "plain")
    values = {
        "text": "äöü", "number": 7, "none": None, "nested": {"a": [1, 2.5, b"x"]}, "bytes": bytes(100_000),
        "array": numpy.arange(10_000).reshape(100, 100),
    }  # fmt: skip
    for key, value in values.items():
        a[key] = value
    for cache in (a, b, c):
        assert all(cache[key] == value for key, value in values.items() if key != "array")
        assert (cache["array"] == values["array"]).all()
    assert b.get_many([*values, "nothing"]).keys() == values.keys()
    assert set(c) == set(values) and len(c) == len(values)
    assert "text" in b and "nothing" not in b and b.get("nothing", 5) == 5
    with pytest.raises(KeyError):
        b["nothing"]
    del b["text"]
    assert "text" not in a and "text" not in c
    with pytest.raises(KeyError):
        del c["text"]
    assert c.delete_many(["number", "none", "gone"]) == 2
    a.set_many({f"k{n}": n for n in range(500)})
    assert b.get_many(f"k{n}" for n in range(500)) == {f"k{n}": n for n in range(500)}
    c.clear()
    assert len(a) == 0 and a.get("k1") is None


def test_entries_lie_on_two_agents_each(team: list[Agent]) -> None:
    a, _, _ = opened(team, "spread")
    a.set_many({str(n): n for n in range(300)})
    a.synced(20)
    stats = a.stats()
    assert set(stats) == set(NAMES)
    assert sum(numbers["entries"] for numbers in stats.values() if numbers) == 600
    assert all(numbers is not None and numbers["primary_entries"] > 30 for numbers in stats.values())


def test_conditional_writes_counters_and_versions(team: list[Agent]) -> None:
    a, b, c = opened(team, "conditional")
    assert a.add("x", 1) and not b.add("x", 2)
    assert c.compare_and_set("x", 1, 5) and not a.compare_and_set("x", 1, 6)
    assert a.compare_and_set("new", ABSENT, 1) and not b.compare_and_set("new", ABSENT, 1)
    found = b.get_versioned("x")
    assert found is not None and found.value == 5
    assert a.compare_and_set("x", found, 6) and not c.compare_and_set("x", found, 7)
    assert together(8, lambda n: sum(1 for _ in range(20) if (a, b, c)[n % 3].incr("n"))) == [20] * 8
    assert a["n"] == b["n"] == 160
    assert b.incr("n", -60) == 100
    a["word"] = "word"
    with pytest.raises(NotACounter):
        b.incr("word")


def test_entries_live_as_long_as_they_are_told(team: list[Agent]) -> None:
    a, b, _ = opened(team, "short", ttl=0.4)
    a["default"] = 1
    a.set("ever", 1, ttl=None)
    a.set("long", 1, ttl=60)
    assert b.get("default") == 1
    assert b.touch("long", 0.4) and not b.touch("nothing")
    until(lambda: "default" not in a and "long" not in b, 5)
    assert b["ever"] == 1
    until(lambda: len(a) == 1, 5)
    with pytest.raises(ConfigError):
        a.set("x", 1, ttl=0)


def test_bounds_are_kept(team: list[Agent]) -> None:
    a, b, _ = opened(team, "small", max_entries=100)
    a.set_many({str(n): n for n in range(2000)})
    assert all(numbers is not None and numbers["entries"] <= 100 for numbers in b.stats().values())
    assert any(numbers is not None and numbers["evicted"] > 0 for numbers in b.stats().values())


def test_one_computes_and_all_others_wait(team: list[Agent]) -> None:
    caches = opened(team, "computed")
    computed: list[int] = []

    def compute() -> str:
        computed.append(threading.get_ident())
        time.sleep(0.3)
        return "value"

    assert together(30, lambda n: caches[n % 3].get_or_compute("cold", compute)) == ["value"] * 30
    assert len(computed) == 1
    with pytest.raises(ZeroDivisionError):
        caches[0].get_or_compute("bad", lambda: 1 // 0)
    assert caches[1].get_or_compute("bad", lambda: 7) == 7  # the next one computes at once
    assert caches[2].get_or_compute("absent", lambda: None, negative_ttl=0.3) is None
    assert caches[2].get_or_compute("absent", lambda: 1) is None
    until(lambda: caches[2].get_or_compute("absent", lambda: 2) == 2, 5)


@pytest.mark.parametrize("lost", [KeyboardInterrupt, OperationTimeout])
def test_what_was_given_to_a_caller_that_is_gone_is_free_at_once(
    team: list[Agent], monkeypatch: pytest.MonkeyPatch, lost: type[BaseException]
) -> None:
    """A Ctrl-C, or the last answer lost: the lease of an hour must not keep everybody waiting."""
    a, b, _ = opened(team, "interrupted")

    def result(*_: object) -> None:
        time.sleep(0.3)
        raise lost

    for number in range(4):  # with primaries here and there
        with monkeypatch.context() as patch:
            patch.setattr(a._host, "_result", result)
            with pytest.raises(lost):
                a.lock(f"job{number}", lease=3600)
            with pytest.raises(lost):
                a.get_or_compute(f"key{number}", int, lease=3600)
        began = time.monotonic()
        b.lock(f"job{number}", timeout=5).release()
        assert b.get_or_compute(f"key{number}", lambda: 7, timeout=5) == 7
        assert time.monotonic() - began < 2


def test_a_lock_is_renewed_while_its_block_runs_and_its_loss_is_told(team: list[Agent]) -> None:
    a, b, _ = opened(team, "renewed")
    with a.lock("job", lease=0.6, renew=True) as lock:
        with pytest.raises(OperationTimeout):
            b.lock("job", timeout=1.5)
        assert lock.held
    with b.lock("job", lease=0.3, timeout=1):
        pass
    lost = a.lock("job", lease=0.6, renew=True).__enter__()
    b.clear()
    until(lambda: not lost.held, 5)
    with pytest.raises(LockLost, match="cleared"):
        lost.__exit__(None, None, None)
    short = a.lock("job", lease=0.2).__enter__()
    taken = b.lock("job", timeout=5)
    with pytest.raises(LockLost, match="bob holds it"):
        short.__exit__(None, None, None)
    assert taken.release()


def test_a_computation_that_asks_for_its_own_key_has_an_end(team: list[Agent]) -> None:
    a, b, _ = opened(team, "circle")
    began = time.monotonic()

    def one() -> object:
        return b.get_or_compute("two", two)  # another agent of this process

    def two() -> object:
        return a.get_or_compute("one", one)

    with pytest.raises(ReentrantCallError, match="'one'"):
        a.get_or_compute("one", one)
    assert time.monotonic() - began < 5
    assert a.get_or_compute("one", lambda: 1, timeout=5) == b.get_or_compute("two", lambda: 1, timeout=5) == 1


def test_stale_values_are_given_out_while_one_computes_anew(team: list[Agent]) -> None:
    a, b, _ = opened(team, "stale")
    assert a.get_or_compute("x", lambda: 1, ttl=0.3, stale=30) == 1
    gate = threading.Event()

    def slow() -> int:
        gate.wait(10)
        return 2

    until(lambda: b.get_or_compute("x", slow, ttl=60, stale=30) == 1)
    time.sleep(0.4)  # it has expired by now
    assert b.get_or_compute("x", slow, ttl=60, stale=30) == 1
    assert a.get_or_compute("x", slow, ttl=60, stale=30) == 1
    gate.set()
    until(lambda: a.get_or_compute("x", slow, ttl=60, stale=30) == 2, 5)


def test_memoize(team: list[Agent]) -> None:
    a, b, _ = opened(team, "memo")
    calls: list[Any] = []

    def area(width: int, height: int = 1) -> int:
        """Its own text."""
        calls.append((width, height))
        return width * height

    first, second = a.memoize(ttl=60, name="area")(area), b.memoize(ttl=60, name="area")(area)
    assert first(2, 3) == second(2, 3) == first(2, 3) == 6
    assert first(2, height=4) == 8 and second(height=3, width=2) == 6
    assert calls == [(2, 3), (2, 4)]
    assert first.__doc__ == "Its own text."
    assert a.delete(first.key(2, 3))
    assert second(2, 3) == 6 and len(calls) == 3


def test_locks_are_exclusive_and_their_tokens_grow(team: list[Agent]) -> None:
    a, b, c = opened(team, "locks")
    inside: list[int] = []
    tokens: list[int] = []

    def work(n: int) -> None:
        with (a, b, c)[n % 3].lock("job", timeout=20) as lock:
            inside.append(n)
            assert len(inside) == 1
            tokens.append(lock.token)
            inside.remove(n)

    together(12, work)
    assert tokens == sorted(tokens) and len(set(tokens)) == 12
    held = a.lock("job", lease=0.5)
    with pytest.raises(OperationTimeout, match="held by alice"):
        b.lock("job", timeout=0.1)
    assert held.renew(0.5)
    taken = b.lock("job", timeout=10)  # the lease ran out
    assert taken.token > held.token
    for call in (held.renew, held.release):
        with pytest.raises(LockLost) as caught:
            call()
        assert caught.value.token == held.token and caught.value.node == "bob" and not held.held
    assert taken.release() and not taken.release()
    assert list(a) == []  # locks are no keys


def test_near_copies_are_invalidated(team: list[Agent]) -> None:
    caches = opened(team, "near", near=True, replicas=1)
    a = caches[0]
    a.set_many({str(n): n for n in range(100)})
    for cache in caches:
        assert all(cache[str(n)] == n for n in range(100))
    before = [cache.local_stats()["local_hits"] for cache in caches]
    for cache in caches:
        assert all(cache[str(n)] == n for n in range(100))
    after = [cache.local_stats()["local_hits"] for cache in caches]
    assert all(new - old == 100 for old, new in zip(before, after, strict=True))  # nobody was asked
    a.set_many({str(n): -n for n in range(100)})
    until(lambda: all(cache[str(n)] == -n for n in range(100) for cache in caches), 5)


def test_misuse_is_told(team: list[Agent]) -> None:
    a, _, _ = opened(team, "misuse")
    for key in (7, "", "\0x", b"x"):
        with pytest.raises(ConfigError):
            a.get(key)  # type: ignore[arg-type]
    with pytest.raises(ValueEncodeError):
        a["x"] = object()
    with pytest.raises(ConfigError):
        a.incr("x", 1.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        a.incr("x", 1 << 70)
    assert team[1].cache("misuse", replicas=3).definition.replicas == 2  # what runs holds
    assert team[0].cache("misuse", replicas=3) is a and a.definition.replicas == 2
    assert team[0].cache("misuse") is a
    assert a and repr(a) == "<Cache 'misuse' on alice>"


def test_numbers_of_a_member_that_lack_something(team: list[Agent], monkeypatch: pytest.MonkeyPatch) -> None:
    a, _, _ = opened(team, "numbers")
    told = {"alice": {"primary_entries": 2}, "bob": {"odd": 1}, "carol": None}
    monkeypatch.setattr(a._host, "stats", lambda *_: told)
    assert len(a) == 2


def test_seconds_that_are_none_are_refused_before_anybody_is_asked(team: list[Agent]) -> None:
    a, b, _ = opened(team, "seconds")
    held = a.lock("held")
    calls: list[Callable[[Any], object]] = [
        held.renew,
        lambda wrong: a.set("x", 1, ttl=wrong),
        lambda wrong: a.lock("x", lease=wrong),
        lambda wrong: a.get_or_compute("x", int, wrong),
        lambda wrong: a.get_or_compute("x", int, lease=wrong),
        lambda wrong: a.get_or_compute("x", int, refresh=wrong),
        lambda wrong: a.get_or_compute("x", int, stale=wrong),
        lambda wrong: a.get_or_compute("x", int, negative_ttl=wrong),
    ]
    for call in calls:
        for wrong in ("5", -1, float("inf"), float("nan"), 1e300):
            with pytest.raises(ConfigError, match="seconds"):
                call(wrong)
    assert held.release()
    assert b.get_or_compute("x", lambda: 7, timeout=5) == 7  # nobody holds a lease
    assert b.lock("x", timeout=5).release()


def test_settings_change_in_a_running_cluster(agents: Make, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    alice.wait_for(2)
    here = alice.cache("x", ttl=1000)
    here.set_many({str(number): number for number in range(50)})
    there = bob.cache("x", ttl=2)  # an edited cell, or a rolling restart
    assert there.definition.ttl == 1000 and "ttl=1000, not with ttl=2" in caplog.text
    here.synced(20)
    assert len(there) == 50 and there.get("7") == 7
    with bob.events() as events:
        assert alice.cache("x", ttl=0.2, max_entries=40, replicas=1, redefine=True) is here
        until(lambda: there.definition == here.definition, 5)
        while not isinstance(told := events.get(timeout=5), CacheRedefined):
            pass
    assert told.cache == "x" and told.after == {"ttl": 0.2, "max_entries": 40, "replicas": 1}
    there["short"] = 1
    until(lambda: "short" not in here, 5)
    assert len(here) <= 80
    bob.close()
    carol = agents("carol")
    carol.wait_for(2)
    until(lambda: carol.cache("x").definition.max_entries == 40, 5)


def test_end_of_an_agent_with_a_cache_that_others_define(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    alice.wait_for(2)
    alice.cache("x", ttl=1)
    assert bob.cache("x", ttl=2).definition.ttl == 1
    bob.close()
    alice.close()
    with pytest.raises(NotRunningError):
        alice.cache("x", ttl=1).set("a", 1)


def test_cache_is_opened_as_others_have_it(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    alice.wait_for(2)
    with pytest.raises(UnknownCache, match="there are: none at all"):
        bob.open_cache("x")
    alice.cache("x", ttl=60, near=True)["a"] = 1
    there = bob.open_cache("x")
    assert there.definition.ttl == 60 and there.definition.near and there["a"] == 1
    assert bob.open_cache("x") is there is bob.cache("x", ttl=60, near=True)
    with pytest.raises(UnknownCache, match="there are: x"):
        bob.open_cache("y")


def test_command_line_reads_and_writes_a_cache(agents: Make) -> None:  # noqa: F811
    bob = agents("bob", config_file=False)
    agents("alice", config_file=False).wait_for(2)

    def run(*words: str, expect: int = 0) -> str:
        command = [sys.executable, "-m", "mycorrizal", "cache", *words, "--agent", "alice"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == expect, done.stderr
        return done.stdout or done.stderr

    assert "no agent in sight has opened a cache 'x'" in run("get", "x", "a", expect=1)
    cache = bob.cache("x")
    run("set", "x", "a", "[1, 2]")  # opens it there
    assert cache["a"] == [1, 2]
    assert json.loads(run("get", "x", "a")) == [1, 2]
    assert run("keys", "x") == "a\n"
    assert set(json.loads(run("stats", "x", "--json"))) == {"alice", "bob"}
    run("delete", "x", "a")
    assert "no key 'a'" in run("get", "x", "a", expect=1)
    assert "a" not in cache


def test_metrics_count_what_callers_did_and_what_is_held(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    alice.wait_for(2)
    name = 'odd "name"'
    here = alice.cache(name, replicas=1, max_entries=200)
    bob.cache(name, replicas=1, max_entries=200)
    here.synced(20)
    for number in range(100):
        here[str(number)] = number
    assert all(here[str(number)] == number for number in range(100))
    assert here.get("nothing") is None
    del here["7"]

    def value(metric: str, **labels: str) -> int:
        more = "".join(f',{key}="{text}"' for key, text in labels.items())
        return alice.metrics()[f'cache.{metric}{{cache="odd \\"name\\""{more}}}']

    def both(metric: str) -> list[int]:
        return [value(metric, at=where) for where in ("local", "remote")]

    assert sum(both("sets")) == sum(both("hits")) == 100 and min(both("sets")) > 20
    assert both("hits") == both("sets")  # what lies here is read here
    assert sum(both("gets")) == 101 and sum(both("misses")) == 1 and sum(both("deletes")) == 1
    assert both("errors") == [0, 0]
    assert value("entries") == value("primary_entries") > 20 and value("bytes") > 20 * 256
    here.set_many({f"more{number}": number for number in range(1000)})
    assert value("evicted") > 0 and value("entries") <= 200
    here.set("short", 1, ttl=0.01)
    bob.cache(name, replicas=1, max_entries=200).set("short", 1, ttl=0.01)
    numbers = [agent.metrics() for agent in (alice, bob)]
    assert all(isinstance(count, int) for found in numbers for count in found.values())
    assert not any("short" in metric for metric in numbers[0])


MEMBER = f"""
    {QUICK_IN_SCRIPTS}
    with Agent('carol', config=config, config_file=False) as agent:
        cache = agent.cache("c")
        say("ready")
        while order := hear():
            exec(order)
"""


def test_a_batch_of_more_than_goes_at_once_is_whole(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    bob.wait_for(2, 20)
    here, there = alice.cache("c", replicas=1), bob.cache("c", replicas=1)
    here.synced(30)
    items = {f"key {n}": n if n % 3 else f"text {n}" for n in range(20_000)}
    here.set_many(items, timeout=120)
    assert there.get_many(items, timeout=120) == items
    assert len(here) == 20_000
    assert there.delete_many([*items, "nothing"], timeout=120) == 20_000
    assert here.get_many(items, timeout=120) == {}


def test_what_was_written_survives_a_kill_and_a_goodbye(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice", config=QUICK), agents("bob", config=QUICK)
    with spawn(MEMBER) as carol:
        assert carol.words() == ["ready"]
        alice.wait_for(3)
        here, there = alice.cache("c"), bob.cache("c")
        here.synced(20)
        here.set_many({str(n): n for n in range(500)})
        assert here.delete("7")
        carol.kill()
        until(lambda: len(alice.members()) == 2, 20)
        here.synced(20)
        expected = {str(n): n for n in range(500) if n != 7}
        assert there.get_many(map(str, range(500))) == expected
    bob.leave()  # hands over what it holds
    bob.close()
    assert here.get_many(map(str, range(500))) == expected
    # Under the name of the one that was killed, with nothing in it: filled before it serves.
    with spawn(MEMBER) as carol:
        assert carol.words() == ["ready"]
        carol.tell("cache.synced(20); say(len(cache.get_many(str(n) for n in range(500))))")
        assert carol.words() == ["499"]


CROWD = """
    {config}
    with Agent({name!r}, config=config, config_file=False) as agent:
        agent.wait_for(5)
        cache = agent.cache("c")
        cache.synced(30)
        say("ready")
        def compute():
            say("computing")
            time.sleep(seconds)
            return "value"
        while order := hear():
            key, seconds = order.split()[0], float(order.split()[1])
            got = []
            threads = [
                threading.Thread(target=lambda: got.append(cache.get_or_compute(key, compute, timeout=60)))
                for _ in range(20)
            ]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            say("got", got.count("value"))
"""


def test_hundred_callers_on_five_agents_compute_once_and_once_more_if_that_one_is_killed(
    runtime_dir: str,  # noqa: F811
) -> None:
    with contextlib.ExitStack() as stack:
        bodies = [CROWD.format(name=f"n{number}", config=QUICK_IN_SCRIPTS) for number in range(5)]
        crowd = [stack.enter_context(spawn(body)) for body in bodies]
        for one in crowd:
            assert one.words(90) == ["ready"]

        for one in crowd:
            one.tell("cold 2")
        said = [_until_got(one) for one in crowd]
        assert sorted(said) == [0, 0, 0, 0, 1]

        for one in crowd:
            one.tell("killed 2")
        computing = _first_to_speak(crowd)
        assert computing.words() == ["computing"]
        computing.kill()
        said = [_until_got(one) for one in crowd if one is not computing]
        assert sorted(said) == [0, 0, 0, 1]


def _until_got(one: Script) -> int:
    """Return how often a process computed until all its callers had the value."""
    computed = 0
    while (words := one.words(60)) == ["computing"]:
        computed += 1
    assert words == ["got", "20"]
    return computed


def _first_to_speak(crowd: list[Script]) -> Script:
    """Return the first process that says something."""
    pipes = {one.process.stdout.fileno(): one for one in crowd if one.process.stdout is not None}
    ready, _, _ = select.select(list(pipes), [], [], 30)
    return pipes[ready[0]]
