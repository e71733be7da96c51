"""Ours in ``tools/bench cache``: two agents in two processes, and what their data plane does without the cache.

The client asks; the server holds what is held elsewhere. Both prove a key, as
between hosts. ``sole`` has one copy of everything, so that a write is one
request, like the data plane's; ``pair`` has two, so that a write is the request
and another between the copies.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import mycorrizal
from benchmarks.cache.peer import KEYS, VALUE
from mycorrizal.events import MemberFailed, MemberStalled, Stalled

KEY = bytes(range(32))
REPLICAS = {"sole": 1, "pair": 2}
_TROUBLE = ("probes_failed", "msg.suspect", "msg.dead", "suspicions_expired", "refutations")


class Node:
    """One agent, its caches, and what went wrong around it."""

    def __init__(self, name: str, seed: str | None) -> None:
        self.agent = mycorrizal.Agent(
            name, cluster="bench", key=KEY, bind="127.0.0.1", port=0, join=[seed] if seed else [], discover=False,
            config_file=False, control=False,
        )  # fmt: skip
        self._signs: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()
        self._kept: Any = None
        self.agent.on_request("echo")(lambda request: request.value)
        self.agent.on_request("give")(self._give)
        threading.Thread(target=self._take, daemon=True).start()
        if seed:
            self.agent.wait_for(2)
        self.caches = {each: self.agent.cache(each, replicas=count) for each, count in REPLICAS.items()}

    @property
    def address(self) -> str:
        host, port = self.agent.address
        return f"{host}:{port}"

    def _listen(self) -> None:
        with contextlib.suppress(mycorrizal.NotRunningError):
            for event in self.agent.events():
                if isinstance(event, MemberFailed | MemberStalled | Stalled):
                    self._signs.append(type(event).__name__)

    def _take(self) -> None:
        with contextlib.suppress(mycorrizal.NotRunningError):
            while True:
                self._kept = self.agent.receive().value

    def _give(self, request: mycorrizal.Request) -> Any:
        end = time.monotonic() + 20
        while self._kept is None and time.monotonic() < end:
            time.sleep(0.001)  # it is in the inbox
        return self._kept

    def trouble(self) -> dict[str, int]:
        """Return every sign that a member was suspected or stood still, counted; and how often it probed."""
        metrics = self.agent.metrics()
        found = {name: metrics.get(name, 0) for name in _TROUBLE} | {"stalls": self.agent.health().stalls}
        for sign in list(self._signs):
            found[sign] = found.get(sign, 0) + 1
        return {"probes": metrics.get("probes", 0), **{name: count for name, count in found.items() if count}}

    def close(self) -> None:
        self.agent.close()


class Ours:
    """A cache with `replicas` copies, as the client sees it."""

    def __init__(self, node: Node, cache: str) -> None:
        self._cache = node.caches[cache]
        self._cache.synced(30)
        self._held: dict[str, list[str]] = {"here": [], "there": []}
        number = 0
        while min(map(len, self._held.values())) < len(KEYS):
            number += 1
            key = f"bench-{number:06}"
            self._cache[key] = VALUE
            self._held[self._place(key)].append(key)
        self.get, self.set, self.set_many = self._cache.get, self._cache.set, self._cache.set_many

    def _place(self, key: str) -> str:
        before = self._cache.local_stats()["local_hits"]
        self._cache.get(key)
        return "here" if self._cache.local_stats()["local_hits"] > before else "there"

    def keys(self, held: str) -> list[str]:
        return self._held[held][: len(KEYS)]

    def large(self, size: int) -> Any:
        return array(size)

    def set_large(self, value: Any) -> None:
        self._cache.set(self._held["there"][-1], value, timeout=120)

    def get_large(self) -> Any:
        return self._cache.get(self._held["there"][-1], timeout=120)

    def end_large(self) -> None:
        self._cache.delete(self._held["there"][-1])

    def close(self) -> None:
        return None


class Plane:
    """The data plane's own requests, in the place of reads and writes."""

    def __init__(self, node: Node) -> None:
        self._agent = node.agent

    def keys(self, held: str) -> list[str]:
        return KEYS

    def get(self, key: str) -> Any:
        return self._agent.request("server", "echo", VALUE, timeout=30)

    def set(self, key: str, value: Any) -> None:
        self._agent.request("server", "echo", value, timeout=30)

    def set_large(self, value: Any) -> None:
        self._agent.send("server", value, timeout=120)

    def get_large(self) -> Any:
        return self._agent.request("server", "give", timeout=120)

    def end_large(self) -> None:
        self._agent.send("server", None)

    def close(self) -> None:
        return None

    def large(self, size: int) -> Any:
        return array(size)


def array(size: int) -> Any:
    """Return a NumPy array that nothing compresses."""
    import numpy

    return numpy.random.default_rng(1).integers(0, 1 << 62, size // 8)
