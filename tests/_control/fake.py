"""An agent that is none: it has the methods the control plane needs and writes down what was asked of it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mycorrizal import (
    JoinError,
    MemberJoined,
    Node,
    NodeState,
    NotRunningError,
    OperationTimeout,
    Service,
    UnknownCache,
    UnknownHandler,
)
from mycorrizal._cache.definition import Definition

_NODE = Node("fake", b"\x7f\0\0\1", 7946)


@dataclass(frozen=True)
class FakeMember:
    """What ``Agent.members`` yields."""

    name: str
    host: str = "127.0.0.1"
    port: int = 7946
    quic_port: int | None = 9000
    tags: Mapping[str, str] = field(default_factory=dict)
    state: NodeState = NodeState.ALIVE
    boot: bytes | None = b"\x01" * 8
    node: Node = _NODE
    since: float | None = None


@dataclass(frozen=True)
class FakeHealth:
    """What ``Agent.health`` returns."""

    score: int = 0
    members: int = 2
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class UserEvent:
    """An event that an agent broadcast."""

    topic: str
    value: Any
    sender: str
    number: int


class FakeEvents:
    """A stream that a test fills."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.queue.get, None)

    def close(self) -> None:
        self.queue.put(None)


class FakeRegistration:
    """What ``Services.register`` returns."""

    def __init__(self, services: FakeServices, service: Service) -> None:
        self._services = services
        self._service = service

    def deregister(self, timeout: float | None = 10.0) -> None:
        self._services.all.remove(self._service)


class FakeServices:
    """A registry of one agent."""

    def __init__(self) -> None:
        self.all: list[Service] = []

    def find(self, name: str | None = None, *, healthy: bool | None = True) -> list[Service]:
        return [one for one in self.all if name in (None, one.name) and healthy in (None, one.healthy)]

    def register(
        self,
        name: str,
        *,
        port: int | None = None,
        meta: Any = None,
        service_id: str | None = None,
        timeout: float | None = 10.0,
    ) -> FakeRegistration:
        self.all = [one for one in self.all if one.id != service_id]
        self.all.append(Service(name, "alice", "127.0.0.1", port, meta, True, service_id or name))
        return FakeRegistration(self, self.all[-1])


class FakeSettings(dict[str, Any]):
    """Settings of one agent."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[str, Exception] = {}

    def set(self, key: str, value: Any, timeout: float | None = 10.0) -> None:
        self[key] = value

    def delete(self, key: str, timeout: float | None = 10.0) -> None:
        del self[key]


class FakeResults(dict[str, Any]):
    """What came back from each node, and the errors of the others."""

    def __init__(self, results: Mapping[str, Any], errors: Mapping[str, Exception]) -> None:
        super().__init__(results)
        self.errors = errors


class FakeKeys:
    """Keys of a cluster of two, of which one does not answer to ``add``."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes]] = []

    def list(self) -> tuple[bytes, ...]:
        return (bytes(16), b"\1" * 16)

    def add(self, key: bytes, timeout: float | None = 10.0) -> FakeResults:
        self.calls.append(("add", key))
        return FakeResults({"alice": True}, {"bob": OperationTimeout("no answer from bob")})

    def use(self, key: bytes, timeout: float | None = 10.0) -> FakeResults:
        self.calls.append(("use", key))
        return FakeResults({"alice": True}, {})

    def remove(self, key: bytes, timeout: float | None = 10.0) -> FakeResults:
        self.calls.append(("remove", key))
        return FakeResults({"alice": True}, {})


class FakeCache:
    """A cache of one agent."""

    def __init__(self, definition: Definition = Definition("features")) -> None:  # noqa: B008 - it never changes
        self.definition = definition
        self.entries: dict[str, Any] = {}
        self.lives: dict[str, Any] = {}

    def get(self, key: str, default: Any, timeout: float | None = 10.0) -> Any:
        return self.entries.get(key, default)

    def set(self, key: str, value: Any, timeout: float | None = 10.0, **more: Any) -> None:
        self.entries[key] = value
        self.lives[key] = more.get("ttl", "its own")

    def delete(self, key: str, timeout: float | None = 10.0) -> bool:
        return self.entries.pop(key, self) is not self

    def keys(self, timeout: float | None = 10.0) -> Iterator[str]:
        return iter(self.entries)

    def ttl(self, key: str, timeout: float | None = 10.0) -> float | None:
        if key not in self.entries:
            raise KeyError(key)
        return None if self.lives[key] == "its own" else float(self.lives[key])

    def stats(self, timeout: float | None = 10.0) -> dict[str, Any]:
        return {"alice": {"entries": len(self.entries), "bytes": 9}, "bob": None}


class FakeAgent:
    """Named alice. ``request`` answers what it was asked, or does what is in ``handlers``."""

    cluster = "default"
    plane: Any = None  # its control plane, for the test
    boot = bytes(range(8))
    address = ("127.0.0.1", 7946)
    quic_port: int | None = 9000

    def __init__(self, name: str = "alice") -> None:
        self.name = name
        self.services = FakeServices()
        self.settings = FakeSettings()
        self.keys = FakeKeys()
        self.held = {"features": FakeCache()}
        self.calls: list[tuple[Any, ...]] = []
        self.handlers: dict[str, Any] = {}
        self.stream = FakeEvents()
        self.gate = threading.Event()
        self.closed = threading.Event()
        self.problems: tuple[str, ...] = ()
        self.everyone = [FakeMember("alice", tags={"role": "web"}), FakeMember("bob", boot=None)]
        self.gone: list[FakeMember] = []

    def members(self, *, all: bool = False) -> list[FakeMember]:  # noqa: A002
        return [*self.everyone, *self.gone] if all else self.everyone

    def events(self) -> FakeEvents:
        return self.stream

    def wait_for(self, n: int, timeout: float | None = 30.0) -> list[FakeMember]:
        if n > len(self.everyone):
            raise OperationTimeout(f"{len(self.everyone)} members, not {n}", operation="wait_for")
        return self.everyone

    def health(self) -> FakeHealth:
        return FakeHealth(problems=self.problems)

    def metrics(self) -> dict[str, int]:
        return {"events.lost": 0}

    def peers(self) -> list[Any]:
        return []

    def open_cache(self, name: str, timeout: float | None = 10.0) -> FakeCache:
        if name not in self.held:
            raise UnknownCache(f"no agent in sight has opened a cache {name!r}")
        return self.held[name]

    def caches(self) -> dict[str, Definition]:
        return {name: cache.definition for name, cache in self.held.items()}

    def cache(self, name: str, *, redefine: bool = False, timeout: float | None = 10.0, **more: Any) -> FakeCache:
        found = self.held.setdefault(name, FakeCache(Definition(name, **more)))
        if redefine:
            found.definition = Definition(name, **more)
        return found

    def send(self, node: str, value: Any, timeout: float | None = 10.0) -> None:
        self.calls.append(("send", node, value, timeout))

    def request(self, node: str, name: str, value: Any = None, timeout: float | None = 10.0) -> Any:
        self.calls.append(("request", node, name, value, timeout))
        if name == "wait":
            self.gate.wait(20)
        if name == "unknown":
            raise UnknownHandler(f"{node} has no handler {name!r}", node=node)
        handler = self.handlers.get(name)
        return value if handler is None else handler(value)

    def broadcast(self, topic: str, value: Any = None, timeout: float | None = 10.0) -> int:
        self.stream.queue.put(UserEvent(topic, value, self.name, 1))
        return 1

    def update_tags(self, tags: Mapping[str, str], timeout: float | None = 10.0) -> None:
        self.calls.append(("update_tags", dict(tags)))

    def join(self, seeds: list[str], timeout: float | None = 10.0) -> None:
        self.calls.append(("join", seeds))
        if seeds == ["10.0.0.9"]:
            raise JoinError("nobody there", failures={"10.0.0.9": OperationTimeout("no answer")})

    def leave(self, timeout: float | None = 10.0) -> None:
        self.calls.append(("leave",))

    def close(self, timeout: float | None = 5.0) -> None:
        if self.closed.is_set():
            raise NotRunningError("closed twice")
        self.closed.set()

    def tell_join(self, name: str) -> None:
        """Have the event stream tell that `name` joined."""
        self.stream.queue.put(MemberJoined(Node(name, b"\x7f\0\0\2", 7946, b"\x23\x28")))
