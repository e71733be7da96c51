"""The caches of one agent, without other agents: opened once, told as they are, handed over in time."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal import CacheConflict, CacheRedefined, ConfigError, QueueFull
from mycorrizal._agent import caching
from mycorrizal._agent.cachemetrics import cache_metrics
from mycorrizal._agent.caching import ANNOUNCED, Caches, _as_told, _pack, _unpack
from mycorrizal._cache.definition import Definition
from mycorrizal._cache.operations import Kind, Status
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._wire.values import DEFAULT, decode_packed


class Host:
    """A cache host and a sharing that do at once what they are told."""

    def __init__(self) -> None:
        self.machine = self.replica = self
        self.told: list[Any] = []
        self.services: dict[tuple[str, str], bytes] = {}
        self.retired_now = True
        self.registered: list[tuple[str, bytes]] = []
        self.events: list[Any] = []
        self.full = False
        self.members: Any = None
        self.on_view: Any = None
        self.views = 0

    def do(self, command: Any, deadline: Deadline, operation: str) -> Any:
        return command(0.0)

    call = do

    def define(self, definition: Definition, now: float, redefine: bool = False, telling: float = 0.0) -> Definition:
        self.told.append(("define", definition.name))
        return replace(definition, edition=1) if redefine else definition

    def register(self, service_id: str, record: bytes, now: float) -> None:
        if self.full:
            raise QueueFull("no room")
        self.registered.append((service_id, record))

    def on_event(self, event: Any) -> None:
        self.events.append(event)

    def near(self, name: str) -> Any:
        return object()

    def announce(self, service_id: str, record: bytes, deadline: Deadline) -> None:
        self.told.append(("announce", service_id))

    def was_told(self, name: str) -> None:
        assert self.told[-1] == ("announce", ANNOUNCED + name)

    def deregister(self, service_id: str, now: float) -> None:
        self.told.append(("withdraw", service_id))

    def retire(self, name: str, now: float) -> None:
        self.told.append(("retire", name))

    def retired(self, name: str) -> bool:
        return self.retired_now

    def readable(self, name: str) -> list[Any]:
        return []

    def members_changed(self, announced: Any) -> None:
        self.members = announced
        self.views += 1


def caches_of(host: Host) -> Caches:
    made: Any = host
    return Caches(made, made, DEFAULT)


def test_a_cache_is_opened_once_and_what_runs_holds(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    caches = caches_of(host)
    cache = caches.open(Definition("c"), None)
    assert caches.open(Definition("c"), None) is cache
    assert host.told == [("define", "c"), ("announce", ANNOUNCED + "c")]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert caches.open(Definition("c", ttl=1.0), None) is cache
    (record,) = caplog.records
    assert "runs with ttl=None, not with ttl=1.0 as is asked; redefine=True" in record.getMessage()
    assert len(host.told) == 2 and cache.definition == Definition("c")
    assert caches.open_known("c", None) is cache and caches.known() == {"c": Definition("c")}
    assert caches.open(Definition("c", ttl=1.0, near=True), None, redefine=True) is cache
    assert host.told[2:4] == host.told[:2] and cache.definition == Definition("c", ttl=1.0, near=True)
    assert cache._near is not None


def test_a_newer_definition_is_taken_announced_and_told(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    caches = caches_of(host)
    cache = caches.open(Definition("c", ttl=5.0), None)
    caches.open(Definition("other"), None)
    up: dict[str, bytes | None] = {"bob": b"b" * 8, "me": b"m" * 8}
    older = replace(cache.definition, ttl=4.0, born=cache.definition.born + 1)
    newer = replace(cache.definition, ttl=6.0, replicas=3, edition=1)
    for told in (older, newer, newer, replace(newer, born=newer.born - 1)):
        host.services["bob", ANNOUNCED + "c"] = _pack(told)
        caches.view_changed(up, host.services)
    assert host.events == [CacheRedefined("c", "bob", {"ttl": 5.0, "replicas": 2}, {"ttl": 6.0, "replicas": 3})]
    assert cache.definition == newer and [record for _, record in host.registered] == [_pack(newer)]
    assert host.services["bob", ANNOUNCED + "c"] == _pack(told)


class Contested(Host):
    """Another agent redefines the cache while ours tells of it. `late`: our machine hears of that last."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        self.late = late
        self.theirs: Definition | None = None
        self.caches: Any = None

    def define(self, definition: Definition, now: float, redefine: bool = False, telling: float = 0.0) -> Definition:
        definition = super().define(definition, now, redefine)
        if self.theirs is None:
            return definition
        if self.late:
            self.hear()  # after this answer of the machine, and before its caller goes on
            return definition
        return self.theirs

    def hear(self) -> None:
        assert self.theirs is not None
        self.services["bob", ANNOUNCED + "c"] = _pack(self.theirs)
        self.caches.view_changed({"bob": b"b" * 8}, list(self.services))

    def announce(self, service_id: str, record: bytes, deadline: Deadline) -> None:
        super().announce(service_id, record, deadline)
        mine = _unpack("c", record)
        if mine is not None and mine.edition:
            self.theirs = replace(mine, ttl=7.0, born=mine.born - 1)
            if not self.late:
                self.hear()


@pytest.mark.parametrize("known", [True, False])
def test_who_redefines_a_cache_at_the_same_moment_as_another_is_told(known: bool) -> None:
    host = Contested(late=False)
    caches = host.caches = caches_of(host)
    if known:
        caches.open(Definition("c"), None)
    with pytest.raises(CacheConflict, match=r"'c' was to have ttl=5\.0, and was given ttl=7\.0 elsewhere"):
        caches.open(Definition("c", ttl=5.0), None, redefine=True)
    (cache,) = caches
    assert cache.definition == Definition("c", ttl=7.0)
    assert caches.open(Definition("c", ttl=7.0), None, redefine=True) is cache
    host.told.clear()
    assert caches.hand_over(Deadline(0.0)) and ("retire", "c") in host.told, "it has a part of it all the same"


def test_what_another_has_redefined_is_not_put_back_by_who_comes_late() -> None:
    host = Contested(late=True)
    caches = host.caches = caches_of(host)
    cache = caches.open(Definition("c"), None)
    caches.open(Definition("c", ttl=5.0), None, redefine=True)
    assert cache.definition == Definition("c", ttl=7.0)
    assert [event.after for event in host.events] == [{"ttl": 7.0}]


def test_a_definition_that_cannot_be_announced_yet_is_taken_later() -> None:
    host = Host()
    caches = caches_of(host)
    cache = caches.open(Definition("c"), None)
    host.services["bob", ANNOUNCED + "c"] = _pack(replace(cache.definition, ttl=6.0, edition=1))
    host.full = True
    caches.view_changed({"bob": b"b" * 8}, host.services)
    assert not host.events and cache.definition.ttl is None
    host.full = False
    caches.view_changed({"bob": b"b" * 8}, [])
    assert len(host.events) == 1 and cache.definition.ttl == 6.0


def test_who_leaves_hands_over_withdraws_and_ends_in_time() -> None:
    host = Host()
    caches = caches_of(host)
    assert caches.hand_over(Deadline(0.0)) and host.told == []
    caches.open(Definition("c"), None)
    host.told.clear()
    assert caches.hand_over(Deadline(0.0))
    assert host.told == [("retire", "c"), ("withdraw", ANNOUNCED + "c")]
    host.retired_now = False
    assert not caches.hand_over(Deadline(0.0))


def test_warnings_that_were_given_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caches = caches_of(Host())
    caches.open(Definition("c"), None)
    with caplog.at_level(logging.WARNING):
        for number in range(caching._TOLD_MAX + 10):
            caches.open(Definition("c", ttl=number + 1.0), None)
    assert len(caplog.records) == caching._TOLD_MAX + 10
    assert len(caches._told) == 10


def test_announcements_count_as_long_as_their_agent_is_a_member() -> None:
    host = Host()
    caches = caches_of(host)
    for node in ("bob", "gone", "go"):
        host.services[node, ANNOUNCED + "c"] = _pack(Definition("c", ttl=2.0))
    host.services["bob", "api"] = b"another service"
    host.services["bob", ANNOUNCED + "bad"] = b"rubbish"
    caches.view_changed({"bob": b"b" * 8, "go": None, "me": b"m" * 8}, host.services)
    assert host.members == {"bob": (b"b" * 8, {"c": Definition("c", ttl=2.0)}), "me": (b"m" * 8, {})}
    caches.view_changed({"bob": b"b" * 8, "gone": b"back" * 2, "go": b"agent" + bytes(3)}, [])
    assert {name: len(told) for name, (_, told) in host.members.items()} == {"bob": 1, "gone": 1, "go": 1}
    host.services["bob", ANNOUNCED + "c"] = _pack(Definition("c", ttl=3.0))
    del host.services["gone", ANNOUNCED + "c"]
    caches.view_changed({"bob": b"b" * 8, "gone": b"back" * 2}, [("bob", ANNOUNCED + "c"), ("gone", ANNOUNCED + "c")])
    assert host.members == {"bob": (b"b" * 8, {"c": Definition("c", ttl=3.0)}), "gone": (b"back" * 2, {})}


def test_one_announcement_is_decoded_once_and_what_changed_nothing_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def noted(record: bytes) -> object:
        decoded.append(record)
        return decode_packed(record)

    monkeypatch.setattr(caching, "decode_packed", noted)
    host = Host()
    caches = caches_of(host)
    up: dict[str, bytes | None] = {f"n{number}": bytes(8) for number in range(9)}
    for cache in range(50):
        for node in up:
            host.services[node, f"{ANNOUNCED}c{cache}"] = _pack(Definition(f"c{cache}"))
            caches.view_changed(up, [(node, f"{ANNOUNCED}c{cache}")])
    assert len(decoded) == host.views == 450
    assert all(len(told) == 50 for _, told in host.members.values())
    caches.view_changed(dict(up), [])
    caches.view_changed(dict(up), [("n1", "$another/hidden")])
    caches.view_changed(dict(up), [("n1", f"{ANNOUNCED}c1")])  # as it was
    assert host.views == 450
    caches.view_changed({**up, "go": None}, [])
    assert host.views == 450, "who is no agent is no news"


def test_a_definition_is_told_as_others_read_it() -> None:
    good = Definition("c", ttl=1.5, max_entries=10)
    assert _as_told(good) == good

    class Odd(int):
        def __eq__(self, other: object) -> bool:
            return self is other

        __hash__ = int.__hash__

    assert _as_told(replace(good, max_entries=Odd(10))) == good  # made plain when it was given
    odd: Any = {"near": 1}
    with pytest.raises(ConfigError, match="cannot be told"):
        _as_told(replace(good, **odd))


def test_operations_are_counted_as_what_they_were_and_where() -> None:
    ended = {
        (Kind.GET, True, Status.OK): 1, (Kind.LEASE, False, Status.MISSING): 2, (Kind.SET, True, Status.OK): 4,
        (Kind.CAS, False, Status.FAILED): 8, (Kind.DELETE, True, Status.OK): 16, (Kind.CLEAR, False, Status.OK): 32,
        (Kind.GET, False, -1): 64, (Kind.SET, True, -1): 128,
    }  # fmt: skip
    names = ("evicted", "entries", "tombstones", "served_writes")
    machine = SimpleNamespace(
        counters=lambda: {"claims": 3}, counted=lambda cache: ended,
        info=lambda cache: {name: number for number, name in enumerate(names, 1000)},
    )  # fmt: skip
    host: Any = SimpleNamespace(machine=machine)
    found = cache_metrics(host, {'a"b': 256})
    told = {
        what: tuple(found[f'cache.{what}{{cache="a\\"b",at="{at}"}}'] for at in ("local", "remote"))
        for what in ("gets", "hits", "misses", "sets", "deletes", "errors")
    }
    assert told == {
        "gets": (257, 2), "hits": (257, 0), "misses": (0, 2), "sets": (4, 8), "deletes": (16, 32), "errors": (128, 64)
    }  # fmt: skip
    assert found["cache.claims"] == 3
    assert [found[f'cache.{name}{{cache="a\\"b"}}'] for name in (*names, "local_hits")] == [1000, 1001, 1002, 1003, 256]
