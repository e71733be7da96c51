"""What those who come from Redis call: ``ttl``, ``exists``, ``expire``, ``decr``, ``keys`` and ``scan``, and times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from mycorrizal import ConfigError
from mycorrizal._cache.entry import NEVER, Entry
from mycorrizal._cache.operations import Kind, Result, Status
from mycorrizal._cache.survey import Cursor
from mycorrizal._runtime.threads import clock
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._wire.values import encode_value
from mycorrizal.cache import Cache

from .test_cache import KEY, NOW, PLACE, RAW, Host, bad, cache_of, host, keep  # noqa: F401 - a fixture


def test_ttl_of_what_is_held_here(host: Host) -> None:  # noqa: F811
    cache = cache_of(host)
    for expires, left in ((NEVER, None), (NOW + 7.5, 7.5)):
        keep(host, 1, expires=expires)
        assert cache.ttl(KEY) == left
    host.machine.readable("c")[PLACE] = {RAW: Entry(RAW, bad(), 1, NOW + 1.0)}
    assert cache.ttl(KEY) == 1.0 and cache.exists(KEY), "its value need not be readable"
    assert host.asked == []


def test_ttl_of_what_is_elsewhere(host: Host) -> None:  # noqa: F811
    cache, value = cache_of(host), encode_value(1).pack()
    host.answers = [Result(Status.OK, value, ttl=1500), Result(Status.OK, value), Result(Status.MISSING)]
    assert cache.ttl(KEY) == 1.5 and cache.ttl(KEY) is None
    with pytest.raises(KeyError, match=KEY):
        cache.ttl(KEY)
    host.answers = [Result(Status.OK, value), Result(Status.MISSING)]
    assert cache.exists(KEY) and not cache.exists(KEY)
    assert {op.kind for op in host.asked} == {Kind.GET}


def test_expire_is_touch_and_decr_is_incr(host: Host) -> None:  # noqa: F811
    cache = cache_of(host, ttl=9.0)
    host.answers = [Result(Status.OK), Result(Status.MISSING), Result(Status.OK), Result(Status.OK, number=-2)]
    assert cache.expire(KEY, 1) and not cache.expire(KEY, timedelta(minutes=1)) and cache.expire(KEY, None)
    assert cache.decr(KEY, np.int64(2)) == -2  # type: ignore[arg-type]
    assert [(op.kind, op.ttl) for op in host.asked[:3]] == [(Kind.TOUCH, 1000), (Kind.TOUCH, 60_000), (Kind.TOUCH, 0)]
    assert (host.asked[3].kind, host.asked[3].number, host.asked[3].ttl) == (Kind.INCR, -2, 9000)
    amounts: list[Any] = [-(1 << 63), 1.5, "1", None, True]
    for wrong in amounts:
        with pytest.raises(ConfigError, match="by"):
            cache.decr(KEY, wrong)
    times: list[Any] = [0, -1, timedelta(0), timedelta(-1), "1"]
    for wrong in times:
        with pytest.raises(ConfigError, match="ttl"):
            cache.expire(KEY, wrong)


class Paged(Host):
    """Has its keys in pages."""

    pages: tuple[list[str], ...] = (["user:1", "a"], [], ["user:2", "userx", "é"])

    def keys(self, cache: str, cursor: Cursor, most: int, deadline: Deadline) -> tuple[list[bytes], Cursor]:
        self.counts = [*getattr(self, "counts", []), most]
        number = len(cursor.after)
        left = () if number == len(self.pages) - 1 else cursor.left
        return [key.encode() for key in self.pages[number]], Cursor(left, cursor.after + b"x")


def test_keys_and_scan(host: Host) -> None:  # noqa: F811
    paged = Paged(host.machine)
    cache = cache_of(paged)
    assert list(iter(cache)) == list(cache.keys()) == ["user:1", "a", "user:2", "userx", "é"]
    assert list(cache.keys(prefix="user:")) == ["user:1", "user:2"] and list(cache.keys(prefix="é")) == ["é"]
    paged.counts.clear()
    assert list(cache.scan(prefix="user", count=7)) == [["user:1"], [], ["user:2", "userx"]]
    assert paged.counts == [7, 7, 7]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda cache: cache.keys("x*"), TypeError),
        (lambda cache: cache.scan("x*"), TypeError),
        (lambda cache: cache.keys(prefix=b"x"), ConfigError),
        (lambda cache: cache.scan(count=0), ConfigError),
        (lambda cache: cache.scan(count=1 << 17), ConfigError),
        (lambda cache: cache.scan(count=True), ConfigError),
        (lambda cache: cache.ttl(b"x"), ConfigError),
        (lambda cache: cache.exists(""), ConfigError),
        (lambda cache: list(cache.keys(timeout="x")), TypeError),
    ],
)
def test_what_is_none_of_that_is_refused_at_once(
    host: Host, call: Callable[[Cache], Any], error: type[Exception]  # noqa: F811
) -> None:
    with pytest.raises(error):
        call(cache_of(Paged(host.machine)))


def test_times_may_be_timedeltas(host: Host) -> None:  # noqa: F811
    five = timedelta(seconds=5)
    cache = cache_of(host, ttl=3.0)
    host.answers = [Result(Status.OK)] * 4
    cache.set(KEY, 1, timeout=five)
    cache.set(KEY, 1, five, five)
    lock = cache.lock("x", five, five)
    assert lock.held and lock.renew(timedelta(seconds=9), five)
    assert [op.ttl for op in host.asked] == [3000, 5000, 5000, 9000]
    keep(host, 1, expires=NOW + 4.0)
    none = timedelta(0)
    assert cache.get_or_compute(KEY, int, refresh=none, stale=none) == 1
    host.answers = [Result(Status.LEASED, number=7), Result(Status.OK)]
    found = cache.get_or_compute(KEY, lambda: 2, five, lease=five, refresh=five, stale=five, negative_ttl=five)
    assert found == 2
    assert (host.asked[-2].number, host.asked[-2].early, host.asked[-1].ttl) == (5000, 10_000, 10_000)
    assert 4 < Deadline(five).capped(60) <= 5 and Deadline(timedelta(days=999)).remaining() is None
    assert Deadline(-five).passed and Deadline.at(clock.now() - 1).passed
