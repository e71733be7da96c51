"""A cache in the hands of somebody who does what one should not, at moments when one should not."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy
import pytest

from mycorrizal import (
    ABSENT,
    Agent,
    Cache,
    ConfigError,
    ForkedProcessError,
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    QueueFull,
    ValueTooLarge,
    Versioned,
)
from mycorrizal import cache as cache_module
from mycorrizal._cache.definition import Limits

from .agents import Make, agents, meeting_place, runtime_dir  # noqa: F401 - fixtures
from .conftest import until
from .planes import Task, together


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Agent, Agent]]:
    """Two agents that stay."""
    with meeting_place(), Agent("alice", config_file=False) as alice, Agent("bob", config_file=False) as bob:
        alice.wait_for(2)
        yield alice, bob


def opened(pair: tuple[Agent, Agent], name: str, **settings: Any) -> tuple[Cache, Cache]:
    here, there = (agent.cache(name, **settings) for agent in pair)
    here.synced(20)
    return here, there


def far(cache: Cache, prefix: str = "") -> str:
    """Return a key whose primary is the other agent."""
    names = (f"{prefix}{number}" for number in range(1000))
    return next(name for name in names if not cache._host.leads(cache.name, name.encode()))


# -- as a mapping -----------------------------------------------------------------------------


def test_iteration_passes_by_what_goes_meanwhile(pair: tuple[Agent, Agent]) -> None:
    here, there = opened(pair, "going")
    here.update({str(number): number for number in range(300)}, more=1)
    there.set("short", 1, ttl=0.001)
    time.sleep(0.01)  # it has expired, and is a key for up to two seconds more
    found: dict[str, int] = {}
    for key, value in here.items():
        if not found:
            assert there.delete_many(map(str, range(200, 300))) == 100
        found[key] = value
    assert {str(number) for number in range(200)} | {"more"} <= found.keys() and "short" not in found
    assert there == {str(number): number for number in range(200)} | {"more": 1}
    assert sorted(there.values()) == sorted([*range(200), 1]) and 199 in there.values() and 299 not in there.values()
    assert ("7", 7) in here.items() and ("short", 1) not in here.items()


def test_of_several_who_take_one_gets_it(pair: tuple[Agent, Agent]) -> None:
    caches = opened(pair, "taken")
    here = caches[0]
    for number in range(10):
        here["job"] = number
        got = together(6, lambda n: caches[n % 2].pop("job", None))
        assert sorted(got, key=str) == [number, *[None] * 5]
    with pytest.raises(KeyError):
        here.pop("job")
    assert here.pop("job", default=7) == 7 and here.take("job") is ABSENT
    here.update((str(number), number) for number in range(20))
    here.set("short", 1, ttl=0.001)
    time.sleep(0.01)
    taken = together(20, lambda n: caches[n % 2].popitem())
    assert sorted(taken) == sorted((str(number), number) for number in range(20))
    with pytest.raises(KeyError):
        here.popitem()
    assert len(set(together(6, lambda n: caches[n % 2].setdefault("default", n)))) == 1


def test_more_operations_at_once_than_may_be_under_way(
    pair: tuple[Agent, Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = opened(pair, "many", replicas=1)
    assert cache_module._OPS_AT_ONCE * 8 == Limits().operations
    monkeypatch.setattr(cache_module, "_OPS_AT_ONCE", 1024)
    for cache in (here, there):
        core = cache._host.machine._core
        monkeypatch.setattr(core, "limits", replace(core.limits, operations=4096))
    here.set_many({str(number): number for number in range(5000)}, timeout=60)
    assert len(there.get_many(map(str, range(5000)), timeout=60)) == 5000
    assert here.delete_many(map(str, range(5000)), timeout=60) == 5000
    monkeypatch.setattr(cache_module, "_OPS_AT_ONCE", 5000)
    with pytest.raises(QueueFull):
        here.get_many(map(str, range(5000)))


# -- odd values -------------------------------------------------------------------------------


def test_expected_values_that_are_odd_or_large(pair: tuple[Agent, Agent]) -> None:
    here, there = opened(pair, "expected")
    key = far(here)
    here[key] = 1
    for odd in (object(), "7", 1.5, None, -1, 1 << 63, True):
        with pytest.raises(ConfigError, match="version"):
            here.compare_and_set(key, Versioned(1, odd), 2)  # type: ignore[arg-type]
    array = numpy.arange(3_000_000)
    there[key] = array
    array[7] += 1
    assert not here.compare_and_set(key, array, "no")
    array[7] -= 1
    assert sorted(together(4, lambda n: (here, there)[n % 2].compare_and_set(key, array, n))) == [False] * 3 + [True]
    assert pair[0].metrics().get("offences", 0) == 0  # the connection lived


def test_value_that_fits_into_no_message(pair: tuple[Agent, Agent], monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = opened(pair, "limit")
    monkeypatch.setattr(cache_module, "_VALUE_MAX", 1 << 20)
    for write in (here.set, here.add, lambda key, value: here.set_many({key: value})):
        with pytest.raises(ValueTooLarge):
            write("x", bytes(1 << 20))
    here["x"] = bytes((1 << 20) - 1000)


def test_seconds_of_all_kinds_of_numbers(pair: tuple[Agent, Agent]) -> None:
    here, _ = opened(pair, "kinds")
    for number, seconds in enumerate((numpy.int16(60), numpy.int32(3_000_000), numpy.float32(60), Decimal(60))):
        here.set(f"x{number}", 1, ttl=seconds)  # type: ignore[arg-type]
        assert here.get_or_compute(f"y{number}", lambda: 1, seconds, stale=1e12) == 1  # type: ignore[arg-type]
    time.sleep(0.05)
    assert all(f"x{number}" in here and f"y{number}" in here for number in range(4))


def test_settings_that_others_could_not_read(pair: tuple[Agent, Agent]) -> None:
    settings: list[dict[str, Any]] = [{"near": 1}, {"replicas": numpy.float32(2)}, {"ttl": 1j}, {"sync_backups": None}]
    for number, odd in enumerate(settings):
        with pytest.raises(ConfigError):
            pair[0].cache(f"odd{number}", **odd)
    with pytest.raises(ConfigError, match="255 bytes"):
        pair[0].cache("n" * 255)
    numbers: dict[str, Any] = {"ttl": numpy.int64(60), "max_entries": numpy.int16(1000)}
    pair[0].cache("n" * 230, **numbers)
    assert pair[1].open_cache("n" * 230).definition.ttl == 60
    assert pair[1].cache("n" * 230).definition.ttl == 60
    pair[0].cache("odd0").set("x", 1)  # what was refused has left nothing


# -- waiting ----------------------------------------------------------------------------------


def test_who_waits_in_vain_is_told_who_holds_it(pair: tuple[Agent, Agent]) -> None:
    here, _ = opened(pair, "vain")
    for name in (far(here), next(str(n) for n in range(1000) if here._host.leads("vain", b"\0lock\0%d" % n))):
        held = here.lock(name)
        for _ in range(15):
            with pytest.raises(OperationTimeout, match="held by alice"):
                here.lock(name, timeout=0.1)
        assert held.release()
    gate = threading.Event()
    key = far(here, "slow")
    task = Task(here.get_or_compute, key, gate.wait)
    while here._host.machine.info("vain")["served_gets"] + pair[1].cache("vain").local_stats()["served_gets"] == 0:
        time.sleep(0.01)
    for _ in range(15):
        with pytest.raises(OperationTimeout, match="computed elsewhere"):
            here.get_or_compute(key, int, timeout=0.1)
    gate.set()
    assert task.result(10) is True


def test_computed_value_that_is_too_large_keeps_nobody_waiting(pair: tuple[Agent, Agent]) -> None:
    here, there = opened(pair, "bounded", max_bytes=2000)
    began = time.monotonic()
    for cache in (here, there):
        assert len(cache.get_or_compute("x", lambda: bytes(5000), lease=30)) == 5000
    assert time.monotonic() - began < 10


def test_refresh_that_finds_no_room_gives_its_lease_back(
    pair: tuple[Agent, Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = opened(pair, "refreshed")
    here["x"] = 1
    here.touch("x", 60)
    with monkeypatch.context() as patch:
        patch.setattr(here._host, "background", lambda _: False)
        assert here.get_or_compute("x", lambda: 2, refresh=100) == 1
    until = time.monotonic() + 10
    while there.get_or_compute("x", lambda: 2, refresh=50, ttl=60) == 1 and time.monotonic() < until:
        there.touch("x", 40)  # now it wants to be computed anew, and the lease is free
        time.sleep(0.05)
    assert there["x"] == 2


def test_no_time_at_all(pair: tuple[Agent, Agent]) -> None:
    here, _ = opened(pair, "no-time")
    key = far(here)
    here[key] = 1
    for seconds in (0, -5, float("-inf")):
        with pytest.raises(MycorrizalError) as caught:
            here.set(key, 2, timeout=seconds)
        assert caught.value.indeterminate
    for wrong in ("1", float("nan")):
        with pytest.raises((TypeError, ValueError)):
            here.set(key, 2, timeout=wrong)  # type: ignore[arg-type]


# -- after the end ----------------------------------------------------------------------------


def test_end_of_an_agent_ends_every_wait_and_every_read(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    cache = alice.cache("x")
    cache["key"] = 1
    held, gate = cache.lock("job"), threading.Event()
    (space,) = cache._host.machine.spaces()
    computing = Task(cache.get_or_compute, "slow", gate.wait)
    until(lambda: space.primary.leases._count == 1)
    waiting = [Task(cache.lock, "job", timeout=None), Task(cache.get_or_compute, "slow", int, timeout=None)]
    until(lambda: space.primary.leases._parked == 2)
    alice.close()
    for task, unsure in zip(waiting, (True, False), strict=True):
        with pytest.raises(NotRunningError) as caught:
            task.result(10)
        assert caught.value.indeterminate is unsure  # the lock may have been given
    gate.set()
    for late in (
        lambda: computing.result(10), lambda: cache.get("key"), lambda: cache.get_many(["key"]), held.release,
        lambda: cache.get_or_compute("key", int), lambda: list(cache), cache.stats,
    ):  # fmt: skip
        with pytest.raises(NotRunningError):
            late()


def test_child_does_not_read_what_its_parent_holds(agents: Make) -> None:  # noqa: F811
    cache = agents("alice").cache("x")
    cache["key"] = 1
    child = os.fork()
    if not child:
        try:
            cache.get("key")
        except ForkedProcessError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert cache["key"] == 1


# -- memoize ----------------------------------------------------------------------------------


def test_memoize_of_what_is_no_function(pair: tuple[Agent, Agent]) -> None:
    here, _ = opened(pair, "memoized")
    assert here.memoize(name="length")(functools.partial(len, [1, 2]))() == 2
    with pytest.raises(ConfigError, match="version="):
        here.memoize(len)
    with pytest.raises(ConfigError, match="ttl"):
        here.memoize(ttl=-1, name="length")(len)
