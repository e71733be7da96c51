"""Real nodes on loopback: made by a factory that shuts all of them down, and children in processes of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import BaseDelegate, BaseEventDelegate, Config, Memberlist, Node

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NOBODY = 65534

FAST: dict[str, Any] = {
    "probe_interval": 0.2,
    "probe_timeout": 0.1,
    "gossip_interval": 0.05,
    "suspicion_mult": 4,
    "suspicion_max_timeout_mult": 2,
    "push_pull_interval": 5.0,
}
"""Detection within about 1.5 s."""


def fast(name: str, **overrides: Any) -> Config:
    """Return settings for a node on loopback that finds failures quickly."""
    return Config.local(**{"name": name, "bind_addr": "127.0.0.1", "bind_port": 0, **FAST, **overrides})


def address_of(node: Memberlist) -> str:
    """Return what others pass to ``join``."""
    host, port = node.local_node.address
    return f"{host}:{port}"


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until `condition()` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)


def names(node: Memberlist) -> set[str]:
    """Return the names of the members that `node` sees."""
    return {member.name for member in node.members()}


class Recorder(BaseDelegate, BaseEventDelegate):
    """A delegate for everything that writes down what it gets."""

    def __init__(self, meta: bytes = b"", state: bytes = b"") -> None:
        self.meta = meta
        self.state = state
        self.messages: list[bytes] = []
        self.states: list[bytes] = []
        self.events: list[tuple[str, str]] = []

    def node_meta(self, limit: int) -> bytes:
        return self.meta

    def local_state(self, join: bool) -> bytes:
        return self.state

    def notify_msg(self, data: bytes) -> None:
        self.messages.append(data)

    def merge_remote_state(self, buf: bytes, join: bool) -> None:
        self.states.append(buf)

    def notify_join(self, node: Node) -> None:
        self.events.append(("join", node.name))

    def notify_leave(self, node: Node) -> None:
        self.events.append(("leave", node.name))

    def notify_update(self, node: Node) -> None:
        self.events.append(("update", node.name))


Start = Callable[..., Memberlist]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a node: ``start("alice", delegate=..., label=...)``."""
    with contextlib.ExitStack() as stack:

        def make(name: str, *, seed: Memberlist | None = None, **options: Any) -> Memberlist:
            hooks = {
                key: options.pop(key)
                for key in ("delegate", "events", "conflict", "merge", "ping", "alive")
                if key in options
            }
            node = Memberlist(fast(name, **options), **hooks)
            stack.callback(node.shutdown)
            if seed is not None:
                node.join([address_of(seed)])
            return node

        yield make


class Child:
    """A node in a process of its own: tests/integration/child.py."""

    def __init__(self, name: str, seed: str, *, settings: dict[str, Any] | None = None) -> None:
        code = [sys.executable, str(HERE / "child.py"), name, seed, repr({**FAST, **(settings or {})})]
        self.process = subprocess.Popen(
            code, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}
        )
        assert self.read() == "ready"

    def read(self) -> str:
        """Return the next line it writes."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, text: str) -> None:
        """Give it an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def ask(self, text: str) -> str:
        """Give it an order and return the answer."""
        self.tell(text)
        return self.read()

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@pytest.fixture
def spawn() -> Iterator[Callable[..., Child]]:
    """Return a function that starts a child node and kills it at the end."""
    with contextlib.ExitStack() as stack:

        def make(name: str, seed: Memberlist, **settings: Any) -> Child:
            child = Child(name, address_of(seed), settings=settings)
            stack.callback(child.end)
            return child

        yield make


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A directory of another user's in one that all may write, with the sticky bit, as /tmp is."""
    with tempfile.TemporaryDirectory(prefix="mycorrizal-test-", dir="/tmp") as name:
        path = Path(name, "theirs")
        path.mkdir()
        os.chmod(name, 0o1777)
        os.chown(path, NOBODY, NOBODY)
        yield path
