"""Who hears what of one agent: streams of the replica's events, decoded by their readers. Without a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from mycorrizal._replica.outputs import EventReceived, EventsMissed, ServiceChanged, SettingChanged
from mycorrizal._runtime.shared.sharing import STALLED
from mycorrizal._runtime.shared.watching import CallbackWatch, Watching, merged
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._runtime.threads.subscribers import EventStream
from mycorrizal._wire.values import DEFAULT, Codecs, encode_value
from mycorrizal.events import CacheRedefined, MemberStalled, ServiceChange, UserEvent, UserEventsMissed
from mycorrizal.exceptions import (
    NotRunningError,
    OperationTimeout,
    RemoteProtocolError,
    ResourcesExhausted,
    ValueDecodeError,
)

from .alone import Alone


def packed(value: object) -> bytes:
    return encode_value(value).pack()


def event(topic: str, value: object, sender: str = "bob", number: int = 1) -> EventReceived:
    return EventReceived(topic, packed(value), sender, number)


def unread(stream: EventStream[Any]) -> list[Any]:
    found = []
    while True:
        try:
            found.append(stream.get(0))
        except (OperationTimeout, NotRunningError):
            return found


@pytest.fixture
def fake() -> Iterator[Alone]:
    alone = Alone()
    yield alone
    alone.close()


@pytest.fixture
def watching(fake: Alone) -> Watching:
    return Watching(cast(Any, fake), cast(Any, fake), DEFAULT)


def test_a_stall_is_an_event_of_a_member_and_of_no_topic(watching: Watching) -> None:
    topics, everything = watching.subscribe(None, 8), watching.events(8)
    watching.begin(topics, None, 0, [])
    redefined = CacheRedefined("c", "bob", {"ttl": None}, {"ttl": 5.0})
    for one in (event(STALLED, 2.5), event(STALLED, "long"), redefined, event("t", 1), EventsMissed("bob", 7)):
        watching.publish(one)
    told = [UserEvent("t", 1, "bob", 1), UserEventsMissed("bob", 7)]
    assert unread(topics) == told
    assert unread(everything) == [MemberStalled("bob", 2.5), redefined, *told]


def test_a_stream_of_a_topic_has_no_other_and_begins_with_what_was_before(watching: Watching, fake: Alone) -> None:
    fake.before = [event("t", 1, "bob", 3)]
    stream = watching.subscribe("t", 8)
    watching.begin(stream, "t", 2, [event("t", 0, "bob", number) for number in (1, 2)])
    watching.publish(event("other", 9))
    watching.publish(event("t", 2, "bob", 4))
    assert [one.number for one in unread(stream)] == [2, 3, 4]


def test_the_last_of_both_lists_and_what_is_in_both_once() -> None:
    older = [event("t", number, "bob", number) for number in (1, 2, 3)]
    newer = [event("t", number, "bob", number) for number in (3, 4)]
    assert [one.number for one in merged(older, newer, 3)] == [2, 3, 4]
    assert [one.number for one in merged(older, newer, 9)] == [1, 2, 3, 4]


def test_a_watch_of_services_is_of_one_name(watching: Watching) -> None:
    api, all_ = watching.watch_services("api"), watching.watch_services(None)
    for name in ("api", "web"):
        watching.publish(ServiceChanged("added", "bob", name, packed([name, 80, packed(None), True, "h"])))
    changes = unread(all_)
    assert [change.service.name for change in changes if isinstance(change, ServiceChange)] == ["api", "web"]
    assert unread(api) == changes[:1]


def test_what_cannot_be_read_is_counted_and_skipped(watching: Watching, fake: Alone) -> None:
    with pytest.raises(RemoteProtocolError):
        watching.decode(b"rubbish", "bob", "a value")
    assert fake.counters["share.values_bad"] == 1
    services, settings = watching.watch_services(None), watching.watch_settings(None)
    watching.publish(ServiceChanged("added", "bob", "s", b"rubbish"))
    watching.publish(ServiceChanged("added", "bob", "s", packed(["too short"])))
    watching.publish(SettingChanged("k", b"rubbish", "bob", cast(Any, None)))
    assert unread(services) == [] and unread(settings) == []
    assert fake.counters["share.values_bad"] == 4


def test_what_cannot_be_read_here_is_told_all_the_same(watching: Watching, fake: Alone) -> None:
    codecs = Codecs()
    codecs.register(complex, "complex", lambda z: [z.real, z.imag], lambda pair: complex(*pair))
    bad = encode_value(1j, codecs).pack()
    topics, everything = watching.subscribe("t", 8), watching.events(8)
    services, settings = watching.watch_services("api"), watching.watch_settings("k")
    watching.begin(topics, "t", 0, [])
    watching.publish(EventReceived("t", bad, "bob", 1))
    watching.publish(event("t", 2, number=2))
    watching.publish(ServiceChanged("added", "bob", "api", packed(["api", 80, bad, True, "h"])))
    watching.publish(SettingChanged("k", bad, "bob", cast(Any, None)))
    for stream in (topics, everything):
        broken, good = unread(stream)
        assert (broken.topic, broken.sender, broken.number, good) == ("t", "bob", 1, UserEvent("t", 2, "bob", 2))
        with pytest.raises(ValueDecodeError, match="^an event 't' of bob: .*codec 'complex'"):
            broken.value  # noqa: B018
    ((change,), (setting,)) = unread(services), unread(settings)
    assert (change.service.name, change.service.port, change.service.healthy) == ("api", 80, True)
    with pytest.raises(ValueDecodeError, match="^the meta of service 'api' of bob: "):
        change.service.meta  # noqa: B018
    assert (setting.key, setting.deleted, setting.writer) == ("k", False, "bob")
    with pytest.raises(ValueDecodeError, match="^the setting 'k' of bob: "):
        setting.value  # noqa: B018
    assert fake.counters["share.values_unreadable"] == 4 and fake.counters["share.values_bad"] == 0


def test_every_stream_ends(watching: Watching) -> None:
    topics = watching.subscribe(None, 8)
    watching.begin(topics, None, 0, [])
    streams: list[EventStream[Any]] = [topics, watching.watch_services(None), watching.watch_settings(None)]
    watching.end()
    for stream in streams:
        assert list(stream) == []


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_watcher_that_raises_is_counted_and_goes_on(
    watching: Watching, fake: Alone, raised: type[BaseException]
) -> None:
    stream, seen = watching.watch_settings("k"), []

    def callback(change: Any) -> None:
        seen.append(change.key)
        raise raised("on purpose")

    for key in ("k", "other", "k"):
        watching.publish(SettingChanged(key, None, "bob", cast(Any, None)))
    watching.end()
    watch: CallbackWatch[Any] = CallbackWatch(stream, callback, "me", fake.counters)
    assert watch._thread.join(Deadline(30.0))
    assert seen == ["k", "k"] and fake.counters["watchers.faults"] == 2


def test_a_watcher_without_a_thread_subscribes_to_nothing(
    watching: Watching, fake: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stream = watching.watch_settings("k")
    monkeypatch.setattr(threading.Thread, "start", none)
    with pytest.raises(ResourcesExhausted):
        CallbackWatch(stream, print, "me", fake.counters)
    watching.publish(SettingChanged("k", None, "bob", cast(Any, None)))
    assert "closed" in repr(stream) and len(stream) == 0
