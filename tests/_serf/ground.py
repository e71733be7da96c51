"""What a ``SerfDelegate`` stands on, without threads or sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mycorrizal._wire.security import Keyring
from mycorrizal.config import Config
from mycorrizal.exceptions import QueueFull
from mycorrizal.types import Node, NodeState


def a_node(name: str, meta: bytes = b"\xff\x80", state: NodeState = NodeState.ALIVE) -> Node:
    return Node(name, bytes((127, 0, 0, 1)), 7946, meta, state, 1)


class FakeGround:
    """A node without threads or sockets: what is sent and handed over is written down."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.keyring = Keyring.of(config)
        self.local_node = a_node("py")
        self.time = 0.0
        self.sent: list[tuple[tuple[str, int], bytes, str]] = []
        self.handed: list[tuple[str, Callable[[], object]]] = []
        self.jobs: list[Callable[[], object]] = []
        self.stopped = False
        self.full = False

    def now(self) -> float:
        return self.time

    def wall(self, since: float) -> float:
        return since

    def guard(self, operation: str) -> None:
        assert not self.stopped

    def send(self, address: tuple[str, int], data: bytes, name: str) -> bool:
        if self.full:
            raise QueueFull("thousands wait")
        self.sent.append((address, data, name))
        return True

    def later(self, call: str, function: Callable[..., object], *args: Any, size: int) -> None:
        self.handed.append((call, lambda: function(*args)))

    def aside(self, job: Callable[[], object]) -> bool:
        self.jobs.append(job)
        return True

    def stop(self) -> None:
        self.stopped = True
