"""How an agent is used, for the type checker: this file is never run."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, Future
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import mycorrizal.codecs
from mycorrizal import (
    ABSENT,
    Address,
    Agent,
    AgentEvent,
    Cache,
    ChangesLost,
    Codecs,
    EventsLost,
    Health,
    Lock,
    Member,
    MemberFailed,
    MemberJoined,
    Members,
    MemberStalled,
    MycorrizalError,
    Node,
    NotLeader,
    Registration,
    Request,
    Results,
    Service,
    ServiceChange,
    Services,
    SettingChange,
    Settings,
    TaskExecutor,
    Term,
    UserEvent,
    UserEventsMissed,
    Versioned,
    handler,
)


@handler("score", processes=4)
def score(request: Request) -> int:
    """A handler of a module, for ``mycorrizal worker``."""
    return int(request.value)


def tasks(agent: Agent) -> None:
    """Tasks over members."""
    assert_type(score(Request("score", 1, "bob", None)), int)
    with agent.executor("score", ["bob"], idempotent=False, timeout=5, retries=1, patience=60, queue=9) as executor:
        assert_type(executor, TaskExecutor)
        future: Future[Any] = executor.submit([1, 2])
        assert_type(future.result(timeout=1), Any)
        for result in executor.map(range(3), timeout=9, buffersize=2, ordered=False):
            assert_type(result, Any)
        executor.shutdown(wait=False, cancel_futures=True)
    plain: Executor = agent.executor("score", progress=True)
    plain.shutdown()
    agent.on_request("score", processes=4)(score)


def membership(agent: Agent) -> None:
    """Who is there, and what happens."""
    assert_type(agent.wait_for(3, timeout=10), Members)
    for member in agent.members():
        assert_type(member, Member)
        assert_type(member.tags, Mapping[str, str])
        assert_type(member.quic_port, int | None)
    assert_type(agent.members().names, list[str])
    for event in agent.events():
        assert_type(event, AgentEvent)
        match event:
            case MemberStalled(node, seconds):
                assert_type(node, str)
                assert_type(seconds, float)
            case UserEvent(topic=topic, value=value):
                assert_type(topic, str)
                assert_type(value, Any)
            case EventsLost(count=count) | UserEventsMissed(count=count):
                assert_type(count, int)
    agent.update_tags({"zone": "a"}, timeout=5)
    agent.join(["10.0.0.5"], timeout=5)
    assert_type(agent.health(), Health)
    assert_type(agent.metrics(), dict[str, int])
    assert_type(agent.metrics_text(), str)
    assert_type(agent.serve_metrics(0), Address)
    agent.reload_certificates()
    agent.leave_on_signal()
    agent.leave_on_signal(15, 2, timeout=5)
    with Agent("w", handlers={"add": lambda request: request.value}, streams={"log": lambda stream: stream.close()}):
        pass


def talking(agent: Agent) -> None:
    """Messages, requests, events."""
    agent.send("bob", {"step": 1})
    assert_type(agent.request_all("score", [1]), Results)

    @agent.on_request("score")
    def score(request: Request) -> int:
        return int(request.value)

    assert_type(agent.broadcast("epoch", 1), int)
    with agent.subscribe("epoch", last=5) as stream:
        assert_type(stream.get(timeout=1), UserEvent | UserEventsMissed | ChangesLost)
    assert_type(agent.keys.add(bytes(32)), Results)
    assert_type(agent.keys.list(), tuple[bytes, ...])


def caching(agent: Agent) -> None:
    """A cache."""
    cache = agent.cache("features", ttl=60, max_entries=1000, replicas=2, near=True)
    assert_type(cache, Cache[Any])
    assert_type(agent.open_cache("features", timeout=5), Cache[Any])
    cache["x"] = [1, 2]
    cache.set("y", 1, ttl=None, timeout=5)
    assert_type(cache.get("x"), Any | None)
    assert_type(cache.get_versioned("x"), Versioned[Any] | None)
    assert_type(cache.compare_and_set("z", ABSENT, 1), bool)
    assert cache.take("z", timeout=1.0) is not ABSENT
    assert_type(cache.incr("n", 2), int)
    found: dict[str, Any] = cache.get_many(["x", "y"])
    assert_type(cache.get_many(found).errors, dict[str, MycorrizalError])

    @cache.memoize(ttl=5)
    def square(x: int) -> int:
        return x * x

    @cache.memoize
    def cube(x: int, *, unit: str = "m") -> int:
        return x * x * x

    class Room:
        @cache.memoize(ignore="self")
        def area(self, height: int) -> float:
            return 2.0 * height

    assert_type(square(2), int)
    assert_type(square.key(x=2), str)
    assert_type(square.name, str)
    assert_type(square.uncached(2), int)
    assert_type(cube(2, unit="km"), int)
    assert_type(Room().area(2), float)
    assert_type(Room().area.key(height=2), str)
    assert_type(cache.memoize(name="f")(square.uncached)(2), int)
    cube("2")  # type: ignore[arg-type]
    square.key("2")  # type: ignore[arg-type]
    Room().area(height="2")  # type: ignore[arg-type]
    with cache.lock("job", lease=10) as lock:
        assert_type(lock, Lock)
        assert_type(lock.token, int)
    assert_type(cache.synced(timeout=5), None)


def typed_caching(agent: Agent) -> None:
    """A cache of one type."""
    counts: Cache[int] = agent.cache("counts")
    assert_type(counts["x"], int)
    assert_type(counts.get("x"), int | None)
    assert_type(counts.get("x", 0), int)
    assert_type(counts.get("x", "none", 5), int | str)
    assert_type(counts.pop("x"), int)
    assert_type(counts.pop("x", None), int | None)
    assert_type(counts.popitem(), tuple[str, int])
    assert_type(counts.setdefault("x", 1), int)
    taken = counts.take("x", timeout=1)
    if taken is not ABSENT:
        assert_type(taken, int)
    assert_type(counts.get_many(["x"])["x"], int)
    assert_type(list(counts.items()), list[tuple[str, int]])
    assert_type(list(counts.values()), list[int])
    assert_type(counts.get_or_compute("x", lambda: 1), int)
    assert_type(agent.cache("any").get_or_compute("x", lambda: "text", ttl=timedelta(1)), str)
    if (found := counts.get_versioned("x")) is not None:
        assert_type(found.value, int)
        counts.compare_and_set("x", found, found.value + 1)
    counts["x"] = "text"  # type: ignore[assignment]
    counts.set("x", "text")  # type: ignore[arg-type]
    counts.set_many({"x": "text"})  # type: ignore[dict-item]
    untold: Cache = agent.cache("anything")
    assert_type(untold["x"], Any)


def events(agent: Agent) -> None:
    """What an event is, by its kind."""
    for event in agent.events():
        if event.kind == "join" or event.kind == "fail":  # noqa: PLR1714 - mypy narrows by this
            assert_type(event, MemberJoined | MemberFailed)
            assert_type(event.node, Node)
        elif event.kind == "user":
            assert_type(event.topic, str)
        elif event.kind == "cache_redefined":
            assert_type(event.after, dict[str, Any])
        elif event.kind == "nothing":  # type: ignore[comparison-overlap]
            print(event)
    for change in agent.services.watch("api"):
        if change.kind == "lost":
            assert_type(change.count, int)
        elif change.kind == "removed":
            assert_type(change.service, Service)
    for user in agent.subscribe():
        if user.kind == "missed":
            assert_type(user, UserEventsMissed)


def leading(agent: Agent, codecs: Codecs) -> None:
    """One agent leads."""
    try:
        with agent.lead("nightly", every=timedelta(days=1), wait=False, timeout=5, lease=30) as term:
            assert_type(term, Term)
            assert_type((term.token, term.held, term.name), tuple[int, bool, str])
    except NotLeader as error:
        assert_type((error.node, error.due), tuple[str | None, float | None])
    agent.lead("x", cache=agent.cache("jobs", quorum=2))
    assert_type(mycorrizal.codecs.arrow(codecs), Codecs)
    assert_type(mycorrizal.codecs.add(codecs, complex, Path), Codecs)


def sharing(agent: Agent) -> None:
    """Services and settings."""
    services, settings = agent.services, agent.settings
    assert_type(services, Services)
    assert_type(settings, Settings)
    registration = services.register("api", port=80, meta={"v": 1}, check=lambda: True, interval=5)
    assert_type(registration, Registration)
    assert_type(services.find("api"), list[Service])
    settings["rate"] = 0.5
    assert_type(settings.get("rate"), Any | None)
    assert_type(settings.watch("rate").get(1), SettingChange | ChangesLost)
    services.watch("api", lambda change: print(change)).close()
    assert_type(services.watch().get(), ServiceChange | ChangesLost)
