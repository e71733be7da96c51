"""A Memberlist in a process of its own, told what to do and heard."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from typing import Any

from lab.child import as_child

__all__ = ["Process"]


class Process:
    """One ``lab.gossip_node``: orders in and events out, as lines of JSON."""

    def __init__(self) -> None:
        self.child = self.start(as_child("lab.gossip_node"))
        self.buffer = b""
        self.events: list[dict[str, Any]] = []
        self.name = ""
        self.port = 0

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def tell(self, **order: Any) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(order).encode() + b"\n")

    def read(self, timeout: float) -> bool:
        """Read what has come; return whether anything did."""
        assert self.child.stdout is not None
        if not select.select([self.child.stdout], [], [], timeout)[0]:
            return False
        data = os.read(self.child.stdout.fileno(), 1 << 16)
        if not data:
            raise RuntimeError(f"{self.name} ended with {self.child.wait()}")
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        self.events += map(json.loads, lines)
        return True

    def take(self, key: str, value: str, timeout: float = 60) -> dict[str, Any]:
        """Wait for the first line whose `key` is `value`."""
        deadline = time.monotonic() + timeout
        while True:
            for event in self.events:
                if event.get(key) == value:
                    self.events.remove(event)
                    return event
            if not self.read(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                raise TimeoutError(f"{self.name}: no {key}={value} within {timeout} s")

    def open(self, name: str, want: int, **config: Any) -> None:
        self.name = name
        self.tell(do="open", want=want, config={"name": name, "bind_addr": "127.0.0.1", "bind_port": 0, **config})

    def opened(self) -> None:
        self.port = self.take("reply", "open")["port"]

    def usage(self) -> dict[str, Any]:
        self.tell(do="usage")
        return self.take("reply", "usage")
