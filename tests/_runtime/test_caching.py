"""``CacheHost``'s threads; what it does on the loop is tested with real agents in integration/."""

from __future__ import annotations

import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal._runtime.caching import CacheHost


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
