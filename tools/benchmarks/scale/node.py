"""One agent of ``tools/bench scale``, commanded by JSON lines on stdin; answers are JSON lines on stdout.

``t`` is CLOCK_MONOTONIC, which all processes of a machine share. Only what has been public for long is called: the
package may be an older revision's.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mycorrizal

_LOOK = 0.01
_COUNTED = {
    "dials": ("tcp.connect", "quic.dialled"), "packets": ("udp.packets_sent",), "stalls": ("stalls",),
    "bytes_in": ("tcp.received", "udp.received"),
}  # fmt: skip


def say(**fields: Any) -> None:
    """Answer."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def wait_until(at: float) -> None:
    """Sleep until `at`: all begin together."""
    time.sleep(max(0.0, at - time.monotonic()))


def until(condition: Callable[[], bool], seconds: float) -> float | None:
    """Return when `condition` held; None if it did not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return None
        time.sleep(_LOOK)
    return time.monotonic()


class Node:
    """The agent, and what is done with it."""

    def __init__(self) -> None:
        self.agent: mycorrizal.Agent | None = None
        self.calls: Counter[str] = Counter()

    @property
    def here(self) -> mycorrizal.Agent:
        assert self.agent is not None, "no agent was started"
        return self.agent

    def hello(self) -> dict[str, Any]:
        mycorrizal.Agent  # noqa: B018 - loads the package; it would be loaded with the first agent
        return {"package": str(Path(mycorrizal.__file__).parent), "pid": os.getpid()}

    def start(self, name: str, cluster: str, at: float = 0.0) -> dict[str, Any]:
        wait_until(at)
        began = time.monotonic()
        self.agent = mycorrizal.Agent(name, cluster=cluster, control=False, config_file=False)
        ended = time.monotonic()

        @self.agent.on_request("echo")
        def echo(request: mycorrizal.Request) -> Any:
            return request.value

        return {"seconds": ended - began, "t": ended, "settings": len(self.agent.settings)}

    def usage(self) -> dict[str, Any]:
        """What this process uses now: memory in MB, and what its agent has counted so far."""
        rows = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
        found: dict[str, Any] = {key: int(rows[key.title()].split()[0]) / 1024 for key in ("rss", "pss")}
        found["descriptors"], found["threads"] = len(os.listdir("/proc/self/fd")), threading.active_count()
        found["t"] = time.monotonic()
        if self.agent is not None:
            counted = self.agent.metrics()
            found |= {key: sum(counted.get(name, 0) for name in names) for key, names in _COUNTED.items()}
            found["names"] = counted.get("peers", 0)
        return found | {"calls": dict(self.calls)}

    def see(self, count: int, seconds: float) -> dict[str, Any]:
        """Wait until this agent sees so many members."""
        return {"t": until(lambda: len(self.here.members()) == count, seconds)}

    def caches(self, count: int, at: float) -> dict[str, Any]:
        wait_until(at)
        failed = 0
        for number in range(count):
            try:
                self.here.cache(f"c{number}", timeout=300)
            except mycorrizal.MycorrizalError:
                failed += 1
        return {"t": time.monotonic(), "failed": failed}

    def write(self, count: int, value: str = "x" * 20) -> dict[str, Any]:
        for number in range(count):
            self.here.settings[f"key-{number}"] = value
        return {"t": time.monotonic()}

    def read(self, count: int, seconds: float) -> dict[str, Any]:
        """Wait until this agent has so many settings."""
        return {"t": until(lambda: len(self.here.settings) >= count, seconds)}

    def call(self, pause: float) -> dict[str, Any]:
        """Call another member every `pause` seconds from now on, and note what came of it."""

        def run() -> None:
            while True:
                time.sleep(pause)
                others = [member.name for member in self.here.members() if member.name != self.here.name]
                if others:
                    try:
                        self.here.request(random.choice(others), "echo", 1, timeout=5)
                        self.calls["ok"] += 1
                    except mycorrizal.MycorrizalError as error:
                        self.calls[type(error).__name__] += 1

        threading.Thread(target=run, daemon=True).start()
        return {}

    def leave(self) -> dict[str, Any]:
        with contextlib.suppress(mycorrizal.MycorrizalError):
            self.here.leave(timeout=5)
        self.here.close()
        return {"t": time.monotonic()}


def main() -> None:
    """Carry out one order after the other."""
    node = Node()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            say(**getattr(node, order.pop("do"))(**order))
        except Exception as error:  # told to whoever measures
            say(error=f"{type(error).__name__}: {error}")
    os._exit(0)


if __name__ == "__main__":
    main()
