"""Every public call that waits says what it was, however it ends: closed, crashed, in a forked child, too late."""

from __future__ import annotations

import inspect
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import (
    Agent,
    Cache,
    Config,
    DataPlane,
    ForkedProcessError,
    Memberlist,
    MycorrizalError,
    Services,
    Settings,
)
from mycorrizal._agent.keys import Keys
from mycorrizal._endings import TABLE, Ending
from mycorrizal._runtime.swim.membership import Membership
from mycorrizal._runtime.threads.subscribers import EventStream
from tests.keys import key_of

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until
from .planes import Task

KEY = key_of("all")
Calls = dict[type, dict[str, Callable[[], Any]]]


class Holder:
    """An agent, a memberlist and what they hand out."""

    def __init__(self, agent: Agent, memberlist: Memberlist, directory: Path) -> None:
        self.agent, self.memberlist, self.directory = agent, memberlist, directory
        self.stream = agent.events()
        self.node = memberlist.local_node
        self.cache = agent.cache("old")
        self.file = directory / "file"
        self.file.write_bytes(b"file")

    @property
    def gossips(self) -> list[Membership]:
        return [self.agent._running.members._running, self.memberlist._running]

    def calls(self, timeout: float) -> Calls:
        """Return each call, by the name that its errors are to give."""
        return {**self._of_members(timeout), **self._of_the_agent(timeout), **self._of_a_cache(timeout)}

    def _of_members(self, t: float) -> Calls:
        m = self.memberlist
        return {
            Memberlist: {
                "join": lambda: m.join(["127.0.0.1:9"], timeout=t),
                "leave": lambda: m.leave(timeout=t),
                "update_node": lambda: m.update_node(timeout=t),
                "ping": lambda: m.ping(self.node, timeout=t),
                "send_reliable": lambda: m.send_reliable(self.node, b"x", timeout=t),
                "send_best_effort": lambda: m.send_best_effort(self.node, b"x"),
                "send_to_address": lambda: m.send_to_address("127.0.0.1:9", b"x"),
            },
            EventStream: {"events": lambda: [self.stream.get(timeout=t) for _ in range(9)]},
        }

    def _of_the_agent(self, t: float) -> Calls:
        a = self.agent
        return {
            Agent: {
                "join": lambda: a.join("127.0.0.1:9", timeout=t),
                "wait_for": lambda: a.wait_for(9, timeout=t),
                "update_tags": lambda: a.update_tags({"a": "b"}, timeout=t),
                "broadcast": lambda: a.broadcast("topic", 1, timeout=t),
                "subscribe": lambda: a.subscribe("topic", last=1, timeout=t),
                "cache": lambda: a.cache("new", timeout=t),
                "open_cache": lambda: a.open_cache("newer", timeout=t),
                "lead": lambda: a.lead("job", timeout=t),
                "leave": lambda: a.leave(timeout=t),
                "send": lambda: a.send("alice", 1, timeout=t),
                "receive": lambda: a.receive(timeout=t),
                "request": lambda: a.request("alice", "x", timeout=t),
                "request_async": lambda: a.request_async("alice", "x", timeout=t).result(20),
                "request_all": lambda: a.request_all("x", nodes=["alice"], timeout=t),
                "open_stream": lambda: a.open_stream("alice", "x", timeout=t),
                "send_file": lambda: a.send_file("alice", self.file, timeout=t),
                "receive_file": lambda: a.receive_file(self.directory, timeout=t),
            },
            DataPlane: {
                "connect": lambda: a._running.data.connect(("127.0.0.1", 9), timeout=t),
                "peers": a.peers,
            },
            Settings: {
                "settings.set": lambda: a.settings.set("key", 1, timeout=t),
                "settings.delete": lambda: a.settings.delete("key", timeout=t),
            },
            Services: {
                "services.register": lambda: a.services.register("api", timeout=t),
                "services.deregister": lambda: a.services.deregister("api", timeout=t),
            },
            Keys: {
                "keys.add": lambda: a.keys.add(key_of("new"), timeout=t),
                "keys.use": lambda: a.keys.use(KEY, timeout=t),
                "keys.remove": lambda: a.keys.remove(key_of("new"), timeout=t),
            },
        }

    def _of_a_cache(self, t: float) -> Calls:
        cache = self.cache
        return {
            Cache: {
                "get": lambda: cache.get("key", timeout=t),
                "get_many": lambda: cache.get_many(["key"], timeout=t),
                "get_versioned": lambda: cache.get_versioned("key", timeout=t),
                "set": lambda: cache.set("key", 1, timeout=t),
                "set_many": lambda: cache.set_many({"key": 1}, timeout=t),
                "add": lambda: cache.add("key", 1, timeout=t),
                "compare_and_set": lambda: cache.compare_and_set("key", 1, 2, timeout=t),
                "incr": lambda: cache.incr("key", timeout=t),
                "decr": lambda: cache.decr("key", timeout=t),
                "ttl": lambda: cache.ttl("key", timeout=t),
                "exists": lambda: cache.exists("key", timeout=t),
                "expire": lambda: cache.expire("key", 1, timeout=t),
                "scan": lambda: list(cache.scan(timeout=t)),
                "touch": lambda: cache.touch("key", timeout=t),
                "delete": lambda: cache.delete("key", timeout=t),
                "delete_many": lambda: cache.delete_many(["key"], timeout=t),
                "take": lambda: cache.take("key", timeout=t),
                "clear": lambda: cache.clear(timeout=t),
                "get_or_compute": lambda: cache.get_or_compute("key", lambda: 1, timeout=t),
                "lock": lambda: cache.lock("key", timeout=t),
                "keys": lambda: list(cache.keys(timeout=t)),
                "stats": lambda: cache.stats(timeout=t),
                "synced": lambda: cache.synced(timeout=t),
            },
        }


@pytest.fixture
def held(agents: Make, tmp_path: Path) -> Iterator[Holder]:  # noqa: F811
    agent = agents("alice", cluster="endings", key=KEY, discover=False, control=False)
    memberlist = Memberlist(Config.local(name="alice", bind_addr="127.0.0.1", bind_port=0))
    yield Holder(agent, memberlist, tmp_path)
    memberlist.shutdown()


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except MycorrizalError as error:
        return error


def check(calls: Calls, ending: Ending | None, *, but: frozenset[str] = frozenset()) -> None:
    """Ask that every call ends so; those of `but` in a way of their own, but named all the same."""
    for kind, of_kind in calls.items():
        for operation, call in of_kind.items():
            error = outcome(call)
            said = (kind.__name__, operation, error)
            assert isinstance(error, MycorrizalError), said
            assert error.operation == operation, (*said, error.operation)
            twin = pickle.loads(pickle.dumps(error))
            assert (twin.args, vars(twin)) == (error.args, vars(error)), said
            if ending is None:
                assert isinstance(error, ForkedProcessError), said
            elif operation not in but:
                row = TABLE[ending]
                assert (type(error), error.ending) == (row.kind, ending.name), said
                assert (error.indeterminate, error.retriable) == (False, row.retriable), said


def test_the_table_has_every_call_that_waits(held: Holder) -> None:
    for kind, calls in held.calls(0.0).items():
        public = {name: member for name, member in inspect.getmembers(kind, callable) if not name.startswith("_")}
        waiting = {name for name, member in public.items() if "timeout" in inspect.signature(member).parameters}
        told = {operation.rpartition(".")[2] for operation in calls}
        if kind is DataPlane:
            told |= set(held.calls(0.0)[Agent])
        expected = waiting - {"close", "shutdown", "leave_on_signal", "executor"}  # which set up what waits
        assert expected <= told or kind is EventStream, expected - told


def test_closed(held: Holder) -> None:
    held.agent.close()
    held.memberlist.shutdown()
    check(held.calls(1.0), Ending.CLOSED)


def test_crashed(held: Holder) -> None:
    loop = held.agent._running.data._started.loop
    loop.submit(broken)
    until(lambda: not loop.service.alive)
    for membership in held.gossips:
        membership.mailbox.tell(broken)
        until(lambda: membership.gossip.service.crashed is not None)  # noqa: B023
    check(held.calls(1.0), Ending.CRASHED)


def broken(now: float) -> None:
    raise ZeroDivisionError("planted")


def test_in_a_forked_child(held: Holder) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            check(held.calls(1.0), None)
            os.write(writer, b"fine")
        except BaseException as error:
            os.write(writer, str(error)[-700:].encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as told:
        assert told.read() == b"fine"
    os.waitpid(child, 0)


OF_THE_THREAD = {
    Memberlist: ("leave", "update_node", "ping"),
    Agent: ("update_tags", "broadcast", "subscribe"),
    Settings: ("settings.set", "settings.delete"),
    Services: ("services.register", "services.deregister"),
}
"""Calls that wait for the gossip thread and for nobody else."""


def of_the_thread(calls: Calls) -> Calls:
    return {kind: {name: calls[kind][name] for name in names} for kind, names in OF_THE_THREAD.items()}


@pytest.fixture
def busy(held: Holder) -> Iterator[threading.Event]:
    """The gossip threads are busy, until this is set."""
    go, begun = threading.Event(), threading.Semaphore(0)

    def hold(now: float) -> None:
        begun.release()
        go.wait(60)

    for membership in held.gossips:
        membership.mailbox.tell(hold)
        assert begun.acquire(timeout=30)
    yield go
    go.set()


def test_too_late_and_not_begun(held: Holder, busy: threading.Event) -> None:
    check(of_the_thread(held.calls(0.05)), Ending.TIMEOUT)
    busy.set()
    assert held.agent.broadcast("topic", 2, timeout=60) == 1  # what was given up was not done after all
    assert dict(held.agent.settings) == {} and held.agent.services.find("api") == []


@pytest.mark.parametrize("kind", OF_THE_THREAD)
def test_crashed_before_it_began(held: Holder, busy: threading.Event, kind: type) -> None:
    tasks = {name: Task(call) for name, call in of_the_thread(held.calls(60.0))[kind].items()}
    for membership in held.gossips:
        membership.mailbox._items.appendleft((broken, None))  # ahead of all of them
    until(lambda: sum(len(membership.mailbox) for membership in held.gossips) == 2 + len(tasks))
    busy.set()
    check({kind: {name: task.result for name, task in tasks.items()}}, Ending.CRASHED)


def test_too_late_when_it_had_begun(held: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = held.agent
    running, go = threading.Event(), threading.Event()
    replica = agent._running.sharing.replica
    plain = replica.set_setting

    def slow(*args: Any) -> None:
        running.set()
        go.wait(60)
        plain(*args)

    monkeypatch.setattr(replica, "set_setting", slow)
    deadline = Task(agent.settings.set, "key", 1, timeout=0.5)
    error = deadline.error()
    assert running.is_set() and isinstance(error, MycorrizalError)
    assert (error.ending, error.operation, error.indeterminate) == ("TIMEOUT", "settings.set", True)
    go.set()
    agent.broadcast("topic", 1, timeout=60)
    assert agent.settings["key"] == 1
