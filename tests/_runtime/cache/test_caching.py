"""``CacheHost``'s threads; what it does on the loop is tested with real agents in integration/."""

from __future__ import annotations

import os
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal._cache.definition import Definition
from mycorrizal._cache.entry import NEVER, Entry
from mycorrizal._cache.placement import PARTITIONS, partition_of
from mycorrizal._cache.reading import held
from mycorrizal._runtime.cache.caching import CacheHost
from mycorrizal._runtime.threads import clock
from mycorrizal.dataplane import DataPlane


def host() -> tuple[CacheHost, Counter[str]]:
    counted: Counter[str] = Counter()
    core: Any = SimpleNamespace(
        name="one", boot=b"boot-one", system={}, at_end=[], count=lambda name: counted.update([name])
    )
    return CacheHost(core), counted


def test_refreshes_go_on_after_a_time_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    caches, counted = host()
    ran = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        for _ in range(20):  # more than may run at a time
            caches.background(ran.set)
    assert counted == {"cache.refreshes_dropped": 20} and not ran.is_set()
    caches.background(ran.set)
    assert ran.wait(10)


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_of_the_views_that_came_meanwhile_only_the_last_is_looked_at() -> None:
    submitted: list[Any] = []
    core: Any = SimpleNamespace(name="one", boot=b"boot-one", system={}, at_end=[], submit=submitted.append)
    caches: Any = CacheHost(core)
    told: list[Any] = []
    caches.machine.members_changed = lambda announced, now: told.append(announced)
    caches._pull = lambda now: None
    view = {"two": (b"boot-two", {"c": Definition("c")})}
    for announced in ({}, view):
        caches.members_changed(announced)
    for command in submitted:
        command(0.0)
    assert told == [view]


# -- the end ----------------------------------------------------------------------------------


KEY = b"key"


def readable(caches: CacheHost) -> tuple[bool, bool]:
    """Return whether an entry of this node's, and a near copy, can be read."""
    now = clock.now()
    tables, near = caches.readable("c"), caches.near("c")
    return held(tables, None, KEY, now) is not None, held([{}] * PARTITIONS, near, KEY, now) is not None


def with_entries(core: Any) -> CacheHost:
    """Return a host with an entry and a near copy of a key."""
    caches = CacheHost(core)
    caches.machine.define(Definition("c", near=True), clock.now())
    entry, place = Entry(KEY, b"v", 1, NEVER), partition_of(KEY)
    caches.readable("c")[place] = {KEY: entry}
    caches.near("c").tables[place][KEY] = entry
    caches.near("c").until[place] = clock.now() + 1000.0
    assert readable(caches) == (True, True)
    return caches


def test_nothing_is_read_after_the_end() -> None:
    core: Any = SimpleNamespace(name="one", boot=b"boot-one", system={}, at_end=[])
    caches = with_entries(core)
    for act in core.at_end:
        act()
    assert readable(caches) == (False, False)


def test_nothing_is_read_once_the_plane_is_closed() -> None:
    with DataPlane("one") as plane:
        caches = with_entries(plane._started)
        assert readable(caches) == (True, True)
    assert readable(caches) == (False, False)


def test_nothing_is_read_in_a_forked_child() -> None:
    """It would grow old there: nobody tells a child what was overwritten."""
    with DataPlane("one") as plane:
        caches = with_entries(plane._started)
        child = os.fork()
        if not child:
            os._exit(0 if readable(caches) == (False, False) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert readable(caches) == (True, True), "it is the parent's"
