"""Whatever a user's code raises, on whichever thread of ours, the agent goes on: it answers, gossips, tells, closes."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mycorrizal import Agent, Codecs, MycorrizalError, RemoteError, ValueDecodeError

from .agents import QUICK, meeting_place
from .conftest import until
from .planes import run_script

WAIT = 20.0


class Own(BaseException):
    """One of the user's."""


class Mute(BaseException):
    """One that cannot even be shown."""

    def __str__(self) -> str:
        raise Own

    __repr__ = __str__


ERRORS = [ValueError, SystemExit, KeyboardInterrupt, Own, Mute]


class Value:
    """One that needs a codec."""


class World:
    """Two agents, and what the user's code of the second raises just now."""

    error: type[BaseException] | None = None

    def __init__(self) -> None:
        self.raised, self.trying = threading.Event(), threading.Event()
        codecs = Codecs()
        codecs.register(Value, "value", lambda value: 1, self.decode)
        self.alice = Agent("alice", config=QUICK, codecs=codecs)
        self.bob = Agent("bob", config=QUICK, codecs=codecs, delegate=self, event_delegate=self)
        self.alice.wait_for(2, WAIT), self.bob.wait_for(2, WAIT)
        self.bob.on_request("ping")(lambda request: request.value)
        self.number = 0

    def burst(self, *args: Any) -> Any:
        """Raise what is to be raised now."""
        if self.error is not None:
            self.raised.set()
            raise self.error

    def decode(self, inner: object) -> Value:
        self.burst()
        return Value()

    def node_meta(self, limit: int) -> bytes:
        self.burst()
        return b""

    def local_state(self, join: bool) -> bytes:
        self.burst()
        return b""

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        self.burst()
        return []

    notify_join = notify_leave = notify_update = notify_msg = merge_remote_state = burst

    def well(self) -> None:
        """Look whether both do all that they should."""
        self.number += 1
        number = self.number
        with self.alice.subscribe("well") as events:
            assert self.alice.request("bob", "ping", number, timeout=WAIT) == number
            self.bob.broadcast("well", number, timeout=WAIT)
            event = events.get(WAIT)
            assert getattr(event, "value", None) == number
        self.bob.update_tags({"number": str(number)}, WAIT)
        until(lambda: {m.name: m for m in self.alice.members()}["bob"].tags == {"number": str(number)}, WAIT)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with meeting_place():
        made = World()
        yield made
        for agent in (made.bob, made.alice):
            agent.leave(WAIT)
            agent.close(WAIT)
            assert agent.closed


@contextlib.contextmanager
def raising(world: World, error: type[BaseException]) -> Iterator[None]:
    world.raised.clear()
    world.error = error
    world.trying.set()
    try:
        yield
        assert world.raised.wait(WAIT), "nothing was tried"
    finally:
        world.error = None
        world.trying.clear()


def handlers(world: World, error: type[BaseException]) -> None:
    world.bob.on_request("bad")(world.burst)
    with raising(world, error):
        for _ in range(20):  # more than there are threads
            with pytest.raises(RemoteError) as caught:
                world.alice.request("bob", "bad", None, timeout=WAIT)
            assert caught.value.type == error.__name__


def streams(world: World, error: type[BaseException]) -> None:
    before = world.bob.metrics().get("streams.raised", 0)
    world.bob.on_stream("bad")(lambda stream: world.trying.wait(WAIT) and world.burst(stream))
    stream = world.alice.open_stream("bob", "bad", WAIT)
    stream.timeout = WAIT
    with raising(world, error), pytest.raises(MycorrizalError):
        stream.read()
    until(lambda: world.bob.metrics()["streams.raised"] == before + 1)


def done_callbacks(world: World, error: type[BaseException]) -> None:
    after = threading.Event()
    before = world.bob.metrics().get("futures.faults", 0)
    with raising(world, error):
        future = world.bob.request_async("bob", "ping", 1, timeout=WAIT)
        future.add_done_callback(world.burst)
        future.add_done_callback(lambda future: after.set())
        assert after.wait(WAIT), "the first callback kept the second from being called"
    if future.done():
        until(lambda: world.bob.metrics().get("futures.faults", 0) == before + 1)


def watchers(world: World, error: type[BaseException]) -> None:
    seen: list[Any] = []

    def callback(change: Any) -> None:
        seen.append(change)
        world.burst()

    with world.bob.settings.watch("watched", callback):
        with raising(world, error):
            world.bob.settings["watched"] = 1
        world.bob.settings["watched"] = 2
        until(lambda: len(seen) == 2, WAIT)


def checks(world: World, error: type[BaseException]) -> None:
    asked = threading.Event()

    def check() -> bool:
        world.burst()
        asked.set()
        return True

    with world.bob.services.register("checked", check=check, interval=0.05):
        with raising(world, error):
            until(lambda: not world.bob.services.find("checked"), WAIT)
        until(lambda: world.bob.services.find("checked"), WAIT)


def codecs(world: World, error: type[BaseException]) -> None:
    seen: list[Any] = []
    with world.bob.settings.watch("coded", seen.append):
        with raising(world, error):
            world.bob.settings["coded"] = Value()
            until(lambda: any(change.error is not None for change in seen), WAIT)  # it is read on the watcher's thread
        world.bob.settings["coded"] = 2
        until(lambda: [change.value for change in seen if change.error is None][-1:] == [2], WAIT)
    assert [type(change.error) for change in seen][-2:] == [ValueDecodeError, type(None)]  # after one of before


def logs(world: World, error: type[BaseException]) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if threading.current_thread().name.startswith("mycorrizal-"):
                world.burst()

    logger = logging.getLogger("mycorrizal")
    handler, level = Handler(), logger.level
    before = world.bob.metrics()["log.faults"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging, "raiseExceptions", False)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            with raising(world, error):
                handlers_only = world.bob.on_request("bad")
                handlers_only(world.burst)
                with pytest.raises(RemoteError):
                    world.alice.request("bob", "bad", None, timeout=WAIT)
                with Agent("carol", config=QUICK) as carol:  # comes and goes: the gossip threads log that
                    carol.wait_for(3, WAIT)
                world.error = None
                world.well()
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
    assert world.bob.metrics()["log.faults"] > before


def delegates(world: World, error: type[BaseException]) -> None:
    before = world.bob.metrics()["delegate.faults"]
    with raising(world, error):
        world.alice.update_tags({"x": error.__name__ + str(world.number)}, WAIT)
        until(lambda: world.bob.metrics()["delegate.faults"] > before, WAIT)
        world.bob.update_tags({"y": "z"}, WAIT)
        assert world.raised.wait(WAIT)


def refreshes(world: World, error: type[BaseException]) -> None:
    cache = world.bob.cache("computed")
    first = cache.get_or_compute(error.__name__, lambda: 1, ttl=30.0)
    with raising(world, error):
        assert cache.get_or_compute(error.__name__, world.burst, ttl=30.0, refresh=30.0) == first
        until(lambda: world.bob.metrics().get("cache.refreshes_failed", 0) > 0, WAIT)
        with pytest.raises(error):  # on the caller's thread it passes through, and the right to compute is given back
            cache.get_or_compute(error.__name__ + " here", world.burst)
    assert cache.get_or_compute(error.__name__ + " here", lambda: 2, timeout=5.0) == 2


KINDS: list[Callable[[World, type[BaseException]], None]] = [
    handlers, streams, done_callbacks, watchers, checks, codecs, logs, delegates, refreshes,
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_agent_goes_on(
    world: World, kind: Callable[[World, type[BaseException]], None], error: type[BaseException]
) -> None:
    kind(world, error)
    world.well()


# -- the end of the main thread ----------------------------------------------------------------

WAITS = {
    "receive": "agent.receive()",
    "receive again and again": "[again(lambda: agent.receive(0.05)) for _ in range(10_000)]",
    "messages": "list(agent.messages())",
    "events": "agent.events().get()",
    "events as they come": "list(agent.events())",
    "subscribe": "list(agent.subscribe('topic'))",
    "settings": "list(agent.settings.watch())",
    "a stream": "agent.open_stream('bob', 'slow').read()",
    "request": "agent.request('bob', 'slow', timeout=None)",
    "a future": "agent.request_async('bob', 'slow', timeout=None).result()",
    "wait_for": "agent.wait_for(3, None)",
    "a lock": "agent.cache('c').lock('taken', timeout=None)",
    "a file": "agent.receive_file('.')",
}


@pytest.mark.parametrize("how", ["pool", "thread", "daemon"])
def test_a_program_ends_with_its_main_thread(how: str) -> None:
    """All waits at once, for a process costs more than they do."""
    start = {
        "pool": "pool = ThreadPoolExecutor(50); list(map(pool.submit, jobs))",
        "thread": "[threading.Thread(target=job).start() for job in jobs]",
        "daemon": "[threading.Thread(target=job, daemon=True).start() for job in jobs]",
    }[how]
    with meeting_place():
        code, out, errors = run_script(
            f"""
            from concurrent.futures import ThreadPoolExecutor
            from mycorrizal import NotRunningError
            warnings.simplefilter("ignore", ResourceWarning)
            agent, other = Agent("alice"), Agent("bob")
            agent.wait_for(2)
            blocked = threading.Event()
            other.on_request("slow")(lambda request: blocked.wait(60))
            other.on_stream("slow")(lambda stream: blocked.wait(60))
            agent.cache("c").lock("taken", lease=600.0)
            def again(call):
                try:
                    call()
                except TimeoutError:
                    pass
            began = []
            def job(text):
                began.append(text)
                try:
                    eval(text)
                except NotRunningError:
                    pass
            jobs = [lambda text=text: job(text) for text in {list(WAITS.values())!r}]
            {start}
            while len(began) < len(jobs):
                time.sleep(0.01)
            time.sleep(1.0)
            print("main is done", flush=True)
            """,
            seconds=120,
        )
    assert (code, out, errors) == (0, "main is done\n", "")


class Trap(str):
    """A text that harms whoever looks at it as anything but a text."""

    def _raise(self, *arguments: object) -> Any:
        raise Own

    __eq__ = __hash__ = encode = startswith = __str__ = _raise  # type: ignore[assignment]


def test_names_topics_and_keys_of_a_class_that_raises() -> None:
    with meeting_place(), Agent("alice", config=QUICK) as alice, Agent("bob", config=QUICK) as bob:
        alice.wait_for(2, WAIT), bob.wait_for(2, WAIT)
        heard, changes = bob.subscribe(Trap("topic")), bob.settings.watch(Trap("key"))
        services = bob.services.watch(Trap("api"))
        alice.broadcast(Trap("topic"), 1)
        alice.settings.set(Trap("key"), 2)
        alice.services.register(Trap("api"), port=80, service_id=Trap("one"))
        assert heard.get(WAIT).value == 1  # type: ignore[union-attr]
        assert changes.get(WAIT).value == 2  # type: ignore[union-attr]
        assert services.get(WAIT).service.name == "api"  # type: ignore[union-attr]
        cache = alice.cache(Trap("cache"), ttl=60)
        cache.set(Trap("key"), 3)
        with cache.lock(Trap("lock")):
            assert bob.open_cache("cache")["key"] == 3
        alice.settings.delete(Trap("key"))
        bob.on_request(Trap("name"))(lambda request: request.value)
        assert alice.request(Trap("bob"), Trap("name"), 4) == 4
        assert alice.health().problems == bob.health().problems == ()
